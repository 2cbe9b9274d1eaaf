"""
Normalization
=============

What do input scaling, batch normalization and layer normalization buy? A network of six hidden layers is trained over
three decades of learning rates: with raw and with scaled inputs, and with each normalization. The range of rates that
train is what a person feels as "easy to train". Then the batch gets small, down to 2 examples.
"""

# %%
import sys
from functools import partial
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import data, layers, losses, metrics, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
DEPTH, WIDTH, EPOCHS, SEEDS = (2, 8, 2, range(2)) if QUICK else (6, 32, 10, range(4))
RATES = [0.01, 0.1] if QUICK else [10 ** (exponent / 2) for exponent in range(-5, 3)]

train, valid = data.split(KEY, data.load_digits(), (0.7, 0.3))
scaler = data.fit_standard_scaler(train.x)

# %% [markdown]
# One recipe
# ----------
#
# Raw inputs are the pixels from 0 to 16. Scaled ones have mean 0 and deviation 1, as the training set has them.
# Normalizations stand between each dense layer and its activation.

# %%
NORMS = {"none": None, "BatchNorm": layers.batch_norm, "LayerNorm": layers.layer_norm}
if QUICK:
    del NORMS["LayerNorm"]


def recipe(hp):
    inputs = [partial(data.transform, scaler)] if hp["inputs"] == "scaled" else []
    return training.Recipe(
        model=layers.serial(*inputs, layers.mlp([WIDTH] * DEPTH + [10], norm=NORMS[hp["norm"]])),
        loss=losses.softmax_cross_entropy,
        metrics={"error": lambda outputs, labels: 1 - metrics.accuracy(outputs, labels)},
        optimizer=optimizers.sgd(hp["rate"]),
        batch_size=hp["batch_size"],
        last_batch="drop",  # its statistics would be those of few examples
        epochs=EPOCHS,
    )


INPUTS = ["scaled"] if QUICK else ["raw", "scaled"]
space = sweeps.grid(inputs=INPUTS, norm=list(NORMS), rate=RATES, batch_size=64, seed=SEEDS)
by_rate = sweeps.sweep(recipe, space, train, valid, key=KEY, objective="valid_error")

# %% [markdown]
# Rates that train
# ----------------
#
# A cross at the border: at least one of the seeds diverged.

# %%
size = (5.4 * len(INPUTS), 4)
figure, axes = plt.subplots(1, len(INPUTS), figsize=size, sharey=True, squeeze=False, layout="constrained")
for ax, inputs in zip(axes.flat, INPUTS, strict=True):
    plots.plot_metrics(by_rate, "rate", "valid_error", by="norm", fixed={"inputs": inputs}, log=True, ax=ax)
    ax.set_xlabel("learning rate")
    ax.set_title(f"{inputs} inputs, {DEPTH} hidden layers", pad=40)
figure.savefig(OUT / "normalization_rates.png", dpi=120)
figure

# %% [markdown]
# Small batches
# -------------
#
# BatchNorm takes mean and variance from the batch. Of 2 examples these are mostly noise. Each point has its own best
# learning rate, and the same number of epochs, half of those above.

# %%
SIZES, TUNED, TYPICAL = ([64], [0.1], 64) if QUICK else ([2, 8, 32], [0.005, 0.02, 0.08, 0.3], 32)
NAMES = ["BatchNorm"] if QUICK else list(NORMS)


def shorter(hp):
    return recipe(hp)._replace(epochs=EPOCHS // 2)


space = sweeps.grid(inputs="scaled", norm=NAMES, rate=TUNED, batch_size=SIZES, seed=SEEDS)
by_size = sweeps.sweep(shorter, space, train, valid, key=KEY, objective="valid_error")
figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
plots.plot_metrics(by_size, "batch_size", "valid_error", by="norm", log=True, ax=ax)
ax.set_title(f"{EPOCHS // 2} epochs, best rate for each batch size", pad=40)
figure.savefig(OUT / "normalization_batches.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------
#
# A network counts as trained below a validation error of 0.1 in the mean over seeds, none of which diverged.

# %%
largest = {}
for inputs, norm in ((inputs, norm) for inputs in INPUTS for norm in NORMS):
    own = {"inputs": inputs, "norm": norm}
    found = [each for each in by_rate.configurations() if own.items() <= each.hparams.items()]
    rates = sorted(each.hparams["rate"] for each in found if each.sound and each.value < 0.1)
    largest[inputs, norm] = rates[-1] if rates else 0.0
    words = f"{rates[0]:.2g} to {rates[-1]:.2g}, {np.log10(rates[-1] / rates[0]):.1f} decades" if rates else "none"
    print(f"{inputs} inputs, {norm}: rates that train: {words}; best validation error {found[0].value:.4f}.")
for norm in list(NORMS)[1:]:
    bare, normalized = largest["scaled", "none"], largest["scaled", norm]
    supports = "supports" if normalized > 2 * bare else "does not support"
    print(f"Scaled inputs: the largest rate that trains is {bare:.2g} without, and {normalized:.2g} with {norm}.")
    print(f"  This {supports} that it allows much higher rates (Ioffe and Szegedy, 2015: Batch normalization).")
few = SIZES[0]
for norm in NAMES:
    small, large = (by_size.isolate("norm", {"norm": norm, "batch_size": size})[0].best for size in (few, TYPICAL))
    if small and large:
        difference = by_size.compare(small.hparams, large.hparams)
        print(f"{norm}: error {small.value:.4f} with batches of {few}, {large.value:.4f} with {TYPICAL}: {difference}.")
print("Wu and He (2018, Group normalization) report that small batches hurt BatchNorm, and not a norm of each example.")
