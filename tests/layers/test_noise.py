"""Gaussian noise: its law, and what it depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxopt_nn import layers


def noisy(stddev, key, x, train=True):
    return layers.gaussian_noise(stddev).apply({}, {}, x, train=train, key=key, weight=None)[0]


def test_it_is_normal_noise_of_the_given_deviation():
    noise = np.asarray(noisy(0.25, jax.random.key(0), jnp.full((40, 1000), 3.0))) - 3
    assert scipy.stats.kstest(noise.ravel() / 0.25, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(noise[:20].ravel(), noise[20:].ravel())[0, 1]) < 0.03


def test_it_differs_by_key_and_vanishes_in_evaluation():
    x = jnp.zeros((2, 100))
    first, second = noisy(1.0, jax.random.key(0), x), noisy(1.0, jax.random.key(1), x)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3
    assert noisy(1.0, None, x, train=False) is x


def test_the_deviation_may_be_traced():
    x, key = jnp.zeros((2, 8)), jax.random.key(0)
    lanes = jax.vmap(lambda stddev: noisy(stddev, key, x))(jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(lanes[0], x)
    np.testing.assert_allclose(lanes[2], 2 * lanes[1], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda s: noisy(s, key, x).sum())(0.5), lanes[1].sum(), rtol=1e-5)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"^stddev: expected a finite number in \[0, inf\), got -1"):
        layers.gaussian_noise(-1.0)
    with pytest.raises(ValueError, match=r"^key: expected a PRNG key in training, got None"):
        noisy(1.0, None, jnp.ones(3))
    with pytest.raises(TypeError, match=r"expected floating-point input, got int32"):
        noisy(1.0, jax.random.key(0), jnp.ones((2, 3), int))
    with pytest.raises(TypeError, match=r"expected floating-point input, got int32"):
        layers.gaussian_noise(1.0).init(jax.random.key(0), jnp.ones((2, 3), int))
