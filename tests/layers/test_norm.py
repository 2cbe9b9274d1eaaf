"""Normalizations of each example by itself, and weight normalization, against closed forms in NumPy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import initializers, layers, trees

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


@CASES
def test_large_and_small_numbers_keep_their_meaning(factory, kwargs, shape, axes):
    """Values, and derivatives of both orders, are those of float64; also of an epsilon of 0."""
    x, direction, weight = np.random.default_rng(0).normal(size=(3, *shape))

    @jax.jit
    def outcomes(x, epsilon, size):
        def f(x):
            return factory(epsilon=epsilon, **kwargs).apply({}, {}, x)[0]

        def slope(x):
            return jax.grad(lambda x: jnp.sum(jnp.asarray(weight, x.dtype) * jnp.sin(f(x))))(x)

        return f(x), slope(x) * size, jax.jvp(slope, (x,), (jnp.asarray(direction, x.dtype) * size,))[1] * size

    for size, epsilon in ((1e20, 0.0), (1e20, 1e-5), (1e-30, 0.0), (1e-30, 1e-5)):
        with jax.enable_x64(True):
            expected = outcomes(jnp.asarray(x * size), epsilon, size)
        got = outcomes(jnp.asarray(x * size, jnp.float32), np.float32(epsilon), np.float32(size))
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=max(1e-4 * np.abs(theirs).max(), 1e-37))


def test_the_values_of_a_large_input_by_hand():
    x = jnp.array([[1e20, -1e20, 2e20, 0]])
    expected = np.array([[1, -3, 3, -1]]) / 5**0.5
    np.testing.assert_allclose(applied(layers.layer_norm(), {}, x), expected, rtol=1e-5)
    np.testing.assert_allclose(applied(layers.layer_norm(epsilon=0.0), {}, x * 1e-30 / 1e20), expected, rtol=1e-5)
    np.testing.assert_allclose(applied(layers.rms_norm(), {}, x), np.array([[1, -1, 2, 0]]) / 1.5**0.5, rtol=1e-5)
    # Below its root, epsilon decides.
    np.testing.assert_allclose(applied(layers.rms_norm(), {}, jnp.full((1, 2), 1e-30)), 1e-27, rtol=1e-5)


@CASES
def test_what_does_not_vary_has_no_division_by_zero(factory, kwargs, shape, axes):
    @jax.jit
    def outcomes(x, epsilon):
        def loss(x):
            y = factory(epsilon=epsilon, **kwargs).apply({}, {}, x)[0]
            return jnp.sum(y**2), y

        return jax.grad(loss, has_aux=True)(x)

    for value in (0.0, 1.0, 1e30):
        for epsilon in (0.0, 1e-5):
            slope, y = outcomes(jnp.full(shape, value), epsilon)
            assert bool(jnp.all(jnp.isfinite(y))) and bool(jnp.all(jnp.isfinite(slope)))
            if factory is not layers.rms_norm and value <= 1 and epsilon:
                np.testing.assert_allclose(y, 0, atol=1e-4)


def test_weight_norm_of_large_and_small_kernels():
    for size in (1e20, 1e-30):
        layer = layers.weight_norm(layers.dense(2, kernel_init=initializers.constant(size)))
        x = jnp.eye(4)
        params, _ = layer.init(jax.random.key(0), x)
        np.testing.assert_allclose(params["kernel"]["magnitude"], 2 * size, rtol=1e-6)
        np.testing.assert_allclose(applied(layer, params, x), size, rtol=1e-5)
        slope = jax.grad(lambda p, layer=layer, x=x: applied(layer, p, x)[0, 0])(params)["kernel"]
        np.testing.assert_allclose(slope["magnitude"], [0.5, 0], rtol=1e-5)
        np.testing.assert_allclose(slope["direction"], np.array([[0.75, 0]] + 3 * [[-0.25, 0]]), atol=1e-5)


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


@pytest.mark.slow
def test_weight_norm_of_several_layers_by_mask():
    layer = layers.weight_norm(layers.serial(layers.dense(4), layers.batch_norm(), layers.dense(2)), "dense_1/kernel")
    x = jnp.ones((3, 5))
    params, state = layer.init(jax.random.key(0), x)
    paths = [path for path, _ in trees.named_leaves(params)]
    assert "dense_0/kernel" in paths and "dense_1/kernel/magnitude" in paths
    _, after = layer.apply(params, state, x, train=True, key=None, weight=None)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    zero = jax.tree.map(jnp.zeros_like, params)
    slopes = jax.grad(lambda p: layer.apply(p, state, x)[0].sum())(zero)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize(
    ("make", "shape", "match"),
    [
        (lambda: layers.group_norm(0), None, r"^groups: expected an int in \[1, inf\), got 0"),
        (lambda: layers.layer_norm(epsilon=-1.0), None, r"^epsilon: "),
        (lambda: layers.group_norm(4), (3, 6), r"^groups: expected a divisor of the 6 channels, got 4"),
        (layers.layer_norm, (6,), r"expected floating-point \[batch, \.\.\., features\], got float32\[6\]"),
        (lambda: layers.group_norm(8), (3, 8), r"^groups: expected groups of more than one number, got 8 of shape \[3"),
        (lambda: layers.group_norm(8), (3, 1, 8), r"^groups: expected groups of more than one number"),
        (layers.layer_norm, (3, 1), r"expected more than one feature to normalize over, got shape \[3, 1\]"),
        (layers.instance_norm, (3, 6), r"expected floating-point \[batch, spatial axes \.\.\., features\]"),
        (layers.instance_norm, (3, 1, 1, 6), r"expected more than one position to normalize over, got shape"),
        (lambda: layers.weight_norm(layers.flatten), (3, 6), r"^mask: expected to select a parameter of the layer"),
        (lambda: layers.weight_norm(layers.dense(2), "scale"), (3, 6), r"^mask: expected a pattern"),
    ],
)
def test_bad_input_is_named(make, shape, match):
    with pytest.raises(ValueError, match=match):
        make().init(jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parametrize("factory", [layers.layer_norm, layers.rms_norm, layers.instance_norm, layers.batch_norm])
def test_a_number_of_features_is_refused(factory):
    with pytest.raises(
        TypeError, match=rf"^{factory.__name__}: expected arguments by name, .*got 16; the number of fea"
    ):
        factory(16)
    with pytest.raises(TypeError, match=r"^group_norm: expected arguments by name, such as epsilon=1e-5, got 64; "):
        layers.group_norm(8, 64)


def test_a_wrong_number_of_features_is_named():
    layer = layers.serial(layers.layer_norm())
    params, _ = layer.init(jax.random.key(0), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"^layer_norm_0: expected 3 features, got shape \[2, 4\]"):
        applied(layer, params, jnp.ones((2, 4)))
