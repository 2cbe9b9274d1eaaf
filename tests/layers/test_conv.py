"""Convolutions: against a sum written out in NumPy, and each lowering against the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import _ops, layers
from jaxopt_nn._ops.cpu import convolution
from jaxopt_nn._ops.windows import Axis

# (name, factory, kwargs, shape)
CONVOLUTIONS = [
    ("same", layers.conv, {"features": 4, "kernel_size": 3}, (2, 5, 6, 3)),
    ("same, stride 2", layers.conv, {"features": 4, "kernel_size": 3, "stride": 2}, (2, 6, 7, 3)),
    ("valid 1-D", layers.conv, {"features": 2, "kernel_size": 3, "padding": "VALID"}, (2, 8, 3)),
    (
        "everything",
        layers.conv,
        {
            "features": 6,
            "kernel_size": (2, 3),
            "stride": (1, 2),
            "padding": [(1, 2), (0, 3)],
            "dilation": (3, 1),
            "groups": 2,
        },
        (2, 6, 7, 4),
    ),
    ("3-D", layers.conv, {"features": 2, "kernel_size": (2, 1, 3)}, (1, 3, 4, 5, 2)),
    ("1 x 1", layers.conv, {"features": 5, "kernel_size": 1, "use_bias": False}, (2, 4, 4, 3)),
    ("depthwise", layers.depthwise_conv, {"kernel_size": 3, "stride": 2, "multiplier": 2}, (2, 6, 7, 3)),
    ("depthwise dilated", layers.depthwise_conv, {"kernel_size": (3,), "dilation": 2}, (2, 9, 3)),
    ("transposed same", layers.conv_transpose, {"features": 4, "kernel_size": 3, "stride": 2}, (2, 4, 5, 3)),
    ("transposed sparse", layers.conv_transpose, {"features": 2, "kernel_size": 2, "stride": 3}, (2, 4, 3)),
    (
        "transposed, everything",
        layers.conv_transpose,
        {
            "features": 4,
            "kernel_size": (2, 3),
            "stride": (1, 3),
            "padding": [(1, 0), (2, -1)],
            "dilation": (2, 1),
            "groups": 2,
        },
        (2, 4, 5, 6),
    ),
]
CASES = pytest.mark.parametrize(
    ("factory", "kwargs", "shape"), [case[1:] for case in CONVOLUTIONS], ids=[case[0] for case in CONVOLUTIONS]
)


def built(factory, kwargs, shape):
    layer = factory(bias_init=jax.nn.initializers.normal(1.0), **kwargs)
    x = jax.random.normal(jax.random.key(1), shape)
    return layer, layer.init(jax.random.key(2), x)[0], x


def applied(layer, params, x):
    return layer.apply(params, {}, x)[0]


def each(sizes, axes):
    return (sizes,) * axes if isinstance(sizes, int) else sizes


def written_out(factory, kwargs, params, x):
    """The sum of the definition, one product of an input's entry and the kernel's at a time."""
    x = np.asarray(x, np.float64)
    kernel, axes = np.asarray(params["kernel"], np.float64), x.ndim - 2
    transposed, window = factory is layers.conv_transpose, kernel.shape[:axes]
    stride, dilation = (each(kwargs.get(name, 1), axes) for name in ("stride", "dilation"))
    span = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    size = x.shape[1:-1]
    padding = kwargs.get("padding", "SAME")
    if padding == "VALID":
        padding = [(0, 0)] * axes
    elif padding == "SAME" and transposed:
        padding = [(max(k - s, 0) // 2, k - s - max(k - s, 0) // 2) for k, s in zip(span, stride, strict=True)]
    elif padding == "SAME":
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, stride, span, strict=True)]
        padding = [(t // 2, t - t // 2) for t in total]
    if transposed:
        out = [(n - 1) * s + k - sum(p) for n, s, k, p in zip(size, stride, span, padding, strict=True)]
    else:
        out = [(n + sum(p) - k) // s + 1 for n, s, k, p in zip(size, stride, span, padding, strict=True)]
    features = kernel.shape[-1]
    groups = x.shape[-1] // kernel.shape[-2]
    y = np.zeros((x.shape[0], *out, features))
    small, large = (size, out) if transposed else (out, size)
    for place in np.ndindex(*small):
        for entry in np.ndindex(*window):
            other = tuple(
                i * s + w * d - p[0] for i, s, w, d, p in zip(place, stride, entry, dilation, padding, strict=True)
            )
            if not all(0 <= i < n for i, n in zip(other, large, strict=True)):
                continue
            source, target = (place, other) if transposed else (other, place)
            for group in range(groups):
                inputs = slice(group * kernel.shape[-2], (group + 1) * kernel.shape[-2])
                outputs = slice(group * features // groups, (group + 1) * features // groups)
                products = x[(slice(None), *source, inputs)] @ kernel[(*entry, slice(None), outputs)]
                y[(slice(None), *target, outputs)] += products
    return y + (np.asarray(params["bias"], np.float64) if "bias" in params else 0)


@CASES
def test_values_and_derivatives_of_both_lowerings(factory, kwargs, shape):
    found = []
    for lowering in ("native", "patches"):
        layer, params, x = built(factory, {**kwargs, "lowering": lowering}, shape)

        @jax.jit
        def derivatives(params, x, layer=layer):
            def loss(params, x):
                return jnp.sum(jnp.sin(applied(layer, params, x)))

            gradient = jax.grad(loss, (0, 1))
            ones = jax.tree.map(jnp.ones_like, (params, x))
            return applied(layer, params, x), *jax.jvp(gradient, (params, x), ones)

        found.append(derivatives(params, x))
    np.testing.assert_allclose(found[0][0], written_out(factory, kwargs, params, x), rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *found)


@pytest.mark.parametrize(
    ("window", "stride", "dilation", "out", "features", "per_column"),
    [
        (5, 1, 1, 28, 6, 4),
        (5, 1, 1, 10, 16, 1),
        (7, 1, 1, 8, 8, 3),
        (3, 1, 1, 16, 1, 2),
        (5, 2, 1, 28, 6, 1),
        (5, 1, 2, 28, 6, 1),
        (3, 1, 1, 32, 32, 1),
        (1, 1, 1, 8, 1, 1),
    ],
)
def test_neighbours_are_computed_together_where_that_is_faster(window, stride, dilation, out, features, per_column):
    axis = Axis(window, stride, dilation, 0, 0, 99, out)
    assert convolution._outputs_per_column(axis, features) == per_column


@pytest.mark.parametrize("window", [(1, 5), (3, 2), (2, 1, 4)])
@pytest.mark.parametrize("per_column", [2, 3, 7])
def test_neighbours_computed_together_are_those_of_the_native_convolution(monkeypatch, window, per_column):
    """Also where the last row of outputs is not full, and where inputs are left over."""
    monkeypatch.setattr(convolution, "_outputs_per_column", lambda axis, features: per_column)
    shape, kwargs = (2, 5, 6, 11)[: len(window)], {"stride": (2, 2, 1)[-len(window) :]}
    shape, found = (*shape, 10, 3), []
    with jax.enable_x64(True):
        for lowering in ("native", "patches"):
            layer, params, x = built(
                layers.conv, {"features": 2, "kernel_size": window, **kwargs, "lowering": lowering}, shape
            )
            params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, x))

            @jax.jit
            def derivatives(params, x, layer=layer):
                gradient = jax.grad(lambda params, x: jnp.sum(jnp.sin(applied(layer, params, x))), (0, 1))
                return applied(layer, params, x), *jax.jvp(
                    gradient, (params, x), jax.tree.map(jnp.ones_like, (params, x))
                )

            found.append(derivatives(params, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), *found)


def test_a_transposed_convolution_is_the_adjoint_of_a_convolution():
    x, y = jax.random.normal(jax.random.key(0), (1, 6, 8, 2)), jax.random.normal(jax.random.key(1), (1, 3, 4, 3))
    forward = layers.conv(3, 3, stride=2, use_bias=False)
    kernel = forward.init(jax.random.key(2), x)[0]["kernel"]
    back = layers.conv_transpose(2, 3, stride=2, use_bias=False)
    there = jnp.sum(applied(forward, {"kernel": kernel}, x) * y)
    # The padding of x is (0, 1) for both; its adjoint cuts off the same.
    here = jnp.sum(applied(back, {"kernel": jnp.swapaxes(kernel, -1, -2)}, y) * x)
    np.testing.assert_allclose(there, here, rtol=1e-4)


def convolutions_in(params_in_lanes, lowering):
    """The StableHLO of gradients in lanes, each with kernels of its own."""
    model = layers.serial(
        layers.conv(4, 3, lowering=lowering),
        jax.nn.relu,
        layers.max_pool(2),
        layers.conv_transpose(2, 2, stride=2, lowering=lowering),
        layers.depthwise_conv(3, lowering=lowering),
    )
    x = jnp.ones((2, 4, 4, 1))
    params, state = model.init(jax.random.key(0), x)

    def loss(params, x):
        return jnp.sum(model.apply(params, state, x, train=True, key=None, weight=None)[0])

    gradient = jax.grad(loss)
    if params_in_lanes:
        params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params)
        gradient = jax.vmap(gradient, (0, None))
    return jax.jit(gradient).lower(params, x).as_text()


@pytest.mark.slow
@pytest.mark.skipif(_ops.uses_plain_forms(), reason="the plain form is that convolution")
@pytest.mark.parametrize("params_in_lanes", [False, True])
def test_lanes_of_kernels_are_no_grouped_convolution(params_in_lanes):
    assert "stablehlo.convolution" not in convolutions_in(params_in_lanes, "patches")
    automatic = "stablehlo.convolution" in convolutions_in(params_in_lanes, "auto")
    assert automatic == (jax.default_backend() != "cpu")
    assert "stablehlo.convolution" in convolutions_in(params_in_lanes, "native")


def test_patches_that_would_be_too_large_are_not_made():
    layer = layers.conv(8, 5)
    x = jax.ShapeDtypeStruct((64, 256, 256, 16), jnp.float32)  # 25 · 67 million
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), x)[0])
    assert "stablehlo.convolution" in jax.jit(lambda params, x: applied(layer, params, x)).lower(params, x).as_text()


@pytest.mark.parametrize(
    ("make", "shape", "error", "match"),
    [
        (lambda: layers.conv(0, 3), None, ValueError, r"^features: "),
        (lambda: layers.conv(4, 0), None, ValueError, r"^kernel_size: expected an int >= 1"),
        (lambda: layers.conv(4, (3, 2.0)), None, TypeError, r"^kernel_size: expected a positive int"),
        (lambda: layers.conv(4, "3"), None, TypeError, r"^kernel_size: expected a positive int"),
        (lambda: layers.conv(4, ()), None, ValueError, r"^kernel_size: "),
        (lambda: layers.conv(4, 3, stride=0), None, ValueError, r"^stride: "),
        (lambda: layers.conv(4, 3, dilation=-1), None, ValueError, r"^dilation: "),
        (
            lambda: layers.conv(4, 3, groups=3),
            None,
            ValueError,
            r"^groups: expected a divisor of the 4 feat",
        ),
        (lambda: layers.conv(4, 3, padding="same"), None, ValueError, r'^padding: expected "SAME", "VALID" or a pair'),
        (lambda: layers.conv(4, 3, padding=1), None, ValueError, r"^padding: expected"),
        (lambda: layers.conv(4, 3, padding=[1, 1]), None, ValueError, r"^padding: expected"),
        (lambda: layers.conv(4, 3, lowering="im2col"), None, ValueError, r'^lowering: expected "auto", '),
        (lambda: layers.depthwise_conv(3, multiplier=0), None, ValueError, r"^multiplier: "),
        (lambda: layers.conv(4, 3), (8, 5), ValueError, r"expected input \[batch, spatial axes \.\.\., channels\]"),
        (lambda: layers.conv(4, (3, 3)), (8, 5, 3), ValueError, r"expected input \[batch, 2 spatial axes"),
        (lambda: layers.conv(4, 3, padding=[(1, 1)]), (8, 5, 5, 3), ValueError, r"expected input \[batch, 1 spatial"),
        (lambda: layers.conv(4, 3, padding=[(1, -1)]), (8, 5, 3), ValueError, r"^padding: expected numbers >= 0"),
        (lambda: layers.conv(4, 3), (8, 0, 3), ValueError, r"expected spatial axes and channels of size >= 1"),
        (lambda: layers.conv(4, 3, groups=2), (8, 5, 3), ValueError, r"^groups: expected a divisor of the 3 channels"),
        (lambda: layers.conv_transpose(4, 3, groups=2), (8, 5, 3), ValueError, r"^groups: expected a divisor of the 3"),
        (
            lambda: layers.conv(4, 7, padding="VALID"),
            (8, 5, 3),
            ValueError,
            r"^window: expected at most the 5 entries of the padded spatial axis 0, got 7",
        ),
        (
            lambda: layers.conv_transpose(4, 2, padding=[(3, 3)]),
            (8, 5, 3),
            ValueError,
            r"^padding: expected to leave something of the 6 outputs on spatial axis 0, got \(3, 3\)",
        ),
    ],
)
def test_bad_arguments_and_inputs_of_init_are_named(make, shape, error, match):
    with pytest.raises(error, match=match):
        make().init(jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parametrize("factory", [layers.conv, layers.conv_transpose])
def test_bad_inputs_of_apply_carry_the_path(factory):
    model = layers.serial(layers.serial(factory(4, 3)))
    params, _ = model.init(jax.random.key(0), jnp.ones((2, 5, 3)))
    name = f"serial_0/{factory.__name__}_0: "
    with pytest.raises(ValueError, match=f"^{name}expected 3 channels on the last axis, got 2"):
        applied(model, params, jnp.ones((2, 5, 2)))
    with pytest.raises(TypeError, match=f"^{name}expected floating-point input, got int32"):
        applied(model, params, jnp.ones((2, 5, 3), int))
