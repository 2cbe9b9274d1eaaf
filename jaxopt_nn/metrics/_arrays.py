"""Arrays as metrics take them."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import (
    check_class_labels,
    check_distributions,
    check_same_shape,
    is_distribution,
    plain_array,
)
from jaxopt_nn._dtypes import compute_dtype, promote
from jaxopt_nn._scale import power_of_two
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["indices", "mean_of_trailing", "pair", "ratio", "reals", "scaled", "true_classes"]


def pair(name: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    """Outputs and targets of one shape ``[N, ...]``, as floats of one dtype, float32 or wider."""
    o, t = reals(name, outputs), reals("targets", targets)
    if o.ndim < 1:
        raise ValueError(f"{name}: expected [N, ...], got a scalar")
    check_same_shape("targets", t, name, o)
    return o, t.astype(o.dtype)


def reals(name: str, value: ArrayLike) -> Array:
    """As an array of floats, float32 or wider."""
    array = jnp.asarray(plain_array(name, value))
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}{list(array.shape)}")
    return array.astype(compute_dtype(array))


def scaled(columns: Array) -> tuple[Array, Array]:
    """Columns ``[N, C]`` of numbers up to 2 in size, and the powers of two ``[1, C]`` they were divided by."""
    scale = power_of_two(jnp.max(jnp.abs(columns), axis=0, keepdims=True))
    return columns / scale, scale


def indices(classes: ArrayLike) -> Array:
    array = jnp.asarray(classes)
    return array.astype(promote(array, jnp.int32))  # uint8 cannot hold 256, the number of classes


def mean_of_trailing(values: Array) -> Array:
    values = values.astype(compute_dtype(values))
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def ratio(part: Any, whole: Any) -> Array:
    """``part / whole``, and 0 where ``whole`` is 0."""
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))


def true_classes(labels: ArrayLike, outputs: Array) -> tuple[Array, Array]:
    """Class indices ``[N, ...]`` from labels of either form, and where they are defined (hold no NaN)."""
    labels = plain_array("labels", labels)
    num_classes, shape = outputs.shape[-1], np.shape(labels)
    if shape == outputs.shape[:-1]:
        check_class_labels("labels", labels, num_classes)
        return indices(labels), jnp.ones(shape, bool)
    if shape == outputs.shape:
        check_distributions("labels", labels, or_nan=True)
        rows = reals("labels", labels)
        return jnp.argmax(rows, axis=-1), is_distribution(rows)
    raise ValueError(
        f"labels: expected classes {list(outputs.shape[:-1])} or rows {list(outputs.shape)} "
        f"for outputs {list(outputs.shape)}, got {list(shape)}"
    )
