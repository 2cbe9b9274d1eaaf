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

from jaxopt_nn._arguments import check_positive_int, refuse_masked
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Batch

__all__ = [
    "blurred_feature",
    "check_batch",
    "check_concrete",
    "check_finite",
    "check_labels",
    "check_real",
    "check_weights",
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
            finite values; ``weight`` is None, ``[N]``, or has the first axes of ``y``; it is finite, non-negative and
            not all zero. Arrays may be traced.
            Where JAX will hold 64-bit numbers in 32 bits they have to fit, and to stay apart: float32 may move no
            number by more than a thousandth of the range of its feature.
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
            _check_held(leaf_name, leaf)
    if num_outputs is not None:
        check_positive_int("num_outputs", num_outputs)
        for leaf_name, leaf in _leaves(_part(name, "y"), batch.y):
            if is_integer(leaf.dtype) and not is_traced(leaf):
                check_labels(leaf_name, np.asarray(leaf), max(num_outputs, 2))
    if batch.weight is not None and not is_traced(batch.weight):
        _check_held(_part(name, "weight"), batch.weight)
        weight = np.asarray(batch.weight)
        check_weights(_part(name, "weight"), weight.astype(jax.dtypes.canonicalize_dtype(weight.dtype), copy=False))


def num_examples(name: str, batch: Any) -> int:
    """The number of rows of ``batch``; raises unless its parts are arrays with equally many rows, at least one."""
    if not isinstance(batch, Batch):
        hint = "; write Batch(x, y)" if isinstance(batch, tuple) else ""
        raise TypeError(f"{name or 'batch'}: expected a Batch(x, y, weight), got a {type(batch).__name__}{hint}")
    features = _leaves(_part(name, "x"), batch.x)
    if not features:
        raise TypeError(f"{_part(name, 'x')}: expected an array, got {batch.x!r}")
    if batch.weight is not None:
        shape = np.shape(batch.weight)
        targets = [np.shape(leaf) for leaf in jax.tree.leaves(batch.y)]
        if len(shape) != 1 and (not shape or any(each[1 : len(shape)] != shape[1:] for each in targets)):
            raise ValueError(
                f"{_part(name, 'weight')}: expected one weight a row, or one an output, with the first axes of "
                f"{_part(name, 'y')}, got the shape {list(shape)}"
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
    refuse_masked(name, leaf)
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
        if labels.min() == 1 and labels.max() == num_classes:
            hint = f"; classes count from 0: subtract 1{hint}"
        raise ValueError(
            f"{name}: expected integer labels in [0, {num_classes}), got {first_where(labels, outside)}{hint}"
        )


def first_where(values: NDArray[Any], mask: NDArray[np.bool_]) -> str:
    """The first of ``values`` at which ``mask`` is true, and its row, in words."""
    index = tuple(int(i) for i in np.unravel_index(np.argmax(mask), mask.shape))
    place = f" (at {list(index)})" if len(index) > 1 else ""
    return f"{values[index]} in row {index[0]}{place}" if index else f"{values[index]}"


def blurred_feature(values: NDArray[Any], dtype: Any) -> str | None:
    """The first feature that loses its meaning in ``dtype``, float32 or float64, in words; None if none does.

    In such a feature some number moves by more than a thousandth of the feature's range, such as timestamps of one
    hour in float32. Floats that differ by no more than the rounding of their own computation do not count.
    """
    if values.ndim == 0 or len(values) == 0 or not _may_blur(values.dtype, np.finfo(dtype).nmant + 1):
        return None
    columns, step = values.reshape(len(values), -1), np.finfo(dtype).eps / 2
    low, high = columns.min(axis=0), columns.max(axis=0)
    size = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))
    if is_integer(values.dtype):
        spread = (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)  # exact, whatever the signs
        differ = spread > 0
    else:
        spread = high.astype(np.float64) - low.astype(np.float64)
        differ = spread > 1e-12 * size
    for column in np.flatnonzero(differ & (size * step > 1e-3 * spread)):
        exact = columns[:, column]
        with np.errstate(over="ignore"):
            rounded = exact.astype(dtype)
        # Whole numbers too large for float64 have steps of many there; the others are compared.
        error = np.abs(exact.astype(np.float64) - rounded.astype(np.float64)).max()
        if error > 1e-3 * spread[column] or (is_integer(values.dtype) and size[column] > 2**53):
            index = [int(i) for i in np.unravel_index(column, values.shape[1:])]
            before, after = len(np.unique(exact)), len(np.unique(rounded))
            return (
                f"from {exact.min()} to {exact.max()}{f' in feature {index}' if index else ''}, "
                f"of which {np.dtype(dtype)} leaves {after} of {before} different numbers"
            )
    return None


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


def _may_blur(dtype: Any, digits: int) -> bool:
    """Whether a dtype has numbers of more binary digits than so many."""
    if is_integer(dtype):
        return dtype.itemsize * 8 > digits
    return bool(dtype.itemsize > 2 and np.finfo(dtype).nmant + 1 > digits)


def _check_held(name: str, leaf: Any) -> None:
    """Raises for concrete numbers that lose their meaning in the dtype in which JAX holds them."""
    if not isinstance(leaf, np.ndarray):
        return
    if not leaf.dtype.isnative:
        raise TypeError(
            f"{name}: expected numbers in the byte order of this machine, got dtype {leaf.dtype.str}; "
            f"data.from_arrays converts them, and so does .astype({leaf.dtype.name!r})"
        )
    target = jax.dtypes.canonicalize_dtype(leaf.dtype)
    if target == leaf.dtype:
        return
    with np.errstate(over="ignore"):
        narrow = leaf.astype(target)
    overflows = narrow != leaf if is_integer(target) else ~np.isfinite(narrow) & np.isfinite(leaf)
    if overflows.any():
        raise ValueError(f"{name}: expected numbers that fit {target}, got {first_where(leaf, overflows)}")
    blurred = None if is_integer(target) else blurred_feature(leaf, target)
    if blurred is not None:
        raise ValueError(
            f"{name}: expected numbers that stay apart in {target}, got such {blurred}: scale them first, "
            f"as with data.fit_standard_scaler, or subtract a number from them"
        )


def check_weights(name: str, weight: NDArray[Any]) -> None:
    """Raises ``ValueError`` naming the first weight that is not finite or negative, or if all are 0."""
    wrong = ~(np.isfinite(weight) & (weight >= 0))
    if wrong.any():
        raise ValueError(f"{name}: expected finite weights >= 0, got {first_where(weight, wrong)}")
    if not (weight > 0).any():
        raise ValueError(
            f"{name}: expected a positive sum, got {len(weight)} weights of 0 in {weight.dtype}: no row counts"
        )


def _leaves(name: str, tree: Any) -> list[tuple[str, Any]]:
    return [(f"{name}[{path}]" if path else name, leaf) for path, leaf in named_leaves(tree)]


def _part(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
