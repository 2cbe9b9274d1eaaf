"""
Handwritten digits, in compiled runs
====================================

A whole training run is one pure function ``(key, hparams, train, valid) -> result``. This script trains a network on
handwritten digits, compares optimizers in a sweep, and checks the gradient of the very loss that it trained.
"""

# %%
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from jaxopt_nn import checking, data, layers, losses, metrics, optimizers, penalties, plots, sweeps, training

# sphinx_gallery_thumbnail_number = 3
QUICK, OUT = "--quick" in sys.argv, Path("out")  # quick: a few epochs, to see that everything runs
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)


def heading(text):
    print(f"\n{text}\n{'─' * len(text)}")


# %% [markdown]
# The data: 1,797 images of 8x8, bundled with scikit-learn
# --------------------------------------------------------
#
# Split by class; scaled by the statistics of the training part alone.

# %%
train, valid, test = data.split(KEY, data.load_digits(), (0.7, 0.15, 0.15))
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))

# %% [markdown]
# One run: a regularized network, with early stopping
# ---------------------------------------------------
#
# One place says the whole experiment. Any number in it may come from ``hp``.


# %%
def digits_recipe(hp):
    return training.Recipe(
        model=layers.mlp([64, 32, 10], norm=layers.batch_norm, drop_rate=hp["drop_rate"]),
        loss=losses.softmax_cross_entropy,
        penalty=penalties.l2(hp["l2"]),
        optimizer=optimizers.adam(hp["rate"]),
        metrics={"accuracy": metrics.accuracy},
        batch_size=32,
        epochs=5 if QUICK else 100,
        early_stopping=training.EarlyStopping(patience=15),
    )


hparams = {"rate": 2e-3, "l2": 1e-4, "drop_rate": 0.2}
heading(f"One run on handwritten digits ({len(train.y)} / {len(valid.y)} / {len(test.y)} images)")
result = training.fit(digits_recipe, hparams, train, valid, key=KEY, progress_bar=True)
scores = training.evaluate(digits_recipe, hparams, result, test)
status, best = training.Status(int(result.status)).name, int(result.best_epoch)
print(f"{status} after {result.epochs} epochs; weights of epoch {best + 1}; test accuracy {scores['accuracy']:.1%}")
figure = plots.plot_history(result.history, best_epoch=best, title="Digits: one run")
figure.savefig(OUT / "digits.png", dpi=120)

# %% [markdown]
# ``fit`` drives a run from the host. ``make_run`` makes one pure function of it, with the same bits.

# %%
run = jax.jit(training.make_run(digits_recipe)).lower(KEY, hparams, train, valid).compile()
started = time.perf_counter()
pure = jax.block_until_ready(run(KEY, hparams, train, valid))
took = time.perf_counter() - started
same = jax.tree.all(jax.tree.map(jnp.array_equal, result.params, pure.params))
print(f"the run as one function: {int(pure.state.step):,} steps in {took:.2f} s, the same bits: {bool(same)}")

# %% [markdown]
# A sweep: optimizers
# -------------------
#
# Each optimizer is a program; its learning rates and seeds are the lanes of that program. The mean over the seeds
# decides which rate is the best.

# %%
OPTIMIZERS = {
    "SGD": optimizers.sgd,
    "Momentum": lambda rate: optimizers.sgd(rate, momentum=0.9),
    "RMSProp": optimizers.rmsprop,
    "Adam": optimizers.adam,
}


def recipe(hp):
    return training.Recipe(
        model=layers.mlp([64, 10]),
        loss=losses.softmax_cross_entropy,
        optimizer=OPTIMIZERS[hp["optimizer"]](hp["rate"]),
        metrics={"accuracy": metrics.accuracy},
        batch_size=32,
        epochs=2 if QUICK else 20,
    )


names, rates, seeds = (["SGD", "Adam"], [0.01], 2) if QUICK else (list(OPTIMIZERS), [1e-4, 1e-3, 1e-2, 1e-1, 1.0], 4)
space = sweeps.grid(optimizer=names, rate=rates, seed=range(seeds))
heading(f"{len(names)} optimizers, {len(rates)} learning rates, {seeds} seeds: {len(space)} runs")
sweep = sweeps.sweep(recipe, space, train, valid, key=KEY, objective="valid_accuracy")
print("The best learning rate of each, and its validation accuracy:")
for part in sweep.isolate("optimizer"):
    print(part)
figure, ax = plt.subplots(figsize=(7.4, 4.4), layout="constrained")
plots.plot_curves(sweep, "train_loss", by="optimizer", ax=ax)
ax.set(yscale="log", ylabel="training loss", title="Each optimizer at its best learning rate")
figure.savefig(OUT / "optimizers.png", dpi=120)

figure, ax = plt.subplots(figsize=(7.4, 3.4), layout="constrained")
plots.plot_heat_map(sweep, "rate", "optimizer", ax=ax).set_title("Validation accuracy; white: a seed diverged")
figure.savefig(OUT / "rates.png", dpi=120)

# %% [markdown]
# The gradient of the very loss that was trained
# ----------------------------------------------
#
# At the trained parameters, with the same dropout mask for every evaluation, against differences in float64.

# %%
heading("Gradient check of the digits loss, with BatchNorm, dropout and L2, at the trained weights")
parts, few = digits_recipe(hparams), jax.tree.map(lambda leaf: leaf[:64], train)


def objective(params):
    outputs, _ = parts.model.apply(params, result.model_state, few.x, train=True, key=KEY, weight=None)
    return jnp.mean(parts.loss(outputs, few.y)) + parts.penalty(params)


report = checking.check_gradients(objective, result.params, key=KEY)
print(report)
print(f"\nThe curves are in {OUT}: {', '.join(sorted(path.name for path in OUT.glob('*.png')))}")
if not report.ok:
    raise SystemExit("the gradient is wrong")
