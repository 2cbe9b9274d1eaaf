"""
Vanishing and exploding gradients
=================================

Why does a deep network not learn, and what mends it? Three sick networks are diagnosed by what ``monitor`` records.
Then each gets one remedy at a time: another activation, the right initialization, batch normalization, residual blocks,
clipping. At the end a recurrent network has to remember its first input, with and without clipping.
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
DEPTH, WIDTH, EPOCHS = (4, 8, 2) if QUICK else (16, 32, 10)
SEEDS, RATES = (range(2), [0.01]) if QUICK else (range(5), [0.001, 0.01, 0.1])
NEVER = 1e30  # no gradient is as large: no clipping

train, valid, _ = data.split(KEY, data.load_digits(), (0.7, 0.15, 0.15))
scaler = data.fit_standard_scaler(train.x)
train, valid = (data.transform(scaler, part) for part in (train, valid))

# %% [markdown]
# One recipe for all networks
# ---------------------------
#
# The standard deviation of the initial kernels is ``gain / sqrt(fan_in)``. With ReLU, the gain sqrt(2) keeps the size of
# the signals from layer to layer (He et al., 2015). With half of it they shrink to a half in each layer, with twice of
# it they double, and so do the gradients on the way back. Gain, rate and clipping are traced: lanes of one program.

# %%
ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "ReLU": jax.nn.relu, "tanh": jnp.tanh}


def clipped_sgd(hp):
    return optax.chain(optimizers.clip_by_global_norm(hp["clip"]), optimizers.sgd(hp["rate"], momentum=0.9))


def recipe(hp):
    def block(index):
        dense = layers.dense(WIDTH, kernel_init=initializers.lecun_normal(gain=hp["gain"]))
        norm = [layers.batch_norm()] if hp["block"] == "BatchNorm" else []
        whole = layers.serial(dense, *norm, ACTIVATIONS[hp["activation"]])
        return layers.residual(whole) if hp["block"] == "residual" and index > 0 else whole

    return training.Recipe(
        model=layers.serial(*(block(index) for index in range(DEPTH)), layers.dense(10)),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        optimizer=clipped_sgd(hp),
        batch_size=64,
        epochs=EPOCHS,
    )


HE = 2**0.5
PLAIN = {"activation": "ReLU", "block": "plain", "clip": NEVER}
NETWORKS = {
    "small weights": {**PLAIN, "gain": HE / 2},
    "large weights": {**PLAIN, "gain": HE * 2},
    "sigmoid": {**PLAIN, "gain": 1.0, "activation": "sigmoid"},
}
if QUICK:
    del NETWORKS["sigmoid"]

# %% [markdown]
# The diagnosis
# -------------
#
# ``monitor.watch`` records gradients and outputs by layer inside of the compiled run, ``monitor.diagnose`` says in words
# what they show. A healthy network is there for comparison.

# %%
watched = training.make_run(lambda hp: recipe(hp)._replace(record=monitor.watch(every=5)))
results = {}
for name, network in {**NETWORKS, "healthy: ReLU, gain sqrt(2)": {**PLAIN, "gain": HE}}.items():
    results[name] = watched(KEY, {**network, "rate": RATES[0]}, train, valid)
    print(f"{name}\n  {monitor.diagnose(results[name])}\n")

figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained")
monitor.plot_layers(results, "deviation", ax=panels[0]).set_title("Signals, first epoch")
monitor.plot_layers(results, "gradient", ax=panels[1]).set_title("Gradients, first epoch")
figure.savefig(OUT / "vanishing_exploding_layers.png", dpi=120)
figure

# %% [markdown]
# One remedy at a time
# --------------------
#
# Each cell is the best of the learning rates, with the mean over the seeds. In an empty cell no rate ended well.


# %%
def treated(network, remedy):
    sigmoid = network["activation"] == "sigmoid"
    return {
        **network,
        **{
            "none": {},
            "activation": {"activation": "ReLU" if sigmoid else "tanh"},
            "initialization": {"gain": 4.0 if sigmoid else HE},  # the slope of a sigmoid is 1/4
            "BatchNorm": {"block": "BatchNorm"},
            "residual": {"block": "residual"},
            "clipping": {"clip": 1.0},
        }[remedy],
    }


REMEDIES = ["none", "activation", "initialization", "BatchNorm", "residual", "clipping"]
cells = {(name, remedy): treated(NETWORKS[name], remedy) for name in NETWORKS for remedy in REMEDIES}
different = [hp for index, hp in enumerate(cells.values()) if hp not in list(cells.values())[:index]]
space = [{**hp, **rest} for hp in different for rest in sweeps.grid(rate=RATES, seed=SEEDS)]
sweep = sweeps.sweep(recipe, space, train, valid, key=KEY, objective="valid_accuracy")
records = [
    record._replace(trial={"network": name, "remedy": remedy, "rate": record.trial["rate"], "seed": record.trial["seed"]})
    for (name, remedy), hp in cells.items()
    for record in sweep.records
    if hp.items() <= record.trial.items()
]
table = sweep._replace(records=tuple(records))
figure, ax = plt.subplots(figsize=(8.4, 3.4), layout="constrained")
plots.plot_heat_map(table, "remedy", "network", ax=ax).set_title(f"{DEPTH} layers: validation accuracy, best rate")
figure.savefig(OUT / "vanishing_exploding_remedies.png", dpi=120)
figure

# %% [markdown]
# A long memory
# -------------
#
# The first input of a sequence is +1 or -1, all others are noise; the network has to say the first one at the end. The
# gradient goes back through all steps of time. Its size in each step of training is recorded.

# %%
LENGTH, UNITS = (8, 8) if QUICK else (40, 32)


def sequences(key, number):
    key_bit, key_noise = jax.random.split(key)
    bit = jax.random.bernoulli(key_bit, shape=(number,)).astype(jnp.int32)
    noise = jax.random.normal(key_noise, (number, LENGTH))
    return Batch(jnp.stack([noise, jnp.zeros_like(noise).at[:, 0].set(2.0 * bit - 1)], -1), bit)


def rnn_recipe(hp):
    recurrent = layers.simple_rnn(
        UNITS, return_sequences=False, recurrent_init=initializers.orthogonal(gain=hp["recurrent_gain"])
    )
    size = training.Record(lambda end: optax.global_norm(end.gradient), of="step", series=True)
    return training.Recipe(
        model=layers.serial(recurrent, layers.dense(2)),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        optimizer=clipped_sgd(hp),
        batch_size=64,
        epochs=2 if QUICK else 40,
        record={"size": size},
    )


sets = [sequences(jax.random.fold_in(KEY, index), number) for index, number in enumerate((1024, 512))]
LIMITS = {"no clipping": NEVER, "norm at most 1": 1.0}
rnn_rates = [0.01, 0.1] if QUICK else [0.003, 0.01, 0.03, 0.1, 0.3]
space = sweeps.grid(recurrent_gain=1.0 if QUICK else [1.0, 1.5], clip=list(LIMITS.values()), rate=rnn_rates, seed=SEEDS)
memory = sweeps.sweep(rnn_recipe, space, *sets, key=KEY, objective="valid_accuracy")
for each in memory.configurations():
    print({k: v for k, v in each.hparams.items()}, round(each.value, 3), round(each.low, 3), round(each.high, 3), each.statuses)
    print("   ", [round(float(np.nanmax(record.history["size"])),2) for record in memory.records if each.hparams.items() <= record.trial.items()])
figure, panels = plt.subplots(1, 2, figsize=(10.4, 4.2), layout="constrained")
named = [record._replace(trial={**record.trial, "clip": {limit: name for name, limit in LIMITS.items()}[record.trial["clip"]]}) for record in memory.records]
plots.plot_response(memory._replace(records=tuple(named)), "rate", "clip", ax=panels[0])
panels[0].set_title(f"Remembering {LENGTH} steps", pad=36)
FAST = rnn_rates[-1]
for (name, limit), colour in zip(LIMITS.items(), ("#0072B2", "#E69F00"), strict=True):
    sizes = [r.history["size"].ravel() for r in memory.records if (r.trial["clip"], r.trial["rate"]) == (limit, FAST)]
    panels[1].plot(np.sort(np.concatenate(sizes))[::-1], label=name, color=colour)
panels[1].set(title=f"Gradients before clipping, rate {FAST:g}", xlabel="step of training, largest gradient first", ylabel="norm of the gradient", xscale="log", yscale="log")
panels[1].legend(frameon=False)
figure.savefig(OUT / "vanishing_exploding_memory.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
every = {(each.hparams["network"], each.hparams["remedy"]): each for each in reversed(table.configurations()) if each.sound}


def learns(network, remedy):
    """Whether the best rate brings each seed above 80 %."""
    return (network, remedy) in every and min(every[network, remedy].values.values()) > 0.8


for name in NETWORKS:
    mended = [remedy for remedy in REMEDIES[1:] if learns(name, remedy)]
    failed = [remedy for remedy in REMEDIES[1:] if remedy not in mended]
    print(f"{name}: {'learns' if learns(name, 'none') else 'does not learn'} as it is. Mended by: {', '.join(mended) or 'nothing'}; not by: {', '.join(failed) or 'nothing'}.")
