"""Mean-field theory against closed forms, and against a wide network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import initializers, layers, monitor


def test_linear_and_relu_are_geometric():
    for activation, power in ((lambda x: x, 1.44), (jax.nn.relu, 0.72), (lambda x: jnp.maximum(x, 0.5 * x), 0.9)):
        found = monitor.mean_field(activation, 6, gain=1.2, input_square=3.0)
        np.testing.assert_allclose(found.variance, 3 * 1.44 * power ** np.arange(6), rtol=1e-4)
        np.testing.assert_allclose(found.gradient, power ** np.arange(5, -1, -1.0), rtol=1e-4)


def test_erf_has_the_arcsine_of_williams():
    """E[erf(√q z)²] = 2/π · asin(2q / (1 + 2q))."""
    found = monitor.mean_field(jax.scipy.special.erf, 5, gain=1.5, bias_variance=0.1, input_square=0.4)
    q = [2.25 * 0.4 + 0.1]
    for _ in range(4):
        q.append(2.25 * 2 / np.pi * np.arcsin(2 * q[-1] / (1 + 2 * q[-1])) + 0.1)
    np.testing.assert_allclose(found.variance, q, rtol=1e-4)
    factors = 2.25 * 4 / np.pi / np.sqrt(1 + 4 * np.array(q[:-1]))  # E[f'²] = 4/π / √(1 + 4q)
    np.testing.assert_allclose(found.gradient, [*np.cumprod(factors[::-1])[::-1], 1], rtol=1e-4)


def test_a_wide_network_does_what_theory_says():
    depth, width = 8, 400
    block = layers.serial(layers.dense(width, kernel_init=initializers.normal(1.3 / width**0.5)), jnp.tanh)
    model, x = layers.repeat(block, depth), jax.random.normal(jax.random.key(0), (40, width))
    params, state = model.init(jax.random.key(1), x)
    outputs = layers.apply_with_outputs(model, params, state, x)[2]
    measured = jnp.mean(jnp.square(outputs["serial_0/dense_0"][1]), (1, 2))
    found = jax.jit(lambda gain: monitor.mean_field(jnp.tanh, depth, gain=gain))(1.3)
    np.testing.assert_allclose(measured, found.variance, rtol=0.05)


def test_a_single_layer_and_what_is_refused():
    found = monitor.mean_field(jnp.tanh, 1, gain=0.0)
    assert found.variance.tolist() == [0.0] and found.gradient.tolist() == [1.0]
    with pytest.raises(TypeError, match=r"^activation: expected a function"):
        monitor.mean_field("relu", 3, gain=1.0)
    with pytest.raises(ValueError, match=r"^gain: expected a finite number in \[0, inf\)"):
        monitor.mean_field(jnp.tanh, 3, gain=-1.0)
