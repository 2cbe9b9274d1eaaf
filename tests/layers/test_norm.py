"""Normalizations of each example by itself, and weight normalization, against closed forms in NumPy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers, trees

# (name, factory, kwargs, shape, axes of an array with its channels in two groups)
NORMS = [
    ("layer", layers.layer_norm, {}, (3, 4, 6), (2, 3)),
    ("rms", layers.rms_norm, {}, (3, 4, 6), (2, 3)),
    ("group", layers.group_norm, {"groups": 2}, (3, 4, 5, 6), (1, 2, 4)),
    ("group of vectors", layers.group_norm, {"groups": 2}, (3, 6), (2,)),
    ("instance", layers.instance_norm, {}, (3, 4, 5, 6), (1, 2)),
]
CASES = pytest.mark.parametrize(
    ("factory", "kwargs", "shape", "axes"), [case[1:] for case in NORMS], ids=[case[0] for case in NORMS]
)


@functools.partial(jax.jit, static_argnums=0)
def applied(layer, params, x):
    return layer.apply(params, {}, x, train=True, key=None, weight=None)[0]


def expected(factory, x, axes, epsilon):
    parts = np.asarray(x, np.float64).reshape(*x.shape[:-1], 2, -1)
    if factory is not layers.rms_norm:
        parts = parts - parts.mean(axes, keepdims=True)
    return (parts / np.sqrt(np.mean(parts**2, axes, keepdims=True) + epsilon)).reshape(x.shape)


@CASES
def test_against_the_formula(factory, kwargs, shape, axes):
    x = 3 + 2 * np.random.default_rng(0).normal(size=shape).astype("f")
    layer = factory(epsilon=0.5, **kwargs)
    params, _ = layer.init(jax.random.key(0), x)
    assert set(params) == ({"scale"} if factory is layers.rms_norm else {"scale", "bias"})
    params = {name: jnp.arange(1.0, 7) * (1 if name == "scale" else -1) for name in params}
    want = expected(factory, x, axes, 0.5) * np.arange(1.0, 7)
    want = want - (np.arange(1.0, 7) if "bias" in params else 0)
    np.testing.assert_allclose(applied(layer, params, x), want, rtol=1e-4, atol=1e-5)


@CASES
def test_no_parameters_if_none_are_wanted_and_epsilon_may_be_traced(factory, kwargs, shape, axes):
    wanted = {"use_scale": False} | ({} if factory is layers.rms_norm else {"use_bias": False})
    x = np.random.default_rng(0).normal(size=shape).astype("f")
    assert factory(**kwargs, **wanted).init(jax.random.key(0), x) == ({}, {})
    lanes = jax.jit(jax.vmap(lambda epsilon: applied(factory(epsilon=epsilon, **kwargs, **wanted), {}, x)))(
        jnp.array([0.1, 2.0])
    )
    for lane, epsilon in zip(lanes, (0.1, 2.0), strict=True):
        np.testing.assert_allclose(lane, expected(factory, x, axes, epsilon), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("factory", "kwargs"),
    [case[1:3] for case in NORMS if case[1] is not layers.rms_norm],  # which takes no mean away
    ids=[case[0] for case in NORMS if case[1] is not layers.rms_norm],
)
def test_the_variance_does_not_cancel(factory, kwargs):
    """Mean 1e4, deviation 0.1: E[x²] − E[x]² in float32 has no correct digit here."""
    x = (1e4 + 0.1 * np.random.default_rng(0).standard_normal((4, 16, 16, 64))).astype("f")
    y = np.asarray(applied(factory(epsilon=0.0, **kwargs), {}, x), np.float64)
    np.testing.assert_allclose(y.std(), 1, rtol=1e-2)


def test_weight_norm_starts_as_the_layer_and_has_its_outputs_magnitudes():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    inner = layers.conv(4, 3)
    layer = layers.weight_norm(inner)
    params, _ = layer.init(jax.random.key(1), x)
    plain, _ = inner.init(jax.random.key(1), x)
    np.testing.assert_allclose(applied(layer, params, x), applied(inner, plain, x), rtol=1e-5, atol=1e-5)
    assert [path for path, _ in trees.named_leaves(params)] == ["bias", "kernel/direction", "kernel/magnitude"]
    larger = {**params, "kernel": {**params["kernel"], "direction": 7 * params["kernel"]["direction"]}}
    np.testing.assert_allclose(applied(layer, larger, x), applied(layer, params, x), rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda p: jnp.sum(applied(layer, p, x) ** 2))(params)["kernel"]["direction"]
    along = jnp.sum(gradient * params["kernel"]["direction"], (0, 1, 2))
    assert float(jnp.max(jnp.abs(along))) < 1e-3 * float(jnp.linalg.norm(gradient))


def test_weight_norm_of_several_layers_by_mask():
    layer = layers.weight_norm(layers.serial(layers.dense(4), layers.batch_norm(), layers.dense(2)), "dense_1/kernel")
    x = jnp.ones((3, 5))
    params, state = layer.init(jax.random.key(0), x)
    paths = [path for path, _ in trees.named_leaves(params)]
    assert "dense_0/kernel" in paths and "dense_1/kernel/magnitude" in paths
    _, after = layer.apply(params, state, x, train=True, key=None, weight=None)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    zero = jax.tree.map(jnp.zeros_like, params)
    slopes = jax.grad(lambda p: layer.apply(p, state, x, train=False, key=None, weight=None)[0].sum())(zero)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize(
    ("make", "shape", "match"),
    [
        (lambda: layers.group_norm(0), None, r"^groups: expected an int in \[1, inf\), got 0"),
        (lambda: layers.layer_norm(-1.0), None, r"^epsilon: "),
        (lambda: layers.group_norm(4), (3, 6), r"^groups: expected a divisor of the 6 channels, got 4"),
        (layers.layer_norm, (6,), r"expected floating-point \[batch, \.\.\., features\], got float32\[6\]"),
        (layers.instance_norm, (3, 6), r"expected floating-point \[batch, spatial axes \.\.\., features\]"),
        (layers.instance_norm, (3, 1, 1, 6), r"expected more than one position to normalize over, got shape"),
        (lambda: layers.weight_norm(layers.flatten), (3, 6), r"^mask: expected to select a parameter of the layer"),
        (lambda: layers.weight_norm(layers.dense(2), "scale"), (3, 6), r"^mask: expected a pattern"),
    ],
)
def test_bad_input_is_named(make, shape, match):
    with pytest.raises(ValueError, match=match):
        make().init(jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


def test_a_wrong_number_of_features_is_named():
    layer = layers.serial(layers.layer_norm())
    params, _ = layer.init(jax.random.key(0), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"^layer_norm_0: expected 3 features, got shape \[2, 4\]"):
        applied(layer, params, jnp.ones((2, 4)))
