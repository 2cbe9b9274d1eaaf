"""Schedules equal those of optax, as it runs, and those of PyTorch, from its recorded learning rates."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import schedules
from tests.schedules.table import COUNTS

GOLDEN = json.loads((Path(__file__).parent / "golden" / "torch.json").read_text())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (schedules.exponential_decay(0.3, 7, 0.5), optax.exponential_decay(0.3, 7, 0.5)),
        (
            schedules.exponential_decay(0.3, 7, 0.5, staircase=True),
            optax.exponential_decay(0.3, 7, 0.5, staircase=True),
        ),
        (schedules.step_decay(0.3, 7, 0.5), optax.exponential_decay(0.3, 7, 0.5, staircase=True)),
        (schedules.step_decay(0.3, 20, 0.5), optax.piecewise_constant_schedule(0.3, {20: 0.5, 40: 0.5})),
        (schedules.cosine_decay(0.3, 40), optax.cosine_decay_schedule(0.3, 40)),
        (schedules.cosine_decay(0.3, 40, alpha=0.2), optax.cosine_decay_schedule(0.3, 40, alpha=0.2)),
        (schedules.warmup(0.3, 8), optax.warmup_constant_schedule(0.0, 0.3, 8)),
        (schedules.warmup(0.3, 8, 0.1), optax.warmup_constant_schedule(0.1, 0.3, 8)),
        (
            schedules.warmup(schedules.cosine_decay(0.3, 40, alpha=0.1), 8, 0.05),
            optax.warmup_cosine_decay_schedule(0.05, 0.3, 8, 48, end_value=0.03),
        ),
        (
            schedules.warmup(schedules.exponential_decay(0.3, 7, 0.5), 8),
            optax.warmup_exponential_decay_schedule(0.0, 0.3, 8, 7, 0.5),
        ),
        (
            schedules.warmup(optax.cosine_decay_schedule(0.3, 40), 8),
            optax.warmup_cosine_decay_schedule(0.0, 0.3, 8, 48),
        ),
        (
            schedules.exponential_decay(0.3, 7, 0.5, end_value=0.02),
            optax.exponential_decay(0.3, 7, 0.5, end_value=0.02),
        ),
        (schedules.exponential_decay(0.1, 7, 1.5, end_value=0.4), optax.exponential_decay(0.1, 7, 1.5, end_value=0.4)),
        (
            schedules.multi_step_decay(0.3, [4, 33], [0.5, 3.0]),
            optax.piecewise_constant_schedule(0.3, {4: 0.5, 33: 3.0}),
        ),
        (schedules.polynomial_decay(0.3, 40, 2.5, end_value=0.1), optax.polynomial_schedule(0.3, 0.1, 2.5, 40)),
        (schedules.linear(0.1, 0.3, 40), optax.linear_schedule(0.1, 0.3, 40)),
        (
            schedules.join([schedules.cosine_decay(0.3, 20), schedules.cosine_decay(0.2, 30, alpha=0.1)], [20]),
            optax.sgdr_schedule(
                [
                    {"init_value": 0.3, "peak_value": 0.3, "warmup_steps": 0, "decay_steps": 20, "end_value": 0.0},
                    {"init_value": 0.2, "peak_value": 0.2, "warmup_steps": 0, "decay_steps": 30, "end_value": 0.02},
                ]
            ),
        ),
        (schedules.one_cycle(0.3, 50), optax.cosine_onecycle_schedule(50, 0.3)),
        (
            schedules.one_cycle(0.3, 40, warmup_fraction=0.25, div_factor=5.0, final_div_factor=10.0),
            optax.cosine_onecycle_schedule(40, 0.3, 0.25, 5.0, 10.0),
        ),
        (
            schedules.one_cycle(0.3, 40, warmup_fraction=0.25, final_fraction=0.75, anneal="linear"),
            optax.linear_onecycle_schedule(40, 0.3, 0.25, 0.75),
        ),
        (
            schedules.join(
                [optax.linear_schedule(0.1, 0.3, 9), 0.3, schedules.exponential_decay(0.3, 7, 0.5)], [9, 20]
            ),
            optax.join_schedules(
                [
                    optax.linear_schedule(0.1, 0.3, 9),
                    optax.constant_schedule(0.3),
                    optax.exponential_decay(0.3, 7, 0.5),
                ],
                [9, 20],
            ),
        ),
    ],
)
def test_values_equal_optax(ours, theirs):
    np.testing.assert_allclose(
        [ours(jnp.int32(c)) for c in COUNTS[::3]], [theirs(jnp.int32(c)) for c in COUNTS[::3]], rtol=3e-6, atol=1e-7
    )


# What Keras 3.15 gives for the schedules that the guide names beside ours, at these counts.
KERAS_COUNTS = [0, 1, 7, 8, 10, 11, 15, 16, 40, 55]
KERAS = {
    "ExponentialDecay": (
        lambda: schedules.exponential_decay(0.3, 7, 0.5),
        [0.3, 0.2717171, 0.15, 0.13585855, 0.11144957, 0.10094251, 0.06792928, 0.06152515, 0.00571413, 0.00129385],
    ),
    "ExponentialDecay(staircase=True)": (
        lambda: schedules.step_decay(0.3, 7, 0.5),
        [0.3, 0.3, 0.15, 0.15, 0.15, 0.15, 0.075, 0.075, 0.009375, 0.00234375],
    ),
    "PiecewiseConstantDecay": (  # of the boundaries 10 and 15
        lambda: schedules.multi_step_decay(0.3, [11, 16], [0.5, 0.2]),
        [0.3, 0.3, 0.3, 0.3, 0.3, 0.15, 0.15, 0.03, 0.03, 0.03],
    ),
    "PolynomialDecay": (
        lambda: schedules.polynomial_decay(0.3, 40, 2.5, end_value=0.1),
        [0.3, 0.28773344, 0.22364168, 0.21448669, 0.19742787, 0.18951073, 0.16176324, 0.15577097, 0.1, 0.1],
    ),
    "CosineDecay": (
        lambda: schedules.cosine_decay(0.3, 40, alpha=0.1),
        [0.3, 0.29958385, 0.28010643, 0.27421731, 0.26045945, 0.2526755, 0.21666227, 0.2067173, 0.03, 0.03],
    ),
    "CosineDecay(warmup_target=..., warmup_steps=...)": (
        lambda: schedules.warmup(schedules.cosine_decay(0.3, 40, alpha=0.1), 8, 0.05),
        [0.05, 0.08125, 0.26875, 0.3, 0.29833791, 0.29626992, 0.28010643, 0.27421731, 0.0557827, 0.03],
    ),
    "CosineDecayRestarts": (
        lambda: schedules.cosine_restarts(0.3, 7, t_mult=2.0, m_mult=0.7, alpha=0.1),
        [0.3, 0.28663078, 0.219, 0.2166307, 0.19838309, 0.18341979, 0.10347179, 0.08349797, 0.06095607, 0.12001152],
    ),
}


@pytest.mark.parametrize(("make", "rates"), KERAS.values(), ids=KERAS.keys())
def test_values_equal_keras(make, rates):
    np.testing.assert_allclose(make()(np.array(KERAS_COUNTS)), rates, rtol=1e-5, atol=1e-8)


def test_the_guide_names_what_there_is_and_its_first_example_runs():
    text = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    assert {row[0].strip("`") for row in rows} == set(schedules.__all__) - {"Schedule"}
    for row in rows:
        assert all(hasattr(optax, name) for name in re.findall(r"`(\w+)", row[1]))
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row[3])} == set(KERAS)
    names = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], names)
    assert [float(names["schedule"](count)) for count in (0, 1_000, 10_000)] == [0.0, pytest.approx(3e-4), 0.0]


def _like_torch(name, options, rate):
    """Our schedule for the options of one of PyTorch's schedulers."""
    match name:
        case "StepLR":
            return schedules.step_decay(rate, options["step_size"], options["gamma"])
        case "MultiStepLR":
            return schedules.multi_step_decay(rate, options["milestones"], options["gamma"])
        case "ExponentialLR":
            return schedules.exponential_decay(rate, 1, options["gamma"])
        case "PolynomialLR":
            return schedules.polynomial_decay(rate, options["total_iters"], options["power"])
        case "LinearLR":
            ends = (rate * options[key] for key in ("start_factor", "end_factor"))
            return schedules.linear(*ends, options["total_iters"])
        case "CosineAnnealingWarmRestarts":
            alpha = options["eta_min"] / rate
            return schedules.cosine_restarts(rate, options["T_0"], t_mult=options["T_mult"], alpha=alpha)
        case "OneCycleLR":
            numbers = {"warmup_fraction": options.get("pct_start", 0.3)}
            if options.get("three_phase"):
                numbers["final_fraction"] = 2 * numbers["warmup_fraction"]
            numbers |= {key: options[key] for key in ("div_factor", "final_div_factor") if key in options}
            anneal = options.get("anneal_strategy", "cos").replace("cos", "cosine")
            return schedules.one_cycle(rate, options["total_steps"], **numbers, anneal=anneal, convention="torch")
        case "SequentialLR":
            parts = [schedules.linear(0.1 * rate, rate, options["warmup"])]
            parts.append(schedules.exponential_decay(rate, 1, options["gamma"]))
            return schedules.join(parts, [options["warmup"]])


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=[f"{i}-{row['name']}" for i, row in enumerate(GOLDEN["rows"])])
def test_values_equal_torch(row):
    make = lambda: _like_torch(row["name"], row["options"], GOLDEN["learning_rate"])(COUNTS)  # noqa: E731
    np.testing.assert_allclose(make(), row["rates"], rtol=1e-5, atol=1e-8)
    with jax.enable_x64(True):
        np.testing.assert_allclose(make(), row["rates"], rtol=1e-13, atol=1e-16)
