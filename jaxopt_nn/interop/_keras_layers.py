"""A layer of Keras as one of ours."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxopt_nn import layers
from jaxopt_nn.interop._keras_functions import UnsupportedError, activation, function, need
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["Call", "Converted", "convert"]


class Converted(NamedTuple):
    """A layer of Keras.

    Attributes:
        layer: ours.
        then: a function after it, such as the activation; None for none.
        weights: the paths within our layer to the attributes of Keras's layer that hold the weights: ``{"": ""}`` for
            the layer itself.
    """

    layer: Any
    then: Any = None
    weights: Mapping[str, str] = {"": ""}  # noqa: RUF012


class Call(NamedTuple):
    """How a model of Keras calls a layer.

    Attributes:
        options: the keywords that are no arrays.
        rank: of its (first) input, with the batch axis.
    """

    options: Mapping[str, Any]
    rank: int


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
    window = _window(layer) | {"use_bias": False}
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
    absent: dict[str, _Constant] = {} if layer.scale else {"scale": lambda _, state: jnp.ones_like(state["mean"])}
    if not layer.center:
        absent["bias"] = lambda _, state: jnp.zeros_like(state["mean"])
    return Converted(_fixed(ours, absent))


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
        return Converted(_linear, None, {})
    return Converted(function, None, {})


def _linear(x: Array) -> Array:
    return x


_linear.__name__ = "identity"


def _embedding(layer: Any, _: Call) -> Converted:
    need(layer, mask_zero=False, lora_enabled=False)
    return Converted(layers.embedding(layer.input_dim, layer.output_dim))


def _recurrent(layer: Any, call: Call) -> Converted:
    if "initial_state" in call.options:
        raise UnsupportedError("initial_state in its call")
    need(layer, stateful=False, return_state=False, dropout=0.0, recurrent_dropout=0.0)
    options = {"return_sequences": layer.return_sequences, "reverse": layer.go_backwards}
    kind, absent = type(layer).__name__, {} if layer.use_bias else {"bias": _no_bias}
    if kind == "SimpleRNN":
        function = activation(layer.activation) or _linear
        ours = layers.simple_rnn(layer.units, activation=function, **options)
    else:
        for option, expected in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
            if getattr(getattr(layer, option), "__name__", "") != expected:
                raise UnsupportedError(f"{option}={getattr(getattr(layer, option), '__name__', option)}")
        if kind == "LSTM":
            ours = layers.lstm(layer.units, **options)
        else:
            ours = layers.gru(layer.units, reset_after=layer.reset_after, **options)
            if layer.reset_after and layer.use_bias:
                ours = _two_biases(ours, layer.units)
            elif layer.reset_after:
                absent["recurrent_bias"] = _no_recurrent_bias
    ours = _fixed(ours, absent)
    # Keras then returns the outputs from the last step to the first.
    backwards = layer.go_backwards and layer.return_sequences
    return Converted(ours, _reversed if backwards else None)


def _reversed(x: Array) -> Array:
    return jnp.flip(x, 1)


_reversed.__name__ = "reversed"


def _two_biases(gru: Layer, features: int) -> Layer:
    """A GRU with two biases for each gate, both trained, as in Keras."""

    def init(key: Key, x: Any) -> tuple[Params, State]:
        params, state = gru.init(key, x)
        return {**params, "recurrent_bias": jnp.zeros_like(params["bias"])}, state

    def apply(params: Params, state: State, x: Any, **mode: Any) -> tuple[Any, State]:
        of_gates = params["recurrent_bias"].at[2 * features :].set(0)
        of_new = params["recurrent_bias"][2 * features :]
        return gru.apply({**params, "bias": params["bias"] + of_gates, "recurrent_bias": of_new}, state, x, **mode)

    return Layer(init, apply, "keras_gru")


def _bidirectional(layer: Any, call: Call) -> Converted:
    forward, backward = _recurrent(layer.forward_layer, call), _recurrent(layer.backward_layer, call)
    merges = {
        "concat": layers.concatenate,
        "sum": layers.add,
        "mul": lambda both: both[0] * both[1],
        "ave": lambda both: (both[0] + both[1]) / 2,
    }
    if layer.merge_mode not in merges:
        raise UnsupportedError(f"merge_mode={layer.merge_mode}")
    if not layer.backward_layer.go_backwards or layer.forward_layer.go_backwards:
        raise UnsupportedError("layers of these directions")
    both = layers.parallel(forward.layer, backward.layer, merge=merges[layer.merge_mode])
    first, second = (node.name for node in both.wiring.nodes[:2])
    return Converted(both, None, {first: "forward_layer", second: "backward_layer"})


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


_Constant = Callable[[Params, State], Array]


def _no_bias(params: Params, _: State) -> Array:
    return jnp.zeros_like(params["recurrent_kernel"][0])


def _no_recurrent_bias(params: Params, _: State) -> Array:
    return jnp.zeros_like(params["recurrent_kernel"][:, 0])


def _fixed(layer: Layer, constants: Mapping[str, _Constant]) -> Layer:
    """A layer some of whose parameters are constants, and so none."""
    if not constants:
        return layer

    def init(key: Key, x: Any) -> tuple[Params, State]:
        params, state = layer.init(key, x)
        return {name: leaf for name, leaf in params.items() if name not in constants}, state

    def apply(params: Params, state: State, x: Any, **mode: Any) -> tuple[Any, State]:
        numbers = {name: constant(params, state) for name, constant in constants.items()}
        return layer.apply({**params, **numbers}, state, x, **mode)

    return Layer(init, apply, layer.name)


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
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU"), _recurrent),
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
    "MultiHeadAttention": _attention,
}
