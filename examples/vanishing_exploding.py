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
import optax

from jaxopt_nn import data, initializers, layers, losses, metrics, monitor, optimizers, plots, sweeps, training
from jaxopt_nn.types import Batch

QUICK, OUT = "--quick" in sys.argv, Path("out")
OUT.mkdir(exist_ok=True)
KEY, ACCURACY = jax.random.key(0), {"accuracy": metrics.accuracy}
DEPTH, WIDTH, EPOCHS, SEEDS = (3, 8, 2, range(2)) if QUICK else (10, 32, 10, range(5))
RATES, RNN_RATES = ([0.01], [0.03]) if QUICK else ([0.001, 0.01, 0.1], [0.003, 0.01, 0.03, 0.1])
LENGTH, UNITS, RNN_EPOCHS = (8, 8, 2) if QUICK else (40, 32, 30)
NEVER, HE = 1e30, 2**0.5  # no gradient is as large as NEVER: no clipping

train, valid, _ = data.split(KEY, data.load_digits(), (0.7, 0.15, 0.15))
train, valid = (data.transform(data.fit_standard_scaler(train.x), part) for part in (train, valid))

# %% [markdown]
# One recipe for all networks
# ---------------------------
#
# The standard deviation of the initial kernels is ``gain / sqrt(fan_in)``. With ReLU, the gain sqrt(2) keeps the size
# of signals from layer to layer (He et al., 2015). With a third of it they shrink to a third in each layer, with three
# times as much they grow threefold, and so do gradients on the way back. Gain, rate and clipping are traced.


# %%
def clipped_sgd(hp):
    return optax.chain(optimizers.clip_by_global_norm(hp["clip"]), optimizers.sgd(hp["rate"], momentum=0.9))


def recipe(hp, repeated=True):
    dense = layers.dense(WIDTH, kernel_init=initializers.lecun_normal(gain=hp["gain"]))
    norm = [layers.batch_norm()] if hp["block"] == "BatchNorm" else []
    activation = {"sigmoid": jax.nn.sigmoid, "ReLU": jax.nn.relu, "tanh": jnp.tanh}[hp["activation"]]
    first = layers.serial(dense, *norm, activation)
    block = layers.residual(first) if hp["block"] == "residual" else first
    others = [layers.repeat(block, DEPTH - 1)] if repeated else [block] * (DEPTH - 1)  # a repeat compiles fast
    model = layers.serial(first, *others, layers.dense(10))
    return training.Recipe(model, losses.softmax_cross_entropy, clipped_sgd(hp), None, ACCURACY, 64, EPOCHS)


PLAIN = {"activation": "ReLU", "block": "plain", "clip": NEVER}
NETWORKS = {"small weights": {**PLAIN, "gain": HE / 3}, "large weights": {**PLAIN, "gain": HE * 3}}
REMEDIES = {"none": {}, "gain sqrt(2)": {"gain": HE}, "clipping": {"clip": 1.0}}
if not QUICK:  # each of these is a program of its own
    NETWORKS["sigmoid"] = {**PLAIN, "gain": 1.0, "activation": "sigmoid"}
    REMEDIES |= {"tanh": {"activation": "tanh"}, "BatchNorm": {"block": "BatchNorm"}, "residual": {"block": "residual"}}

# %% [markdown]
# The diagnosis
# -------------
#
# Gradients and outputs are recorded by layer in the compiled run; ``monitor.diagnose`` says in words what they show.

# %%
records = {**monitor.gradient_flow(every=5), **monitor.activations(every=5), **monitor.inputs(every=5)}
watched = training.make_run(lambda hp: recipe(hp, repeated=False)._replace(record=records))
results = {}
for name, network in {**NETWORKS, "ReLU, gain sqrt(2)": {**PLAIN, "gain": HE}}.items():
    results[name] = watched(KEY, {**network, "rate": RATES[0]}, train, valid)
    print(f"{name}\n  {monitor.diagnose(results[name])}\n")
figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained")
monitor.plot_layers(results, "deviation", match="*dense_*", ax=panels[0]).set_title("Signals, first epoch", pad=36)
monitor.plot_layers(results, "gradient", ax=panels[1]).set_title("Gradients, first epoch", pad=36)
figure.savefig(OUT / "vanishing_exploding.png", dpi=120)
figure

# %% [markdown]
# One remedy at a time
# --------------------

# %%
cells = {(name, own): {**NETWORKS[name], **REMEDIES[own]} for name in NETWORKS for own in REMEDIES}
different = {str(hp): hp for hp in cells.values()}.values()
space = [{**hp, **rest} for hp in different for rest in sweeps.grid(rate=RATES, seed=SEEDS)]
sweep = sweeps.sweep(recipe, space, train, valid, key=KEY, objective="valid_accuracy")
named = []  # the same records by network and remedy
for each in sweep.records:
    rest = {"rate": each.trial["rate"], "seed": each.trial["seed"]}
    names = [cell for cell, hp in cells.items() if each.trial == {**hp, **rest}]
    named += [each._replace(trial={"network": network, "remedy": remedy, **rest}) for network, remedy in names]
table = sweep._replace(records=tuple(named))
figure, ax = plt.subplots(figsize=(8.4, 3.4), layout="constrained")
plots.plot_heat_map(table, "remedy", "network", ax=ax)
ax.set_title(f"{DEPTH} hidden layers: mean over seeds at the best rate")
figure.savefig(OUT / "vanishing_exploding_remedies.png", dpi=120)
figure

# %% [markdown]
# A long memory
# -------------
#
# The first input of a sequence is +1 or -1, all others are noise; the network has to say the first one at the end. Its
# gradient goes back through all steps of time.


# %%
def sequences(key, number):
    bit = jax.random.bernoulli(key, shape=(number,)).astype(jnp.int32)
    noise = jax.random.normal(jax.random.fold_in(key, 1), (number, LENGTH))
    return Batch(jnp.stack([noise, jnp.zeros_like(noise).at[:, 0].set(2.0 * bit - 1)], -1), bit)


def rnn_recipe(hp):
    rnn = layers.simple_rnn(UNITS, return_sequences=False, recurrent_init=initializers.orthogonal(gain=1.5))
    model = layers.serial(rnn, layers.dense(2))
    return training.Recipe(model, losses.softmax_cross_entropy, clipped_sgd(hp), None, ACCURACY, 64, RNN_EPOCHS)


space = sweeps.grid(clip=[NEVER, 1.0], rate=RNN_RATES, seed=SEEDS)
sets = sequences(KEY, 1024), sequences(jax.random.key(1), 512)
memory = sweeps.sweep(rnn_recipe, space, *sets, key=KEY, objective="valid_accuracy")
figure, ax = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
labels = {NEVER: "no clipping", 1.0: "norm at most 1"}
plots.plot_response(memory, "rate", "clip", labels=labels, ax=ax).set_title(f"Memory over {LENGTH} steps", pad=36)
figure.savefig(OUT / "vanishing_exploding_memory.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
best = {(each.hparams["network"], each.hparams["remedy"]): each for each in table.configurations()[::-1] if each.sound}
for name in NETWORKS:
    mended = [own for own in REMEDIES if (name, own) in best and min(best[name, own].values.values()) > 0.8]
    print(f"{name}: every seed gets above 80 % with {', '.join(mended) or 'nothing'} (of {', '.join(REMEDIES)}).")
largest = max(float(jnp.nanmax(each.history["gradient_norm"])) for each in memory.records)
print(f"The norm of the recurrent gradient, the mean of an epoch, gets up to {largest:.2g}.")
sure = [each.hparams for each in memory.configurations() if each.sound and min(each.values.values()) > 0.95]
most = {clip: max([0.0, *(hp["rate"] for hp in sure if hp["clip"] == clip)]) for clip in labels}
print(f"The largest rate at which every seed remembers: {most[1.0]} with clipping, {most[NEVER]} without.")
agrees = "supports" if most[1.0] > most[NEVER] else "does not support"
print(f"This {agrees} Pascanu et al. (2013): clipping makes larger rates safe where gradients explode.")
