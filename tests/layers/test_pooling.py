"""Pooling against NumPy and against itself in the other lowering."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import _ops, layers

KINDS = {
    "max": layers.max_pool,
    "average": layers.average_pool,
    "average counting padding": lambda *a, **k: layers.average_pool(*a, count_padding=True, **k),
}
# (spatial shape, window, stride, padding)
WINDOWS = [
    ((6, 8), 2, None, "VALID"),  # tiles
    ((7, 9), (2, 3), None, "VALID"),  # tiles, with entries left over
    ((7, 5), 2, None, "SAME"),  # tiles, with padding
    ((7, 8), 3, 2, "SAME"),
    ((7, 8), (3, 2), (1, 3), [(1, 2), (0, 1)]),
    ((9,), 3, 2, "VALID"),
    ((3, 4, 5), 2, 1, "VALID"),
]


def applied(layer, x):
    return layer.apply({}, {}, x)[0]


def reference(kind, x, window, stride, padding):
    """Each window by itself, in NumPy."""
    axes = x.ndim - 2
    window = (window,) * axes if isinstance(window, int) else window
    stride = window if stride is None else (stride,) * axes if isinstance(stride, int) else stride
    if padding == "SAME":
        out = [-(-size // s) for size, s in zip(x.shape[1:-1], stride, strict=True)]
        total = [max((o - 1) * s + w - n, 0) for o, s, w, n in zip(out, stride, window, x.shape[1:-1], strict=True)]
        padding = [(t // 2, t - t // 2) for t in total]
    elif padding == "VALID":
        padding = [(0, 0)] * axes
    empty = -np.inf if kind == "max" else np.nan if kind == "average" else 0.0
    padded = np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=empty)
    out = [(n - w) // s + 1 for n, w, s in zip(padded.shape[1:-1], window, stride, strict=True)]
    y = np.empty((x.shape[0], *out, x.shape[-1]))
    for place in np.ndindex(*out):
        inside = tuple(slice(o * s, o * s + w) for o, s, w in zip(place, stride, window, strict=True))
        part = padded[(slice(None), *inside)].reshape(x.shape[0], -1, x.shape[-1])
        y[(slice(None), *place)] = part.max(1) if kind == "max" else np.nanmean(part, 1)
    return y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("spatial", "window", "stride", "padding"), WINDOWS)
def test_values_and_gradients_of_both_lowerings(kind, spatial, window, stride, padding):
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 3, (2, *spatial, 3)).astype("f")  # full of ties
    expected = reference(kind, x, window, stride, padding)
    cotangent = rng.normal(size=expected.shape).astype("f")
    gradients = []
    for lowering in ("native", "patches"):
        layer = KINDS[kind](window, stride=stride, padding=padding, lowering=lowering)

        @jax.jit
        def both(x, layer=layer):
            y, pullback = jax.vjp(lambda x: applied(layer, x), x)
            return y, pullback(jnp.asarray(cotangent))[0]

        y, gradient = both(x)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        gradients.append(gradient)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lowering", ["native", "patches"])
@pytest.mark.parametrize("stride", [2, 1])
def test_ties_go_to_the_first_entry(lowering, stride):
    layer = layers.max_pool(2, stride=stride, lowering=lowering)
    x = jnp.array([[0.0, 1.0], [1.0, 1.0]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: applied(layer, x).sum())(x)
    assert gradient.ravel().tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("positions", [(2, 3), (6, 7)])  # entry by entry, and by argmax
def test_ties_and_nan_of_a_global_maximum_in_both_orders(positions):
    """Of integers: what is computed anew, and rounded otherwise, is of no consequence to who is first."""
    x = np.random.default_rng(0).integers(0, 2, (8, *positions, 3)).astype("f")
    x[1:3, 1, 1] = np.nan
    x[2, 1, 2] = np.nan

    @jax.jit
    def derivatives(x):
        def cubes(x):
            return jnp.sum(layers.global_max_pool(x) ** 3)

        def along(x):
            return jnp.sum(jax.grad(cubes)(x))

        y, slope = layers.global_max_pool(x), jax.grad(lambda x: jnp.sum(layers.global_max_pool(x)))(x)
        return y, slope, jax.grad(along)(x), jax.jvp(jax.grad(cubes), (x,), (jnp.ones_like(x),))[1]

    y, slope, *curvatures = derivatives(x)
    rows = x.reshape(8, -1, 3)
    np.testing.assert_array_equal(y, rows.max(1))
    first = np.argmax(rows, 1)  # NumPy's too is the first, and NaN a maximum
    chosen = np.arange(rows.shape[1])[None, :, None] == first[:, None]
    expected = [chosen, *[np.where(chosen, 6 * rows.max(1, keepdims=True), 0)] * 2]
    for got, want in zip((slope, *curvatures), expected, strict=True):
        # The plain form gives the derivative of a NaN to some entry of its window.
        same = ~np.isnan(y)[:, None] if _ops.uses_plain_forms() else True
        np.testing.assert_array_equal(np.where(same, got.reshape(rows.shape), 0), np.where(same, want, 0))


@pytest.mark.parametrize("lowering", ["native", "patches"])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2)])
def test_second_derivatives_forward_over_reverse_and_reverse_over_reverse(lowering, window, stride):
    layer = layers.max_pool(window, stride=stride, lowering=lowering)
    x = jax.random.normal(jax.random.key(0), (1, 5, 5, 2))

    def loss(x):
        return jnp.sum(applied(layer, x) ** 3)

    @jax.jit
    def products(x):
        forward = jax.jvp(jax.grad(loss), (x,), (jnp.ones_like(x),))[1]
        return forward, jax.grad(lambda x: jnp.sum(jax.grad(loss)(x)))(x)

    forward, backward = products(x)
    np.testing.assert_allclose(forward, backward, rtol=1e-5, atol=1e-6)
    chosen = jax.grad(lambda x: jnp.sum(applied(layer, x)))(x)  # 6 y for each window that an entry is the maximum of
    np.testing.assert_allclose(backward, 6 * x * chosen, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lowering", ["native", "patches"])
@pytest.mark.parametrize("stride", [2, 1])
def test_nan_is_a_maximum(lowering, stride):
    x = jnp.arange(8.0).reshape(1, 8, 1).at[0, 2].set(jnp.nan)
    y = applied(layers.max_pool(2, stride=stride, lowering=lowering), x).ravel()
    expected = [1, math.nan, 5, 7] if stride == 2 else [1, math.nan, math.nan, 4, 5, 6, 7]
    np.testing.assert_array_equal(y, expected)


def test_global_pools():
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype("f")
    np.testing.assert_array_equal(layers.global_max_pool(x), x.max((1, 2)))
    np.testing.assert_allclose(layers.global_average_pool(x), x.mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(_ops.uses_plain_forms(), reason="the plain form is such an operation")
def test_on_a_cpu_no_window_operation_is_left():
    layer = layers.serial(layers.max_pool(2), layers.average_pool(3, stride=1))
    text = jax.jit(jax.grad(lambda x: applied(layer, x).sum())).lower(jnp.ones((2, 8, 8, 1))).as_text()
    assert ("reduce_window" in text or "select_and_scatter" in text) == (jax.default_backend() != "cpu")


@pytest.mark.parametrize(
    ("make", "x", "error", "match"),
    [
        (lambda: layers.max_pool(0), None, ValueError, r"^window: expected an int >= 1"),
        (lambda: layers.max_pool(2.0), None, TypeError, r"^window: expected a positive int"),
        (lambda: layers.max_pool(2, stride=(1, 0)), None, ValueError, r"^stride: expected an int >= 1"),
        (lambda: layers.max_pool(2, padding="same"), None, ValueError, r'^padding: expected "SAME", "VALID" or a pair'),
        (lambda: layers.average_pool(2, lowering="fast"), None, ValueError, r"^lowering: expected one of"),
        (lambda: layers.max_pool(2), (4, 3), ValueError, r"expected input \[batch, spatial axes"),
        (lambda: layers.max_pool((2, 2)), (4, 9, 3), ValueError, r"expected input \[batch, 2 spatial axes"),
        (
            lambda: layers.max_pool((2, 9)),
            (4, 9, 8, 3),
            ValueError,
            r"^window: expected at most the 8 entries",
        ),
        (lambda: layers.max_pool(2, padding=[(2, 0)]), (4, 9, 3), ValueError, r"^padding: expected less than the wind"),
        (lambda: layers.max_pool(2), (4, 0, 3), ValueError, r"expected spatial axes and channels of size >= 1"),
        (lambda: layers.as_layer(layers.global_max_pool), (4, 3), ValueError, r"expected input \[batch, spatial axes"),
    ],
)
def test_bad_input_is_named(make, x, error, match):
    with pytest.raises(error, match=match):
        applied(make(), jnp.ones(x))
