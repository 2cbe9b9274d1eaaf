"""
Meta-learning: rates and penalties learned by hypergradients
============================================================

A training run is a pure function, so its validation loss can be differentiated by any of its hyperparameters. Is descent
on them better than a grid? First a learning rate for each step is learned, then an L2 penalty for each layer. What was
learned is judged on test data, with seeds that had no part in it.
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
TEST_KEYS = jax.random.split(jax.random.key(1), 3 if QUICK else 10)
LAYERS = ("dense_0", "dense_1", "dense_2")

train, valid, test = data.split(KEY, data.load_digits(), (0.1, 0.3, 0.6))  # few to train with: there penalties matter
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))


def recipe(hp):
    def penalty(params):
        return sum(penalties.l2(hp["l2"][name], f"{name}/kernel")(params) for name in LAYERS)

    return training.Recipe(
        model=layers.mlp([32, 32, 10]),
        loss=losses.softmax_cross_entropy,
        penalty=penalty if "l2" in hp else None,
        optimizer=optimizers.sgd(hp["rate"], momentum=0.9),
        batch_size=32,
    )


# %% [markdown]
# The hypergradient is right
# --------------------------
#
# Before it is used, it is compared with differences, through five steps of training.

# %%
if not QUICK:
    hparams = {"rate": jnp.float32(0.03), "l2": {name: jnp.float32(1e-2) for name in LAYERS}}
    short = lambda hp: sweeps.validation_loss(recipe, hp, train, valid, key=KEY, steps=5)  # noqa: E731
    print(checking.check_gradients(short, hparams, key=KEY))

# %% [markdown]
# A learning rate for each step
# -----------------------------
#
# The rivals are the best constant rate and the best one-cycle schedule (Smith, 2018), each of a grid of peak rates. All
# are chosen by the validation loss of one seed after the same number of steps.


# %%
def after_training(hp, judges, key, steps=STEPS):
    return sweeps.validation_loss(recipe, hp, train, judges, key=key, steps=steps, per_step=["rate"])


@jax.jit
def over_rates(rates):
    return jax.vmap(lambda own: after_training({"rate": own}, valid, KEY))(rates)


@jax.jit
def on_test(rates):
    return jax.vmap(lambda key: after_training({"rate": rates}, test, key))(TEST_KEYS)


peaks = np.geomspace(1e-3, 1.0, GRID)
shapes = {"best constant": np.ones(STEPS), "best one-cycle": schedules.one_cycle(1.0, STEPS)(np.arange(STEPS))}
chosen = {}
for name, shape in shapes.items():
    rates = jnp.asarray(peaks[:, None] * np.asarray(shape), jnp.float32)
    found = over_rates(rates)
    chosen[name] = rates[jnp.nanargmin(found)]
    print(f"{name}: peak {peaks[jnp.nanargmin(found)]:.3g}, validation loss {jnp.nanmin(found):.3f}")
start = {"rate": np.asarray(chosen["best constant"])}
tuning = sweeps.descend(recipe, start, train, valid, key=KEY, steps=STEPS, updates=UPDATES, per_step=["rate"])
chosen["learned"] = jnp.asarray(tuning.hparams["rate"])
print(f"learned: validation loss {tuning.valid_loss:.3f} after {UPDATES} updates")
rate_losses = {name: np.asarray(on_test(rates)) for name, rates in chosen.items()}

# %% [markdown]
# A penalty for each layer
# ------------------------
#
# The same with L2 penalties, after a longer training with a constant rate. The rival is the best single strength for all layers.


# %%
RATE = 0.03


def with_penalties(strengths, judges, key):
    hp = {"rate": RATE, "l2": dict(zip(LAYERS, strengths, strict=True))}
    return sweeps.validation_loss(recipe, hp, train, judges, key=key, steps=LONG)


strengths = jnp.geomspace(1e-5, 0.3, GRID)
found = jax.jit(jax.vmap(lambda own: with_penalties([own] * 3, valid, KEY)))(strengths)
best = strengths[jnp.nanargmin(found)]
hold_rate = lambda hp: recipe({"rate": RATE, **hp})  # noqa: E731, so that the penalties alone are learned
start = {"l2": {name: float(best) for name in LAYERS}}
learned = sweeps.descend(hold_rate, start, train, valid, key=KEY, steps=LONG, updates=UPDATES)
candidates = {
    "no penalty": [0.0] * 3,
    "best single": [float(best)] * 3,
    "learned": [float(learned.hparams["l2"][name]) for name in LAYERS],
}
judge = jax.jit(lambda strengths: jax.vmap(lambda key: with_penalties(strengths, test, key))(TEST_KEYS))
penalty_losses = {name: np.asarray(judge(jnp.array(own))) for name, own in candidates.items()}

# %%
figure, panels = plt.subplots(1, 3, figsize=(12.6, 3.8), layout="constrained")
for (name, rates), style in zip(chosen.items(), ("-", "--", "-"), strict=True):
    panels[0].plot(range(1, STEPS + 1), rates, style, label=name, color="0.55" if name != "learned" else "#0072B2")
panels[0].set(title="Learning rates", xlabel="step", ylabel="learning rate", yscale="log")
panels[0].legend(frameon=False)
for index, name in enumerate(LAYERS):
    path = learned.visited["l2"][name]
    panels[1].plot(path, ("-", "--", ":")[index], label=f"layer {index + 1}", color=("#0072B2", "#E69F00", "#009E73")[index])
panels[1].set(title="L2 penalties while they are learned", xlabel="update", ylabel="strength", yscale="log")
panels[1].legend(frameon=False)
plots.plot_means(
    {"rates": {f"{name}": own for name, own in rate_losses.items()}, "penalties": penalty_losses},
    ylabel="test loss, other seeds", ax=panels[2],
)  # fmt: skip
figure.savefig(OUT / "meta_learning.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------


# %%
def difference(first, second):
    """The mean over seeds of first - second, and half of its 95 % interval."""
    gap = first - second
    return gap.mean(), student.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))


for what, own, rivals in (
    ("A rate for each step", rate_losses, ("best constant", "best one-cycle")),
    ("A penalty for each layer", penalty_losses, ("no penalty", "best single")),
):
    for rival in rivals:
        gap, half = difference(own["learned"], own[rival])
        verdict = "is better than" if gap + half < 0 else "is worse than" if gap - half > 0 else "is not told apart from"
        print(f"{what} {verdict} {rival}: test loss {gap:+.3f} ± {half:.3f} over {len(TEST_KEYS)} new seeds.")
