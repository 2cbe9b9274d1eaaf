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

import jax.numpy as jnp
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxopt_nn import data, initializers, layers, losses, metrics, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
EPOCHS, SEEDS = (1, range(2)) if QUICK else (5, range(4))

train, valid, test = data.split(KEY, data.load_digits(), (0.6, 0.2, 0.2))
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))

# %% [markdown]
# Equal parameters
# ----------------


# %%
def rectangle(depth, parameters=10_000):
    """So many hidden layers of equal width, with about so many parameters: ``(d-1) w^2 + 74 w = parameters``."""
    if depth == 1:
        return [parameters // 74]
    return [round((np.sqrt(74**2 + 4 * (depth - 1) * parameters) - 74) / (2 * (depth - 1)))] * depth


SHAPES = {f"{depth} x {rectangle(depth)[0]}": rectangle(depth) for depth in ([1, 4] if QUICK else [1, 2, 4, 8, 16])}
if not QUICK:
    SHAPES |= {"pyramid": list(layers.pyramid(88, 16, 4)), "upside down": list(layers.pyramid(28, 88, 4))}


def shape_recipe(hp):
    return training.Recipe(
        model=layers.mlp([*SHAPES[hp["shape"]], 10]),
        loss=losses.softmax_cross_entropy,
        metrics={"error": lambda outputs, labels: 1 - metrics.accuracy(outputs, labels)},
        optimizer=optimizers.adam(hp["rate"]),
        batch_size=64,
        epochs=4 * EPOCHS,
    )


space = sweeps.grid(shape=list(SHAPES), rate=[1e-3] if QUICK else [1e-3, 3e-3, 1e-2, 3e-2], seed=SEEDS)
shapes = sweeps.sweep(shape_recipe, space, train, valid, key=KEY, objective="valid_error")

# %% [markdown]
# Two parametrizations
# --------------------
#
# With Adam, maximal update differs from the usual parametrization in two places, by the factor ``BASE / width`` each:
# the output kernel begins smaller, and hidden and output kernels get a smaller rate (Table 3 of the paper). At the
# width ``BASE`` both are the same network.

# %%
BASE, DEPTH = 32, 3
WIDTHS = [32, 64] if QUICK else [32, 64, 128, 256, 512]
RATES = [2.0**exponent for exponent in ([-9, -7] if QUICK else range(-12, -3))]


def width_recipe(hp):
    width = hp["width"]
    optimizer, output_deviation = optimizers.adam(hp["rate"]), width**-0.5
    if hp["parametrization"] == "maximal update":
        later = {f"dense_{index}/kernel": BASE / width for index in range(1, DEPTH + 1)}
        optimizer = optax.chain(optimizer, optimizers.scale_by_path(later))
        output_deviation = BASE**0.5 / width
    output = layers.dense(10, kernel_init=initializers.normal(output_deviation))
    hidden = [part for _ in range(DEPTH) for part in (layers.dense(width), jax.nn.relu)]
    size = training.Record(lambda out: jnp.sqrt(jnp.mean(out.value**2)), of="layer", series=True)
    return training.Recipe(
        model=layers.serial(*hidden, output),
        loss=losses.softmax_cross_entropy,
        optimizer=optimizer,
        batch_size=64,
        epochs=EPOCHS,
        record={"size": size},
    )


PARAMETRIZATIONS = ["standard", "maximal update"]
space = sweeps.grid(parametrization=PARAMETRIZATIONS, width=WIDTHS, rate=RATES, seed=SEEDS)
widths = sweeps.sweep(width_recipe, space, train, valid, key=KEY, objective="train_loss")

figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
for ax, name in zip(axes, PARAMETRIZATIONS, strict=True):
    fixed = {"parametrization": name}
    plots.plot_metrics(widths, "rate", "train_loss", by="width", fixed=fixed, log=True, ax=ax)
    ax.set_title(f"{name} parametrization", pad=24)
    ax.set_xlabel("learning rate")
figure.savefig(OUT / "depth_and_width_rates.png", dpi=120)
figure

# %% [markdown]
# The coordinate check
# --------------------
#
# If no layer's outputs grow or vanish with the width after some steps, the parametrization is right. Drawn are the
# logits: the root of their mean square over the first steps of training, at one rate for all widths.

# %%
RATE = RATES[len(RATES) // 2]
LOGITS = f"size/dense_{DEPTH}"


def logits(name, step):
    """From the width to the size of the logits before a step, of each seed."""
    found = {width: [] for width in WIDTHS}
    for each in widths.records:
        if (each.trial["parametrization"], each.trial["rate"]) == (name, RATE):
            found[each.trial["width"]].append(each.history[LOGITS][0, step])
    return found


figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
for ax, name in zip(axes, PARAMETRIZATIONS, strict=True):
    lines = {f"after {step} steps": logits(name, step) for step in (0, 1, 2, 4)}
    plots.plot_means(lines, xlabel="width", ylabel="root mean square of the logits", log=True, ax=ax)
    ax.set_title(f"{name} parametrization, rate {RATE:.2g}", pad=24)
figure.savefig(OUT / "depth_and_width_coordinates.png", dpi=120)
figure

# %%
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
plots.plot_isolation(shapes, "shape", ax=ax).set_title("About 10,000 parameters: depth x width", pad=24)
figure.savefig(OUT / "depth_and_width.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
tuned = {part.value: part.best for part in shapes.isolate("shape") if part.best is not None}
first = min(tuned, key=lambda name: tuned[name].value)
for name, each in tuned.items():
    print(f"{name}: validation error {each.value:.2%} ({each.low:.2%} to {each.high:.2%}), rate {each.hparams['rate']:g}"
          + ("" if name == first else f"; {first} is {shapes.compare(tuned[first].hparams, each.hparams).verdict}"))


def power(values):
    return np.polyfit(np.log(WIDTHS), np.log(values), 1)[0]


for name in PARAMETRIZATIONS:
    best = [widths.isolate("width", {"parametrization": name, "width": width})[0].best for width in WIDTHS]
    rates = [each.hparams["rate"] for each in best]
    kept = {**best[-1].hparams, "rate": rates[0]}
    loss = next(each.value for each in widths.configurations() if each.hparams == kept)
    shift = power(rates)
    print(f"{name}: the best rate is {', '.join(f'2^{np.log2(rate):.0f}' for rate in rates)} for the widths "
          f"{', '.join(map(str, WIDTHS))}: it goes as width^{shift:.2f}. The widest network with the rate of the narrowest "
          f"has a training loss of {loss:.2g}, with its own {best[-1].value:.2g}.")
    growth = power([np.mean(own) for own in logits(name, 4).values()])
    print(f"  After 4 steps the logits go as width^{growth:.2f}, before the first as "
          f"width^{power([np.mean(own) for own in logits(name, 0).values()]):.2f}.")
    if name == "standard":
        print(f"  This {'supports' if shift < -0.25 else 'does not support'} that the best rate shrinks with the width.")
    else:
        print(f"  This {'supports' if abs(shift) <= 0.25 else 'does not support'} that maximal update keeps the best rate "
              "(Yang et al., 2022).")
