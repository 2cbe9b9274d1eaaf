"""
Schedules
=========

Should the learning rate change while a network is trained? A range test finds which rates are worth trying. Then seven
schedules train the same network for the same number of steps, each with its own best peak rate: once with the true
labels, which the network learns by heart, and once with a fifth of the training labels drawn at random.
"""

# %%
import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import data, layers, losses, metrics, optimizers, plots, schedules, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
EPOCHS, SEEDS = (4, range(2)) if QUICK else (20, range(6))
RATES = [0.01, 0.1] if QUICK else [10 ** (power / 4) for power in range(-12, -2)]
BATCH_SIZE = 32

train, valid = data.split(KEY, data.load_digits(), (0.5, 0.5))
scaler = data.fit_standard_scaler(train.x)
train, valid = data.transform(scaler, train), data.transform(scaler, valid)
which, what = jax.random.split(KEY)
drawn = jax.random.randint(what, train.y.shape, 0, 10)
noisy = train._replace(y=np.where(jax.random.bernoulli(which, 0.2, train.y.shape), drawn, train.y))
SETS = {"true labels": train, "a fifth of the labels at random": noisy}
STEPS = EPOCHS * -(-len(train.y) // BATCH_SIZE)
WARM = STEPS // 10

# %% [markdown]
# Seven schedules
# ---------------
#
# Each is a function of a peak rate. The plateau is no function of the step: it multiplies the rate by 0.3 when the
# validation loss has not improved for three epochs.

# %%
SCHEDULES = {
    "constant": schedules.constant,
    "step": lambda peak: schedules.step_decay(peak, STEPS // 3, 0.1),
    "exponential": lambda peak: schedules.exponential_decay(peak, STEPS, 0.01),
    "cosine": lambda peak: schedules.cosine_decay(peak, STEPS),
    "warm-up, cosine": lambda peak: schedules.warmup(schedules.cosine_decay(peak, STEPS - WARM), WARM),
    "one-cycle": lambda peak: schedules.one_cycle(peak, STEPS),
    "plateau": schedules.constant,
}
NAMES = ["constant", "cosine"] if QUICK else list(SCHEDULES)
figure = plots.plot_schedules(
    {name: SCHEDULES[name](1.0) for name in NAMES if name != "plateau"}, STEPS, steps_per_epoch=STEPS // EPOCHS,
    title="Learning rate, as a share of the peak",
)  # fmt: skip
figure.savefig(OUT / "schedules.png", dpi=120)
figure


# %%
def recipe(hp):
    plateau = optimizers.reduce_on_plateau(0.3, patience=3) if hp["schedule"] == "plateau" else None
    return training.Recipe(
        model=layers.mlp([32, 32, 10]),
        loss=losses.softmax_cross_entropy,
        metrics={"error": lambda outputs, labels: 100 * (1 - metrics.accuracy(outputs, labels))},  # percent
        optimizer=optimizers.sgd(SCHEDULES[hp["schedule"]](hp["rate"]), momentum=0.9),
        plateau=plateau,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
    )


# %% [markdown]
# The range test
# --------------
#
# One short run in which the rate grows from step to step (Smith 2017). Too small a rate leaves the loss where it is,
# too large a one makes it explode. It suggests a tenth of the rate with the least loss.

# %%
test = training.learning_rate_range_test(
    lambda rate: recipe({"schedule": "constant", "rate": rate}), train, key=KEY, low=1e-4, high=10.0, steps=150
)
figure = plots.plot_range_test(test, title="Range test: SGD with momentum 0.9")
figure.savefig(OUT / "schedules_range_test.png", dpi=120)
figure

# %% [markdown]
# Every schedule with every rate
# ------------------------------
#
# An equal budget: the same rates and seeds for each. The darker, the better; a white cell: a seed diverged.

# %%
space = sweeps.grid(schedule=NAMES, rate=RATES, seed=SEEDS)
results = {
    label: sweeps.sweep(recipe, space, own, valid, key=KEY, objective="valid_error") for label, own in SETS.items()
}
figure, axes = plt.subplots(2, 1, figsize=(8.5, 7.5), layout="constrained")
for ax, (label, result) in zip(axes, results.items(), strict=True):
    plots.plot_heat_map(result, "rate", "schedule", ax=ax)
    ax.set(title=f"Validation error in %, {label}", xlabel="peak learning rate")
figure.savefig(OUT / "schedules_rates.png", dpi=120)
figure

# %% [markdown]
# Each at its best rate. Where intervals overlap, the comparison seed by seed (below) may still be decided.

# %%
figure, axes = plt.subplots(1, 2, figsize=(11.5, 4), layout="constrained")
best = {label: {part.value: part.best for part in result.isolate("schedule")} for label, result in results.items()}
for ax, (label, result) in zip(axes, results.items(), strict=True):
    runs = {name: [{**best[label][name].hparams, "seed": seed} for seed in SEEDS] for name in NAMES}
    errors = {name: [result.history(run)["valid_error"][-1] for run in runs[name]] for name in NAMES}
    plots.plot_bars(errors, xlabel="validation error, % (95 % interval over seeds)", ax=ax)
    ax.set_title(label)
figure.savefig(OUT / "schedules_best.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
for label, result in results.items():
    print(f"With {label}:")
    verdicts = {}
    for name in NAMES:
        own = best[label][name]
        tried = [each for each in result.configurations() if each.hparams["schedule"] == name and each.sound]
        good = [each.hparams["rate"] for each in tried if each.value <= own.value + 0.5]
        against = result.compare(own.hparams, best[label]["constant"].hparams)
        verdicts[name] = "itself" if name == "constant" else against.verdict
        print(
            f"  {name:15s} error {own.value:5.2f} % ({own.low:.2f} to {own.high:.2f}), peak {own.hparams['rate']:.2g}; "
            f"within 0.5 % of it from {min(good):.2g} to {max(good):.2g}; "
            f"against constant {verdicts[name]} ({against.difference:+.2f} %)"
        )
    helps = [name for name, verdict in verdicts.items() if verdict == "better"]
    print(f"  This {'supports' if helps else 'does not support'} changing the rate: better are {helps or 'none'}.")
suggested, chosen = float(test.suggestion), best["true labels"]["constant"].hparams["rate"]
print(
    f"The range test suggests {suggested:.2g}; the best constant rate is {chosen:.2g}: "
    f"{'within' if 1 / 3.2 <= suggested / chosen <= 3.2 else 'not within'} a factor of 3."
)
