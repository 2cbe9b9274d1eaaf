"""Schedules equal those of optax, as it runs, and those of PyTorch, from its recorded learning rates."""

import json
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
