"""Arrays for losses: floats of at least float32, of one shape, with examples along the first axis."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxopt_nn._arguments import check_same_shape, plain_array
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["Loss", "floats", "mean_of_trailing", "pair", "reals"]

Loss = Callable[[Array, Array], Array]
"""``loss(outputs, targets) -> [N]``."""


def pair(name: str, outputs: ArrayLike, targets_name: str, targets: ArrayLike) -> tuple[Array, Array]:
    """Outputs and targets as floats of one dtype and one shape ``[N, ...]``."""
    o = floats(name, outputs)
    if o.ndim < 1:
        raise ValueError(f"{name}: expected [N, ...], got a scalar")
    check_same_shape(targets_name, targets, name, outputs)
    return o, reals(targets_name, targets, o.dtype)


def floats(name: str, value: ArrayLike) -> Array:
    array = jnp.asarray(plain_array(name, value))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a float dtype, got {array.dtype}{list(array.shape)}")
    return array.astype(compute_dtype(array))


def reals(name: str, value: ArrayLike, dtype: Any) -> Array:
    array = jnp.asarray(plain_array(name, value))
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}{list(array.shape)}")
    return array.astype(dtype)


def mean_of_trailing(loss: Array) -> Array:
    return jnp.mean(loss, axis=tuple(range(1, loss.ndim)))
