"""
Initialization
==============

Which initial weights let a deep network learn? Zero, random, Xavier, He, orthogonal and LSUV, with tanh and with ReLU,
from 2 to 50 layers. First the size of signals and gradients by layer, beside theory; then what trains, and how fast.
"""

# %%
import sys
from functools import partial
from itertools import product
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
WIDTH, EPOCHS, SEEDS = 64, (1 if QUICK else 5), range(2 if QUICK else 3)
DEPTHS, RATES = ([4], [0.1]) if QUICK else ([2, 10, 50], [0.003, 0.03, 0.3])
NAMES, DEEP = ["zero", "random 0.01", "Xavier", "He", "orthogonal", "LSUV"][: 4 if QUICK else 6], max(DEPTHS)
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}

train, valid = data.split(KEY, data.load_digits(), (0.7, 0.3))
train, valid = (data.transform(data.fit_standard_scaler(train.x), part) for part in (train, valid))

# %% [markdown]
# The networks
# ------------
#
# All hidden layers are as wide as the images, 64, so that fan-in and fan-out agree. Four of the initializations are
# normal distributions that differ in the gain: the standard deviation times the root of the fan-in.


# %%
def start(name, activation):
    gain = {"zero": 0.0, "random 0.01": 0.01 * WIDTH**0.5, "He": 2**0.5}.get(name, 1.0)
    gain = 2**0.5 if (name, activation) == ("orthogonal", "relu") else gain  # ReLU takes half of the signal away
    return {"init": name if name in ("orthogonal", "LSUV") else "normal", "gain": gain, "activation": activation}


def network(hp):
    normal, orthogonal = initializers.normal(hp["gain"] / WIDTH**0.5), initializers.orthogonal(gain=hp["gain"])
    dense = layers.dense(WIDTH, kernel_init=normal if hp["init"] == "normal" else orthogonal)
    block = layers.serial(dense, ACTIVATIONS[hp["activation"]])
    model = layers.serial(layers.repeat(block, hp["depth"]), layers.dense(10, kernel_init=initializers.xavier_normal()))

    def init(key, x):  # LSUV scales orthogonal kernels until each output has variance 1 on real data
        params, state = model.init(key, x)
        return layers.lsuv(model, params, state, train.x[:256]), state

    return model._replace(init=init) if hp["init"] == "LSUV" else model


# %% [markdown]
# Signals and gradients by layer
# ------------------------------
#
# Mean-field theory (Poole et al. 2016, Schoenholz et al. 2017) follows two numbers through wide layers. The variance q
# of what enters an activation f becomes ``g² E[f(√q z)²]``, for the gain g and a standard normal z. On the way back
# a squared gradient is multiplied by ``g² E[f'(√q z)²]``. For ReLU both factors are ``g² / 2``: He's rule.


# %%
@partial(jax.jit, static_argnums=(0, 1))
@partial(jax.vmap, in_axes=(None, None, None, 0))  # over seeds
def signals(init, activation, gain, key):
    """The mean square of what enters each activation, and of each example's gradient there: ``[DEEP]`` each."""
    model = network({"depth": DEEP, "init": init, "activation": activation, "gain": gain})
    params, state = model.init(key, train.x)

    def loss(params, x, y):  # the gradient of a bias is the gradient of what enters the activation
        return losses.softmax_cross_entropy(model.apply(params, state, x[None])[0], y[None])[0]

    gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(params, train.x[:200], train.y[:200])
    entering = layers.apply_with_outputs(model, params, state, train.x)[2]["repeat_0/serial_0/dense_0"][1]
    return jnp.mean(entering**2, (1, 2)), jnp.mean(gradients["repeat_0"]["serial_0"]["dense_0"]["bias"] ** 2, (0, 2))


figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained", sharex=True)
misses = {}
for column, activation in zip(axes.T, ACTIVATIONS, strict=True):
    measured, theory, f = {}, {}, ACTIVATIONS[activation]
    for name in NAMES[1:]:  # with zeros all is 0; and a line ends where float32 is 0, below 1e-38
        hp = start(name, activation)
        measured[name] = signals(hp["init"], activation, hp["gain"], jax.random.split(KEY, 5))
        if name != "LSUV":  # its gain differs from layer to layer
            q, back = monitor.mean_field(f, DEEP, gain=hp["gain"], input_square=jnp.mean(train.x**2))
            theory[name] = [q, back * jnp.exp(jnp.log(measured[name][1][:, -1]).mean())]  # from the last layer back
            misses[activation, name] = float(jnp.abs(jnp.log10(measured[name][0] / q[None]).mean(0))[q > 1e-30].max())
    for row, what in enumerate(["variance before the activation", "mean squared gradient"]):
        sizes, lines = ({name: each[row] for name, each in every.items()} for every in (measured, theory))
        plots.plot_by_layer(sizes, lines, ylabel=what, ax=column[row]).set_title(f"{activation}, {DEEP} layers")
figure.savefig(OUT / "initialization_signals.png", dpi=120)
figure

# %% [markdown]
# What trains
# -----------
#
# SGD with momentum, each initialization at its best learning rate. Guessing is right in 10 % of all cases.


# %%
def recipe(hp):
    optimizer = optimizers.sgd(hp["rate"], momentum=0.9)
    scores = {"accuracy": metrics.accuracy}
    return training.Recipe(network(hp), losses.softmax_cross_entropy, optimizer, metrics=scores, epochs=EPOCHS)


space = [
    {**start(name, activation), "depth": depth, "rate": rate, "seed": seed}
    for name, activation, depth, rate, seed in product(NAMES, ACTIVATIONS, DEPTHS, RATES, SEEDS)
]
result = sweeps.sweep(recipe, space, train, valid, key=KEY, objective="valid_accuracy")
figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained", sharey=True)
curves = {}  # validation accuracies [seeds, epochs]; none where a seed diverged at each rate
for ax, activation in zip(axes, ACTIVATIONS, strict=True):
    lines = {name: {} for name in NAMES}
    for name in NAMES:
        for depth, best in result.isolate("depth", start(name, activation)):
            runs = [result.history({**best.hparams, "seed": seed})["valid_accuracy"] for seed in SEEDS if best]
            curves[activation, depth, name], lines[name][depth] = np.array(runs), [run[-1] for run in runs]
    plots.plot_means(lines, xlabel="hidden layers", ylabel=f"validation accuracy after {EPOCHS} epochs", ax=ax)
    ax.set_title(activation, pad=36)
axes[0].set_ylim(0, 1.02)
figure.savefig(OUT / "initialization_depth.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
print(f"Theory is right within a factor of {10 ** max(misses.values()):.2g} through {DEEP} layers.")
for activation, depth in product(ACTIVATIONS, DEPTHS):
    means = {name: curves[activation, depth, name].mean(0) for name in NAMES if len(curves[activation, depth, name])}
    epochs = {name: int(np.argmax(mean > 0.9)) + 1 for name, mean in means.items() if mean.max() > 0.9}
    print(f"{activation}, {depth} layers: epochs to 90 %: {epochs or 'none gets there'}")
for activation, better, other in (("relu", "He", "Xavier"), ("tanh", "Xavier", "He")):
    first, second = (np.mean(curves[activation, DEEP, name][..., -1:]) for name in (better, other))
    verdict = "supports" if first > second + 0.02 else "does not support"
    print(f"{activation}, {DEEP} layers: {better} {first:.1%}, {other} {second:.1%}: this {verdict} {better}")
