"""Exact scaling, for sums of products that would leave the range of their dtype on the way to a result within it."""

import jax.numpy as jnp
from jax import lax

from jaxopt_nn.types import Array

__all__ = ["power_of_two"]


def power_of_two(size: Array) -> Array:
    """The largest power of two up to each ``size`` (>= 0), to divide by without losing a digit; 1 for 0, inf and NaN.

    It is read from the bits of the float's exponent, and so has no derivative: a result that does not depend on the
    scale needs none.
    """
    info = jnp.finfo(size.dtype)
    bits = jnp.dtype(f"int{info.bits}")
    mask = jnp.array(jnp.inf, size.dtype)  # whose bits are those of an exponent, all set
    power = lax.bitcast_convert_type(
        lax.bitcast_convert_type(size, bits) & lax.bitcast_convert_type(mask, bits), size.dtype
    )
    return jnp.where((power > 0) & jnp.isfinite(power), power, jnp.ones((), size.dtype))
