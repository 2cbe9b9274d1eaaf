"""Checks of a layer's input."""

from typing import Any

import jax.numpy as jnp

__all__ = ["check_array", "check_floating", "check_several"]


def check_array(x: Any) -> None:
    """Raises unless ``x`` is one array, or the shape and dtype of one."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return
    hint = "; convert it with jnp.asarray" if isinstance(x, (int, float)) else ""
    if isinstance(x, (tuple, list)):
        inner = {type(item).__name__ for item in x}
        if inner and inner <= {"int", "float", "list"}:
            hint = "; for an example input take jax.ShapeDtypeStruct(shape, dtype), for data jnp.asarray"
        else:
            hint = f" of {len(x)}; layers.concatenate and layers.add make one array of several"
    raise TypeError(f"expected one array, got a {type(x).__name__}{hint}")


def check_floating(x: Any) -> None:
    """Raises unless ``x`` is one array of numbers that have derivatives."""
    check_array(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"expected floating-point input, got {x.dtype}; convert it, e.g. x.astype('float32')")


def check_several(arrays: Any) -> None:
    """Raises unless ``arrays`` is a tuple or list of arrays. A loop over one array would take its examples apart."""
    if not isinstance(arrays, (tuple, list)) or len(arrays) == 0:
        shape, dtype = getattr(arrays, "shape", None), getattr(arrays, "dtype", None)
        got = repr(arrays) if shape is None else f"one array {dtype}{list(shape)}"
        raise TypeError(
            f"expected a tuple of arrays, got {got}; parallel(..., merge=None) returns one, and a node of a graph with "
            "several sources is fed one"
        )
    for array in arrays:
        check_array(array)
