"""Checks of a data set before anything is trained on it.

Shapes and dtypes are checked always, values only where they are concrete: a traced array passes. An error names the
part (``train.x``, ``valid.y``), the first offending row and its value.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpy.typing import NDArray

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Batch

__all__ = [
    "check_batch",
    "check_concrete",
    "check_finite",
    "check_labels",
    "check_real",
    "first_where",
    "is_integer",
    "is_traced",
    "num_examples",
]


def check_batch(name: str, batch: Any, num_outputs: int | None = None) -> None:
    """Raises unless ``batch`` is a data set that can be trained on.

    Args:
        name: what the batch is called in an error, such as ``"train"``; with ``""`` the parts are called ``x``, ``y``,
            ``weight``.
        batch: ``Batch(x, y, weight)``. ``x`` and ``y`` are arrays or pytrees of arrays, all of ``N >= 1`` rows and of
            finite values; ``weight`` is None or ``[N]``, finite, non-negative and not all zero. Arrays may be traced.
        num_outputs: static: integer labels have to be in ``[0, num_outputs)``. One output is a binary classifier's
            logit, so 1 permits the labels 0 and 1. With None any integers pass.

    Raises:
        TypeError: ``batch`` is no Batch, or a part of it no array of real numbers.
        ValueError: lengths differ, there are no rows, or a value is not finite or out of range.

    Example:
        >>> check_batch("train", Batch(np.ones((3, 2), np.float32), np.array([0, 1, 3])), num_outputs=3)
        Traceback (most recent call last):
        ...
        ValueError: train.y: expected integer labels in [0, 3), got 3 in row 2
    """
    num_examples(name, batch)
    for part, tree in (("x", batch.x), ("y", batch.y)):
        for leaf_name, leaf in _leaves(_part(name, part), tree):
            check_finite(leaf_name, leaf)
    if num_outputs is not None:
        check_positive_int("num_outputs", num_outputs)
        for leaf_name, leaf in _leaves(_part(name, "y"), batch.y):
            if is_integer(leaf.dtype) and not is_traced(leaf):
                check_labels(leaf_name, np.asarray(leaf), max(num_outputs, 2))
    if batch.weight is not None and not is_traced(batch.weight):
        _check_weight(_part(name, "weight"), np.asarray(batch.weight))


def num_examples(name: str, batch: Any) -> int:
    """The number of rows of ``batch``; raises unless its parts are arrays with equally many rows, at least one."""
    if not isinstance(batch, Batch):
        hint = "; write Batch(x, y)" if isinstance(batch, tuple) else ""
        raise TypeError(f"{name or 'batch'}: expected a Batch(x, y, weight), got a {type(batch).__name__}{hint}")
    features = _leaves(_part(name, "x"), batch.x)
    if not features:
        raise TypeError(f"{_part(name, 'x')}: expected an array, got {batch.x!r}")
    if batch.weight is not None and np.ndim(batch.weight) != 1:
        raise ValueError(
            f"{_part(name, 'weight')}: expected one weight a row, got the shape {list(np.shape(batch.weight))}"
        )
    first_name, rows = features[0][0], -1
    for leaf_name, leaf in (
        *features,
        *_leaves(_part(name, "y"), batch.y),
        *_leaves(_part(name, "weight"), batch.weight),
    ):
        check_real(leaf_name, leaf)
        if len(leaf.shape) == 0:
            raise ValueError(f"{leaf_name}: expected an array [N, ...] with the rows first, got a scalar")
        if rows < 0:
            rows = leaf.shape[0]
        if leaf.shape[0] != rows:
            raise ValueError(f"{leaf_name}: expected {rows} rows as {first_name} has, got {leaf.shape[0]}")
    if rows == 0:
        raise ValueError(f"{first_name}: expected at least one row, got the shape {list(features[0][1].shape)}")
    return rows


def check_real(name: str, leaf: Any) -> None:
    """Raises ``TypeError`` unless ``leaf`` is an array of integers, booleans or real floats."""
    if not isinstance(leaf, (np.ndarray, np.generic, jax.Array, jax.ShapeDtypeStruct)):
        raise TypeError(
            f"{name}: expected a NumPy or JAX array, got a {type(leaf).__name__}; data.from_arrays converts lists"
        )
    dtype: Any = leaf.dtype
    if not (is_integer(dtype) or jnp.issubdtype(dtype, np.floating)):
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {dtype}")


def check_finite(name: str, leaf: Any) -> None:
    """Raises ``ValueError`` naming the first NaN or infinity in ``leaf``; traced and integer arrays pass."""
    if is_integer(leaf.dtype) or is_traced(leaf):
        return
    values = np.asarray(leaf)
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(f"{name}: expected finite numbers, got {first_where(values, ~finite)}")


def check_labels(name: str, labels: NDArray[Any], num_classes: int, hint: str = "") -> None:
    """Raises ``ValueError`` naming the first of the integer ``labels`` that is not in ``[0, num_classes)``."""
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        raise ValueError(
            f"{name}: expected integer labels in [0, {num_classes}), got {first_where(labels, outside)}{hint}"
        )


def first_where(values: NDArray[Any], mask: NDArray[np.bool_]) -> str:
    """The first of ``values`` at which ``mask`` is true, and its row, in words."""
    index = tuple(int(i) for i in np.unravel_index(np.argmax(mask), mask.shape))
    place = f" (at {list(index)})" if len(index) > 1 else ""
    return f"{values[index]} in row {index[0]}{place}" if index else f"{values[index]}"


def check_concrete(name: str, tree: Any) -> None:
    """Raises ``TypeError`` where a leaf of ``tree`` is traced: what runs on the host needs values."""
    for leaf in jax.tree.leaves(tree):
        if is_traced(leaf):
            raise TypeError(
                f"{name}: expected concrete values, got a traced array: call this outside jit, vmap and grad"
            )


def is_integer(dtype: Any) -> bool:
    """Whether ``dtype`` holds labels rather than measurements: integers and booleans."""
    return bool(jnp.issubdtype(dtype, np.integer) or jnp.issubdtype(dtype, np.bool_))


def is_traced(leaf: Any) -> bool:
    """Whether the values of ``leaf`` are unknown: a tracer, or a mere ``jax.ShapeDtypeStruct``."""
    return isinstance(leaf, (Tracer, jax.ShapeDtypeStruct))


def _check_weight(name: str, weight: NDArray[Any]) -> None:
    wrong = ~(np.isfinite(weight) & (weight >= 0))
    if wrong.any():
        raise ValueError(f"{name}: expected finite weights >= 0, got {first_where(weight, wrong)}")
    if not (weight > 0).any():
        raise ValueError(f"{name}: expected a positive sum, got {len(weight)} weights of 0: no row counts")


def _leaves(name: str, tree: Any) -> list[tuple[str, Any]]:
    return [(f"{name}[{path}]" if path else name, leaf) for path, leaf in named_leaves(tree)]


def _part(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
