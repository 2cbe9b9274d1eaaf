"""
Optimization paths
==================

How do optimizers move? Seven of them go down four functions of two variables: Beale's, Rosenbrock's valley, a ravine
and a saddle. Each has the same number of steps and its best of the same learning rates: the best over several
starts near one another, on average, since a single path can be lucky.
"""

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.animation import FuncAnimation, PillowWriter

from jaxopt_nn import optimizers, plots, sweeps

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
STEPS = 60 if QUICK else 200
SEEDS = range(2 if QUICK else 8)
RATES = [0.001, 0.1] if QUICK else [10 ** (power / 4) for power in range(-16, 1)]

# %% [markdown]
# Four functions
# --------------
#
# Each has the least value 0. The ravine is a hundred times as steep across as along. The saddle lies at (0, 0), and the
# start is almost on the ridge from which it falls to both sides.


# %%
def beale(x, y):
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


FUNCTIONS = {  # function, start, minima, window
    "Beale": (beale, (1.0, 1.5), [(3.0, 0.5)], (-0.5, 4.5, -1.5, 2.0)),
    "Rosenbrock": (lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2, (-1.2, 1.0), [(1, 1)], (-1.8, 1.8, -0.8, 2.0)),
    "ravine": (lambda x, y: 0.5 * (x**2 + 100 * y**2), (-2.0, 0.6), [(0, 0)], (-2.4, 1.2, -0.9, 0.9)),
    "saddle": (lambda x, y: x**2 + (y**2 - 1) ** 2, (-1.5, 1e-3), [(0, 1), (0, -1)], (-1.8, 1.0, -1.6, 1.6)),
}
OPTIMIZERS = {
    "gradient descent": optimizers.sgd,
    "momentum": lambda rate: optimizers.sgd(rate, momentum=0.9),
    "Nesterov": lambda rate: optimizers.sgd(rate, momentum=0.9, nesterov=True),
    "AdaGrad": optimizers.adagrad,
    "RMSProp": optimizers.rmsprop,
    "Adam": optimizers.adam,
    "Lion": lambda rate: optimizers.lion(rate, weight_decay=None),
}
NAMES = ["gradient descent", "Adam"] if QUICK else list(OPTIMIZERS)


def descend(key, hp):
    """A path, and the mean of log10 f over it: low for who is fast, and for who gets near."""
    function, start, _, _ = FUNCTIONS[hp["function"]]
    optimizer = OPTIMIZERS[hp["optimizer"]](hp["rate"])

    def step(carry, _):
        point, state = carry
        value, gradient = jax.value_and_grad(lambda point: function(*point))(point)
        updates, state = optimizer.update(gradient, state, point)
        return (optax.apply_updates(point, updates), state), (*point, value)

    point = jnp.array(start) * (1 + 0.1 * jax.random.normal(key, (2,)))
    _, (x, y, value) = jax.lax.scan(step, (point, optimizer.init(point)), length=STEPS)
    return {"x": x, "y": y, "value": value, "score": jnp.mean(jnp.log10(value + 1e-8))}


space = sweeps.grid(function=list(FUNCTIONS), optimizer=NAMES, rate=RATES, seed=SEEDS)
result = sweeps.sweep_function(descend, space, key=KEY, objective="score", mode="min")

# %%
figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
runs = {}
for ax, (name, (function, _, minima, (left, right, low, high))) in zip(axes.flat, FUNCTIONS.items(), strict=True):
    x, y = np.linspace(left, right, 120), np.linspace(low, high, 120)
    best = {part.value: part.best.hparams for part in result.isolate("optimizer", {"function": name})}
    runs[name] = {label: [result.history({**best[label], "seed": seed}) for seed in SEEDS] for label in NAMES}
    paths = {label: np.stack([runs[name][label][0]["x"], runs[name][label][0]["y"]], 1) for label in NAMES}
    plots.plot_paths(x, y, function(*np.meshgrid(x, y)), paths, minima=minima, ax=ax)
    ax.set(title=name, xlabel="x", ylabel="y")
    ax.get_legend().remove()
figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
figure.suptitle(f"{STEPS} steps from one of the starts, each at its best of {len(RATES)} rates; darker is lower")
figure.savefig(OUT / "optimization_paths.png", dpi=120)

# %% [markdown]
# The same as an animation: ``out/optimization_paths.gif``.

# %%
lines = [line for ax in axes.flat for line in ax.lines]
paths = [line.get_xydata() for line in lines]


def show(step):
    for line, path in zip(lines, paths, strict=True):
        line.set_data(*path[: step + 1].T)


figure.set_layout_engine("none")  # it is laid out already
shown = range(0, STEPS, 20) if QUICK else [*range(0, 40, 2), *range(40, STEPS, 10)]
FuncAnimation(figure, show, shown).save(OUT / "optimization_paths.gif", PillowWriter(fps=8), dpi=50)
figure

# %% [markdown]
# What was found
# --------------

# %%
for name in FUNCTIONS:
    steps = {}
    for label in NAMES:
        values = np.array([run["value"] for run in runs[name][label]])
        reached = (values < 1e-3).any(1)
        steps[label] = np.median(np.where(reached, (values < 1e-3).argmax(1), np.inf))
    order = sorted(NAMES, key=steps.get)
    print(f"{name}: median steps over {len(SEEDS)} starts until the value is below 0.001 (inf: not in {STEPS}):")
    print("   " + ", ".join(f"{label} {steps[label]:.0f}" for label in order))
