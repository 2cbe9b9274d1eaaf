"""
Batch size
==========

What does a larger batch buy? The steps to a target error are counted for batches of 8 to 8,192 examples, each with its
own best learning rate. Up to some size twice the batch takes half of the steps and wants twice the rate (linear
scaling). Where that ends should be told by the gradient noise scale, which is measured inside of the runs.
"""

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import augment, data, layers, losses, metrics, monitor, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
SEEDS = range(2) if QUICK else range(3)
EPOCHS = {32: 2, 128: 4} if QUICK else {8: 2, 32: 4, 128: 8, 512: 16, 2048: 48, 8192: 160}
RATES = [0.2, 0.4] if QUICK else [0.05, 0.1, 0.2, 0.4, 0.8]
TARGET = 0.6 if QUICK else 0.05

# %% [markdown]
# The data: 1,024 digits, each at eight places
# --------------------------------------------
#
# A batch of 8,192 needs as many examples: each image is also moved by a pixel in seven directions.

# %%
valid, rest = data.split(KEY, data.load_digits(), (0.4, 0.6))
originals = rest.x[: 128 if QUICK else 1024].reshape(-1, 8, 8, 1)
MOVES = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1)]
moved = [jax.vmap(lambda image, move=move: augment.shift(image, *move))(originals) for move in MOVES]
train = data.from_arrays(np.concatenate(moved).reshape(-1, 64), np.tile(rest.y[: len(originals)], len(MOVES)))
scaler = data.fit_standard_scaler(train.x)
train, valid = (data.transform(scaler, part) for part in (train, valid))
print(f"{len(train.y)} examples to train")

# %% [markdown]
# Steps to a target
# -----------------
#
# The validation error is recorded inside of the run, 64 times in an epoch or at each step. No optimizer but plain SGD:
# its theory is the simplest.

# %%
MODEL = layers.mlp([32, 10])


def recipe(hp):
    return training.Recipe(
        model=MODEL,
        loss=losses.softmax_cross_entropy,
        optimizer=optimizers.sgd(hp["rate"]),
        batch_size=hp["batch_size"],
        epochs=EPOCHS[hp["batch_size"]],
    )


def steps_to_target(key, hp, train, valid):
    steps = len(train.y) // hp["batch_size"]
    every = max(1, steps // 64)

    def error(end):  # of the parameters before the step
        outputs, _ = MODEL.apply(end.params, end.model_state, valid.x)
        return 1 - jnp.mean(metrics.accuracy(outputs, valid.y))

    def watched(_):
        series = training.Record(error, of="step", every=every, series=True)
        return recipe(hp)._replace(record={"error": series, **monitor.gradient_noise()})

    keys = training.RunKeys(key, KEY, key)  # one order for all seeds: batches are gathered once
    history = training.make_run(watched)(keys, None, train, None).history
    reached = history["error"].ravel() <= TARGET
    count = jnp.where(reached.any(), jnp.argmax(reached) * every, jnp.nan)
    # The noise scale: the median over the epochs until the target.
    until = jnp.arange(EPOCHS[hp["batch_size"]]) <= count / steps
    noise = jnp.nanmedian(jnp.where(until, history["noise/scale"], jnp.nan))
    return {"steps": count, "examples": count * hp["batch_size"], "noise": noise}


space = sweeps.grid(batch_size=list(EPOCHS), rate=RATES, seed=SEEDS)
sweep = sweeps.sweep_function(steps_to_target, space, train, valid, key=KEY, objective="steps", mode="min")
best = {part.value: part.best for part in sweep.isolate("batch_size") if part.best is not None}
sizes = np.array(list(best), float)
steps = np.array([each.value for each in best.values()])
rates = np.array([each.hparams["rate"] for each in best.values()])

# %% [markdown]
# Where it bends
# --------------
#
# McCandlish et al. (2018, An empirical model of large-batch training) say: ``steps = least * (1 + critical / batch)``.
# Far below the critical size, twice the batch halves the steps; far above, it buys nothing. Both numbers are fitted.

# %%
candidates = np.geomspace(1, 1e5, 2000)
logs = np.log(steps) - np.log1p(candidates[:, None] / sizes)
pick = logs.var(1).argmin()
critical, least = candidates[pick], np.exp(logs[pick].mean())
winners = [each.hparams for size, each in best.items() if size < len(train.y)]  # of a full batch there is no noise
noises = [each.metrics["noise"] for each in sweep.records if any(hp.items() <= each.trial.items() for hp in winners)]
noise = np.nanmedian(noises)

figure, axes = plt.subplots(1, 3, figsize=(13.5, 4), layout="constrained")
labels = ("steps to the target", "examples to the target")
for ax, metric, label in zip(axes, ("steps", "examples"), labels, strict=False):
    plots.plot_metrics(sweep, "batch_size", metric, log=True, ax=ax)
    law = least * (1 + critical / sizes) * (sizes if metric == "examples" else 1)
    ax.plot(range(len(sizes)), law, ":", color="0.3", label=f"law, critical size {critical:.0f}")
    ax.legend(frameon=False, fontsize="small")
    ax.set(title=label, ylabel=label, xlabel="batch size")
plots.plot_metrics(sweep, "rate", "steps", by="batch_size", log=True, ax=axes[2])
axes[2].set(xlabel="learning rate", ylabel="steps to the target")
figure.savefig(OUT / "batch_size.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------
#
# Nothing is timed here. Steps are the time if each takes equally long, as on ever more devices. Examples are the time
# on one device that is busy.

# %%
for size, each in best.items():
    print(
        f"Batches of {size}: {each.value:.0f} steps ({each.low:.0f} to {each.high:.0f}), "
        f"{each.value * size:.0f} examples, rate {each.hparams['rate']:g}."
    )
print(f"The fit bends at {critical:.0f} examples, with {least:.0f} steps at the least. The noise scale is {noise:.0f}.")
factor = max(noise / critical, critical / noise)
supports = "supports" if factor < 5 else "does not support"
print(f"They are {factor:.1f} times apart: this {supports} that the noise scale tells the bend within 5 times.")
for name, part in (("Below", sizes <= critical), ("Above", sizes >= critical)):
    if part.sum() > 1:
        steps_as, rates_as = (np.polyfit(np.log(sizes[part]), np.log(each[part]), 1)[0] for each in (steps, rates))
        print(f"{name} it, over {part.sum()} sizes, steps go as batch^{steps_as:.2f}, rates as batch^{rates_as:.2f}.")
        if name == "Below":
            supports = "supports" if rates_as > 0.7 else "does not support"
            print(f"  This {supports} linear scaling of the rate (Goyal et al., 2017: Accurate, large minibatch SGD).")
