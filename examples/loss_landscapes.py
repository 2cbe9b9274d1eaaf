"""
Loss landscapes
===============

How do optimizers move? First on four functions of two variables: Beale's, Rosenbrock's valley, a ravine and a saddle,
each optimizer at its best learning rate. Then on a real network's loss: on a plane of random directions, and on the
plane that the paths of training themselves span.
"""

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from matplotlib.animation import FuncAnimation, PillowWriter

from jaxopt_nn import data, layers, losses, monitor, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
STEPS, EPOCHS, POINTS = (60, 3, 7) if QUICK else (200, 30, 41)
RATES = [0.01, 0.1] if QUICK else [10 ** (power / 4) for power in range(-16, 3)]

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
    "Lion": optimizers.lion,
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

    point = jnp.array(start)
    _, (x, y, value) = jax.lax.scan(step, (point, optimizer.init(point)), length=STEPS)
    return {"x": x, "y": y, "value": value, "score": jnp.mean(jnp.log10(value + 1e-8))}


space = sweeps.grid(function=list(FUNCTIONS), optimizer=NAMES, rate=RATES)
result = sweeps.sweep_function(descend, space, key=KEY, objective="score", mode="min")

# %%
figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
chosen = {}
for ax, (name, (function, _, minima, (left, right, low, high))) in zip(axes.flat, FUNCTIONS.items(), strict=True):
    x, y = np.linspace(left, right, 200), np.linspace(low, high, 200)
    chosen[name] = {part.value: part.best.hparams for part in result.isolate("optimizer", {"function": name})}
    curves = {label: result.history(hparams) for label, hparams in chosen[name].items()}
    paths = {label: np.stack([curve["x"], curve["y"]], 1) for label, curve in curves.items()}
    plots.plot_paths(x, y, function(*np.meshgrid(x, y)), paths, minima=minima, ax=ax)
    ax.set(title=name, xlabel="x", ylabel="y")
    ax.get_legend().set_visible(name == "ravine")
figure.suptitle(f"{STEPS} steps, each optimizer at its best rate of {len(RATES)}")
figure.savefig(OUT / "loss_landscapes_functions.png", dpi=120)

# %% [markdown]
# The same as an animation: ``out/loss_landscapes.gif``.

# %%
lines = [line for ax in axes.flat for line in ax.lines]
paths = [line.get_xydata() for line in lines]


def show(step):
    for line, path in zip(lines, paths, strict=True):
        line.set_data(*path[: step + 1].T)


shown = range(0, STEPS, 20) if QUICK else [*range(40), *range(40, STEPS, 4)]
FuncAnimation(figure, show, shown).save(OUT / "loss_landscapes.gif", PillowWriter(fps=12), dpi=50 if QUICK else 70)
figure

# %% [markdown]
# A real network's loss
# ---------------------
#
# Three optimizers start from the same weights, for each of several seeds. A record keeps the weights of every tenth step
# as one long vector. Each optimizer has the best of five rates.

# %%
train, _ = data.split(KEY, data.load_digits(), (0.7, 0.3))
train = data.transform(data.fit_standard_scaler(train.x), train)
model = layers.mlp([32, 32, 10])
weights, unravel = ravel_pytree(model.init(KEY, train.x)[0])
WATCHED, SEEDS = ["gradient descent", "momentum", "Adam"][: len(NAMES)], range(2 if QUICK else 4)


def recipe(hp):
    record = training.Record(lambda end: ravel_pytree(end.params)[0], of="step", every=10, series=True)
    return training.Recipe(
        model=model,
        loss=losses.softmax_cross_entropy,
        optimizer=OPTIMIZERS[hp["optimizer"]](hp["rate"]),
        epochs=EPOCHS,
        record={"weights": record},
    )


space = sweeps.grid(optimizer=WATCHED, rate=[0.01] if QUICK else [0.001, 0.003, 0.01, 0.03, 0.1], seed=SEEDS)
trained = sweeps.sweep(recipe, space, train, key=KEY)
best = {part.value: part.best.hparams for part in trained.isolate("optimizer")}


def path_of(name, seed):
    """Every tenth step's weights ``[T, parameters]``."""
    return jnp.asarray(trained.history({**best[name], "seed": seed})["weights"]).reshape(-1, len(weights))


# %% [markdown]
# The planes go through the end of the last optimizer's path. That of random directions is filter-normalized (Li et al.
# 2018): each filter's direction is as long as the filter. The other one is nearest to all paths (principal components).

# %%
@jax.jit
def planes_of(paths):
    """Both planes, the paths' coordinates in them, and the shares of the squared distances that they hold."""
    end = paths[-1, -1]
    drawn = monitor.random_plane(KEY, unravel(end))
    drawn = monitor.Plane(end, jax.vmap(lambda tree: ravel_pytree(tree)[0])(drawn.directions))
    spanned, _ = monitor.principal_plane(paths.reshape(-1, len(end)), end)
    coordinates = [jax.vmap(lambda path, plane=plane: monitor.project(plane, path))(paths) for plane in (drawn, spanned)]
    held = [
        jnp.sum((at @ plane.directions) ** 2) / jnp.sum((paths - end) ** 2)
        for plane, at in zip((drawn, spanned), coordinates, strict=True)
    ]
    return [drawn, spanned], coordinates, jnp.stack(held)


found = [planes_of(jnp.stack([path_of(name, seed) for name in WATCHED])) for seed in SEEDS]
shares = np.array([each[2] for each in found])


def loss(vector):
    return jnp.mean(losses.softmax_cross_entropy(model.apply(unravel(vector), {}, train.x)[0], train.y))


losses_on = jax.jit(lambda plane, x, y: monitor.plane_losses(loss, plane, x, y))
figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
for ax, title, plane, at in zip(axes, ["random", "principal"], *found[0][:2], strict=True):
    corners = np.array([[-1.0, -1], [1, 1]]) if title == "random" else np.array([at.min((0, 1)), at.max((0, 1))])
    middle, half = corners.mean(0), np.ptp(corners, axis=0) * 0.6
    x, y = (np.linspace(m - h, m + h, POINTS) for m, h in zip(middle, half, strict=True))
    paths = dict(zip(WATCHED, np.asarray(at), strict=True))
    plots.plot_paths(x, y, np.asarray(losses_on(plane, x, y)), paths, ax=ax)
    held = shares[0, 0 if title == "random" else 1]
    ax.set(title=f"{title} directions: {held:.1%} of the way", xlabel="direction 1", ylabel="direction 2")
figure.suptitle("Training loss of a network on the digits")
figure.savefig(OUT / "loss_landscapes_network.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
for name in FUNCTIONS:
    scores = {part.value: part.best.value for part in result.isolate("optimizer", {"function": name})}
    ends = {label: result.history(chosen[name][label])["value"][-1] for label in scores}
    order = sorted(scores, key=scores.get)
    print(f"{name:10s} fastest {order[0]} (ends at {ends[order[0]]:.1e}), slowest {order[-1]} ({ends[order[-1]]:.1e})")
low, high = shares[:, 1].min(), shares[:, 1].max()
print(
    f"The principal plane holds {low:.0%} to {high:.0%} of the squared distances of the paths over {len(SEEDS)} seeds, a "
    f"random one {shares[:, 0].max():.2%} at most. Li et al. report 40 to 90 % for one path: these networks "
    f"{'agree' if low >= 0.4 else 'do not agree'}."
)
