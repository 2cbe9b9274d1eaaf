"""Points at which several kinks meet: what JAX derives there need be no slope of f."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients

KEY = jax.random.key(0)


def identity(x):
    """x, by two functions whose slope JAX takes for 0 at 0: so it derives 0 where the slope is 1."""
    return jax.nn.relu(x) - jax.nn.relu(-x)


@pytest.mark.parametrize("each_leaf", [True, False])
def test_a_convention_that_is_no_slope_is_neither_right_nor_wrong(each_leaf):
    report = check_gradients(
        lambda w: jnp.sum(identity(w["a"]) * (1.0 + w["b"])),
        {"a": np.zeros(3, np.float32), "b": np.ones(3, np.float32)},
        key=KEY,
        each_leaf=each_leaf,
    )
    a, b = report.leaves
    assert (a.verdict, b.verdict) == ("INCONCLUSIVE", "DEAD")
    assert a.hypothesis.startswith("several kinks meet")


def _of_sums(op, w):
    """Where w0 to w5 move alike there is only op's kink; lines of signs may cross none, or both, seldom op's alone."""
    u, v = w[0] + w[1], w[2] + w[3] + w[4] + w[5]
    return op(u) + 100.0 * jnp.abs(2 * u - v)


def test_kinks_that_meet_where_coordinates_move_alike_are_neither_right_nor_wrong():
    w = np.zeros(20, np.float32)
    for seed in range(8):
        (leaf,) = check_gradients(lambda w: _of_sums(identity, w), w, key=jax.random.key(seed)).leaves
        assert leaf.verdict == "INCONCLUSIVE" and leaf.hypothesis.startswith("several kinks meet")
    by_hand = lambda w: jnp.where(jnp.arange(20) < 2, 2.0, 0.0)  # noqa: E731
    assert check_gradients(lambda w: _of_sums(identity, w), w, grad_fn=by_hand, key=KEY).verdict == "FAIL"


def test_a_wrong_rule_at_such_a_point_is_wrong():
    op = jax.custom_vjp(jnp.sin)
    op.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (3 * ct * jnp.cos(x),))  # twice would make up for it, by chance
    report = check_gradients(lambda w: jnp.sum(op(identity(w) + w)), np.zeros(3, np.float32), key=KEY)
    assert report.verdict == "FAIL"
    by_hand = check_gradients(
        lambda w: jnp.sum(identity(w)), np.zeros(3, np.float32), grad_fn=lambda w: np.full(3, 2.0), key=KEY
    )
    assert by_hand.verdict == "FAIL"


def test_a_wrong_claim_beside_kinks_is_wrong():
    """One coordinate at the kinks, the others well away from them."""
    w = np.array([0.0, 1.0, -2.0], np.float32)
    claim = lambda w: np.array([0.0, 1.0, 1.5])  # noqa: E731
    report = check_gradients(lambda w: jnp.sum(identity(w)), w, grad_fn=claim, key=KEY)
    assert report.verdict == "FAIL"


def test_ties_under_the_stopped_maximum_of_logsumexp_block_nothing():
    w = np.array([1.0, 1.0, -1.0, 0.0], np.float32)
    kinked = lambda w: jax.nn.logsumexp(jax.nn.leaky_relu(w) - jnp.abs(w - 1.0))  # noqa: E731
    assert check_gradients(lambda w: kinked(identity(w)), w, key=KEY).verdict in ("KINK_OK", "INCONCLUSIVE")
    blocked = check_gradients(lambda w: jnp.sum(w * jax.lax.stop_gradient(identity(w) + w)), w, key=KEY)
    assert blocked.verdict == "BLOCKED"


@pytest.mark.slow
def test_a_stop_gradient_that_no_derivative_passes_through_blocks_nothing():
    """Second order where max² has two kinks that meet, beside a logsumexp that stops the gradient of its maximum."""
    shift = np.array([1.0, 1.0, -1.0, -1.0, -1.0], np.float32)
    f = lambda b: jnp.max(b) ** 2 + jax.nn.logsumexp(b - shift)  # noqa: E731
    for seed in range(12):
        report = check_gradients(f, np.array([0, -2, -1, 0, -2], np.float32), key=jax.random.key(seed), order=2)
        assert report.second.verdict in ("KINK_OK", "INCONCLUSIVE"), report
