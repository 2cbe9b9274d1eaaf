"""Mean and variance in two passes, and what normalizations share."""

import math
from typing import Any

import jax.numpy as jnp

from jaxopt_nn.types import Array

__all__ = ["aligned", "check_normalized", "moments", "scale_and_bias", "weighted_moments", "wide_of"]


def wide_of(x: Any) -> Any:
    """The dtype to compute in: float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)


def check_normalized(x: Any, features: int | None = None, *, spatial: bool = False) -> None:
    """Raises unless ``x`` is floating-point ``[batch, ..., features]``, with spatial axes if it needs any."""
    wanted = "[batch, spatial axes ..., features]" if spatial else "[batch, ..., features]"
    if not jnp.issubdtype(x.dtype, jnp.floating) or len(x.shape) < (3 if spatial else 2):
        raise ValueError(f"expected floating-point {wanted}, got {x.dtype}{list(x.shape)}")
    if features is not None and x.shape[-1] != features:
        raise ValueError(f"expected {features} features, got shape {list(x.shape)}")


def moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """``x − mean`` and the biased variance over ``axes``, which are kept with size 1.

    In two passes: the mean of squares minus the squared mean would cancel, and can become negative.
    """
    deviation = x - jnp.mean(x, axes, keepdims=True)
    return deviation, jnp.mean(jnp.square(deviation), axes, keepdims=True)


def weighted_moments(x: Array, weight: Array | None) -> tuple[Array, Array, Array]:
    """Mean and biased variance over all axes but that of the features, and how many entries they are worth.

    The entries of example i count w_i, rows of weight 0 do not exist. With P positions an example they are worth
    P·(Σw)²/Σw² entries: P·N for equal weights, whatever their size.
    """
    axes = tuple(range(x.ndim - 1))
    positions = math.prod(x.shape[1:-1])
    if weight is None:
        mean = jnp.mean(x, axes)
        variance = jnp.mean(jnp.square(x - aligned(mean, x)), axes)
        return mean, variance, jnp.asarray(x.shape[0] * positions, x.dtype)
    weight = jnp.asarray(weight, x.dtype)
    tiny = jnp.finfo(x.dtype).tiny
    share = weight / jnp.maximum(jnp.sum(weight), tiny)
    count = positions / jnp.maximum(jnp.sum(jnp.square(share)), tiny)
    share = aligned(share, x, 0) / positions
    present = share > 0
    mean = jnp.sum(share * jnp.where(present, x, 0), axes)
    deviation = jnp.where(present, x - aligned(mean, x), 0)
    return mean, jnp.sum(share * jnp.square(deviation), axes), count


def aligned(vector: Array, x: Array, axis: int = -1) -> Array:
    """``vector`` in the rank of ``x``, along one of its axes."""
    return jnp.expand_dims(vector, [other for other in range(x.ndim) if other != axis % x.ndim])


def scale_and_bias(y: Array, params: Any) -> Array:
    """``y · scale + bias``, with whichever of them there is."""
    if "scale" in params:
        y = y * aligned(params["scale"].astype(y.dtype), y)
    return y + aligned(params["bias"].astype(y.dtype), y) if "bias" in params else y
