"""The dtypes in which layers, losses and optimizers compute, whatever JAX's promotion is set to ("strict" too)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["cast", "compute_dtype", "promote"]


def promote(*dtypes: Any) -> Any:
    """The dtype that holds all of these."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


def compute_dtype(value: Any) -> Any:
    """The dtype in which arithmetic on ``value``, an array or a dtype, is done: its own, but at least float32."""
    dtype = jnp.result_type(value)
    if jnp.issubdtype(dtype, jnp.floating):
        return np.promote_types(dtype, np.float32)  # JAX refuses to promote a float8
    return promote(dtype, jnp.float32)


def cast(value: Any, dtype: Any) -> Any:
    """``value`` in ``dtype``: a Python number becomes a constant of the program, an array is converted if it must."""
    if isinstance(value, (int, float)):
        return np.asarray(value, dtype)
    return value if value.dtype == dtype else value.astype(dtype)
