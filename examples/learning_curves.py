"""
Learning curves
===============

How much data is enough? Three models are trained on 40 to 1,280 digits, with the same number of steps. Training and
test error against the number of examples tell whether a larger model or more data would help. The test error is said to
fall as a power law of the number of examples: a law is fitted to the smaller sizes and has to predict the largest.
"""

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import data, layers, losses, metrics, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
SIZES = [40, 80, 160, 320] if QUICK else [40, 80, 160, 320, 640, 1280]
EPOCHS, SEEDS = (3, range(2)) if QUICK else (30, range(10))

pool, test = data.split(KEY, data.load_digits(), (0.75, 0.25))
pool = jax.tree.map(lambda leaf: leaf[: SIZES[-1]], pool)  # shuffled by the split
scaler = data.fit_standard_scaler(pool.x)
pool, test = (data.transform(scaler, part) for part in (pool, test))

# %% [markdown]
# One program for all sizes
# -------------------------
#
# Each seed draws its own examples. Fewer examples are repeated until there are as many rows as in the whole pool, so an
# epoch has the same number of steps for all sizes. The size is then a traced number: all sizes and seeds of a model are
# lanes of one program.

# %%
MODELS = {
    "linear": layers.dense(10),
    "16 units": layers.mlp([16, 10]),
    "256 units": layers.mlp([256, 10]),
}
if QUICK:
    MODELS = {"16 units": MODELS["16 units"]}


def recipe(hp):
    return training.Recipe(
        model=MODELS[hp["model"]],
        loss=losses.softmax_cross_entropy,
        metrics={"error": lambda outputs, labels: 1 - metrics.accuracy(outputs, labels)},
        optimizer=optimizers.adamw(3e-3, weight_decay=0.1),
        batch_size=64,
        epochs=EPOCHS,
    )


def train_and_judge(key, hp, pool, test):
    def chosen(_):
        return recipe(hp)

    drawn = jax.random.permutation(key, SIZES[-1])
    rows = drawn[jnp.arange(SIZES[-1]) % hp["examples"]]
    train = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], pool)
    result = training.make_run(chosen)(key, None, train, None)
    sets = {"train_error": train, "test_error": test}
    return {name: training.evaluate(chosen, None, result, batch)["error"] for name, batch in sets.items()}


space = sweeps.grid(model=list(MODELS), examples=SIZES, seed=SEEDS)
sweep = sweeps.sweep_function(train_and_judge, space, pool, test, key=KEY, objective="test_error")


def errors(model, metric):
    """From the number of examples to the errors of the seeds."""
    found = {size: [] for size in SIZES}
    for record in sweep.records:
        if record.trial["model"] == model:
            found[record.trial["examples"]].append(record.metrics[metric])
    return found


# %% [markdown]
# The power law
# -------------
#
# ``error = a * n^-b`` is a straight line on logarithmic axes. It is fitted without the largest size, for each seed by
# itself, and then has to predict the error there. A training error of 0 has no place on these axes.


# %%
def fit(points, sizes):
    """``a`` and ``b`` of the mean errors at the sizes."""
    slope, intercept = np.polyfit(np.log(sizes), np.log([np.mean(points[size]) for size in sizes]), 1)
    return float(np.exp(intercept)), float(-slope)


laws = {model: fit(errors(model, "test_error"), SIZES[:-1]) for model in MODELS}
size = (4.4 * len(MODELS), 4)
figure, axes = plt.subplots(1, len(MODELS), figsize=size, sharey=True, squeeze=False, layout="constrained")
for ax, model in zip(axes.flat, MODELS, strict=True):
    curves = {"test": errors(model, "test_error"), "train": errors(model, "train_error")}
    plots.plot_learning_curve(curves, laws={"test": laws[model]}, ax=ax).set_title(model)
figure.savefig(OUT / "learning_curves.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
last, half = SIZES[-1], SIZES[-2]
for model, (_, b) in laws.items():
    points = errors(model, "test_error")
    of_seeds = [fit({size: points[size][seed] for size in SIZES}, SIZES[:-1]) for seed in SEEDS]
    low, high = np.percentile([law[1] for law in of_seeds], (2.5, 97.5))
    least, most = np.percentile([law[0] * last ** -law[1] for law in of_seeds], (2.5, 97.5))
    measured, gap = np.mean(points[last]), np.mean(points[last]) - np.mean(errors(model, "train_error")[last])
    supports = "supports" if least <= measured <= most else "does not support"
    print(
        f"{model}: the test error falls as n^-{b:.2f} ({low:.2f} to {high:.2f} over seeds). At {last} examples that "
        f"predicts {least:.4f} to {most:.4f}, and {measured:.4f} was measured: it {supports} the law up to there."
    )
    gain = sweep.compare({"model": model, "examples": last}, {"model": model, "examples": half})
    print(
        f"  {last} instead of {half} examples: test error {gain}. Gap to the training error: {gap:.4f}. If the "
        f"law went on, half of the error would take {2 ** (1 / b):.1f} times the data."
    )
exponents = [b for _, b in laws.values()]
agrees = "agrees" if all(0.07 <= b <= 0.35 for b in exponents) else "differs"
print(
    f"Hestness et al. (2017, Deep learning scaling is predictable, empirically) report exponents of 0.07 to 0.35 on "
    f"large data sets. Here they are {min(exponents):.2f} to {max(exponents):.2f}, which {agrees}."
)
for size in (SIZES[0], last):
    means = {model: np.mean(errors(model, "test_error")[size]) for model in MODELS}
    print(f"With {size} examples: " + ", ".join(f"{model} {mean:.4f}" for model, mean in means.items()))
