"""Leaves of which some coordinates meet a kink: a claim is wrong beside them, at them, or not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients

KEY = jax.random.key(0)
KINKS = {
    "l1": jnp.abs,
    "relu": jax.nn.relu,
    "max": lambda w: jnp.maximum(w, -0.5 * w),
    "hinge": lambda w: jnp.maximum(0.0, 1.0 - (1.0 + w)),
    "clip": lambda w: jnp.clip(w, 0.0, 1.0),
    "quantile": lambda w: jnp.maximum(0.3 * w, -0.7 * w),
    "both_signs": lambda w: jnp.where(jnp.arange(w.size) % 2, 1.0, -1.0) * jnp.abs(w),
}


def sparse(size, zeros, seed=0):
    """Weights, and the data of a regression on them."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(size)
    w[rng.random(size) < zeros] = 0
    return w, rng.standard_normal((40, size)) / 10, rng.standard_normal(40)


def regression(kink, opaque):
    def f(w, a, y):
        value = lambda w: jnp.mean((a @ w - y) ** 2) + 0.05 * jnp.sum(kink(w))  # noqa: E731
        if not opaque:
            return value(w)
        return jax.lax.while_loop(lambda c: c[1] < 1, lambda c: (value(w), c[1] + 1), (jnp.zeros(()), 0))[0]

    def claim(times=1.0, place=0, by=0.0):
        slope = jax.grad(lambda w: jnp.sum(kink(w)))
        return lambda w, a, y: (times * 2 * a.T @ (a @ w - y) / 40 + 0.05 * slope(w)).at[place].add(by)

    return f, claim


def verdict(f, claim, args, **options):
    with jax.enable_x64(True):
        return check_gradients(f, *args, argnums=0, grad_fn=claim, key=options.pop("key", KEY), **options)


@pytest.mark.parametrize("opaque", [False, True], ids=["exact", "opaque"])
@pytest.mark.parametrize("kink", KINKS)
def test_what_is_wrong_beside_kinks_or_at_them_is_found(kink, opaque):
    f, claim = regression(KINKS[kink], opaque)
    args = sparse(100, 0.5)
    zero, other = (int(np.flatnonzero(mask)[3]) for mask in (args[0] == 0, args[0] != 0))
    right = verdict(f, claim(), args)
    assert right.verdict == "KINK_OK", right
    assert right.leaves[0].miss_bound == np.inf  # kinked lines bound nothing
    assert "others an error of" in right.leaves[0].hypothesis
    for wrong in (claim(2.0), claim(1.01), claim(1.0, other, 0.01), claim(1.0, zero, 0.2)):
        assert verdict(f, wrong, args).verdict == "FAIL"


def test_the_cause_is_named_beside_kinks():
    f, claim = regression(jnp.abs, False)
    leaf = verdict(f, claim(2.0), sparse(100, 0.5)).leaves[0]
    assert leaf.hypothesis.startswith("term 1 of 2 of f (test_kinks.py:")
    assert "counts twice" in leaf.hypothesis


@pytest.mark.parametrize("zeros", [0.1, 0.9])
@pytest.mark.parametrize("opaque", [False, True], ids=["exact", "opaque"])
def test_a_leaf_too_large_for_each_coordinate_is_parted_too(opaque, zeros):
    f, claim = regression(jnp.abs, opaque)
    args = sparse(300, zeros)
    options = {"max_coordinates": 64}
    assert verdict(f, claim(), args, **options).verdict == "KINK_OK"
    assert verdict(f, claim(2.0), args, **options).verdict == "FAIL"
    outside = lambda w, a, y: jnp.where(w == 0, 0.1, claim()(w, a, y))  # noqa: E731, at every kink
    assert verdict(f, outside, args, **options).verdict == "FAIL"


def test_any_subgradient_is_right():
    f, claim = regression(jnp.abs, False)
    args = sparse(100, 0.5)
    inside = np.random.default_rng(1).uniform(-0.05, 0.05, 100)
    chosen = lambda by: lambda *args: claim()(*args) + (args[0] == 0) * (by * inside - 0.05 * jax.grad(jnp.abs)(0.0))  # noqa: E731
    assert verdict(f, chosen(1.0), args).verdict == "KINK_OK"
    assert verdict(f, chosen(1.5), args).verdict == "FAIL"


def test_ties_of_many_are_parted_by_differences():
    """Next to the point one of the tied is the maximum: the gradient there shows two of the many kinks."""
    f = lambda w: jnp.max(w[:30]) + jnp.sum(jnp.sin(w))  # noqa: E731
    w = np.concatenate([np.ones(30), np.linspace(-1, 0.5, 40)])
    with jax.enable_x64(True):
        assert check_gradients(f, w, key=KEY).verdict == "KINK_OK"
        first = lambda w: jnp.cos(w).at[7].add(1.0)  # noqa: E731, all of it to one of them
        assert check_gradients(f, w, grad_fn=first, key=KEY).verdict == "KINK_OK"
        wrong = lambda w: jax.grad(f)(w).at[50].add(0.01)  # noqa: E731
        assert check_gradients(f, w, grad_fn=wrong, key=KEY).verdict == "FAIL"


def test_a_stop_gradient_beside_kinks_is_named():
    f = lambda w: jnp.sum(jnp.sin(w) * jax.lax.stop_gradient(w + 2.0)) + 5 * jnp.sum(jnp.abs(w))  # noqa: E731
    report = check_gradients(f, sparse(100, 0.5)[0], key=KEY)
    assert report.verdict == "BLOCKED", report
