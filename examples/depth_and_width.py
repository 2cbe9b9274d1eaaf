"""
Depth and width
===============

Should a network be deep or wide, a pyramid or a rectangle, if it has about 10,000 parameters? And when a network gets
wider, must its learning rate be tuned anew? In the usual parametrization the best rate shrinks with the width. The
maximal-update parametrization (Yang et al., 2022: Tensor programs V) is made to keep it, so that the rate of a narrow
network serves a wide one.
"""

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxopt_nn import data, initializers, layers, losses, metrics, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
EPOCHS, SEEDS = (1, range(2)) if QUICK else (5, range(4))

train, valid = data.split(KEY, data.load_digits(), (0.7, 0.3))
scaler = data.fit_standard_scaler(train.x)
train, valid = (data.transform(scaler, part) for part in (train, valid))

# %% [markdown]
# Equal parameters
# ----------------
#
# Rectangles, named depth x width, and two pyramids of four layers, all of 10,000 parameters within a twentieth. Each
# has its own best rate.

# %%
RECTANGLES = [(4, 47)] if QUICK else [(1, 135), (2, 70), (4, 47), (8, 33), (16, 23)]
SHAPES = {f"{depth} x {width}": [width] * depth for depth, width in RECTANGLES}
if not QUICK:
    SHAPES |= {"pyramid": list(layers.pyramid(76, 16, 4)), "upside down": list(layers.pyramid(25, 80, 4))}


def recipe(model, optimizer, epochs, record):
    error = {"error": lambda outputs, labels: 1 - metrics.accuracy(outputs, labels)}
    common = {"loss": losses.softmax_cross_entropy, "metrics": error, "batch_size": 64}
    return training.Recipe(model=model, optimizer=optimizer, epochs=epochs, record=record, **common)


def shape_recipe(hp):
    return recipe(layers.mlp([*SHAPES[hp["shape"]], 10]), optimizers.adam(hp["rate"]), 4 * EPOCHS, {})


space = sweeps.grid(shape=list(SHAPES), rate=[1e-3] if QUICK else [1e-3, 3e-3, 1e-2, 3e-2], seed=SEEDS)
shapes = sweeps.sweep(shape_recipe, space, train, valid, key=KEY, objective="valid_error")
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
plots.plot_isolation(shapes, "shape", ax=ax).set_title("About 10,000 parameters: depth x width", pad=24)
figure.savefig(OUT / "depth_and_width.png", dpi=120)
figure

# %% [markdown]
# Two parametrizations
# --------------------
#
# With Adam, maximal update differs from the usual parametrization in two places (Table 3 of the paper). The variance of
# the initial output kernel is ``BASE / width`` times as large, and so are the rates of hidden and output kernels. At
# the width ``BASE`` both are the same network.

# %%
BASE, DEPTH = 32, 1 if QUICK else 3
WIDTHS = [32, 64] if QUICK else [32, 64, 128, 256, 512]
RATES = [2.0**exponent for exponent in ([-9, -7] if QUICK else range(-12, -4))]


def width_recipe(hp):
    width = hp["width"]
    optimizer, deviation = optimizers.adam(hp["rate"]), width**-0.5
    if hp["parametrization"] == "maximal update":
        later = {f"dense_{index}/kernel": BASE / width for index in range(1, DEPTH + 1)}
        optimizer, deviation = optax.chain(optimizer, optimizers.scale_by_path(later)), BASE**0.5 / width
    hidden = [part for _ in range(DEPTH) for part in (layers.dense(width), jax.nn.relu)]
    model = layers.serial(*hidden, layers.dense(10, kernel_init=initializers.normal(deviation)))
    size = training.Record(lambda out: jnp.sqrt(jnp.mean(out.value**2)), of="layer", series=True)
    return recipe(model, optimizer, EPOCHS, {"size": size})


PARAMETRIZATIONS = ["standard", "maximal update"]
space = sweeps.grid(parametrization=PARAMETRIZATIONS, width=WIDTHS, rate=RATES, seed=SEEDS)
widths = sweeps.sweep(width_recipe, space, train, valid, key=KEY, objective="train_loss")

# %% [markdown]
# The coordinate check
# --------------------
#
# If no outputs grow or vanish with the width after some steps, the parametrization is right. Below the losses are the
# sizes of the logits (the root of their mean square) before training and after some steps, at one rate for all widths.

# %%
RATE, LOGITS = RATES[len(RATES) // 2], f"size/dense_{DEPTH}"


def logits(name, step):
    own = {"parametrization": name, "rate": RATE}
    found = [each for each in widths.records if own.items() <= each.trial.items()]
    return {w: [each.history[LOGITS][0, step] for each in found if each.trial["width"] == w] for w in WIDTHS}


figure, axes = plt.subplots(2, 2, figsize=(11, 8), sharey="row", layout="constrained")
for (above, below), name in zip(axes.T, PARAMETRIZATIONS, strict=True):
    own = {"parametrization": name}
    plots.plot_metrics(widths, "rate", "train_loss", by="width", fixed=own, log=True, ax=above)
    above.set_title(f"{name} parametrization", pad=40)
    above.set_xlabel("learning rate")
    sizes = {f"after {step} steps": logits(name, step) for step in (0, 1, 2, 4)}
    plots.plot_means(sizes, xlabel="width", ylabel=f"size of the logits, rate {RATE:.2g}", log=True, ax=below)
figure.savefig(OUT / "depth_and_width_rates.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
tuned = {part.value: part.best for part in shapes.isolate("shape") if part.best}
first = min(tuned, key=lambda name: tuned[name].value)
for name, each in tuned.items():
    difference = shapes.compare(each.hparams, tuned[first].hparams)
    print(f"{name}: validation error {each.value:.4f}; against {first}, the best of {len(tuned)}: {difference}")


def power(values):
    return np.polyfit(np.log(WIDTHS), np.log(values), 1)[0]


for name in PARAMETRIZATIONS:
    best = [widths.isolate("width", {"parametrization": name, "width": width})[0].best.hparams for width in WIDTHS]
    shift = power([hparams["rate"] for hparams in best])
    exponents = ", ".join(f"{np.log2(hparams['rate']):.0f}" for hparams in best)
    print(f"{name}: the best rate is 2 to the {exponents} for the widths {WIDTHS}: it goes as width^{shift:.2f}.")
    difference = widths.compare({**best[-1], "rate": best[0]["rate"]}, best[-1])
    print(f"  Training loss of the widest at the narrowest one's rate against its own best rate: {difference}.")
    before, after = (power([np.mean(sizes) for sizes in logits(name, step).values()]) for step in (0, 4))
    print(f"  The logits go as width^{before:.2f} before training, and as width^{after:.2f} after 4 steps.")
    expected = shift < -0.25 if name == "standard" else abs(shift) <= 0.25
    claim = "shrinks with the width" if name == "standard" else "stays the same"
    print(f"  This {'supports' if expected else 'does not support'} that the best rate {claim} (Yang et al., 2022).")
