"""
Regularization
==============

A large network learns 215 examples by heart. Which regularization helps it on new ones, and how strong should it be?
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
import numpy as np

from jaxopt_nn import augment, data, layers, losses, metrics, optimizers, penalties, plots, sweeps, training, trees

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
WIDTH, EPOCHS, SEEDS = (16, 5, range(2)) if QUICK else (128, 80, range(5))
RATE = 1e-3

train, valid, test = data.split(KEY, data.load_digits(), (0.12, 0.12, 0.76))
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))
train, valid, test = (part._replace(x=part.x.reshape(-1, 8, 8, 1)) for part in (train, valid, test))
print(f"{len(train.y)} examples to train, {len(valid.y)} to choose, {len(test.y)} to judge")

# %% [markdown]
# One recipe for all methods
# --------------------------
#
# The method is static, a program each; its strength is traced. A strength means something else for each method:
# the factor of a penalty, a drop rate, a share of the image by which it is shifted, epochs of patience.

# %%
STRENGTHS = {
    "none": [0.0],
    "L1": [1e-5, 1e-4, 1e-3, 1e-2],
    "L1, proximal": [1e-4, 1e-3, 1e-2, 1e-1],
    "L2": [1e-4, 1e-3, 1e-2, 1e-1],
    "weight decay": [1e-2, 1e-1, 1.0, 10.0],
    "dropout": [0.1, 0.3, 0.5, 0.7],
    "label smoothing": [0.03, 0.1, 0.3, 0.6],
    "augmentation": [0.03, 0.06, 0.12, 0.25],
    "early stopping": [1.0, 3.0, 10.0, 30.0],
}
if QUICK:
    STRENGTHS = {name: STRENGTHS[name][:2] for name in ("none", "L1", "L1, proximal", "L2", "weight decay")}


def recipe(hp):
    method, strength, rate = hp["method"], hp["strength"], hp["rate"]
    hidden = [layers.dense(WIDTH), jax.nn.relu] + [layers.dropout(strength)] * (method == "dropout")
    penalty = {"L1": penalties.l1, "L2": penalties.l2}.get(method)
    optimizer = {
        "weight decay": partial(optimizers.adamw, weight_decay=strength),
        "L1, proximal": lambda rate: optimizers.proximal_l1(optimizers.adam(rate), strength),
    }.get(method, optimizers.adam)
    smoothing = strength if method == "label smoothing" else 0.0
    return training.Recipe(
        model=layers.serial(layers.flatten, *hidden, *hidden, layers.dense(10)),
        loss=partial(losses.softmax_cross_entropy, label_smoothing=smoothing),
        penalty=penalty and penalty(strength),
        optimizer=optimizer(rate),
        metrics={"error": lambda outputs, labels: 1 - metrics.accuracy(outputs, labels)},
        augment=augment.random_shift(strength) if method == "augmentation" else None,
        early_stopping=training.EarlyStopping(patience=strength) if method == "early stopping" else None,
        batch_size=32,
        epochs=EPOCHS,
    )


def train_and_judge(key, hp, train, valid, test):
    result = training.make_run(lambda _: recipe(hp))(key, None, train, valid)
    sets = {"train_error": train, "valid_error": valid, "test_error": test}
    errors = {
        name: training.evaluate(lambda _: recipe(hp), None, result, batch)["error"] for name, batch in sets.items()
    }
    kernels = [leaf.ravel() for path, leaf in trees.named_leaves(result.params) if path.endswith("kernel")]
    return {**errors, "zeros": jnp.mean(jnp.concatenate(kernels) == 0)}


METHODS = list(STRENGTHS)
space = []
for method, strengths in STRENGTHS.items():
    rates = [RATE, *([] if QUICK or method not in ("L2", "weight decay") else [RATE / 3, RATE * 3])]
    space += sweeps.grid(method=method, strength=strengths, rate=rates, seed=SEEDS)
sweep = sweeps.sweep_function(train_and_judge, space, train, valid, test, key=KEY, objective="valid_error")

# %% [markdown]
# Strength against error
# ----------------------
#
# Too weak, and the test error is that of no regularization. Too strong, and the training error rises too.

# %%
panels = METHODS[1:]
figure, axes = plt.subplots(2, (len(panels) + 1) // 2, figsize=(14, 6.4), sharey=True, layout="constrained")
none = sweep.isolate("method", {"method": "none"})[0].best.hparams
judged = sweep._replace(objective="test_error")  # the same trials, judged on other data
plain = next(each for each in judged.configurations() if each.hparams == none)
for ax, method in zip(axes.flat, panels, strict=True):
    fixed = {"method": method, "rate": RATE}
    plots.plot_metrics(sweep, "strength", ["train_error", "test_error"], fixed=fixed, ax=ax)
    ax.axhline(plain.value, color="0.5", linestyle=":", label="test error without")
    ax.set_title(method)
    ax.get_legend().remove()
axes.flat[0].legend(frameon=False, fontsize="small")
figure.savefig(OUT / "regularization.png", dpi=120)
figure

# %% [markdown]
# Each method at the strength that the validation set chose
# ---------------------------------------------------------
#
# Intervals are of the mean over seeds, 95 %. A method is called better than none only if it is so seed by seed.

# %%
chosen = {part.value: part.best.hparams for part in sweep.isolate("method", {"rate": RATE})}
tested = {tuple(each.hparams.items()): each for each in judged.configurations()}
best = {method: tested[tuple(chosen[method].items())] for method in METHODS}
figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
lines = {"test error": {method: list(best[method].values.values()) for method in METHODS}}
plots.plot_means(lines, ylabel="test error (lower is better)", ax=ax)
ax.lines[0].set_linestyle("none")
ax.set_title(f"{len(train.y)} training examples, {len(SEEDS)} seeds")
figure.savefig(OUT / "regularization_methods.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
verdicts = {}
for method in METHODS[1:]:
    difference = judged.compare(chosen[method], none)
    verdicts[method] = difference.verdict
    print(
        f"{method:15s} strength {chosen[method]['strength']:<6g} test error {best[method].value:.2%}, "
        f"{100 * difference.difference:+.2f} points ({100 * difference.low:+.2f} to {100 * difference.high:+.2f}) "
        f"against {plain.value:.2%} without: {difference.verdict}"
    )


def zeros_of(method):
    return np.mean([record.metrics["zeros"] for record in sweep.records if chosen[method].items() <= record.trial.items()])


subgradient, proximal = zeros_of("L1"), zeros_of("L1, proximal")
print(f"Weights that are exactly 0: {subgradient:.1%} with L1 as a penalty, {proximal:.1%} with proximal steps.")
print(f"This {'supports' if subgradient < 0.01 < proximal else 'does not support'} that L1 needs proximal steps for it.")

l2, decay = (sweep.isolate("method", {"method": method})[0].best.hparams for method in ("L2", "weight decay"))
difference = judged.compare(decay, l2)
print(
    f"Weight decay ({decay}) against L2 ({l2}) with Adam, each tuned over rate and strength: "
    f"{100 * difference.difference:+.2f} points ({100 * difference.low:+.2f} to {100 * difference.high:+.2f}). "
    f"This {'supports' if difference.verdict == 'better' else 'does not support'} that decoupled decay generalizes "
    "better (Loshchilov and Hutter, 2019: Decoupled weight decay regularization)."
)
