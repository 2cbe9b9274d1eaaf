"""
From NumPy to our layers, from Keras to our layers
==================================================

A network is a function of its weights, whatever library computes it. Is one that was built in Keras the same function
here, and does it go on training along the same curve? We write a small network by hand in NumPy, then in our layers,
and carry over a Sequential and a Functional model of Keras, with BatchNorm, a shortcut and Adam.
"""

# %%
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported

import jax
import keras
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import data, interop, layers, losses, optimizers, training
from jaxopt_nn.types import Batch

QUICK = "--quick" in sys.argv
STEPS, SEEDS, BATCH_SIZE = (15, 1, 32) if QUICK else (150, 5, 32)
OUT = Path("out")
OUT.mkdir(exist_ok=True)
train, _, test = data.split(jax.random.key(0), data.load_digits(), (0.7, 0.1, 0.2))
parts = [data.transform(data.fit_standard_scaler(train.x), part) for part in (train, test)]
(x, y), (x_test, y_test) = ((np.asarray(part.x), np.asarray(part.y)) for part in parts)
orders = [np.random.default_rng(seed).integers(0, len(x), (STEPS, BATCH_SIZE)) for seed in range(SEEDS)]

# %% [markdown]
# By hand, in NumPy: two layers, the cross-entropy of a softmax, and the gradient by the chain rule.


# %%
def train_in_numpy(weights, order, rate):
    (w1, b1, w2, b2), curve = weights, []
    for rows in order:
        hidden = np.maximum(x[rows] @ w1 + b1, 0)
        powers = np.exp(hidden @ w2 + b2)
        shares = powers / powers.sum(1, keepdims=True)
        curve.append(-np.log(shares[np.arange(len(rows)), y[rows]]).mean())
        at_logits = (shares - np.eye(10, dtype="f")[y[rows]]) / len(rows)
        at_hidden = at_logits @ w2.T * (hidden > 0)
        w1, b1 = w1 - rate * x[rows].T @ at_hidden, b1 - rate * at_hidden.sum(0)
        w2, b2 = w2 - rate * hidden.T @ at_logits, b2 - rate * at_logits.sum(0)
    return np.array(curve)


# %% [markdown]
# In Keras, the Sequential model is the network above. The Functional model has a shortcut and BatchNorm.


# %%
def sequential():
    return keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10)])


def functional():
    inputs = keras.Input((64,), name="pixels")
    hidden = keras.layers.Dense(32, use_bias=False, name="hidden")(inputs)
    hidden = keras.layers.ReLU(name="rectify")(keras.layers.BatchNormalization(name="norm")(hidden))
    total = keras.layers.Add(name="shortcut")([hidden, keras.layers.Dense(32, "tanh", name="branch")(hidden)])
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(total))


def train_in_keras(model, optimizer, order, curve=()):
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for rows in order:
        model.reset_metrics()  # or it would report the mean of all steps so far
        curve = [*curve, float(model.train_on_batch(x[rows], y[rows]))]
    return np.array(curve)


# %% [markdown]
# In our layers, a step is a pure function, and all steps are one scan.


# %%
def train_in_ours(ours, optimizer, order):
    def loss_fn(params, state, batch, key):
        logits, state = ours.layer.apply(params, state, batch.x, train=True, key=key)
        return losses.softmax_cross_entropy(logits, batch.y).mean(), (state, {})

    step = training.make_step(loss_fn, optimizer)
    start = training.init_state(ours.params, optimizer, jax.random.key(0), ours.model_state)
    run = jax.jit(lambda start, batches: jax.lax.scan(step, start, batches))
    state, history = run(start, Batch(x[order], y[order]))
    return np.asarray(history["loss"]), ours.layer.apply(state.params, state.model_state, x_test)[0]


PAIRS = {
    "Sequential, SGD": (sequential, optimizers.sgd(0.1), lambda: keras.optimizers.SGD(0.1)),
    "Functional, Adam": (functional, optimizers.adam(0.003, convention="keras"), lambda: keras.optimizers.Adam(0.003)),
}
curves, apart, accuracy = {name: [] for name in [*PAIRS, "NumPy"]}, [], []
for name, (build, optimizer, theirs) in PAIRS.items():
    for seed, order in enumerate(orders):
        keras.utils.set_random_seed(seed)
        ours = interop.from_keras(model := build())
        logits, _ = ours.layer.apply(ours.params, ours.model_state, x_test)
        apart.append(np.abs(np.asarray(logits - model(x_test))).max())
        if build is sequential:
            curves["NumPy"].append(train_in_numpy(model.get_weights(), order, 0.1))
        curve, logits = train_in_ours(ours, optimizer, order)
        curves[name].append((curve, train_in_keras(model, theirs(), order)))
        accuracy.append([np.mean(np.argmax(each, 1) == y_test) for each in (logits, model(x_test))])

# %% [markdown]
# The curves, and how far they are apart.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
by_hand = zip(curves["NumPy"], curves["Sequential, SGD"], strict=True)
gaps = {"NumPy and ours, SGD": [np.abs(numpy / ours - 1) for numpy, (ours, _) in by_hand]}
for name, colour, style in zip(PAIRS, ("#0072B2", "#D55E00"), "-:", strict=True):
    one, other = curves[name][0]
    axes[0].plot(other, color="0.75", linewidth=5, label=f"{name}: Keras")
    axes[0].plot(one, color=colour, linestyle=style, linewidth=1.5, label=f"{name}: ours")
    gaps[f"Keras and ours, {name}"] = [np.abs(ours / theirs - 1) for ours, theirs in curves[name]]
axes[0].set(xlabel="step", ylabel="training loss", title="The same curve (one seed)", yscale="log")
for (name, gap), style, colour in zip(gaps.items(), ("--", "-", ":"), ("#009E73", "#0072B2", "#D55E00"), strict=True):
    axes[1].plot(np.maximum(np.max(gap, 0), 1e-9), color=colour, linestyle=style, label=name)
axes[1].set(xlabel="step", ylabel="relative difference of losses", yscale="log", title="Seeds' largest (equal: 1e-9)")
_ = [ax.legend(fontsize=7, loc=place) for ax, place in zip(axes, ("upper right", "center right"), strict=True)]
figure.savefig(OUT / "keras_to_jax.png", dpi=120)
figure

# %% [markdown]
# The computational graph of the model that was carried over.

# %%
figure = layers.draw(ours.layer, x[:1], title="The Functional model of Keras, in our layers")
figure.savefig(OUT / "keras_to_jax_graph.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
verdict = "support" if max(apart) < 1e-5 else "do not support"
print(f"The data {verdict} equal predictions: the logits of {len(apart)} models differ by {max(apart):.1e} at most.")
for name, gap in gaps.items():
    verdict = "support" if np.max(gap) < 1e-3 else "do not support"
    print(f"{name}: the data {verdict} one curve; the losses differ by {np.max(gap):.1e} of their value at most.")
print(f"Test accuracy, mean of all runs: ours {np.mean(accuracy, 0)[0]:.3f}, Keras {np.mean(accuracy, 0)[1]:.3f}.")
