"""Convolution, pooling and normalization as PyTorch and Keras compute them: values and gradients, random settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers

SETTINGS, GROUPS = 50, 5  # configurations of each kind, in so many tests
PARTS = pytest.mark.parametrize("part", range(GROUPS))


def kinds(*names):
    return pytest.mark.parametrize("kind", names)


def settings(part):
    """The random generators of one part of the configurations."""
    return [np.random.default_rng(1000 + number) for number in range(part, SETTINGS, GROUPS)]


def chosen(rng, *values):
    return values[int(rng.integers(len(values)))]


def integers(rng, low, high, count=None):
    return int(rng.integers(low, high)) if count is None else [int(n) for n in rng.integers(low, high, count)]


def ours(layer, params, state, x, cotangent, *, train=False):
    """Output, new state, gradients of parameters and input."""

    @jax.jit
    def both(params, x):
        def f(params, x):
            return layer.apply(params, state, x, train=train, key=None, weight=None)

        y, pullback, after = jax.vjp(f, params, x, has_aux=True)
        return y, after, *pullback(jnp.asarray(cotangent, jnp.float32).reshape(y.shape))

    return both(params, x)


def with_bias(factory, *args, **kwargs):
    return factory(*args, bias_init=jax.nn.initializers.normal(1.0), **kwargs)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


class Torch:
    """Channels-first tensors and back."""

    def __init__(self):
        self.torch = pytest.importorskip("torch")
        self.functional = self.torch.nn.functional

    def tensor(self, x, order=None):
        array = np.array(x, np.float32) if order is None else np.array(x, np.float32).transpose(order)
        return self.torch.tensor(np.ascontiguousarray(array), requires_grad=True)

    def first(self, x):
        return self.tensor(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def last(tensor):
    array = tensor.detach().numpy()
    return array.transpose(0, *range(2, array.ndim), 1)


@PARTS
@kinds("conv", "depthwise")
def test_convolution_as_in_torch(part, kind):
    lib = Torch()
    for rng in settings(part):
        axes, groups = integers(rng, 1, 3), chosen(rng, 1, 1, 2, 3)
        channels, features = groups * integers(rng, 1, 3), groups * integers(rng, 1, 3)
        if kind == "depthwise":
            groups, features = channels, channels * integers(rng, 1, 3)
        window, stride, dilation, pads = (integers(rng, *limits, axes) for limits in ((1, 4), (1, 4), (1, 3), (0, 3)))
        x = rng.normal(size=(2, *integers(rng, 5, 8, axes), channels)).astype("f")
        mine = {"stride": stride, "dilation": dilation, "padding": [(p, p) for p in pads]}
        mine["lowering"] = chosen(rng, "native", "patches")
        if kind == "depthwise":
            layer = with_bias(layers.depthwise_conv, window, multiplier=features // channels, **mine)
        else:
            layer = with_bias(layers.conv, features, window, groups=groups, **mine)
        params, state = layer.init(jax.random.key(part), x)
        theirs_x, kernel = lib.first(x), lib.tensor(params["kernel"], (axes + 1, axes, *range(axes)))
        bias = lib.tensor(params["bias"])
        convolution = lib.functional.conv1d if axes == 1 else lib.functional.conv2d
        y = convolution(theirs_x, kernel, bias, stride, pads, dilation, groups)
        cotangent = rng.normal(size=last(y).shape)
        y.backward(lib.first(cotangent))
        got, _, slopes, x_slope = ours(layer, params, state, x, cotangent)
        close(got, last(y))
        close(x_slope, last(theirs_x.grad))
        close(slopes["bias"], bias.grad)
        close(slopes["kernel"], kernel.grad.numpy().transpose(*range(2, axes + 2), 1, 0))


@PARTS
def test_transposed_convolution_as_in_torch(part):
    lib = Torch()
    for rng in settings(part):
        axes, groups = integers(rng, 1, 3), chosen(rng, 1, 1, 2)
        inputs, outputs = integers(rng, 1, 3), integers(rng, 1, 3)
        window, stride, dilation = (integers(rng, *limits, axes) for limits in ((1, 4), (1, 4), (1, 3)))
        if max(window) == 1:  # torch 2.13's gradient of a kernel of one number is not Σ x·dy if the output is padded
            window[0] = 2
        pads = [integers(rng, 0, (w - 1) * d + 1) for w, d in zip(window, dilation, strict=True)]
        extra = [integers(rng, 0, max(s, d)) for s, d in zip(stride, dilation, strict=True)]
        x = rng.normal(size=(2, *integers(rng, 4, 7, axes), groups * inputs)).astype("f")
        layer = with_bias(
            layers.conv_transpose, groups * outputs, window, stride=stride, dilation=dilation, groups=groups,
            padding=[(p, p - q) for p, q in zip(pads, extra, strict=True)], lowering=chosen(rng, "native", "patches"),
        )  # fmt: skip
        params, state = layer.init(jax.random.key(part), x)
        # Theirs is [group · input, output, window], ours [window, input, group · output].
        split = np.asarray(params["kernel"]).reshape(*window, inputs, groups, outputs)
        kernel = lib.tensor(
            split.transpose(axes + 1, axes, axes + 2, *range(axes)).reshape(groups * inputs, outputs, *window)
        )
        theirs_x, bias = lib.first(x), lib.tensor(params["bias"])
        convolution = lib.functional.conv_transpose1d if axes == 1 else lib.functional.conv_transpose2d
        y = convolution(theirs_x, kernel, bias, stride, pads, extra, groups, dilation)
        cotangent = rng.normal(size=last(y).shape)
        y.backward(lib.first(cotangent))
        got, _, slopes, x_slope = ours(layer, params, state, x, cotangent)
        close(got, last(y))
        close(x_slope, last(theirs_x.grad))
        slope = kernel.grad.numpy().reshape(groups, inputs, outputs, *window)
        close(slopes["kernel"], slope.transpose(*range(3, axes + 3), 1, 0, 2).reshape(params["kernel"].shape))


@PARTS
@kinds("max", "average")
def test_pooling_as_in_torch(part, kind):
    lib = Torch()
    for rng in settings(part):
        window, counted = integers(rng, 1, 4), chosen(rng, True, False)
        stride, pad = chosen(rng, window, integers(rng, 1, 4)), integers(rng, 0, window // 2 + 1)
        # Rounded, so that there are ties: their gradients go to the first.
        x = np.round(rng.normal(size=(2, *integers(rng, 5, 9, 2), 2)) * 2).astype("f")
        kwargs = {"stride": stride, "padding": [(pad, pad)] * 2, "lowering": chosen(rng, "native", "patches")}
        theirs_x = lib.first(x)
        if kind == "max":
            layer, y = layers.max_pool(window, **kwargs), lib.functional.max_pool2d(theirs_x, window, stride, pad)
        else:
            layer = layers.average_pool(window, count_padding=counted, **kwargs)
            y = lib.functional.avg_pool2d(theirs_x, window, stride, pad, count_include_pad=counted)
        cotangent = rng.normal(size=last(y).shape)
        y.backward(lib.first(cotangent))
        got, _, _, slope = ours(layer, {}, {}, x, cotangent)
        close(got, last(y))
        close(slope, last(theirs_x.grad))


def norm_settings(rng):
    """An input, and parameters for its channels."""
    groups = integers(rng, 1, 4)
    channels = max(2, groups * integers(rng, 1, 4))  # one feature alone is refused by layer_norm
    x = rng.normal(integers(rng, -3, 4), 2, (integers(rng, 2, 5), *integers(rng, 2, 5, 2), channels)).astype("f")
    params = {"scale": rng.normal(size=channels).astype("f"), "bias": rng.normal(size=channels).astype("f")}
    return groups, channels, x, params, float(rng.uniform(1e-5, 0.5))


@PARTS
@kinds("layer", "rms", "group", "instance")
def test_normalization_as_in_torch(part, kind):
    lib = Torch()
    for rng in settings(part):
        groups, channels, x, params, epsilon = norm_settings(rng)
        scale, bias = (lib.tensor(params[name]) for name in ("scale", "bias"))
        order = kind in ("layer", "rms")
        theirs_x = lib.tensor(x) if order else lib.first(x)
        if kind == "layer":
            layer = layers.layer_norm(epsilon=epsilon)
            y = lib.functional.layer_norm(theirs_x, (channels,), scale, bias, epsilon)
        elif kind == "rms":
            layer, params = layers.rms_norm(epsilon=epsilon), {"scale": params["scale"]}
            y = lib.functional.rms_norm(theirs_x, (channels,), scale, epsilon)
        elif kind == "group":
            layer = layers.group_norm(groups, epsilon=epsilon)
            y = lib.functional.group_norm(theirs_x, groups, scale, bias, epsilon)
        else:
            layer = layers.instance_norm(epsilon=epsilon)
            y = lib.functional.instance_norm(theirs_x, weight=scale, bias=bias, eps=epsilon)
        back = (lambda tensor: tensor.detach().numpy()) if order else last
        cotangent = rng.normal(size=x.shape)
        y.backward(lib.tensor(cotangent) if order else lib.first(cotangent))
        got, _, slopes, x_slope = ours(layer, params, {}, x, cotangent)
        close(got, back(y))
        close(x_slope, back(theirs_x.grad))
        for name, theirs in (("scale", scale), ("bias", bias)):
            if name in slopes:
                close(slopes[name], theirs.grad)


@PARTS
def test_batch_norm_as_in_torch(part):
    lib = Torch()
    for rng in settings(part):
        _, channels, x, params, epsilon = norm_settings(rng)
        train, momentum = chosen(rng, True, True, False), float(rng.uniform(0, 1))
        state = {"mean": rng.normal(size=channels).astype("f"), "var": rng.uniform(0.5, 2, channels).astype("f")}
        mean, var, scale, bias = (lib.tensor(a) for a in (*state.values(), params["scale"], params["bias"]))
        mean, var, theirs_x = mean.detach(), var.detach(), lib.first(x)
        y = lib.functional.batch_norm(theirs_x, mean, var, scale, bias, train, momentum, epsilon)
        cotangent = rng.normal(size=x.shape)
        y.backward(lib.first(cotangent))
        layer = layers.batch_norm(momentum=momentum, epsilon=epsilon, convention="torch")
        got, after, slopes, x_slope = ours(layer, params, state, x, cotangent, train=train)
        close(got, last(y))
        close(x_slope, last(theirs_x.grad))
        for mine, theirs in (
            (slopes["scale"], scale.grad),
            (slopes["bias"], bias.grad),
            *zip(after.values(), (mean, var), strict=True),
        ):
            close(mine, theirs)


def keras_on_jax():
    return pytest.importorskip("keras")


def theirs_in_keras(layer, variables, x, cotangent, *, train=False):
    """Output, non-trainable variables after it, and gradients of a Keras layer with the given trainable variables."""
    kept = [jnp.asarray(variable.value) for variable in layer.non_trainable_variables]

    @jax.jit
    def both(variables, x):
        def f(variables, x):
            kwargs = {"training": train} if kept else {}
            return layer.stateless_call(variables, kept, x, **kwargs)

        y, pullback, after = jax.vjp(f, variables, x, has_aux=True)
        return y, after, *pullback(cotangent(y.shape))

    return both([jnp.asarray(variable) for variable in variables], x)


@PARTS
@kinds("conv", "depthwise", "transposed")
def test_convolution_as_in_keras(part, kind):
    keras = keras_on_jax()
    for number, rng in enumerate(settings(part)):
        axes, padding = integers(rng, 1, 3), chosen(rng, "same", "same", "valid")
        window, stride = integers(rng, 1, 5, axes), integers(rng, 1, 4)
        stride, dilation = (stride, 1) if chosen(rng, True, True, False) else (1, integers(rng, 1, 3))
        if number == 0:  # where libraries differ most
            stride, dilation, padding = 2, 1, "same"
        channels, features = integers(rng, 1, 4), integers(rng, 1, 4)
        x = rng.normal(size=(2, *integers(rng, 7, 10, axes), channels)).astype("f")
        kwargs = {"strides": stride, "padding": padding, "dilation_rate": dilation}
        mine = {"stride": stride, "padding": padding.upper(), "dilation": dilation}
        mine["lowering"] = chosen(rng, "native", "patches")
        dimensions = f"{axes}D"
        if kind == "conv":
            layer = with_bias(layers.conv, features, window, **mine)
            theirs, order = getattr(keras.layers, f"Conv{dimensions}")(features, window, **kwargs), None
        elif kind == "depthwise":
            layer = with_bias(layers.depthwise_conv, window, multiplier=features, **mine)
            theirs = getattr(keras.layers, f"DepthwiseConv{dimensions}")(window, depth_multiplier=features, **kwargs)
            order = (*window, channels, features)
        else:
            if padding == "valid":  # beyond the window Keras adds zeros
                window = [max(w, stride) for w in window]
            layer = with_bias(layers.conv_transpose, features, window, **mine)
            theirs = getattr(keras.layers, f"Conv{dimensions}Transpose")(features, window, **kwargs)
            order = (*range(axes), axes + 1, axes)
        theirs.build(x.shape)
        params, state = layer.init(jax.random.key(part), x)
        kernel = params["kernel"]
        if kind == "depthwise":
            kernel = kernel.reshape(order)
        elif kind == "transposed":
            kernel = kernel.transpose(order)
        cotangents = []

        def cotangent(shape, rng=rng, drawn=cotangents):
            drawn.append(rng.normal(size=shape).astype("f"))
            return drawn[0]

        with jax.numpy_rank_promotion("allow"):  # Keras needs it
            y, _, slopes, x_slope = theirs_in_keras(theirs, [kernel, params["bias"]], x, cotangent)
        got, _, my_slopes, my_x_slope = ours(layer, params, state, x, cotangents[0])
        close(got, y)
        close(my_x_slope, x_slope)
        slope = slopes[0].transpose(order) if kind == "transposed" else slopes[0].reshape(params["kernel"].shape)
        close(my_slopes["kernel"], slope)
        close(my_slopes["bias"], slopes[1])


@PARTS
@kinds("Max", "Average", "GlobalMax", "GlobalAverage")
def test_pooling_as_in_keras(part, kind):
    keras = keras_on_jax()
    for number, rng in enumerate(settings(part)):
        window, padding, axes = integers(rng, 1, 4), chosen(rng, "same", "valid"), integers(rng, 1, 3)
        stride = chosen(rng, window, integers(rng, 1, 4))
        if number == 0:
            window, stride, padding = 3, 2, "same"
        x = rng.normal(size=(2, *integers(rng, 5, 9, axes), 2)).astype("f")
        theirs = getattr(keras.layers, f"{kind}Pooling{axes}D")
        if kind.startswith("Global"):
            layer = layers.as_layer(layers.global_max_pool if kind == "GlobalMax" else layers.global_average_pool)
            theirs = theirs()
        else:
            factory = layers.max_pool if kind == "Max" else layers.average_pool
            layer = factory(window, stride=stride, padding=padding.upper(), lowering=chosen(rng, "native", "patches"))
            theirs = theirs(window, strides=stride, padding=padding)
        cotangents = []

        def cotangent(shape, rng=rng, drawn=cotangents):
            drawn.append(rng.normal(size=shape).astype("f"))
            return drawn[0]

        with jax.numpy_rank_promotion("allow"):  # Keras needs it
            y, _, _, x_slope = theirs_in_keras(theirs, [], x, cotangent)
        got, _, _, my_x_slope = ours(layer, {}, {}, x, cotangents[0])
        close(got, y)
        close(my_x_slope, x_slope)


@PARTS
@kinds("layer", "rms", "group", "instance", "batch")
def test_normalization_as_in_keras(part, kind):
    keras = keras_on_jax()
    for rng in settings(part):
        groups, channels, x, params, epsilon = norm_settings(rng)
        state, train, momentum = {}, chosen(rng, True, False), float(rng.uniform(0, 1))
        if kind == "layer":
            layer, theirs = layers.layer_norm(epsilon=epsilon), keras.layers.LayerNormalization(epsilon=epsilon)
        elif kind == "rms":
            layer, theirs = layers.rms_norm(epsilon=epsilon), keras.layers.RMSNormalization(epsilon=epsilon)
            params = {"scale": params["scale"]}
        elif kind == "group":
            layer = layers.group_norm(groups, epsilon=epsilon)
            theirs = keras.layers.GroupNormalization(groups, epsilon=epsilon)
        elif kind == "instance":
            layer, theirs = layers.instance_norm(epsilon=epsilon), keras.layers.GroupNormalization(-1, epsilon=epsilon)
        else:
            layer = layers.batch_norm(momentum=momentum, epsilon=epsilon, convention="keras")
            theirs = keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon)
            state = {"mean": rng.normal(size=channels).astype("f"), "var": rng.uniform(0.5, 2, channels).astype("f")}
        theirs.build(x.shape)
        if state:
            theirs.moving_mean.assign(state["mean"])
            theirs.moving_variance.assign(state["var"])
        cotangent = rng.normal(size=x.shape).astype("f")
        with jax.numpy_rank_promotion("allow"):  # Keras needs it
            y, after, slopes, x_slope = theirs_in_keras(
                theirs, list(params.values()), x, lambda _, c=cotangent: jnp.asarray(c), train=train
            )
        got, my_after, my_slopes, my_x_slope = ours(layer, params, state, x, cotangent, train=train)
        close(got, y)
        close(my_x_slope, x_slope)
        for name, slope in zip(params, slopes, strict=True):
            close(my_slopes[name], slope)
        if state:
            close(my_after["mean"], after[0])
            close(my_after["var"], after[1])
