"""What layers of Keras without weights compute, as plain functions of arrays."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn import layers
from jaxopt_nn.types import Array

__all__ = ["MERGES", "UnsupportedError", "activation", "function", "need"]

Function = Callable[[Any], Any]


class UnsupportedError(Exception):
    """A layer of Keras, or an option of one, that has no counterpart here; the message says which."""


def need(layer: Any, **options: Any) -> None:
    """Raises if an option of a layer has another value than the only one that is supported."""
    for name, expected in options.items():
        value = getattr(layer, name, expected)
        if value != expected:
            raise UnsupportedError(f"{name}={value!r}")


def _called(name: str, function: Function) -> Function:
    function.__name__ = name
    return function


def _leaky_relu(slope: float) -> Function:
    return _called("leaky_relu", lambda x: jax.nn.leaky_relu(x, slope))


_ACTIVATIONS: dict[str, Function] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": _leaky_relu(0.2),
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "celu": jax.nn.celu,
    "gelu": _called("gelu", lambda x: jax.nn.gelu(x, approximate=False)),
    "silu": jax.nn.silu,
    "mish": jax.nn.mish,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "sigmoid": jax.nn.sigmoid,
    "log_sigmoid": jax.nn.log_sigmoid,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_silu": jax.nn.hard_silu,
    "hard_tanh": jax.nn.hard_tanh,
    "tanh": jnp.tanh,
    "exponential": jnp.exp,
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
}


def activation(of_keras: Any) -> Function | None:
    """The function that Keras has under this name; None for the identity."""
    name = getattr(of_keras, "__name__", "")
    known = getattr(of_keras, "__module__", "").startswith("keras.")
    if known and name == "linear":
        return None
    if not known or name not in _ACTIVATIONS:
        raise UnsupportedError(f"activation={name or type(of_keras).__name__}")
    return _ACTIVATIONS[name]


def _relu(layer: Any) -> Function:
    slope, threshold = float(layer.negative_slope), float(layer.threshold)
    limit = None if layer.max_value is None else float(layer.max_value)
    if not slope and not threshold and limit in (None, 6):
        return jax.nn.relu if limit is None else jax.nn.relu6

    def relu(x: Array) -> Array:
        y = jnp.where(x > threshold, x, slope * (x - threshold))
        return y if limit is None else jnp.minimum(y, limit)

    return relu


def _elu(layer: Any) -> Function:
    alpha = float(layer.alpha)
    return _called("elu", lambda x: jax.nn.elu(x, alpha))


def _softmax(layer: Any) -> Function:
    axis = layer.axis if isinstance(layer.axis, int) else tuple(layer.axis)
    return _called("softmax", lambda x: jax.nn.softmax(x, axis))


def _identity(layer: Any) -> Function:
    need(layer, mask_value=None)
    return _called("identity", lambda x: x)


def _flatten(layer: Any) -> Function:
    need(layer, data_format="channels_last")
    return layers.flatten


def _permute(layer: Any) -> Function:
    order = (0, *layer.dims)
    return _called("permute", lambda x: jnp.transpose(x, order))


def _repeat_vector(layer: Any) -> Function:
    times = int(layer.n)
    return _called("repeat_vector", lambda x: jnp.repeat(x[:, None], times, axis=1))


def _pairs(sizes: Any) -> list[tuple[int, int]]:
    sizes = sizes if isinstance(sizes[0], (list, tuple)) else [sizes]
    return [(int(before), int(after)) for before, after in sizes]


def _zero_padding(layer: Any) -> Function:
    need(layer, data_format="channels_last")
    pads = [(0, 0), *_pairs(layer.padding), (0, 0)]
    return _called("zero_padding", lambda x: jnp.pad(x, pads))


def _cropping(layer: Any) -> Function:
    need(layer, data_format="channels_last")
    pairs = _pairs(layer.cropping)

    def cropping(x: Array) -> Array:
        return x[:, *(slice(before, size - after) for size, (before, after) in zip(x.shape[1:], pairs, strict=False))]

    return cropping


def _up_sampling(layer: Any) -> Function:
    need(layer, data_format="channels_last", interpolation="nearest")
    sizes = [layer.size] if isinstance(layer.size, int) else list(layer.size)

    def up_sampling(x: Array) -> Array:
        for axis, size in enumerate(sizes, 1):
            x = jnp.repeat(x, size, axis)
        return x

    return up_sampling


def _global_pool(pool: Function) -> Callable[[Any], Function]:
    def made(layer: Any) -> Function:
        need(layer, data_format="channels_last")
        if not layer.keepdims:
            return pool
        kept = pool.__name__
        return _called(kept, lambda x: jnp.expand_dims(pool(x), tuple(range(1, x.ndim - 1))))

    return made


def _rescaling(layer: Any) -> Function:
    scale, offset = (np.asarray(number).tolist() for number in (layer.scale, layer.offset))  # of each channel, perhaps
    return _called("rescaling", lambda x: x * jnp.asarray(scale, x.dtype) + jnp.asarray(offset, x.dtype))


def _reduced(name: str, combine: Callable[[Any, Any], Any], mean: bool = False) -> Callable[[Any], Function]:
    """A merge of several arrays, which may broadcast."""

    def merge(arrays: Sequence[Array]) -> Array:
        total = functools.reduce(combine, arrays)
        return total / len(arrays) if mean else total

    return lambda _: _called(name, lambda arrays: merge(arrays))


def _concatenate(layer: Any) -> Function:
    axis = int(layer.axis)
    return _called("concatenate", lambda arrays: jnp.concatenate(arrays, axis))


_SPATIAL = ("1D", "2D", "3D")
_FUNCTIONS: dict[str, Callable[[Any], Function]] = {
    "ReLU": _relu,
    "LeakyReLU": lambda layer: _leaky_relu(float(layer.negative_slope)),
    "ELU": _elu,
    "Softmax": _softmax,
    "Identity": _identity,
    "Flatten": _flatten,
    "Reshape": lambda layer: layers.reshape(*layer.target_shape),
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
    "Rescaling": _rescaling,
    **{f"ZeroPadding{axes}": _zero_padding for axes in _SPATIAL},
    **{f"Cropping{axes}": _cropping for axes in _SPATIAL},
    **{f"UpSampling{axes}": _up_sampling for axes in _SPATIAL},
    **{f"GlobalAveragePooling{axes}": _global_pool(layers.global_average_pool) for axes in _SPATIAL},
    **{f"GlobalMaxPooling{axes}": _global_pool(layers.global_max_pool) for axes in _SPATIAL},
    "Add": _reduced("add", jnp.add),
    "Subtract": _reduced("subtract", jnp.subtract),
    "Multiply": _reduced("multiply", jnp.multiply),
    "Maximum": _reduced("maximum", jnp.maximum),
    "Minimum": _reduced("minimum", jnp.minimum),
    "Average": _reduced("average", jnp.add, mean=True),
    "Concatenate": _concatenate,
}
MERGES = ("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average", "Concatenate")


def function(layer: Any) -> Function | None:
    """The function of a layer without weights; None if it is none of those that are known."""
    make = _FUNCTIONS.get(type(layer).__name__)
    return None if make is None else make(layer)
