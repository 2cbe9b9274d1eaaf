"""Mean and variance in two passes, for all normalizations."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxopt_nn.layers._inputs import check_array
from jaxopt_nn.types import Array, ArrayLike

__all__ = [
    "Moments",
    "aligned",
    "check_no_features",
    "check_normalized",
    "inverse_deviation",
    "moments",
    "scale_and_bias",
    "unit_of",
    "weighted_moments",
]


class Moments(NamedTuple):
    """Statistics in a unit in which squares neither overflow nor vanish (in float32 the square of 1e20 is infinite).

    Attributes:
        unit: a power of two near the largest magnitude, so that ``x / unit`` is exact; 1 where nothing has weight. It
            has no derivative.
        x: the input in this unit, ``x / unit``.
        mean: of that.
        variance: the biased variance of that.
        entries: how many entries the statistics are worth.
    """

    unit: Array
    x: Array
    mean: Array
    variance: Array
    entries: Array


def check_no_features(name: str, positional: tuple[Any, ...]) -> None:
    """Raises if a normalization was given a number of features, as other libraries want it."""
    if positional:
        raise TypeError(
            f"{name}: expected arguments by name, such as epsilon=1e-5, got {', '.join(map(repr, positional))}; the "
            "number of features follows from the input: leave it out"
        )


def check_normalized(x: Any, features: int | None = None, *, spatial: bool = False) -> None:
    """Raises unless ``x`` is floating-point ``[batch, ..., features]``, with spatial axes if it needs any."""
    check_array(x)
    wanted = "[batch, spatial axes ..., features]" if spatial else "[batch, ..., features]"
    if not jnp.issubdtype(x.dtype, jnp.floating) or len(x.shape) < (3 if spatial else 2):
        raise ValueError(f"expected floating-point {wanted}, got {x.dtype}{list(x.shape)}")
    if features is not None and x.shape[-1] != features:
        raise ValueError(f"expected {features} features, got shape {list(x.shape)}")


def unit_of(x: Array, axes: tuple[int, ...], epsilon: ArrayLike = 0.0) -> Array:
    """A power of two near the largest magnitude of ``x`` over ``axes`` (kept with size 1), and not far below √ε.

    Squares of ``x / unit``, their sum, and ``ε / unit²`` are then in the middle of the dtype's range. The unit is a
    constant for derivatives: a result that is computed from ``x / unit`` and multiplied by the unit does not depend on
    it.
    """
    form = jnp.finfo(x.dtype)
    largest = jnp.max(jnp.abs(lax.stop_gradient(x)), axes, keepdims=True, initial=0)
    least = jnp.sqrt(lax.stop_gradient(jnp.asarray(epsilon, x.dtype)))
    # A quarter of the range, so that the power of two and its inverse are both normal numbers.
    return lax.reduce_precision(jnp.maximum(jnp.maximum(largest, least), 4 * form.tiny) / 4, form.nexp, 0)


def inverse_deviation(variance: Array, epsilon: ArrayLike, unit: Array) -> Array:
    """``1/√(σ² + ε)`` in the unit of the variance. Finite, with finite derivatives, where both are 0."""
    form = jnp.finfo(variance.dtype)
    inverse = 1 / unit  # not ε / unit / unit, which may be compiled as ε / unit², and unit² may be 0 or infinite
    small = jnp.asarray(epsilon, variance.dtype) * inverse * inverse
    return lax.rsqrt(variance + jnp.maximum(small, jnp.asarray(float(form.tiny) ** (2 / 3), variance.dtype)))


def moments(x: Array, axes: tuple[int, ...], unit: Array) -> tuple[Array, Array]:
    """``x − mean`` and the biased variance over ``axes`` (kept with size 1), in units of ``unit``.

    Two passes, because the mean of squares minus the squared mean cancels, and can become negative.
    """
    x = x * (1 / unit)
    deviation = x - jnp.mean(x, axes, keepdims=True)
    return deviation, jnp.mean(jnp.square(deviation), axes, keepdims=True)


def weighted_moments(x: Array, weight: Array | None, epsilon: ArrayLike) -> Moments:
    """Mean and biased variance over all axes but that of the features, and how many entries they are worth.

    Each entry of example i has the weight w_i. With P positions in an example, all of them are worth P·(Σw)²/Σw²
    entries: P·N for equal weights of any size, and 0 if there is no weight at all.
    """
    axes = tuple(range(x.ndim - 1))
    positions = math.prod(x.shape[1:-1])
    if weight is None:
        unit = jnp.squeeze(unit_of(x, axes, epsilon), axes)
        x = x * aligned(1 / unit, x)
        mean = jnp.mean(x, axes)
        variance = jnp.mean(jnp.square(x - aligned(mean, x)), axes)
        return Moments(unit, x, mean, variance, jnp.asarray(x.shape[0] * positions, x.dtype))
    weight = jnp.asarray(weight, x.dtype)
    total = jnp.sum(weight)
    share = weight / jnp.where(total > 0, total, 1)
    square = jnp.sum(jnp.square(share))
    entries = jnp.where(total > 0, positions / jnp.where(square > 0, square, 1), 0)
    share = aligned(share, x, 0) / positions
    present = share > 0
    unit = jnp.squeeze(unit_of(jnp.where(present, x, 0), axes, epsilon), axes)
    unit = jnp.where(total > 0, unit, 1)
    x = x * aligned(1 / unit, x)
    mean = jnp.sum(share * jnp.where(present, x, 0), axes)
    deviation = jnp.where(present, x - aligned(mean, x), 0)
    return Moments(unit, x, mean, jnp.sum(share * jnp.square(deviation), axes), entries)


def aligned(vector: Array, x: Array, axis: int = -1) -> Array:
    """``vector`` in the rank of ``x``, along one of its axes."""
    return jnp.expand_dims(vector, [other for other in range(x.ndim) if other != axis % x.ndim])


def scale_and_bias(y: Array, params: Any) -> Array:
    """``y · scale + bias``; either may be missing."""
    if "scale" in params:
        y = y * aligned(params["scale"].astype(y.dtype), y)
    return y + aligned(params["bias"].astype(y.dtype), y) if "bias" in params else y
