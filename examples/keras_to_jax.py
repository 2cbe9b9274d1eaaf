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

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import data, interop, layers, losses, optimizers, training
from jaxopt_nn.types import Batch

os.environ.setdefault("KERAS_BACKEND", "jax")
try:
    import keras
except ImportError:
    print("This study compares with Keras, which is not installed: pip install keras, then run it again.")
    sys.exit(0)

QUICK = "--quick" in sys.argv
STEPS, SEEDS, BATCH_SIZE = (15, 2, 32) if QUICK else (150, 5, 32)
OUT = Path("out")
OUT.mkdir(exist_ok=True)
train, _, test = data.split(jax.random.key(0), data.load_digits(), (0.8, 0.0, 0.2))
scaler = data.fit_standard_scaler(train.x)
(x, y), (x_test, y_test) = (
    (np.asarray(part.x), np.asarray(part.y)) for part in (data.transform(scaler, each) for each in (train, test))
)
orders = [np.random.default_rng(seed).integers(0, len(x), (STEPS, BATCH_SIZE)) for seed in range(SEEDS)]

# %% [markdown]
# By hand, in NumPy
# -----------------
# Two layers, the cross-entropy of a softmax, and the gradient by the chain rule, from the last layer to the first.


# %%
def train_in_numpy(weights, order, rate):
    w1, b1, w2, b2 = (np.array(weight) for weight in weights)
    curve = []
    for rows in order:
        inputs, labels = x[rows], y[rows]
        hidden = np.maximum(inputs @ w1 + b1, 0)
        logits = hidden @ w2 + b2
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        curve.append(-np.log(shares[np.arange(len(rows)), labels]).mean())
        at_logits = (shares - np.eye(10, dtype="f")[labels]) / len(rows)
        at_hidden = at_logits @ w2.T * (hidden > 0)
        w1, b1 = w1 - rate * inputs.T @ at_hidden, b1 - rate * at_hidden.sum(0)
        w2, b2 = w2 - rate * hidden.T @ at_logits, b2 - rate * at_logits.sum(0)
    return np.array(curve)


# %% [markdown]
# The same in Keras
# -----------------
# The Sequential model is the network above. The Functional model has two branches that are added.


# %%
def sequential():
    parts = keras.layers.Dense(32, "relu"), keras.layers.Dense(10)
    return keras.Sequential([keras.Input((64,)), *parts]), keras.optimizers.SGD(0.1)


def functional():
    inputs = keras.Input((64,), name="pixels")
    hidden = keras.layers.Dense(32, use_bias=False, name="hidden")(inputs)
    hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    hidden = keras.layers.ReLU(name="rectify")(hidden)
    branch = keras.layers.Dense(32, "tanh", name="branch")(hidden)
    total = keras.layers.Add(name="shortcut")([hidden, branch])
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(total)), keras.optimizers.Adam(0.003)


def train_in_keras(model, optimizer, order):
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    curve = []
    for rows in order:
        curve.append(float(model.train_on_batch(x[rows], y[rows])))
        model.reset_metrics()  # or it would report the mean of all steps so far
    return np.array(curve)


# %% [markdown]
# In our layers
# -------------
# ``interop.from_keras`` returns the layer, its parameters and its state. One step is a pure function, and all steps are
# one scan.


# %%
def train_in_ours(ours, optimizer, order):
    def loss_fn(params, state, batch, key):
        logits, state = ours.layer.apply(params, state, batch.x, train=True, key=key)
        return jnp.mean(losses.softmax_cross_entropy(logits, batch.y)), (state, {})

    def run(params, state, batches):
        start = training.init_state(params, optimizer, jax.random.key(0), state)
        return jax.lax.scan(training.make_step(loss_fn, optimizer), start, batches)

    state, history = jax.jit(run)(ours.params, ours.model_state, Batch(x[order], y[order]))
    return np.asarray(history["loss"]), ours.layer.apply(state.params, state.model_state, x_test)[0]


# What is compared: a model and its optimizer.
PAIRS = {
    "Sequential, SGD": (sequential, optimizers.sgd(0.1, convention="keras")),
    "Functional, Adam": (functional, optimizers.adam(0.003, convention="keras")),
}
curves = {name: [] for name in [*PAIRS, "NumPy"]}
apart, accuracy = [], []
for name, (build, optimizer) in PAIRS.items():
    for seed, order in enumerate(orders):
        keras.utils.set_random_seed(seed)
        model, theirs = build()
        ours = interop.from_keras(model)
        logits, _ = ours.layer.apply(ours.params, ours.model_state, x_test)
        apart.append(np.abs(np.asarray(logits) - np.asarray(model(x_test))).max())
        if build is sequential:
            curves["NumPy"].append(train_in_numpy(model.get_weights(), order, 0.1))
        curve, logits = train_in_ours(ours, optimizer, order)
        curves[name].append((curve, train_in_keras(model, theirs, order)))
        both = [np.mean(np.argmax(each, 1) == y_test) for each in (logits, model(x_test))]
        accuracy.append(both)

# %% [markdown]
# The curves, and how far they are apart
# --------------------------------------

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
numpy_gap = [np.abs(one / ours - 1) for one, (ours, _) in zip(curves["NumPy"], curves["Sequential, SGD"], strict=True)]
gaps = {"NumPy and ours, SGD": numpy_gap}
for (name, colour), style in zip({"Sequential, SGD": "#0072B2", "Functional, Adam": "#D55E00"}.items(), "-:"):
    one, other = curves[name][0]
    axes[0].plot(other, color="0.75", linewidth=5, label=f"{name}: Keras")
    axes[0].plot(one, color=colour, linestyle=style, linewidth=1.5, label=f"{name}: ours")
    gaps[f"Keras and ours, {name}"] = [np.abs(ours / theirs - 1) for ours, theirs in curves[name]]
axes[0].set(xlabel="step", ylabel="training loss", title="The same curve (one seed)", yscale="log")
for (name, gap), style, colour in zip(gaps.items(), ("--", "-", ":"), ("#009E73", "#0072B2", "#D55E00"), strict=True):
    axes[1].plot(np.maximum(np.max(gap, 0), 1e-9), color=colour, linestyle=style, label=name)
axes[1].axhline(np.finfo("f").eps, color="0.5", linewidth=0.8)
axes[1].text(0, 1.3e-7, "rounding of one float32", fontsize=7, color="0.3")
axes[1].set(xlabel="step", ylabel="relative difference of losses", yscale="log", title=f"Largest of {SEEDS} seeds")
for ax in axes:
    ax.legend(fontsize=7)
figure.savefig(OUT / "keras_to_jax.png", dpi=120)
figure

# %% [markdown]
# The computational graph of the model that was carried over
# ----------------------------------------------------------

# %%
figure = layers.draw(ours.layer, x[:1], title="The Functional model of Keras, in our layers")
figure.savefig(OUT / "keras_to_jax_graph.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
same = max(apart) < 1e-5
print(f"The data {'support' if same else 'do not support'} that predictions are the same to 1e-5: the logits of "
      f"{len(apart)} models differ by {max(apart):.1e} at most.")  # fmt: skip
for name, gap in gaps.items():
    largest = np.max(gap)
    print(f"{name}: the data {'support' if largest < 1e-3 else 'do not support'} one curve (to 0.1 %): over {STEPS} "
          f"steps and {SEEDS} seeds the losses differ by {largest:.1e} at most.")  # fmt: skip
print(f"Test accuracy, mean of all runs: ours {np.mean(accuracy, 0)[0]:.3f}, Keras {np.mean(accuracy, 0)[1]:.3f}.")
