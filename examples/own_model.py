"""
A model of your own
===================

You have a model in Flax or Equinox, with an activation whose derivative you wrote by hand. Here its derivatives are
checked, with a mistake planted in one; both models are swept over learning rates and seeds; the best run is watched;
and the trained parameters go back into the library.
"""

# %%
import sys
from itertools import product
from pathlib import Path

import equinox as eqx
import jax
import matplotlib.pyplot as plt
from flax import linen

from jaxopt_nn import checking, data, layers, losses, metrics, monitor, optimizers, plots, sweeps, training

KEY, QUICK, OUT = jax.random.key(0), "--quick" in sys.argv, Path("out")
OUT.mkdir(exist_ok=True)
WIDTH, EPOCHS, SEEDS = (8, 2, range(2)) if QUICK else (64, 20, range(5))
RATES = [1e-3, 1e-2] if QUICK else [1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]

train, valid, test = data.split(KEY, data.load_digits(), (0.6, 0.2, 0.2))
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))

# %% [markdown]
# An activation with a derivative by hand
# ---------------------------------------
#
# ``x * sigmoid(x)``. The wrong derivative forgets a term. Networks learn with it, so nobody notices.


# %%
def with_derivative(derivative):
    @jax.custom_vjp
    def swish(x):
        return x * jax.nn.sigmoid(x)

    swish.defvjp(lambda x: (swish(x), x), lambda x, cotangent: (cotangent * derivative(x),))
    return swish


def slope(x):
    s = jax.nn.sigmoid(x)
    return s + x * s * (1 - s)


ACTIVATIONS = {"right": with_derivative(slope), "wrong": with_derivative(jax.nn.sigmoid)}

# %% [markdown]
# The same network in two libraries
# ---------------------------------
#
# The run switches batch normalization and dropout. A module of Equinox takes one example and is mapped over the batch.


# %%
class FlaxNet(linen.Module):
    activation: object

    @linen.compact
    def __call__(self, x, train: bool = False):
        x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(linen.Dense(WIDTH)(x))
        x = linen.Dropout(0.2, deterministic=not train)(self.activation(x))
        return linen.Dense(10)(x)


class EquinoxNet(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    last: eqx.nn.Linear
    activation: object = eqx.field(static=True)

    def __init__(self, key, activation):
        first, last = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(64, WIDTH, key=first), eqx.nn.Linear(WIDTH, 10, key=last)
        self.norm = eqx.nn.BatchNorm(WIDTH, axis_name="batch", mode="batch", momentum=0.9)
        self.drop, self.activation = eqx.nn.Dropout(0.2), activation

    def __call__(self, x, state, key=None):
        x, state = self.norm(self.first(x), state)
        return self.last(self.drop(self.activation(x), key=key)), state


def model_of(library, activation):
    if library == "Flax":
        return layers.from_linen(FlaxNet(activation))
    return layers.from_equinox(lambda key: eqx.nn.make_with_state(EquinoxNet)(key, activation))


def recipe(hp):
    model, optimizer = model_of(hp["library"], ACTIVATIONS["right"]), optimizers.adam(hp["rate"])
    parts = training.Recipe(model, losses.softmax_cross_entropy, optimizer, batch_size=64, epochs=EPOCHS)
    # Their batch normalizations would count rows that pad the last batch.
    return parts._replace(metrics={"accuracy": metrics.accuracy}, last_batch="drop")


# %% [markdown]
# Checked
# -------

# %%
reports = {}
for library, name in product(["Flax"] if QUICK else ["Flax", "Equinox"], ["right", "wrong"]):
    reports[library, name] = checking.check_layer(model_of(library, ACTIVATIONS[name]), train.x[:16], key=KEY)
print(reports["Flax", "wrong"])

# %% [markdown]
# Swept and watched
# -----------------
#
# Each library is a program; rates and seeds are its lanes. The best run is watched.

# %%
grid = sweeps.grid(library=["Flax", "Equinox"], rate=RATES, seed=SEEDS)
sweep = sweeps.sweep(recipe, grid, train, valid, key=KEY, objective="valid_accuracy")
figure, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
plots.plot_response(sweep, "rate", "library", ax=ax).set_title("One network in two libraries", pad=36)
figure.savefig(OUT / "own_model.png", dpi=120)
figure

# %%
hparams = {"library": "Flax", "rate": sweep.best().hparams["rate"]}
watched = training.make_run(lambda hp: recipe(hp)._replace(record=monitor.watch(every=5)))
result = watched(KEY, hparams, train, valid)
figure = monitor.plot(result, title=f"Flax, rate {hparams['rate']:g}")
figure.savefig(OUT / "own_model_watched.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
for (library, name), report in reports.items():
    print(f"{library}, {name} derivative: {report.verdict}.")
pair = sweep.compare(*({"library": library, "rate": hparams["rate"]} for library in ("Flax", "Equinox")))
print(f"At the rate {hparams['rate']:g} Flax is {pair.verdict} against Equinox: {100 * pair.difference:+.1f} points of "
      f"accuracy ({100 * pair.low:+.1f} to {100 * pair.high:+.1f}). Their initial weights differ.")  # fmt: skip
print(f"What monitor finds in the best run: {', '.join(monitor.diagnose(result).names) or 'nothing'}.")
outputs = FlaxNet(ACTIVATIONS["right"]).apply({"params": result.params, **result.model_state}, test.x)
ours = training.predict(recipe, hparams, result, test.x)
print(f"Flax predicts the same from the trained parameters, to {abs(outputs - ours).max():.1e}.")
