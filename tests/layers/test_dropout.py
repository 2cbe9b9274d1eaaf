"""Dropout's masks: their law, and what they depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers

SIZE = 200_000


def dropped(drop_rate, key, x):
    return layers.dropout(drop_rate).apply({}, {}, x, train=True, key=key, weight=None)[0]


@pytest.mark.parametrize("drop_rate", [0.0, 0.1, 0.5, 0.9])
def test_expectation_and_variance(drop_rate):
    y = np.asarray(dropped(drop_rate, jax.random.key(0), jnp.ones((1, SIZE))), np.float64)
    variance = drop_rate / (1 - drop_rate)
    assert abs(y.mean() - 1) <= 4 * np.sqrt(variance / SIZE)
    np.testing.assert_allclose(y.var(), variance, rtol=0.03, atol=1e-12)
    assert abs(np.mean(y == 0) - drop_rate) <= 4 * np.sqrt(drop_rate * (1 - drop_rate) / SIZE)


def test_evaluation_is_the_identity():
    x = jax.random.normal(jax.random.key(0), (3, 7))
    y, _ = layers.dropout(0.9).apply({}, {}, x, train=False, key=None, weight=None)
    assert y is x


def test_masks_differ_by_key_and_units_are_independent():
    x = jnp.ones((2, SIZE // 2))
    first, second = dropped(0.5, jax.random.key(0), x) > 0, dropped(0.5, jax.random.key(1), x) > 0
    for a, b in [(first, second), (first[0], first[1])]:
        assert abs(float(jnp.mean(a == b)) - 0.5) < 0.01


def test_the_rate_may_be_traced_swept_and_differentiated():
    x, key = jnp.ones((1, 64)), jax.random.key(0)
    rates = jnp.array([0.0, 0.25, 0.5])
    lanes = jax.vmap(lambda rate: dropped(rate, key, x))(rates)
    for rate, lane in zip([0.0, 0.25, 0.5], lanes, strict=True):
        np.testing.assert_array_equal(lane, dropped(rate, key, x))
    slope = jax.grad(lambda rate: dropped(rate, key, x).sum())(0.5)
    np.testing.assert_allclose(slope, 4.0 * np.sum(np.asarray(lanes[2]) > 0))  # d/dp 1/(1-p) = 1/(1-p)^2


def test_gradient_passes_through_kept_units_only():
    x, key = jax.random.normal(jax.random.key(5), (4, 50)), jax.random.key(0)
    gradient = jax.grad(lambda x: dropped(0.2, key, x).sum())(x)
    np.testing.assert_allclose(gradient, np.where(dropped(0.2, key, x) == 0, 0, 1 / 0.8), rtol=1e-6)
