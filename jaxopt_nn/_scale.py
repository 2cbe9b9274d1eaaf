"""Exact scaling, for sums of products that would leave the range of their dtype on the way to a result within it."""

import jax.numpy as jnp
from jax import lax

from jaxopt_nn.types import Array

__all__ = ["power_of_two"]


def power_of_two(size: Array) -> Array:
    """A power of two near each ``size`` (>= 0), to divide by without losing a digit; 1 for 0, infinity and NaN.

    The quotient lies in [1, 2), or up to 4 at the end of the dtype's range. The power is read from the bits of the
    float's exponent and so has no derivative: a result that does not depend on the scale needs none.
    """
    info = jnp.finfo(size.dtype)
    bits = jnp.dtype(f"int{info.bits}")
    exponent = lax.bitcast_convert_type(jnp.array(jnp.inf, size.dtype), bits)  # infinity has all its bits set
    power = lax.bitcast_convert_type(lax.bitcast_convert_type(size, bits) & exponent, size.dtype)
    most = 2.0 ** (info.maxexp - 2)  # whose reciprocal is a normal number: a compiler may multiply by it
    return jnp.where((power > 0) & jnp.isfinite(power), jnp.minimum(power, most), jnp.ones((), size.dtype))
