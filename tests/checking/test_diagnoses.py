"""What is wrong, in words: each planted error is named by the rule that made it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients
from jaxopt_nn.checking._verdict.diagnoses import name_ratio

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
        (lambda w, x: jax.grad(loss)(w, x) + 0.02 * w, "term 2 of 3 of f (test_diagnoses.py:2"),
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


def test_a_ratio_that_nobody_knows_has_no_name_and_a_coincidence_is_hedged():
    assert name_ratio(1.2345, 1e-9, [10]) == ""
    assert (
        name_ratio(1.25, 1e-9, [5]) == "perhaps B/(B-1) with B = 5: divided by B - 1 for B, or 1/keep with keep = 0.8"
    )
    assert name_ratio(2 / 3, 1e-9, [3]).startswith("perhaps (B-1)/B with B = 3")
    assert name_ratio(8.0, 1e-9, [64]) == "√d with d = 64"
    assert name_ratio(1 / 8, 1e-9, [64]) == "1/√d with d = 64"


@pytest.mark.slow
def test_a_mask_that_was_divided_by_all_a_missing_step_and_a_clipped_gradient_have_names():
    rng = np.random.default_rng(0)
    x, mask = rng.standard_normal((40, 3)), np.arange(40) % 8 < 5
    masked = lambda w, x, m: jnp.sum(jnp.sin(x @ w) * m) / jnp.sum(m)  # noqa: E731
    over_all = lambda w, x, m: jax.grad(masked)(w, x, m) * 25 / 40  # noqa: E731
    report = check_gradients(masked, W[0, :3], x, mask, argnums=0, grad_fn=over_all, key=KEY)
    assert "k/B with k = 25 ones of B = 40 in a mask" in str(report)

    f = lambda x: jnp.sum(jnp.tanh(jnp.cumsum(x, 0)))  # noqa: E731
    for step, says in (
        (-1, "index 39 (the last) of axis 0: "),
        (2, "index 2 of axis 0: "),
    ):
        without = lambda x, step=step: jax.grad(f)(x).at[step].set(0)  # noqa: E731
        assert says in check_gradients(f, x, grad_fn=without, key=KEY).leaves[0].hypothesis

    def recurrence(w, x):
        return jnp.sum(jax.lax.scan(lambda h, row: (jnp.tanh(h @ w + row), None), jnp.zeros(3), x)[0] ** 2)

    def without_step(w, x, missing=2):
        """Backpropagation through time by hand, with one step's part of the gradient left out."""
        states = [jnp.zeros(3)]
        for row in x:
            states.append(jnp.tanh(states[-1] @ w + row))
        back, total = 2 * states[-1], jnp.zeros_like(w)
        for t in reversed(range(len(x))):
            slope = back * (1 - states[t + 1] ** 2)
            total = total + (t != missing) * jnp.outer(states[t], slope)
            back = w @ slope
        return total

    for f in (recurrence, jax.jit(recurrence)):
        report = check_gradients(f, W[:3, :3], x[:6], argnums=0, grad_fn=without_step, key=KEY)
        assert re.search(r"step 3 of 6 of the scan at .* is missing in the claimed", report.leaves[0].hypothesis)

    tree = {"a": W[0], "b": W[1:3]}
    f = lambda p: jnp.sum(jnp.sin(p["a"])) + jnp.sum(p["b"] ** 3)  # noqa: E731

    def clipped(p):
        found = jax.grad(f)(p)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in found.values()))
        return {name: g / norm for name, g in found.items()}

    report = check_gradients(f, tree, grad_fn=clipped, key=KEY)
    assert any(note.endswith("clipped to the norm 1?") for note in report.notes), report
