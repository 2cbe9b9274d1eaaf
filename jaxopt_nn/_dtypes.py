"""Dtypes of arithmetic: this library says its promotions itself, so that JAX's "strict" mode is no matter."""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["as_dtype", "promoted"]


def as_dtype(name: str, dtype: Any) -> Any:
    """``dtype`` as one of NumPy's, or ``TypeError`` that names the argument."""
    try:
        if dtype is not None:  # float64 to NumPy
            return jnp.dtype(dtype)
    except TypeError:
        pass
    raise TypeError(f"{name}: expected a dtype, such as jnp.float32, got {dtype!r}")


def promoted(*dtypes: Any) -> Any:
    """The dtype that holds all of them, as JAX's standard promotion has it.

    >>> promoted(jnp.bfloat16, jnp.float32), promoted(jnp.int32, jnp.bfloat16)
    (dtype('float32'), dtype(bfloat16))
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)
