"""
A model of your own
===================

You have a model in Flax or Equinox, and an activation whose derivative you wrote by hand. Here both models are swept over
learning rates and seeds, one is watched while it trains, and the derivatives are checked, with a mistake planted in one.
"""

# %%
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from flax import linen

from jaxopt_nn import checking, data, layers, losses, metrics, monitor, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
WIDTH, EPOCHS = (8, 2) if QUICK else (64, 20)
SEEDS = range(2 if QUICK else 5)
RATES = [1e-3, 1e-2] if QUICK else [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]

train, valid, test = data.split(KEY, data.load_digits(), (0.6, 0.2, 0.2))
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))

# %% [markdown]
# An activation with a derivative by hand
# ---------------------------------------
#
# ``x * sigmoid(x)``, from its input alone. The wrong one forgets a term, a mistake that one does not see: networks learn with it.


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


swish = with_derivative(slope)
wrong_swish = with_derivative(jax.nn.sigmoid)

# %% [markdown]
# The same network in two libraries
# ---------------------------------
#
# Batch normalization and dropout are switched by the run. Equinox describes one example, which is mapped over the batch; names of
# axes tell its batch normalization of the others.


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


def model_of(library, activation=swish):
    if library == "Flax":
        return layers.from_linen(FlaxNet(activation))
    return layers.from_equinox(lambda key: eqx.nn.make_with_state(EquinoxNet)(key, activation))


def recipe(hp):
    return training.Recipe(
        model=model_of(hp["library"]),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        optimizer=optimizers.adam(hp["rate"]),
        batch_size=64,
        epochs=EPOCHS,
        last_batch="drop",  # their batch normalizations would count the rows that pad a batch
    )


# %% [markdown]
# Checked
# -------

# %%
reports = {}
for library in ("Flax", "Equinox"):
    for name, activation in (("right", swish), ("wrong", wrong_swish)):
        model = model_of(library, activation)
        reports[library, name] = checking.check_layer(model, train.x[:16], key=KEY)
        print(f"{library}, {name} derivative: {reports[library, name].verdict}")
print(reports["Flax", "wrong"])

# %% [markdown]
# Swept
# -----
#
# Each library is a program, rates and seeds are its lanes.

# %%
sweep = sweeps.sweep(
    recipe, sweeps.grid(library=["Flax", "Equinox"], rate=RATES, seed=SEEDS), train, valid, key=KEY,
    objective="valid_accuracy",
)  # fmt: skip
figure, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
plots.plot_response(sweep, "rate", "library", ax=ax)
figure.savefig(OUT / "own_model.png", dpi=120)
figure

# %% [markdown]
# Watched
# -------

# %%
best = sweep.best().hparams
watched = training.make_run(lambda hp: recipe(hp)._replace(record=monitor.watch(every=5)))
result_watched = watched(KEY, best, train, valid)
figure = monitor.plot(result_watched, title=f"{best['library']}, rate {best['rate']:g}")
figure.savefig(OUT / "own_model_watched.png", dpi=120)
figure

# %% [markdown]
# And back
# --------
#
# The parameters have the structure that the library gives them, so they go back into the module.

# %%
hparams = {"library": "Flax", "rate": best["rate"]}
result = training.fit(recipe, hparams, train, valid, key=KEY, progress_bar=False)
variables = {"params": result.params, **result.model_state}
outputs = FlaxNet(swish).apply(variables, test.x)
ours = training.predict(recipe, hparams, result, test.x)

# %% [markdown]
# What was found
# --------------

# %%
for library in ("Flax", "Equinox"):
    right, wrong = (reports[library, name] for name in ("right", "wrong"))
    print(f"{library}: the right derivative is {right.verdict}, the wrong one {wrong.verdict}.")
pair = sweep.compare(*({"library": library, "rate": best["rate"]} for library in ("Flax", "Equinox")))
print(f"At the rate {best['rate']:g} Flax and Equinox differ by {100 * pair.difference:+.1f} points of accuracy "
      f"({100 * pair.low:+.1f} to {100 * pair.high:+.1f}): their initial weights and biases differ.")  # fmt: skip
print(f"What monitor says of the best run: {', '.join(monitor.diagnose(result_watched).names) or 'nothing is wrong'}.")
print(f"Flax itself predicts the same from the trained parameters, to {abs(outputs - ours).max():.1e}.")
