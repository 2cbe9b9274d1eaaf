"""A person's own arrays as a data set: checked once, converted once."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike, NDArray

from jaxopt_nn._arguments import check_choice, check_positive_int, refuse_masked
from jaxopt_nn._dtypes import as_dtype
from jaxopt_nn.data._checks import (
    blurred_feature,
    check_concrete,
    check_finite,
    check_labels,
    check_real,
    check_weights,
    first_where,
    is_integer,
    num_examples,
)
from jaxopt_nn.types import Batch

__all__ = ["Task", "class_weights", "from_arrays"]

Task = Literal["classification", "regression"]


def from_arrays(
    x: Any,
    y: Any,
    weight: Any = None,
    *,
    task: Task | None = None,
    num_classes: int | None = None,
    dtype: DTypeLike | None = None,
) -> Batch:
    """A data set from NumPy or JAX arrays, lists, or anything ``numpy.asarray`` takes.

    Args:
        x: features ``[N, ...]``, finite; or a dictionary of such arrays.
        y: integer (or boolean) class labels ``>= 0``, which need not be contiguous, or finite real targets;
            ``[N, ...]``.
        weight: ``[N]`` example weights, finite, non-negative, not all zero; or None.
        task: ``"classification"`` demands integer labels, ``"regression"`` makes any numbers float32. None reads it off
            ``y``: integers are class labels and floats are targets, also floats that are whole numbers.
        num_classes: if given, labels have to be below it.
        dtype: of the features in the result; ``numpy.int32`` keeps token ids integer. None is float32, or float64 where
            float32 would run numbers together, such as timestamps of one hour: it moves one of them by more than a
            thousandth of the range of its feature. Scale such features before training, or ``fit`` refuses them.

    Returns:
        Batch of NumPy arrays: ``x`` of ``dtype``, ``y`` int32 or float32 (or float64, likewise), ``weight`` float32 or
        None. An array that has its dtype already is not copied.

    Raises:
        TypeError: text, object or complex arrays; float labels where a classification is asked for.
        ValueError: different lengths, no rows, ragged rows, values that are not finite, that do not fit the dtype asked
            for or run together in it, labels out of range.

    Example:
        >>> batch = from_arrays([[0.5, 1.0], [2.0, 3.0]], [True, False])
        >>> batch.x.dtype.name, batch.y.dtype.name, batch.y.tolist()
        ('float32', 'int32', [1, 0])
    """
    check_choice("task", task, "classification", "regression", None)
    dtype = None if dtype is None else as_dtype("dtype", dtype)
    check_concrete("x", x)
    check_concrete("y", y)
    check_concrete("weight", weight)
    targets = _as_array("y", y)
    if task == "regression" or (task is None and not is_integer(targets.dtype)):
        if num_classes is not None:
            raise ValueError(f"num_classes: expected None as y holds targets of a regression, got {num_classes}")
        targets = _measured("y", targets, None)
    else:
        targets = _labels(targets, num_classes, task)
    batch = Batch(
        x=_features("x", x, dtype),
        y=targets,
        weight=None if weight is None else _convert("weight", _as_array("weight", weight), np.float32),
    )
    num_examples("", batch)
    if batch.weight is not None:
        check_weights("weight", batch.weight)
    return batch


def _features(name: str, x: Any, dtype: DTypeLike | None) -> Any:
    if isinstance(x, Mapping):
        branches = cast("Mapping[str, Any]", x)
        return {key: _features(f"{name}[{key}]", branch, dtype) for key, branch in branches.items()}
    return _measured(name, _as_array(name, x), dtype)


def _as_array(name: str, value: Any) -> NDArray[Any]:
    refuse_masked(name, value)
    if value is None:
        raise TypeError(f"{name}: expected an array of real numbers, got None")
    try:
        array = np.asarray(value)
    except ValueError as error:  # NumPy's word for a ragged list is "inhomogeneous shape"
        raise ValueError(f"{name}: expected rows of equal shape, got something that makes no array: {error}") from error
    if array.dtype == object:
        raise TypeError(
            f"{name}: expected an array of real numbers, got dtype object: numbers mixed with text, rows of "
            f"different length, or a sparse matrix (use its .toarray())"
        )
    if array.dtype.kind in "US":
        hint = "; map text labels to integers with numpy.unique(y, return_inverse=True)" if name == "y" else ""
        raise TypeError(f"{name}: expected an array of real numbers, got text (dtype {array.dtype}){hint}")
    check_real(name, array)
    return array


def class_weights(labels: Any, num_classes: int | None = None) -> NDArray[np.float32]:
    """Weights of classes that make rare and frequent ones count the same: ``w_c = N / (K · n_c)``.

    Args:
        labels: integer labels ``[N]`` of the training rows.
        num_classes: K; None for the largest label and 1.

    Returns:
        ``[K]``. With ``weights[labels]`` as the weights of a ``Batch`` each class has the same sum.

    Raises:
        ValueError: a class has no row; a label is not in ``[0, K)``.

    Example:
        >>> class_weights(np.array([0, 0, 1, 1, 1, 1])).tolist()
        [1.5, 0.75]

    Equal to scikit-learn's ``compute_class_weight("balanced", ...)``.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or not is_integer(array.dtype) or not len(array):
        raise ValueError(f"labels: expected integer labels [N], got {array.dtype}{list(array.shape)}")
    classes = int(array.max()) + 1 if num_classes is None else num_classes
    check_labels("labels", array, classes)
    counts = np.bincount(array, minlength=classes)
    if not counts.all():
        raise ValueError(f"labels: expected rows of each of {classes} classes, got none of {int(np.argmin(counts))}")
    return (len(array) / (classes * counts)).astype(np.float32)


