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
WIDTHS = [2, 64] if QUICK else [2, 16, 256]

train, valid, test = data.split(KEY, data.load_digits(), (0.25, 0.15, 0.6))
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))
random = np.random.default_rng(0)
wrong = random.random(len(train.y)) < 0.1
train = train._replace(y=np.where(wrong, (train.y + random.integers(1, 10, len(train.y))) % 10, train.y))
print(f"{len(train.y)} examples to train, {wrong.sum()} of them with a wrong label, {len(valid.y)} to validate")

# %% [markdown]
# Reading the curves
# ------------------
#
# Three networks with one hidden layer, without early stopping. A gap that grows while the validation loss rises is
# overfitting. Two curves that stay close together, and high, are underfitting.


# %%
def recipe(hp):
    stopping = None
    if hp["watch"] != "nothing":
        stopping = training.EarlyStopping(hp["watch"], patience=hp["patience"])
    return training.Recipe(
        model=layers.mlp([hp["width"], 10]),
        loss=losses.softmax_cross_entropy,
        metrics={"error": lambda outputs, labels: 1 - metrics.accuracy(outputs, labels)},
        optimizer=optimizers.adam(3e-3),
        early_stopping=stopping,
        batch_size=32,
        epochs=EPOCHS,
    )


space = sweeps.grid(width=WIDTHS, watch="nothing", patience=1, seed=SEEDS)
capacity = sweeps.sweep(recipe, space, train, valid, key=KEY)
figure, axes = plt.subplots(1, len(WIDTHS), figsize=(4.4 * len(WIDTHS), 3.8), sharey=True, layout="constrained")
curves = {}
for ax, width in zip(axes, WIDTHS, strict=True):
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


# %%
def train_and_judge(key, hp, train, valid, test):
    def chosen(_):
        return recipe(hp)

    result = training.make_run(chosen)(key, None, train, valid)
    errors = {f"{name}_error": training.evaluate(chosen, None, result, batch)["error"]
              for name, batch in (("valid", valid), ("test", test))}
    return {**errors, "epochs": result.epochs}


PATIENCE = [1, 4] if QUICK else [1, 2, 4, 8, 16, 32]
space = sweeps.grid(width=WIDTHS[-1], watch=["valid_loss", "valid_error"], patience=PATIENCE, seed=SEEDS)
space += sweeps.grid(width=WIDTHS[-1], watch="nothing", patience=PATIENCE[0], seed=SEEDS)
sweep = sweeps.sweep_function(train_and_judge, space, train, valid, test, key=KEY, objective="test_error")
stopped = sweep._replace(records=tuple(each for each in sweep.records if each.trial["watch"] != "nothing"))
nothing = sweep.isolate("watch", {"watch": "nothing"})[0].best
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
plots.plot_metrics(stopped, "patience", "test_error", by="watch", ax=axes[0])
axes[0].axhline(nothing.value, color="0.4", linestyle=":")
axes[0].annotate("last weights, no stopping", (0, nothing.value), (0, 3), textcoords="offset points", fontsize="small")
plots.plot_metrics(stopped, "patience", "epochs", by="watch", log=True, ax=axes[1])
axes[1].set_ylabel("epochs that were run")
figure.savefig(OUT / "early_stopping.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
lowest = {width: float(curves[width]["valid_loss"].mean(0).min()) for width in WIDTHS}
for width in WIDTHS:
    last = {name: float(curve.mean(0)[-1]) for name, curve in curves[width].items()}
    rise, epoch = last["valid_loss"] / lowest[width], int(curves[width]["valid_loss"].mean(0).argmin()) + 1
    words = "overfits" if rise > 1.1 else "does not overfit"
    words += ", and underfits" if lowest[width] > 1.1 * min(lowest.values()) and rise < 1.1 else ""
    print(f"{width} units: training loss {last['train_loss']:.3f} at the end; validation loss {lowest[width]:.3f} at best, "
          f"in epoch {epoch}, and {last['valid_loss']:.3f} at the end, {rise:.2f} times as high: it {words}.")


def value(watch, patience, metric):
    trials = [each for each in sweep.records if (each.trial["watch"], each.trial["patience"]) == (watch, patience)]
    return float(np.mean([each.metrics[metric] for each in trials]))


def hparams(watch, patience):
    return {"width": WIDTHS[-1], "watch": watch, "patience": patience}


for watch in ("valid_loss", "valid_error"):
    gain = sweep.compare(hparams(watch, PATIENCE[-1]), nothing.hparams)
    print(f"Watching {watch} with patience {PATIENCE[-1]}: test error {value(watch, PATIENCE[-1], 'test_error'):.2%} "
          f"against {nothing.value:.2%} with the last weights, {100 * gain.difference:+.2f} points "
          f"({100 * gain.low:+.2f} to {100 * gain.high:+.2f}): early stopping is {gain.verdict}.")
    slow, quick = hparams(watch, PATIENCE[-1]), hparams(watch, PATIENCE[0])
    wait = sweep.compare(slow, quick)
    longer = value(watch, PATIENCE[-1], "epochs") / value(watch, PATIENCE[0], "epochs")
    better = 1 - value(watch, PATIENCE[-1], "test_error") / value(watch, PATIENCE[0], "test_error")
    print(f"  Patience {PATIENCE[-1]} instead of {PATIENCE[0]} takes {longer:.1f} times the epochs and lowers the test error "
          f"by {better:.0%} of itself ({wait.verdict}, seed by seed). Prechelt (1998, Early stopping - but when?) found "
          f"about 4 times the time for 4%: this {'agrees' if wait.verdict == 'better' and better < 0.1 else 'differs'}.")
