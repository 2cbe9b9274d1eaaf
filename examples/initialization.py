"""
Initialization
==============

Which initial weights let a deep network learn? Zero, random, Xavier, He, orthogonal and LSUV, with tanh and with ReLU,
from 2 to 50 layers. First the size of signals and gradients by layer, before any training, beside what theory predicts;
then what trains, and how fast.
"""

# %%
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import data, initializers, layers, losses, metrics, monitor, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
WIDTH, EPOCHS, SEEDS = 64, (1 if QUICK else 8), range(2 if QUICK else 3)
DEPTHS, RATES = ([2, 8], [0.1]) if QUICK else ([2, 10, 25, 50], [0.003, 0.03, 0.3])

train, valid = data.split(KEY, data.load_digits(), (0.7, 0.3))
scaler = data.fit_standard_scaler(train.x)
train, valid = data.transform(scaler, train), data.transform(scaler, valid)

# %% [markdown]
# The networks
# ------------
#
# All hidden layers are 64 wide, as the images are (8 x 8), so that fan-in and fan-out agree. Biases are 0. The hidden
# layers are one block that is repeated: the time to compile does not grow with the depth. Of a normal distribution,
# ``gain`` is the standard deviation times the root of the fan-in: 1 is Xavier, the root of 2 is He.

# %%
GAINS = {"zero": 0.0, "random 0.01": 0.01 * np.sqrt(WIDTH), "Xavier": 1.0, "He": np.sqrt(2.0)}
NAMES = [*GAINS, "orthogonal", "LSUV"]
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


def network(depth, activation, kernel_init):
    block = layers.serial(layers.dense(WIDTH, kernel_init=kernel_init), ACTIVATIONS[activation])
    return layers.serial(layers.repeat(block, depth), layers.dense(10, kernel_init=initializers.xavier_normal()))


def model_of(hp):
    """Of a name, or of a gain, which may be traced: all gains are lanes of one program."""
    if hp["init"] == "normal":
        return network(hp["depth"], hp["activation"], initializers.normal(hp["gain"] / np.sqrt(WIDTH)))
    model = network(hp["depth"], hp["activation"], initializers.orthogonal())
    if hp["init"] == "orthogonal":  # the gain of ReLU is the root of 2, as He's
        gain = 2**0.5 if hp["activation"] == "relu" else 1.0
        return network(hp["depth"], hp["activation"], initializers.orthogonal(gain=gain))

    def init(key, x):  # LSUV scales orthogonal kernels until each output has variance 1 on real data
        params, state = model.init(key, x)
        return layers.lsuv(model, params, state, train.x[:256]), state

    return model._replace(init=init)


# %% [markdown]
# Signals and gradients by layer
# ------------------------------
#
# Mean-field theory (Poole et al. 2016, Schoenholz et al. 2017) follows two numbers through wide layers with weights of
# variance ``g² / n``. The variance q of what enters an activation f becomes ``g² E[f(√q z)²]``, z standard normal. On
# the way back a squared gradient is multiplied by ``g² E[f'(√q z)²]``. For ReLU both factors are ``g² / 2``: He's rule.

# %%
DEEP = max(DEPTHS)


@partial(jax.jit, static_argnums=(0, 1))
def signals(init, activation, gain, key):
    """The mean square of what enters each activation, and of each example's gradient there: ``[DEEP]`` each."""
    model = model_of({"depth": DEEP, "init": init, "activation": activation, "gain": gain})
    params, state = model.init(key, train.x)

    def loss(params, x, y):  # the gradient of a bias is the gradient of what enters the activation
        return losses.softmax_cross_entropy(model.apply(params, state, x[None])[0], y[None])[0]

    gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(params, train.x[:200], train.y[:200])
    entering = layers.apply_with_outputs(model, params, state, train.x)[2]["repeat_0/serial_0/dense_0"][1]
    return jnp.mean(entering**2, (1, 2)), jnp.mean(gradients["repeat_0"]["serial_0"]["dense_0"]["bias"] ** 2, (0, 2))


figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained", sharex=True)
misses = {}
for column, activation in zip(axes.T, ACTIVATIONS, strict=True):
    measured, theory = {}, {}
    for name in NAMES[1:]:  # with zeros all is 0, and there is nothing to draw
        init, gain = ("normal", GAINS[name]) if name in GAINS else (name, 1.0)
        both = [signals(init, activation, gain, jax.random.key(seed)) for seed in range(2 if QUICK else 5)]
        measured[name] = [np.stack(each) for each in zip(*both, strict=True)]
        if name != "LSUV":  # its gain differs from layer to layer
            gain = 2**0.5 if (name, activation) == ("orthogonal", "relu") else gain
            q, back = monitor.mean_field(ACTIVATIONS[activation], DEEP, gain=gain, input_square=jnp.mean(train.x**2))
            theory[name] = [q, back * np.exp(np.log(measured[name][1][:, -1]).mean())]  # from the last layer back
            misses[activation, name] = np.abs(np.log10(measured[name][0] / q).mean(0)).max()
    for ax, row, what in zip(column, (0, 1), ("variance before the activation", "mean squared gradient"), strict=True):
        sizes, lines = ({name: each[row] for name, each in every.items()} for every in (measured, theory))
        plots.plot_by_layer(sizes, lines, ylabel=what, ax=ax)
        ax.set_title(f"{activation}, {DEEP} layers")
figure.savefig(OUT / "initialization_signals.png", dpi=120)
figure

# %% [markdown]
# What trains
# -----------
#
# SGD with momentum, each initialization at its best learning rate.


# %%
def recipe(hp):
    return training.Recipe(
        model=model_of(hp),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        optimizer=optimizers.sgd(hp["rate"], momentum=0.9),
        batch_size=64,
        epochs=EPOCHS,
    )


rest = {"activation": list(ACTIVATIONS), "depth": DEPTHS, "rate": RATES, "seed": SEEDS}
space = sweeps.grid(init="normal", gain=list(GAINS.values()), **rest) + sweeps.grid(init=NAMES[4:], **rest)
result = sweeps.sweep(recipe, space, train, valid, key=KEY, objective="valid_accuracy")


def curves_of(name, activation, depth):
    """Validation accuracies ``[seeds, epochs]`` at the best rate; NaN if a seed diverged at each of them."""
    wanted = {"activation": activation, "depth": depth, "init": name}
    wanted |= {"init": "normal", "gain": GAINS[name]} if name in GAINS else {}
    for each in result.configurations():  # the best first
        if each.sound and wanted.items() <= each.hparams.items():
            return np.array([result.history({**each.hparams, "seed": seed})["valid_accuracy"] for seed in SEEDS])
    return np.full((len(SEEDS), EPOCHS), np.nan)


figure, axes = plt.subplots(len(DEPTHS), 2, figsize=(11, 2.4 * len(DEPTHS)), layout="constrained", sharex=True)
curves = {}
for row, depth in zip(axes, DEPTHS, strict=True):
    for ax, activation in zip(row, ACTIVATIONS, strict=True):
        own = curves[activation, depth] = {name: curves_of(name, activation, depth) for name in NAMES}
        plots.plot_bars(
            {name: 100 * own[name][:, -1] for name in NAMES}, missing="trained to the end",
            xlabel=f"validation accuracy after {EPOCHS} epochs, %" if depth == DEEP else "", ax=ax,
        )  # fmt: skip
        ax.set_title(f"{activation}, {depth} layers")
figure.savefig(OUT / "initialization_depth.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
for (activation, name), miss in misses.items():
    print(f"{activation}, {name}: theory is right within a factor of {10**miss:.2g} through {DEEP} layers")
for (activation, depth), own in curves.items():
    means = {name: np.nan_to_num(own[name].mean(0), nan=0.1) for name in NAMES}  # a network that diverges guesses
    epochs = {name: int(np.argmax(means[name] > 0.9)) + 1 for name in NAMES if means[name].max() > 0.9}
    print(f"{activation:4s} {depth:2d} layers, epochs to 90 %: {epochs or 'none gets there'}")
xavier, he = (curves["relu", DEEP][name][:, -1].mean() for name in ("Xavier", "He"))
print(f"ReLU, {DEEP} layers: He {he:.1%}, Xavier {xavier:.1%}: this {'supports' if he > xavier else 'does not support'} He.")