def _float32_or_64(name: str, array: NDArray[Any]) -> np.dtype[Any]:
    """float32, or float64 where features would lose their meaning in float32."""
    if blurred_feature(array, np.float32) is None:
        return np.dtype(np.float32)
    blurred = blurred_feature(array, np.float64)
    if blurred is not None:
        raise ValueError(f"{name}: expected numbers that stay apart, got such {blurred}: subtract the smallest first")
    return np.dtype(np.float64)


def _measured(name: str, array: NDArray[Any], dtype: DTypeLike | None) -> NDArray[Any]:
    """Features or targets in ``dtype``; raises for those that would lose their meaning."""
    if dtype is None:
        check_finite(name, array)
        dtype = _float32_or_64(name, array)
    elif np.dtype(dtype) == np.float32 and (blurred := blurred_feature(array, np.float32)) is not None:
        raise ValueError(f"{name}: expected numbers that stay apart in float32, got such {blurred}: use dtype=None")
    return _convert(name, array, dtype)


def _convert(name: str, array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    target = np.dtype(dtype)
    if jnp.issubdtype(target, np.integer):
        if not is_integer(array.dtype):
            raise TypeError(f"{name}: expected integers for dtype {target}, got dtype {array.dtype}")
        converted = array.astype(target, copy=False)
        wrong = converted != array
    else:
        check_finite(name, array)
        with np.errstate(over="ignore"):
            converted = array.astype(target, copy=False)
        wrong = ~np.isfinite(converted)
    if wrong.any():
        raise ValueError(f"{name}: expected numbers that fit {target}, got {first_where(array, wrong)}")
    return converted


def _labels(labels: NDArray[Any], num_classes: int | None, task: Task | None) -> NDArray[Any]:
    if not is_integer(labels.dtype):
        check_finite("y", labels)
        fractional = labels != np.floor(labels)
        raise TypeError(
            f"y: expected integer labels for a classification, got dtype {labels.dtype}; "
            + (
                'y holds fractions: use task="regression" for real targets, or argmax(axis=-1) for class probabilities'
                if fractional.any()
                else "convert whole numbers with y.astype(int)"
            )
        )
    if num_classes is not None:
        check_positive_int("num_classes", num_classes)
    high = num_classes if num_classes is not None else np.iinfo(np.int32).max + 1
    check_labels("y", labels, high, hint="" if task else '; if these are no class labels, use task="regression"')
    return labels.astype(np.int32, copy=False)
