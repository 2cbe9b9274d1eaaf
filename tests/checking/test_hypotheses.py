"""What is wrong, in words: each planted error is named by the rule that made it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients
from jaxopt_nn.checking.hypotheses import name_ratio

KEY = jax.random.key(0)
W = np.random.default_rng(0).standard_normal((6, 6))
X = np.random.default_rng(1).standard_normal((16, 6))


def data_term(w, x):
    return jnp.mean(jnp.tanh(x @ w) ** 2)


def loss(w, x):
    return (
        data_term(w, x) + 0.01 * jnp.sum(w**2) + 0.1 * jnp.sum(jnp.sin(w))  # a term on a line of its own
    )


RIGHT = jax.grad(data_term)


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        (lambda w, x: 2 * jax.grad(loss)(w, x), "ratio 2.0000±"),
        (lambda w, x: jax.grad(loss)(w, x) / 2, "half the numeric gradient"),
        (lambda w, x: jax.grad(loss)(w, x) * 16 / 15, "B/(B-1) with B = 16"),
        (lambda w, x: jax.grad(loss)(w, x) / 0.8, "1/keep with keep = 0.8"),
        (lambda w, x: jax.grad(loss)(w, x) * 16, "B with B = 16: a sum for a mean"),
        (lambda w, x: -jax.grad(loss)(w, x), "the sign is flipped"),
        (lambda w, x: 0 * w, "claimed is zero on args[0]"),
        (lambda w, x: jax.grad(loss)(w, x).T, "transpose of the numeric gradient on args[0]"),
        (lambda w, x: jax.grad(loss)(w, x) + 0.02 * w, "term 2 of 3 of f (test_hypotheses.py:2"),
        (lambda w, x: jax.grad(loss)(w, x) - 0.1 * jnp.cos(w), ") is missing in the claimed gradient on args[0]"),
        (lambda w, x: jax.grad(loss)(w, x) + 0.5 * w, "claimed - numeric = λ·w with λ = 0.5"),
        (lambda w, x: jax.grad(loss)(w, x).at[2, 3].add(1e-6), "1 of 36 coordinates are wrong; worst at [2, 3]"),
    ],
)
def test_planted_errors_are_named(claim, says):
    with jax.enable_x64(True):
        report = check_gradients(loss, W, X, argnums=0, grad_fn=claim, key=KEY)
    assert report.verdict == "FAIL"
    assert says in report.leaves[0].hypothesis


def test_a_ratio_that_nobody_knows_has_no_name():
    assert name_ratio(1.2345, 1e-9, [10]) == ""
    assert name_ratio(1.25, 1e-9, [5]) == "B/(B-1) with B = 5: divided by B - 1 for B"
