"""Batch normalization against closed forms in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn import layers


def apply(x, *, train=True, weight=None, state=None, **kwargs):
    layer = layers.batch_norm(**kwargs)
    params, fresh = layer.init(jax.random.key(0), x)
    return layer.apply(params, fresh if state is None else state, x, train=train, key=None, weight=weight)


def test_normalizes_each_feature_over_all_other_axes():
    x = jax.random.normal(jax.random.key(0), (16, 3, 2, 5)) * jnp.arange(1.0, 6).reshape(1, 1, 1, 5) + 3
    y, state = apply(x, epsilon=1e-3, momentum=0.75, convention="keras")
    values = np.asarray(x, np.float64).reshape(-1, 5)
    mean, var = values.mean(0), values.var(0)
    np.testing.assert_allclose(y.reshape(-1, 5), (values - mean) / np.sqrt(var + 1e-3), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["mean"], 0.25 * mean, rtol=1e-5)
    np.testing.assert_allclose(state["var"], 0.75 + 0.25 * var, rtol=1e-5)


def test_evaluation_uses_the_running_statistics():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    state = {"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([4.0, 1.0, 0.25])}
    y, after = apply(x, train=False, state=state, epsilon=0.0)
    np.testing.assert_allclose(y, (np.asarray(x) - [1, 2, 3]) / [2, 1, 0.5], rtol=1e-5)
    assert after is state


def test_the_variance_does_not_cancel():
    """Mean 1e4, deviation 0.1: E[x²] − E[x]² in float32 has no correct digit here."""
    x = (1e4 + 0.1 * np.random.default_rng(0).standard_normal((4096, 1))).astype("f")
    y, _ = apply(jnp.asarray(x), epsilon=0.0)
    np.testing.assert_allclose(np.std(np.asarray(y, np.float64)), 1, rtol=1e-2)


def test_weights_count_examples():
    """An example of weight 2 is that example twice; the image positions of an example share its weight."""
    x = jax.random.normal(jax.random.key(0), (6, 2, 3))
    weight = jnp.array([2.0, 1, 0, 1, 1, 1])
    y, state = apply(x, weight=weight, convention="flax")
    twice = jnp.concatenate([x[:1], x[:2], x[3:]])
    z, expected = apply(twice, convention="flax")
    np.testing.assert_allclose(y[jnp.array([0, 1, 3, 4, 5])], z[1:], rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, expected)


def test_float64_stays_float64_whatever_the_state():
    """A gradient checker feeds float64 to a model whose state was made in float32."""
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 2)))
        state = {"mean": jnp.zeros(2, "f"), "var": jnp.ones(2, "f")}
        y, after = apply(x, state=state, epsilon=0.0)
        np.testing.assert_allclose(y, (x - x.mean(0, keepdims=True)) / x.std(0, keepdims=True), rtol=1e-12)
        assert after["mean"].dtype == jnp.float32


def test_gradient_has_the_variance_path():
    """Σ y² is constant under normalization up to ε: its gradient vanishes, through mean and variance."""
    x = jax.random.normal(jax.random.key(0), (32, 4))
    gradient = jax.grad(lambda x: jnp.sum(apply(x, epsilon=1e-12)[0] ** 2))(x)
    assert float(jnp.max(jnp.abs(gradient))) < 1e-4
    slope = jax.grad(lambda x: jnp.sum(apply(x, epsilon=1e-12)[0] ** 3))(x)
    assert float(jnp.max(jnp.abs(slope))) > 1e-2


def test_all_weights_zero_is_finite():
    x = jnp.ones((4, 3))
    y, state = apply(x, weight=jnp.zeros(4))
    assert bool(jnp.all(jnp.isfinite(y))) and bool(jnp.all(jnp.isfinite(state["var"])))
