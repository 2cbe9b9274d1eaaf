"""
Vanishing and exploding gradients
=================================

Why does a deep network not learn, and what mends it? Three sick networks are diagnosed by what ``monitor`` records.
Each then gets one remedy at a time: another activation, the right initialization, batch normalization, residual
blocks, clipping. At the end a recurrent network has to remember its first input, with and without clipping.
"""

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxopt_nn import data, initializers, layers, losses, metrics, monitor, optimizers, plots, sweeps, training
from jaxopt_nn.types import Batch

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
DEPTH, WIDTH, EPOCHS, SEEDS = (4, 8, 2, range(2)) if QUICK else (10, 32, 10, range(5))
RATES, RNN_RATES = ([0.01], [0.01, 0.1]) if QUICK else ([0.001, 0.01, 0.1], [0.003, 0.01, 0.03, 0.1, 0.3])
LENGTH, UNITS, RNN_EPOCHS = (8, 8, 2) if QUICK else (40, 32, 40)
NEVER = 1e30  # no gradient is as large: no clipping

train, valid, _ = data.split(KEY, data.load_digits(), (0.7, 0.15, 0.15))
scaler = data.fit_standard_scaler(train.x)
train, valid = (data.transform(scaler, part) for part in (train, valid))

# %% [markdown]
# One recipe for all networks
# ---------------------------
#
# The standard deviation of the initial kernels is ``gain / sqrt(fan_in)``. With ReLU, the gain sqrt(2) keeps the size
# of signals from layer to layer (He et al., 2015). With a third of it they shrink to a third in each layer, with three
# times as much they grow threefold, and so do the gradients on the way back. Gain, rate and clipping are traced: lanes of one program.


# %%
def clipped_sgd(hp):
    return optax.chain(optimizers.clip_by_global_norm(hp["clip"]), optimizers.sgd(hp["rate"], momentum=0.9))


def recipe(hp):
    def block(index):
        dense = layers.dense(WIDTH, kernel_init=initializers.lecun_normal(gain=hp["gain"]))
        norm = [layers.batch_norm()] if hp["block"] == "BatchNorm" else []
        activation = {"sigmoid": jax.nn.sigmoid, "ReLU": jax.nn.relu, "tanh": jnp.tanh}[hp["activation"]]
        whole = layers.serial(dense, *norm, activation)
        return layers.residual(whole) if hp["block"] == "residual" and index > 0 else whole

    model = layers.serial(*(block(index) for index in range(DEPTH)), layers.dense(10))
    accuracy = {"accuracy": metrics.accuracy}
    return training.Recipe(model, losses.softmax_cross_entropy, clipped_sgd(hp), None, accuracy, 64, EPOCHS)


HE = 2**0.5
PLAIN = {"activation": "ReLU", "block": "plain", "clip": NEVER}
NETWORKS = {"small weights": {**PLAIN, "gain": HE / 3}, "large weights": {**PLAIN, "gain": HE * 3}}
if not QUICK:
    NETWORKS["sigmoid"] = {**PLAIN, "gain": 1.0, "activation": "sigmoid"}

# %% [markdown]
# The diagnosis
# -------------
#
# Gradients and outputs are recorded by layer inside of the compiled run, ``monitor.diagnose`` says in words what they
# show. A healthy network is there for comparison.

# %%
records = {**monitor.gradient_flow(every=5), **monitor.activations(every=5), **monitor.inputs(every=5)}
watched = training.make_run(lambda hp: recipe(hp)._replace(record=records))
results = {}
for name, network in {**NETWORKS, "ReLU, gain sqrt(2)": {**PLAIN, "gain": HE}}.items():
    results[name] = watched(KEY, {**network, "rate": RATES[0]}, train, valid)
    print(f"{name}\n  {monitor.diagnose(results[name])}\n")
figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained")
monitor.plot_layers(results, "deviation", match="*dense_*", ax=panels[0]).set_title("Signals, first epoch")
monitor.plot_layers(results, "gradient", ax=panels[1]).set_title("Gradients, first epoch")
figure.savefig(OUT / "vanishing_exploding.png", dpi=120)
figure

# %% [markdown]
# One remedy at a time
# --------------------
#
# A cell holds the mean over the seeds, at the best of the learning rates. It is empty where no rate ended well.


# %%
def treatments(network):
    sigmoid = network["activation"] == "sigmoid"
    yield "none", network
    yield "activation", {**network, "activation": "ReLU" if sigmoid else "tanh"}
    yield "initialization", {**network, "gain": 4.0 if sigmoid else HE}  # the slope of a sigmoid is at most 1/4
    yield "BatchNorm", {**network, "block": "BatchNorm"}
    yield "residual", {**network, "block": "residual"}
    yield "clipping", {**network, "clip": 1.0}


cells = {(name, remedy): hp for name, network in NETWORKS.items() for remedy, hp in treatments(network)}
different = {str(hp): hp for hp in cells.values()}.values()
space = [{**hp, **rest} for hp in different for rest in sweeps.grid(rate=RATES, seed=SEEDS)]
sweep = sweeps.sweep(recipe, space, train, valid, key=KEY, objective="valid_accuracy")
records = [
    each._replace(trial={"network": name, "remedy": remedy, **{by: each.trial[by] for by in ("rate", "seed")}})
    for (name, remedy), hp in cells.items()
    for each in sweep.records
    if hp.items() <= each.trial.items()
]
table = sweep._replace(records=tuple(records))
figure, ax = plt.subplots(figsize=(8.4, 3.4), layout="constrained")
plots.plot_heat_map(table, "remedy", "network", ax=ax).set_title(f"{DEPTH} layers, each at its best rate")
figure.savefig(OUT / "vanishing_exploding_remedies.png", dpi=120)
figure

# %% [markdown]
# A long memory
# -------------
#
# The first input of a sequence is +1 or -1, all others are noise; the network has to say the first one at the end. Its
# gradient goes back through all steps of time, and its size in each step of training is recorded.


# %%
def sequences(key, number):
    bit = jax.random.bernoulli(key, shape=(number,)).astype(jnp.int32)
    noise = jax.random.normal(jax.random.fold_in(key, 1), (number, LENGTH))
    return Batch(jnp.stack([noise, jnp.zeros_like(noise).at[:, 0].set(2.0 * bit - 1)], -1), bit)


def rnn_recipe(hp):
    recurrent_init = initializers.orthogonal(gain=hp["gain"])
    model = layers.serial(layers.simple_rnn(UNITS, return_sequences=False, recurrent_init=recurrent_init), layers.dense(2))
    size = training.Record(lambda end: optax.global_norm(end.gradient), of="step", series=True)
    accuracy = {"accuracy": metrics.accuracy}
    parts = training.Recipe(model, losses.softmax_cross_entropy, clipped_sgd(hp), None, accuracy, 64, RNN_EPOCHS)
    return parts._replace(record={"size": size})


sets = [sequences(jax.random.fold_in(KEY, index), number) for index, number in enumerate((1024, 512))]
space = sweeps.grid(gain=1.0 if QUICK else [1.0, 1.5], clip=[NEVER, 1.0], rate=RNN_RATES, seed=SEEDS)
memory = sweeps.sweep(rnn_recipe, space, *sets, key=KEY, objective="valid_accuracy")
for each in memory.configurations():
    print({k: v for k, v in each.hparams.items()}, round(each.value, 3), round(each.low, 3), round(each.high, 3), each.statuses)
    print("   ", [round(float(np.nanmax(record.history["size"])),2) for record in memory.records if each.hparams.items() <= record.trial.items()])
