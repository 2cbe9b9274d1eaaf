"""
Regularization
==============

A network learns two hundred examples by heart. Which regularization helps it on new ones, and how strong should it be?
Eight methods are compared at several strengths and over several seeds. The strength is chosen on a validation set, and
judged on a test set. Two more questions: does L1 make weights that are exactly 0, and is weight decay the same as L2?
"""

# %%
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from jaxopt_nn import augment, data, layers, losses, metrics, optimizers, penalties, plots, sweeps, training, trees

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
WIDTH, EPOCHS, SEEDS, RATE = (16, 5, range(2), 1e-3) if QUICK else (64, 80, range(5), 1e-3)

train, valid, test = data.split(KEY, data.load_digits(), (0.12, 0.12, 0.76))
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))
train, valid, test = (part._replace(x=part.x.reshape(-1, 8, 8, 1)) for part in (train, valid, test))
print(f"{len(train.y)} examples to train, {len(valid.y)} to choose, {len(test.y)} to judge")

# %% [markdown]
# All methods in one recipe
# -------------------------
#
# Method and strength are numbers, and traced: all methods, strengths and seeds are lanes of one program. A strength is
# something else for each method: the factor of a penalty, a drop rate, the part of the image by which it is shifted at
# the most, epochs of patience.

# %%
STRENGTHS = {
    "none": [0.0],
    "L1": [1e-5, 1e-4, 1e-3, 1e-2],
    "L1, proximal": [1e-3, 1e-2, 1e-1, 1.0],
    "L2": [1e-4, 1e-3, 1e-2, 1e-1],
    "weight decay": [1e-2, 1e-1, 1.0, 10.0],
    "dropout": [0.1, 0.3, 0.5, 0.7],
    "label smoothing": [0.03, 0.1, 0.3, 0.6],
    "augmentation": [0.03, 0.06, 0.12, 0.25],
    "early stopping": [1.0, 3.0, 10.0, 30.0],
}
METHODS = list(STRENGTHS)


def recipe(hp):
    def of(method, otherwise=0.0):
        return jnp.where(hp["method"] == METHODS.index(method), hp["strength"], otherwise)

    hidden = [layers.dense(WIDTH), jax.nn.relu, layers.dropout(of("dropout"))]
    optimizer = optimizers.adamw(hp["rate"], weight_decay=of("weight decay"))
    start = jnp.where(hp["method"] == METHODS.index("early stopping"), 0, EPOCHS)  # for the others: never
    return training.Recipe(
        model=layers.serial(layers.flatten, *hidden, *hidden, layers.dense(10)),
        loss=partial(losses.softmax_cross_entropy, label_smoothing=of("label smoothing")),
        penalty=penalties.elastic_net(of("L1"), of("L2")),
        optimizer=optimizers.proximal_l1(optimizer, of("L1, proximal")),
        metrics={"accuracy": metrics.accuracy},
        augment=augment.random_shift(of("augmentation")),
        early_stopping=training.EarlyStopping(patience=of("early stopping", 1.0).astype(int), start_from_epoch=start),
        batch_size=32,
        epochs=EPOCHS,
    )


def train_and_judge(key, hp, train, valid, test):
    def chosen(_):
        return recipe(hp)

    def error(batch):
        return 1 - training.evaluate(chosen, None, result, batch)["accuracy"]

    result = training.make_run(chosen)(key, None, train, valid)
    kernels = [leaf.ravel() for path, leaf in trees.named_leaves(result.params) if path.endswith("kernel")]
    zeros = jnp.mean(jnp.concatenate(kernels) == 0)
    return {"train_error": error(train), "valid_error": error(valid), "test_error": error(test), "zeros": zeros}


space = []
for method, strengths in STRENGTHS.items():
    rates = [RATE / 3, RATE, RATE * 3] if method in ("L2", "weight decay") else [RATE]
    space += sweeps.grid(method=METHODS.index(method), strength=strengths, rate=rates, seed=SEEDS)
sweep = sweeps.sweep_function(train_and_judge, space, train, valid, test, key=KEY, objective="valid_error")
named = [each._replace(trial={**each.trial, "method": METHODS[each.trial["method"]]}) for each in sweep.records]
sweep = sweep._replace(records=tuple(named))
judged = sweep._replace(objective="test_error")  # the same trials, judged on other data

# %% [markdown]
# Strength against error
# ----------------------
#
# Too weak, and the test error is that of no regularization. Too strong, and the training error rises too.

# %%
none = sweep.isolate("method", {"method": "none"})[0].best.hparams
without = next(each.value for each in judged.configurations() if each.hparams == none)
figure, axes = plt.subplots(2, len(METHODS) // 2, figsize=(14, 6.4), sharey=True, layout="constrained")
for ax, method in zip(axes.flat, METHODS[1:], strict=True):
    fixed = {"method": method, "rate": RATE}
    plots.plot_metrics(sweep, "strength", ["train_error", "test_error"], fixed=fixed, ax=ax)
    ax.axhline(without, color="0.4", linestyle=":", label="test error without")
    ax.set_title(method)
    ax.get_legend().remove()
axes.flat[0].legend(frameon=False, fontsize="small")
figure.supylabel("error")
figure.savefig(OUT / "regularization.png", dpi=120)
figure

# %% [markdown]
# Each method at the strength that the validation set chose. Intervals are of the mean over seeds, 95 %.

# %%
chosen = {part.value: part.best.hparams for part in sweep.isolate("method", {"rate": RATE})}
kept = [each for each in judged.records if chosen[each.trial["method"]].items() <= each.trial.items()]
by_method = judged._replace(records=tuple(kept))
figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
plots.plot_isolation(by_method, "method", ax=ax)
ax.set_title(f"{len(train.y)} training examples, {len(SEEDS)} seeds", pad=24)
figure.savefig(OUT / "regularization_methods.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------
#
# The differences are in test error, seed by seed, with 95 % intervals.

# %%
print(f"Without regularization: test error {without:.4f}")
for method in METHODS[1:]:
    print(f"{method} at {chosen[method]['strength']:g} against none: {judged.compare(chosen[method], none)}")
zeros = {each.hparams["method"]: each.value for each in by_method._replace(objective="zeros").configurations()}
supports = "supports" if zeros["L1"] < 0.01 < zeros["L1, proximal"] else "does not support"
print(f"Weights that are exactly 0: {zeros['L1']:.1%} by a penalty, {zeros['L1, proximal']:.1%} by proximal steps.")
print(f"This {supports} that it takes proximal steps to make weights 0.")
l2, decay = (sweep.isolate("method", {"method": method})[0].best.hparams for method in ("L2", "weight decay"))
difference = judged.compare(decay, l2)
supports = "supports" if difference.verdict == "better" else "does not support"
print(f"With Adam, each tuned over rate and strength, weight decay {decay} against L2 {l2}: {difference}.")
print(f"This {supports} that decoupled decay generalizes better (Loshchilov and Hutter, 2019).")
