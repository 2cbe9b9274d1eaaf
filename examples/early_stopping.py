"""
Early stopping
==============

Under- and overfitting can be read from two curves: the training loss and the validation loss. Here a tenth of the
training labels is wrong, so a network that learns all of them by heart gets worse on new data. When should training
end? The patience is swept, for two things to watch, and judged on test data by what it costs and what it gains.
"""

# %%
import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import data, layers, losses, metrics, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
EPOCHS, SEEDS = (10, range(2)) if QUICK else (100, range(10))
WIDTHS = [16] if QUICK else [2, 16, 128]

train, valid, test = data.split(KEY, data.load_digits(), (0.25, 0.15, 0.6))
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))
random = np.random.default_rng(0)
wrong = random.random(len(train.y)) < 0.1
labels = np.where(wrong, train.y + random.integers(1, 10, len(train.y)), train.y) % 10
train = train._replace(y=labels.astype(np.int32))
print(f"{len(train.y)} examples to train, {wrong.sum()} of them with a wrong label, {len(valid.y)} to validate")

# %% [markdown]
# Reading the curves
# ------------------
#
# Three networks with one hidden layer, without early stopping. A gap that grows while the validation loss rises is
# overfitting. Two curves that stay close together, and high, are underfitting.


# %%
def recipe(hp):
    return training.Recipe(
        model=layers.mlp([hp["width"], 10]),
        loss=losses.softmax_cross_entropy,
        metrics={"error": lambda outputs, labels: 1 - metrics.accuracy(outputs, labels)},
        optimizer=optimizers.adam(3e-3),
        batch_size=32,
        epochs=EPOCHS,
    )


space = sweeps.grid(width=WIDTHS, seed=SEEDS)
capacity = sweeps.sweep(recipe, space, train, valid, key=KEY)
size = (4.4 * len(WIDTHS), 3.8)
figure, axes = plt.subplots(1, len(WIDTHS), figsize=size, sharey=True, squeeze=False, layout="constrained")
curves = {}
for ax, width in zip(axes.flat, WIDTHS, strict=True):
    histories = [record.history for record in capacity.records if record.trial["width"] == width]
    curves[width] = {name: np.stack([each[name] for each in histories]) for name in ("train_loss", "valid_loss")}
    plots.plot_generalization(curves[width], log=True, ax=ax).set_title(f"{width} hidden units")
figure.savefig(OUT / "early_stopping_curves.png", dpi=120)
figure

# %% [markdown]
# How long to wait
# ----------------
#
# A run ends after so many epochs (the patience) without improvement, and returns the weights of its best epoch. It may
# watch the validation loss or the validation error. The patience is traced: all its values are lanes of one program.
# A patience of more epochs than there are never stops, and still returns the best weights.


# %%
def train_and_judge(key, hp, train, valid, test):
    def chosen(_):
        return recipe(hp)._replace(early_stopping=training.EarlyStopping(hp["watch"], patience=hp["patience"]))

    result = training.make_run(chosen)(key, None, train, valid)
    last = result._replace(params=result.state.params, model_state=result.state.model_state)
    error, last_error = (training.evaluate(chosen, None, each, test)["error"] for each in (result, last))
    return {"test_error": error, "last_error": last_error, "epochs": result.epochs}


PATIENCE = [1, 4, EPOCHS] if QUICK else [1, 2, 4, 8, 16, 32, EPOCHS]
WATCHED = ["valid_loss"] if QUICK else ["valid_loss", "valid_error"]
space = sweeps.grid(width=WIDTHS[-1], watch=WATCHED, patience=PATIENCE, seed=SEEDS)
sweep = sweeps.sweep_function(train_and_judge, space, train, valid, test, key=KEY, objective="test_error")
never = [
    each._replace(
        trial={**each.trial, "watch": "nothing"},
        metrics={**each.metrics, "test_error": each.metrics["last_error"]},
    )
    for each in sweep.records
    if (each.trial["watch"], each.trial["patience"]) == (WATCHED[0], EPOCHS)
]
both = sweep._replace(records=(*sweep.records, *never))
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
plots.plot_metrics(sweep, "patience", "test_error", by="watch", ax=axes[0])
last = np.mean([each.metrics["test_error"] for each in never])
axes[0].axhline(last, color="0.4", linestyle=":")
axes[0].annotate("last weights, never stopped", (0, last), (0, -10), textcoords="offset points", fontsize="small")
plots.plot_metrics(sweep, "patience", "epochs", by="watch", log=True, ax=axes[1])
axes[1].set_ylabel("epochs that were run")
figure.savefig(OUT / "early_stopping.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
lowest = {width: float(curve["valid_loss"].mean(0).min()) for width, curve in curves.items()}
for width, curve in curves.items():
    train_loss, valid_loss = (curve[name].mean(0) for name in ("train_loss", "valid_loss"))
    rise = valid_loss[-1] / lowest[width]
    words = "overfits" if rise > 1.1 else "underfits" if lowest[width] > 1.1 * min(lowest.values()) else "fits"
    print(
        f"{width} units {words}: at the end training loss {train_loss[-1]:.3f}, validation loss {valid_loss[-1]:.3f}, "
        f"{rise:.2f} times its lowest, {lowest[width]:.3f} in epoch {valid_loss.argmin() + 1}."
    )


def hparams(watch, patience):
    return {"width": WIDTHS[-1], "watch": watch, "patience": patience}


def mean(watch, patience, metric):
    found = [each for each in both.records if hparams(watch, patience).items() <= each.trial.items()]
    return np.mean([each.metrics[metric] for each in found])


short, long = PATIENCE[0], PATIENCE[-2]
for watch in WATCHED:
    gain = both.compare(hparams(watch, long), hparams("nothing", EPOCHS))
    wait = both.compare(hparams(watch, long), hparams(watch, short))
    longer, better = (mean(watch, long, name) / mean(watch, short, name) for name in ("epochs", "test_error"))
    print(f"Watching {watch}, patience {long}, against the last weights ({last:.4f}): test error {gain}.")
    print(f"  Patience {long} instead of {short}: {longer:.1f} times the epochs, {better:.2f} times the error; {wait}.")
    agrees = "agrees with" if wait.verdict == "better" else "differs from"
    print(f"  This {agrees} Prechelt (1998, Early stopping - but when?): 4% better for 4 times the time, on average.")
