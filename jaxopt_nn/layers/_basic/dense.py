"""Fully connected layers."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn import initializers
from jaxopt_nn._arguments import check_key, check_positive_int
from jaxopt_nn.initializers import Initializer
from jaxopt_nn.layers._inputs import check_floating
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["dense", "flatten"]


def dense(
    features: int,
    *,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    use_bias: bool = True,
) -> Layer:
    """A fully connected (affine) layer on the last axis: ``y = x W + b``.

    Args:
        features: number of outputs (static, >= 1).
        kernel_init: initializer of ``W``, shape ``[fan_in, features]``; He normal by default (for ReLU; take
            ``initializers.xavier_uniform()`` for tanh or sigmoid).
        bias_init: initializer of ``b``, shape ``[features]``; zeros by default.
        use_bias: whether there is a ``b`` (static).

    Returns:
        A layer with parameters ``kernel`` and ``bias`` in the dtype of its input, ``[..., fan_in] -> [..., features]``.

    Raises:
        ValueError: at ``apply``, if the last axis of ``x`` is not ``fan_in``.
        TypeError: if ``x`` is not floating-point.

    Differs from torch.nn.Linear in the kernel's layout (``[in, out]`` here) and the default initialization
    (U(±1/√fan_in) for both there); from keras.layers.Dense in the default initialization (Glorot uniform there).

    >>> import jax, jax.numpy as jnp
    >>> layer = dense(3)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((8, 5)))
    >>> y, _ = layer.apply(params, state, jnp.ones((8, 5)))
    >>> params["kernel"].shape, params["bias"].shape, y.shape
    ((5, 3), (3,), (8, 3))
    """
    check_positive_int("features", features)
    features = int(features)  # it may be an integer of NumPy
    kernel_init = initializers.he_normal() if kernel_init is None else kernel_init

    def init(key: Key, x: Any) -> tuple[Params, State]:
        check_key("key", key)
        _check_features(x)
        kernel_shape = (x.shape[-1], features)
        if not use_bias:
            return {"kernel": kernel_init(key, kernel_shape, x.dtype)}, {}
        if bias_init is None:  # zeros need no key, and a split costs time to compile
            return {"kernel": kernel_init(key, kernel_shape, x.dtype), "bias": jnp.zeros(features, x.dtype)}, {}
        kernel_key, bias_key = jax.random.split(key)
        bias = bias_init(bias_key, (features,), x.dtype)
        return {"kernel": kernel_init(kernel_key, kernel_shape, x.dtype), "bias": bias}, {}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Array, State]:
        del train, key, weight
        _check_features(x, params["kernel"].shape[0])
        y = x @ params["kernel"]
        return (y + jnp.broadcast_to(params["bias"], y.shape) if use_bias else y), state

    return Layer(init, apply, "dense")


def flatten(x: Array) -> Array:
    """Flattens all axes but the batch axis: ``[N, ...] -> [N, features]``. A plain function, and so a layer.

    >>> flatten(jnp.ones((2, 28, 28, 1))).shape
    (2, 784)
    """
    return x.reshape((x.shape[0], math.prod(x.shape[1:])))  # not -1: it may be an empty batch


def _check_features(x: Any, expected: int | None = None) -> None:
    check_floating(x)
    if len(x.shape) < 2:
        raise ValueError(f"expected input [batch, ..., features], got shape {list(x.shape)}")
    if expected is not None and x.shape[-1] != expected:
        raise ValueError(f"expected {expected} features on the last axis, got {x.shape[-1]} (shape {list(x.shape)})")
