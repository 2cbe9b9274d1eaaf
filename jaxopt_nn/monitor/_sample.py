"""A part of a large leaf, for what a part says as well as the whole."""

import jax.numpy as jnp

from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.types import Array

__all__ = ["MOST", "sample", "sum_of_squares"]

MOST = 4096


def sample(leaf: Array) -> Array:
    """``[n]`` equally spaced numbers of the leaf, at most ``MOST``, or all of them."""
    row = jnp.ravel(leaf)[:: -(-leaf.size // MOST) or 1]
    return row.astype(compute_dtype(row))


def sum_of_squares(row: Array) -> Array:
    """``[n]`` to a number; in one form, so that a compiled program computes it once for all records."""
    return jnp.sum(jnp.square(row))
