"""Schedules against PyTorch's live schedulers, with random settings."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import schedules

pytest.importorskip("torch")
SETTINGS, STEPS = 200, 50


def _golden():
    path = Path(__file__).parent.parent / "schedules" / "golden" / "make.py"
    spec = importlib.util.spec_from_file_location("golden_schedules", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _integers(low, high, size=None):
    return lambda rng: np.sort(rng.integers(low, high, size)).tolist() if size else int(rng.integers(low, high))


def _uniform(low, high):
    return lambda rng: float(rng.uniform(low, high))


def _one_cycle(n, anneal, three):
    fraction = {"final_fraction": 2 * n["pct_start"]} if three else {}
    return schedules.one_cycle(
        n["rate"],
        STEPS,
        warmup_fraction=n["pct_start"],
        **fraction,
        div_factor=n["div_factor"],
        final_div_factor=n["final_div_factor"],
        anneal=anneal,
        convention="torch",
    )


CYCLE = {"pct_start": _uniform(0.03, 0.49), "div_factor": _uniform(1, 50), "final_div_factor": _uniform(1, 1e5)}
# PyTorch's name, its options that are random, those that are not, and ours
ROWS = [
    (
        "StepLR",
        {"step_size": _integers(1, 20), "gamma": _uniform(0.05, 1.2)},
        {},
        lambda n: schedules.step_decay(n["rate"], n["step_size"], n["gamma"]),
    ),
    (
        "MultiStepLR",
        {"milestones": _integers(1, 60, 4), "gamma": _uniform(0.05, 1.2)},
        {},
        lambda n: schedules.multi_step_decay(n["rate"], n["milestones"], n["gamma"]),
    ),
    (
        "ExponentialLR",
        {"gamma": _uniform(0.7, 1.05)},
        {},
        lambda n: schedules.exponential_decay(n["rate"], 1, n["gamma"]),
    ),
    (
        "PolynomialLR",
        {"total_iters": _integers(1, 80), "power": _uniform(0.3, 4)},
        {},
        lambda n: schedules.polynomial_decay(n["rate"], n["total_iters"], n["power"]),
    ),
    (
        "LinearLR",
        {"start_factor": _uniform(0.1, 1), "end_factor": _uniform(0.1, 1), "total_iters": _integers(1, 80)},
        {},
        lambda n: schedules.linear(n["rate"] * n["start_factor"], n["rate"] * n["end_factor"], n["total_iters"]),
    ),
    (
        "CosineAnnealingWarmRestarts",
        {"T_0": _integers(1, 20), "T_mult": _integers(1, 4), "eta_min": _uniform(0, 0.05)},
        {},
        lambda n: schedules.cosine_restarts(n["rate"], n["T_0"], t_mult=n["T_mult"], alpha=n["eta_min"] / n["rate"]),
    ),
    ("OneCycleLR", CYCLE, {"anneal_strategy": "cos"}, lambda n: _one_cycle(n, "cosine", False)),
    ("OneCycleLR", CYCLE, {"anneal_strategy": "linear"}, lambda n: _one_cycle(n, "linear", False)),
    ("OneCycleLR", CYCLE, {"three_phase": True}, lambda n: _one_cycle(n, "cosine", True)),
]


@pytest.mark.parametrize(("name", "options", "fixed", "ours"), ROWS, ids=[f"{i}-{r[0]}" for i, r in enumerate(ROWS)])
def test_it_equals_torch(name, options, fixed, ours):
    rng, golden = np.random.default_rng(0), _golden()
    fixed = fixed | ({"total_steps": STEPS} if name == "OneCycleLR" else {})
    given, expected = [], []
    for _ in range(SETTINGS):
        drawn, rate = {key: draw(rng) for key, draw in options.items()}, float(rng.uniform(0.05, 2))
        given.append({key: np.array(value) for key, value in drawn.items()} | {"rate": rate})
        expected.append(golden.learning_rates(name, drawn | fixed, rate, STEPS))
    lanes = {key: np.stack([numbers[key] for numbers in given]) for key in given[0]}
    for x64, rtol, atol in ((False, 1e-4, 1e-6), (True, 1e-12, 1e-15)):
        with jax.enable_x64(x64):
            rates = jax.jit(jax.vmap(lambda numbers: ours(numbers)(jnp.arange(STEPS))))(lanes)
            np.testing.assert_allclose(rates, expected, rtol=rtol, atol=atol)
