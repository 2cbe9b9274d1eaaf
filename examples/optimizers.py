"""
Optimizers
==========

Which optimizer trains fastest, once each has its own best learning rate? Batch, mini-batch and stochastic gradient
descent are compared first, then ten optimizers. Every one gets the same budget: the same learning rates, the same
seeds, the same batches.
"""

# %%
import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import data, layers, losses, metrics, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
EPOCHS, SEEDS = (3, range(2)) if QUICK else (12, range(4))
RATES = [0.003, 0.1] if QUICK else [10 ** (power / 2) for power in range(-8, 1)]
TARGET = 0.5 if QUICK else 0.1  # of the training loss; guessing is log 10 = 2.3

train, valid = data.split(KEY, data.load_digits(), (0.7, 0.3))
scaler = data.fit_standard_scaler(train.x)
train, valid = data.transform(scaler, train), data.transform(scaler, valid)

# %% [markdown]
# The optimizers' numbers beside the rate are the usual ones. Muon treats matrices, and leaves biases to Adam.

# %%
OPTIMIZERS = {
    "SGD": optimizers.sgd,
    "Momentum": lambda rate: optimizers.sgd(rate, momentum=0.9),
    "Nesterov": lambda rate: optimizers.sgd(rate, momentum=0.9, nesterov=True),
    "AdaGrad": optimizers.adagrad,
    "RMSProp": optimizers.rmsprop,
    "Adam": optimizers.adam,
    "AdamW": lambda rate: optimizers.adamw(rate, weight_decay=0.01),
    "NAdam": optimizers.nadam,
    "Lion": optimizers.lion,
    "Muon": optimizers.muon,
}


def recipe(hp):
    return training.Recipe(
        model=layers.mlp([32, 32, 10]),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        optimizer=OPTIMIZERS[hp["optimizer"]](hp["rate"]),
        batch_size=hp["batch_size"],
        epochs=EPOCHS,
    )


# %% [markdown]
# Batch, mini-batch, stochastic
# -----------------------------
#
# The same number of epochs is the same number of examples, and so the same number of gradients. But a step of the whole
# set takes all of them together.

# %%
SIZES = [64, len(train.y)] if QUICK else [1, 16, 256, len(train.y)]
space = sweeps.grid(optimizer="SGD", batch_size=SIZES, rate=RATES, seed=SEEDS)
by_size = sweeps.sweep(recipe, space, train, valid, key=KEY, objective="train_loss")
figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
plots.plot_curves(by_size, by="batch_size", ax=ax)
ax.set(ylabel="training loss", title=f"SGD: batches of 1 (stochastic) to {len(train.y)} (the whole set)")
figure.savefig(OUT / "optimizers_batch.png", dpi=120)
figure

# %% [markdown]
# Ten optimizers
# --------------
#
# The curve of each one's best rate: the median of the seeds, and a band from the least to the largest.

# %%
NAMES = ["SGD", "Adam"] if QUICK else list(OPTIMIZERS)
space = sweeps.grid(optimizer=NAMES, batch_size=64, rate=RATES, seed=SEEDS)
by_name = sweeps.sweep(recipe, space, train, valid, key=KEY, objective="train_loss")
figure, ax = plt.subplots(figsize=(7.4, 5), layout="constrained")
plots.plot_curves(by_name, by="optimizer", ax=ax)
ax.set(ylabel="training loss", title="Each optimizer at its best learning rate")
figure.savefig(OUT / "optimizers_curves.png", dpi=120)
figure

# %% [markdown]
# How much the rate matters: a white cell is one where a seed diverged.

# %%
figure, ax = plt.subplots(figsize=(9, 4.4), layout="constrained")
plots.plot_heat_map(by_name, "rate", "optimizer", ax=ax)
ax.set_title("Training loss after the last epoch")
figure.savefig(OUT / "optimizers_rates.png", dpi=120)
figure

# %% [markdown]
# Steps to a target
# -----------------
#
# The first epoch whose mean training loss is below the target. A seed that never gets there has no number.

# %%
STEPS = -(-len(train.y) // 64)


def steps_to_target(hparams):
    curves = np.array([by_name.history({**hparams, "seed": seed})["train_loss"] for seed in SEEDS])
    reached = curves <= TARGET
    return np.where(reached.any(1), (reached.argmax(1) + 1.0) * STEPS, np.nan)


best = {part.value: part.best for part in by_name.isolate("optimizer")}
steps = {name: steps_to_target(best[name].hparams) for name in NAMES}
figure, ax = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
plots.plot_bars(steps, xlabel=f"steps until the training loss is below {TARGET} (95 % interval over seeds)", ax=ax)
figure.savefig(OUT / "optimizers_steps.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
order = sorted(NAMES, key=lambda name: best[name].value)
for name in order:
    tried = [each for each in by_name.configurations() if each.hparams["optimizer"] == name]
    good = sum(each.sound and each.value < TARGET for each in tried)
    scores = [by_name.history({**best[name].hparams, "seed": seed})["valid_accuracy"][-1] for seed in SEEDS]
    print(
        f"{name:9s} rate {best[name].hparams['rate']:<7.2g} training loss {best[name].value:.2g} ({best[name].low:.2g} "
        f"to {best[name].high:.2g}), validation accuracy {np.mean(scores):.1%}, "
        f"{np.nanmean(steps[name]):.0f} steps to {TARGET}; {good} of {len(RATES)} rates get there"
    )
sizes = {part.value: part.best for part in by_size.isolate("batch_size")}
small, large = min(sizes, key=lambda size: sizes[size].value), max(sizes)
print(
    f"Batches of {small} end at {sizes[small].value:.3g}, the whole set at {sizes[large].value:.3g}: for equal epochs "
    f"small batches are {'better' if sizes[large].low > sizes[small].high else 'not clearly better'}."
)
verdicts = {name: by_name.compare(best[name].hparams, best["SGD"].hparams).verdict for name in order if name != "SGD"}
print(f"Training loss against SGD's, seed by seed: {verdicts}.")
