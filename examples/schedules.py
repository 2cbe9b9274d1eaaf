"""
Schedules
=========

Should the learning rate change while a network is trained? A range test finds which rates are worth trying. Then seven
schedules train the same network for the same number of steps, each with its own best peak rate.
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
EPOCHS, SEEDS = (4, range(2)) if QUICK else (30, range(6))
RATES = [0.01, 0.1] if QUICK else [10 ** (power / 4) for power in range(-10, 2)]
BATCH_SIZE = 32

train, valid = data.split(KEY, data.load_digits(), (0.5, 0.5))
scaler = data.fit_standard_scaler(train.x)
train, valid = data.transform(scaler, train), data.transform(scaler, valid)
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
result = sweeps.sweep(recipe, space, train, valid, key=KEY, objective="valid_error")
figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
plots.plot_heat_map(result, "rate", "schedule", ax=ax)
ax.set(title="Validation error after the last epoch, %", xlabel="peak learning rate")
figure.savefig(OUT / "schedules_rates.png", dpi=120)
figure

# %% [markdown]
# Each at its best rate
# ---------------------

# %%
best = {part.value: part.best for part in result.isolate("schedule")}
runs = {name: [result.history({**best[name].hparams, "seed": seed}) for seed in SEEDS] for name in NAMES}
figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.4), layout="constrained")
plots.plot_curves(result, "train_loss", by="schedule", ax=left)
left.set(ylabel="training loss", title="Each schedule at its best peak rate")
errors = {name: [run["valid_error"][-1] for run in runs[name]] for name in NAMES}
plots.plot_bars(errors, xlabel="validation error, % (95 % interval over seeds)", ax=right)
right.set_title("After the last epoch")
figure.savefig(OUT / "schedules_best.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
for name in NAMES:
    tried = [each for each in result.configurations() if each.hparams["schedule"] == name]
    good = [each.hparams["rate"] for each in tried if each.sound and each.value <= best[name].value + 0.5]
    print(
        f"{name:16s} best peak {best[name].hparams['rate']:<7.2g} validation error {best[name].value:.2f} % "
        f"({best[name].low:.2f} to {best[name].high:.2f}), "
        f"training loss {np.mean([run['train_loss'][-1] for run in runs[name]]):.4f}; "
        f"within 0.5 % for peaks from {min(good):.2g} to {max(good):.2g}"
    )
for name in NAMES[1:]:
    against = result.compare(best[name].hparams, best["constant"].hparams)
    print(
        f"{name} against constant, seed by seed: {against.verdict} "
        f"({against.difference:+.2f} %, {against.low:+.2f} to {against.high:+.2f})"
    )
print(result.expected_drop())
suggested, chosen = float(test.suggestion), best["constant"].hparams["rate"]
print(
    f"The range test suggests {suggested:.2g}; the best constant rate is {chosen:.2g}: "
    f"{'within' if 1 / 3.2 <= suggested / chosen <= 3.2 else 'not within'} a factor of 3."
)
