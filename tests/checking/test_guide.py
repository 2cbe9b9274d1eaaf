"""What docs/gradient_checking.md says, sentence by sentence, where no other test does."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients

GUIDE = (Path(__file__).parents[2] / "docs" / "gradient_checking.md").read_text()
KEY = jax.random.key(0)


def test_the_table_of_steps():
    """Errors of plain differences by step, within a factor of 3 where truncation decides, 30 where round-off does."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((128, 20)), rng.standard_normal((128, 5))
    w, v = rng.standard_normal((20, 64)) / np.sqrt(20), rng.standard_normal((64, 5)) / 8
    rows = re.findall(r"^\| 1e-(\d) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", GUIDE, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [2, 3, 4, 5, 6, 7]

    def loss(w, dtype):
        return np.mean((np.tanh(x.astype(dtype) @ w) @ v.astype(dtype) - y.astype(dtype)) ** 2, dtype=dtype)

    hidden = np.tanh(x @ w)
    gradient = x.T @ ((2 * (hidden @ v - y) / y.size) @ v.T * (1 - hidden**2))
    coordinates = [(i, j) for i in range(20) for j in range(10)]
    for exponent, *expected in rows:
        h = 10.0 ** -int(exponent)
        found = []
        for dtype in (np.float64, np.float32):
            point = w.astype(dtype)
            numeric = np.zeros((2, len(coordinates)))
            for k, place in enumerate(coordinates):
                up, down = point.copy(), point.copy()
                up[place] += dtype(h)
                down[place] -= dtype(h)
                above, middle, below = (float(loss(one, dtype)) for one in (up, point, down))
                numeric[:, k] = (above - middle) / h, (above - below) / (2 * h)
            claimed = np.array([gradient[place] for place in coordinates])
            norms = np.linalg.norm(claimed) + np.linalg.norm(numeric, axis=1)
            found += list(np.linalg.norm(numeric - claimed, axis=1) / norms)
        for value, text in zip(found, expected, strict=True):
            assert value == pytest.approx(float(text), rel=30) and value > float(text) / 30, (exponent, value, text)


def test_a_right_gradient_costs_what_the_guide_says_and_leaves_nothing_behind():
    params = {"a": np.linspace(0.1, 1, 40, dtype=np.float32), "b": np.ones(3, np.float32)}
    before = jax.config.jax_enable_x64
    report = check_gradients(lambda p: jnp.sum(jnp.sin(p["a"])) + jnp.sum(p["b"] ** 2), params, key=KEY)
    assert report and f"{report.evaluations} evaluations of f" in GUIDE
    assert report.leaves[0].relative_error < 1e-9 and report.miss_probability == 1e-3
    assert jax.config.jax_enable_x64 == before and jnp.ones(1).dtype == (np.float64 if before else np.float32)
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("f", "point", "options", "verdict"),
    [
        (lambda x: jnp.sum(jnp.sin(x)), np.ones(3), {}, "PASS"),
        (lambda x: jnp.sum(jax.nn.relu(x)), np.zeros(3), {}, "KINK_OK"),
        (lambda x: jnp.sum(jnp.floor(x)), np.full(3, 0.5), {}, "DEAD"),
        (lambda x: jnp.sum(x), np.ones(3), {"grad_fn": lambda x: 1.01 * np.ones(3)}, "FAIL"),
        (lambda x: jnp.sum(x * jax.lax.stop_gradient(x)), np.ones(3), {}, "BLOCKED"),
        (lambda x: jnp.sum(x * jax.lax.stop_gradient(x)), np.ones(3), {"stop_gradient": "constant"}, "PASS"),
        (lambda x: jnp.sum(jax.nn.relu(x) - jax.nn.relu(-x)), np.zeros(3), {}, "INCONCLUSIVE"),
    ],
)
def test_the_verdicts(f, point, options, verdict):
    report = check_gradients(f, point, key=KEY, **options)
    assert report.verdict == verdict
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| {verdict} "))
    assert bool(report) == row.endswith("| yes |")


def test_two_calls_that_differ():
    calls = iter(range(1000))
    report = check_gradients(lambda x: jnp.sum(x) * next(calls), np.ones(3), key=KEY)
    assert report.verdict == "NONDETERMINISTIC" and "| NONDETERMINISTIC | two calls differ" in GUIDE
