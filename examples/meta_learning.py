"""
Meta-learning: rates and penalties learned by hypergradients
============================================================

A training run is a pure function, so its validation loss can be differentiated by any of its hyperparameters. Is
descent on them better than a grid? First a learning rate for each step is learned, then an L2 penalty for each layer.
What was learned is judged on test data, with seeds that had no part in it.
"""

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import t as student

from jaxopt_nn import checking, data, layers, losses, optimizers, penalties, plots, schedules, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
STEPS, LONG, UPDATES, GRID = (6, 6, 2, 4) if QUICK else (60, 300, 60, 40)
NEW_SEEDS = jax.random.split(jax.random.key(1), 3 if QUICK else 10)
LAYERS, RATE = ("dense_0", "dense_1", "dense_2"), 0.03

train, valid, test = data.split(KEY, data.load_digits(), (0.1, 0.3, 0.6))  # few to train with: there penalties matter
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))


def recipe(hp):
    def penalty(params):
        return sum(penalties.l2(hp["l2"][name], f"{name}/kernel")(params) for name in LAYERS)

    optimizer = optimizers.sgd(hp.get("rate", RATE), momentum=0.9)
    return training.Recipe(
        layers.mlp([32, 32, 10]), losses.softmax_cross_entropy, optimizer, penalty if "l2" in hp else None
    )


# %% [markdown]
# The hypergradient is right
# --------------------------
#
# Before it is used, it is compared with differences, through three steps of training.

# %%
if not QUICK:
    hparams = {"rate": jnp.float32(0.03), "l2": {name: jnp.float32(1e-2) for name in LAYERS}}
    print(checking.check_gradients(
        lambda hp: sweeps.validation_loss(recipe, hp, train, valid, key=KEY, steps=3), hparams, key=KEY
    ))  # fmt: skip

# %% [markdown]
# A learning rate for each step
# -----------------------------
#
# The rivals are the best constant rate and the best one-cycle schedule (Smith, 2018), each of a grid of peak rates. All
# are chosen by the validation loss of one seed after the same number of steps.


# %%
def with_rates(rates, judges, key):
    return sweeps.validation_loss(recipe, {"rate": rates}, train, judges, key=key, steps=STEPS, per_step=["rate"])


choose = jax.jit(jax.vmap(lambda rates: with_rates(rates, valid, KEY)))
judge = jax.jit(lambda rates: jax.vmap(lambda key: with_rates(rates, test, key))(NEW_SEEDS))
peaks = jnp.geomspace(1e-3, 1.0, GRID)
shapes = {"best constant": jnp.ones(STEPS), "best one-cycle": schedules.one_cycle(1.0, STEPS)(jnp.arange(STEPS))}
rates = {}
for name, shape in shapes.items():
    tried = peaks[:, None] * shape
    rates[name] = tried[jnp.nanargmin(choose(tried))]
start = {"rate": np.asarray(rates["best constant"])}
tuning = sweeps.descend(recipe, start, train, valid, key=KEY, steps=STEPS, updates=UPDATES, per_step=["rate"])
rates["learned"] = jnp.asarray(tuning.hparams["rate"])
rate_losses = {name: np.asarray(judge(own)) for name, own in rates.items()}

# %% [markdown]
# A penalty for each layer
# ------------------------
#
# The same with L2 penalties, after a longer training with a constant rate. The rival is the best single strength.


# %%
def with_penalties(strengths, judges, key):
    hp = {"l2": dict(zip(LAYERS, strengths, strict=True))}
    return sweeps.validation_loss(recipe, hp, train, judges, key=key, steps=LONG)


tried = jnp.geomspace(1e-5, 0.3, GRID)
best = float(tried[jnp.nanargmin(jax.jit(jax.vmap(lambda own: with_penalties([own] * 3, valid, KEY)))(tried))])
start = {"l2": dict.fromkeys(LAYERS, best)}
learned = sweeps.descend(recipe, start, train, valid, key=KEY, steps=LONG, updates=UPDATES)
strengths = {"no penalty": [0.0] * 3, "best single": [best] * 3, "learned": list(learned.hparams["l2"].values())}
judge = jax.jit(lambda own: jax.vmap(lambda key: with_penalties(own, test, key))(NEW_SEEDS))
penalty_losses = {name: np.asarray(judge(jnp.asarray(own))) for name, own in strengths.items()}

# %%
figure, panels = plt.subplots(2, 2, figsize=(10.4, 7.6), layout="constrained")
for (name, own), colour, style in zip(rates.items(), ("#009E73", "#E69F00", "#0072B2"), ("--", ":", "-"), strict=True):
    panels[0, 0].plot(range(1, STEPS + 1), own, style, color=colour, label=name)
panels[0, 0].set(title="Learning rates", xlabel="step", ylabel="learning rate", yscale="log")
for name, colour, style in zip(LAYERS, ("#009E73", "#E69F00", "#0072B2"), ("--", ":", "-"), strict=True):
    panels[1, 0].plot(learned.visited["l2"][name], style, color=colour, label=f"{name}/kernel")
panels[1, 0].set(title="L2 penalties as they are learned", xlabel="update", ylabel="strength", yscale="log")
for row, found in zip(panels, (rate_losses, penalty_losses), strict=True):
    row[0].legend(frameon=False)
    plots.plot_means({f"{len(NEW_SEEDS)} new seeds": found}, ylabel="test loss (lower is better)", ax=row[1])
figure.savefig(OUT / "meta_learning.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
print(f"Validation loss of the learned rates: {tuning.valid_losses[0]:.3f} -> {tuning.valid_loss:.3f}; of the learned "
      f"penalties: {learned.valid_losses[0]:.3f} -> {learned.valid_loss:.3f}.")  # fmt: skip
for what, own in (("A rate for each step", rate_losses), ("A penalty for each layer", penalty_losses)):
    for rival in list(own)[:2]:
        gap = own["learned"] - own[rival]
        half = student.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5
        verdict = "worse than" if gap.mean() > half else "better than" if gap.mean() < -half else "not told apart from"
        print(f"{what} is {verdict} {rival}: test loss {gap.mean():+.3f} ± {half:.3f}, of {own[rival].mean():.3f}.")
