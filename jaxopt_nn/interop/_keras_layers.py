"""A layer of Keras as one of ours."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxopt_nn import layers
from jaxopt_nn.interop._keras_functions import UnsupportedError, activation, function, need
from jaxopt_nn.interop._keras_recurrent import (
    Call,
    Constant,
    Converted,
    bidirectional,
    fixed,
    identity,
    recurrent,
)
from jaxopt_nn.types import Key, Layer, Params, State

__all__ = ["Call", "Converted", "convert"]


def convert(layer: Any, call: Call) -> Converted:
    """A layer of Keras as ours.

    Args:
        layer: of Keras, built.
        call: how it is called.

    Raises:
        UnsupportedError: there is no counterpart for it.
    """
    name = type(layer).__name__
    if not type(layer).__module__.startswith("keras."):
        raise UnsupportedError(f"a layer of your own, {name}")
    if getattr(layer, "compute_dtype", "float32") != "float32":
        raise UnsupportedError(f"dtype={layer.compute_dtype}")
    plain = function(layer)
    if plain is not None:
        return Converted(plain, None, {})
    make = _LAYERS.get(name)
    if make is None:
        raise UnsupportedError(name)
    constraints = [key for key, value in vars(layer).items() if key.endswith("_constraint") and value is not None]
    if constraints:
        raise UnsupportedError(constraints[0].lstrip("_"))
    converted = make(layer, call)
    if name == "BatchNormalization" and not layer.trainable:  # Keras then normalizes with the running statistics
        converted = converted._replace(layer=layers.eval_mode(converted.layer))
    if call.options.get("training") is False:
        converted = converted._replace(layer=layers.eval_mode(converted.layer))
    elif call.options.get("training"):
        raise UnsupportedError("training=True in its call")
    return converted


def _dense(layer: Any, _: Call) -> Converted:
    need(layer, lora_enabled=False, quantization_mode=None)
    return Converted(layers.dense(layer.units, use_bias=layer.use_bias), activation(layer.activation))


def _window(layer: Any) -> dict[str, Any]:
    need(layer, data_format="channels_last", lora_enabled=False)
    return {
        "stride": tuple(layer.strides),
        "dilation": tuple(layer.dilation_rate),
        "padding": _padding(layer),
        "use_bias": layer.use_bias,
    }


def _padding(layer: Any) -> Any:
    if layer.padding == "causal":
        return ((layer.dilation_rate[0] * (layer.kernel_size[0] - 1), 0),)
    return layer.padding.upper()


def _conv(layer: Any, _: Call) -> Converted:
    ours = layers.conv(layer.filters, tuple(layer.kernel_size), groups=layer.groups, **_window(layer))
    return Converted(ours, activation(layer.activation))


def _conv_transpose(layer: Any, _: Call) -> Converted:
    need(layer, output_padding=None)
    if layer.padding == "valid" and any(
        stride > size for stride, size in zip(layer.strides, layer.kernel_size, strict=True)
    ):
        raise UnsupportedError("strides larger than the kernel with padding='valid'")
    ours = layers.conv_transpose(layer.filters, tuple(layer.kernel_size), **_window(layer))
    return Converted(ours, activation(layer.activation))


def _depthwise_conv(layer: Any, _: Call) -> Converted:
    ours = layers.depthwise_conv(tuple(layer.kernel_size), multiplier=layer.depth_multiplier, **_window(layer))
    return Converted(ours, activation(layer.activation))


def _separable_conv(layer: Any, _: Call) -> Converted:
    window: dict[str, Any] = {**_window(layer), "use_bias": False}
    parts = layers.serial(
        layers.depthwise_conv(tuple(layer.kernel_size), multiplier=layer.depth_multiplier, **window),
        layers.conv(layer.filters, 1, use_bias=layer.use_bias),
    )
    return Converted(parts._replace(name="separable_conv", wiring=None), activation(layer.activation))


def _pool(pool: Callable[..., Layer]) -> Callable[[Any, Call], Converted]:
    def made(layer: Any, _: Call) -> Converted:
        need(layer, data_format="channels_last")
        sizes, stride = tuple(layer.pool_size), tuple(layer.strides)
        return Converted(pool(sizes, stride=stride, padding=layer.padding.upper()), None, {})

    return made


def _check_last_axis(layer: Any, call: Call) -> None:
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if axes not in ([-1], [call.rank - 1]):
        raise UnsupportedError(f"axis={layer.axis}")


def _batch_norm(layer: Any, call: Call) -> Converted:
    _check_last_axis(layer, call)
    need(layer, renorm=False)
    ours = layers.batch_norm(momentum=layer.momentum, epsilon=layer.epsilon, convention="keras")
    absent: dict[str, Constant] = {} if layer.scale else {"scale": lambda _, state: jnp.ones_like(state["mean"])}
    if not layer.center:
        absent["bias"] = lambda _, state: jnp.zeros_like(state["mean"])
    return Converted(fixed(ours, absent))


def _layer_norm(layer: Any, call: Call) -> Converted:
    _check_last_axis(layer, call)
    need(layer, rms_scaling=False)
    return Converted(layers.layer_norm(epsilon=layer.epsilon, use_scale=layer.scale, use_bias=layer.center))


def _rms_norm(layer: Any, call: Call) -> Converted:
    _check_last_axis(layer, call)
    return Converted(layers.rms_norm(epsilon=layer.epsilon))


def _group_norm(layer: Any, call: Call) -> Converted:
    _check_last_axis(layer, call)
    if layer.groups == -1:
        raise UnsupportedError("groups=-1")
    ours = layers.group_norm(layer.groups, epsilon=layer.epsilon, use_scale=layer.scale, use_bias=layer.center)
    return Converted(ours)


def _dropout(dropout: Callable[[Any], Layer]) -> Callable[[Any, Call], Converted]:
    def made(layer: Any, _: Call) -> Converted:
        need(layer, noise_shape=None, data_format="channels_last")
        return Converted(dropout(layer.rate), None, {})

    return made


def _activation(layer: Any, _: Call) -> Converted:
    function = activation(layer.activation)
    if function is None:
        return Converted(identity, None, {})
    return Converted(function, None, {})


def _embedding(layer: Any, _: Call) -> Converted:
    need(layer, mask_zero=False, lora_enabled=False)
    return Converted(layers.embedding(layer.input_dim, layer.output_dim))


def _time_distributed(layer: Any, call: Call) -> Converted:
    inner = layer.layer
    if type(inner).__name__ not in ("Dense", "Activation", "Dropout", "LayerNormalization"):
        raise UnsupportedError(f"TimeDistributed of {type(inner).__name__}")
    converted = convert(inner, call)
    return converted._replace(weights={path: f"layer/{at}".rstrip("/") for path, at in converted.weights.items()})


def _attention(layer: Any, call: Call) -> Converted:
    if layer._value_dim != layer._key_dim:
        raise UnsupportedError(f"value_dim={layer._value_dim} beside key_dim={layer._key_dim}")
    for option in ("use_gate", "sliding_window", "num_key_value_heads"):
        if getattr(layer, option, None) or getattr(layer, f"_{option}", None):
            raise UnsupportedError(option)
    if tuple(layer._attention_axes) != (1,):
        raise UnsupportedError(f"attention_axes={layer._attention_axes}")
    ours = layers.multi_head_attention(
        layer._num_heads,
        head_features=layer._key_dim,
        features=layer._output_dense.kernel.shape[-1],
        causal=bool(call.options.get("use_causal_mask")),
        use_bias=layer._use_bias,
        drop_rate=layer._dropout if layer._dropout else None,
    )
    return Converted(ours)


def _prelu(layer: Any, _: Call) -> Converted:
    shape = tuple(layer.alpha.shape)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key
        return {"slope": jnp.zeros(shape, x.dtype)}, {}

    def apply(params: Params, state: State, x: Any, **_: Any) -> tuple[Any, State]:
        return jnp.where(x > 0, x, params["slope"] * x), state

    return Converted(Layer(init, apply, "prelu"))


_SPATIAL = ("1D", "2D", "3D")
_LAYERS: dict[str, Callable[[Any, Call], Converted]] = {
    "Dense": _dense,
    **{f"Conv{axes}": _conv for axes in _SPATIAL},
    **{f"Conv{axes}Transpose": _conv_transpose for axes in _SPATIAL},
    **{f"DepthwiseConv{axes}": _depthwise_conv for axes in _SPATIAL},
    **{f"SeparableConv{axes}": _separable_conv for axes in _SPATIAL},
    **{f"MaxPooling{axes}": _pool(layers.max_pool) for axes in _SPATIAL},
    **{f"AveragePooling{axes}": _pool(layers.average_pool) for axes in _SPATIAL},
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "Dropout": _dropout(layers.dropout),
    **{f"SpatialDropout{axes}": _dropout(layers.spatial_dropout) for axes in _SPATIAL},
    "GaussianNoise": lambda layer, _: Converted(layers.gaussian_noise(layer.stddev), None, {}),
    "Activation": _activation,
    "PReLU": _prelu,
    "Embedding": _embedding,
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU"), recurrent),
    "Bidirectional": bidirectional,
    "TimeDistributed": _time_distributed,
    "MultiHeadAttention": _attention,
}
