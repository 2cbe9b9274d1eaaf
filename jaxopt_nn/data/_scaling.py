"""Scaling of features as pure functions: fit once on the training split, then transform anything, and back.

    z = (x - shift) / scale + offset,        x = (z - offset) * scale + shift

A :class:`Scaler` is a pytree of arrays with one entry for each feature, which is everything behind axis 0. The
statistics are computed on the host in float64, in two passes, and rounded once, to the features' dtype. Columns without
spread are divided by 1: a constant column becomes exactly ``offset``, and comes back exactly. :func:`transform` and
:func:`inverse_transform` may be traced, vmapped and differentiated, with respect to the scaler too.

Integers too large for float32, such as timestamps, keep their differences: their ``shift`` is an integer, which is
subtracted before anything is rounded. Back in float32 they are as near as float32 has them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._arguments import check_number, shown
from jaxopt_nn._dtypes import promote
from jaxopt_nn.data._checks import check_concrete, check_finite, check_real, is_integer, num_examples
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Batch, PyTree

__all__ = [
    "Scaler",
    "fit_minmax_scaler",
    "fit_robust_scaler",
    "fit_standard_scaler",
    "inverse_transform",
    "transform",
]

_BLOCK_VALUES = 1 << 22
_EPS = float(np.finfo(np.float64).eps)

_Statistics = tuple[NDArray[Any], NDArray[Any]]


class Scaler(NamedTuple):
    """An affine map of each feature, ``z = (x - shift) / scale + offset``.

    Attributes:
        shift: ``[...]``, the shape of one example, in the features' unit; float64 if the fitted features are, else
            float32. Of integers beyond 2^24 the whole number next to it, as int32 or int64; ``offset`` has the rest.
        scale: ``[...]``, positive, in the features' unit.
        offset: ``[...]``, without unit: what ``shift`` is mapped to.
    """

    shift: PyTree
    scale: PyTree
    offset: PyTree


def fit_standard_scaler(x: PyTree) -> Scaler:
    """To mean 0 and standard deviation 1: ``shift = mean``, ``scale = sqrt(mean((x - mean)^2))``.

    A column counts as constant where its variance is within the rounding error of computing it, as in scikit-learn:
    ``var <= N eps var + (N mean eps)^2``, with float64's eps.

    Args:
        x: concrete, finite features ``[N, ...]``, a pytree of such, or a Batch: of that ``.x``, without rows of weight
            0. Other weights count the same.

    Returns:
        Scaler of NumPy arrays.

    Raises:
        TypeError: ``x`` is traced or holds no arrays of real numbers.
        ValueError: ``x`` has no rows or values that are not finite, or a spread that overflows its dtype.

    Example:
        >>> x = np.array([[1.0, 5.0], [3.0, 5.0]])
        >>> transform(fit_standard_scaler(x), x).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]

    References:
        T. Chan, G. Golub, R. LeVeque, Algorithms for computing the sample variance, The American Statistician 37, 1983.
    """
    return _fit(x, _mean_and_deviation, 0.0)


def fit_minmax_scaler(x: PyTree, low: float = 0.0, high: float = 1.0) -> Scaler:
    """To the range ``[low, high]``: ``shift = min``, ``scale = (max - min) / (high - low)``, ``offset = low``.

    A constant column becomes exactly ``low``. One counts as constant where ``max - min <= 10 eps max(|min|, |max|)``
    with float64's eps.

    Differs from scikit-learn's MinMaxScaler, whose threshold ``max - min < 10 eps`` is absolute: it blows rounding
    noise on large values up to the full range, and takes tiny values for constant.

    Args:
        x: as in :func:`fit_standard_scaler`.
        low: Python number, static.
        high: Python number above ``low``, static.

    Returns:
        Scaler of NumPy arrays.

    Raises:
        TypeError: as :func:`fit_standard_scaler`.
        ValueError: as :func:`fit_standard_scaler`, or ``low >= high``.

    Example:
        >>> x = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
        >>> transform(fit_minmax_scaler(x, low=-1), x).tolist()
        [[-1.0, -1.0], [0.0, -1.0], [1.0, -1.0]]
    """
    check_concrete("low", low)
    check_concrete("high", high)
    check_number("low", low)
    check_number("high", high)
    if low >= high:
        raise ValueError(f"low: expected a number below high = {high:g}, got {low:g}")

    def extremes(values: NDArray[Any]) -> _Statistics:
        minimum, maximum = values.min(axis=0), values.max(axis=0)
        spread = _spread_or_one(minimum, maximum)
        return minimum, spread / (high - low)

    return _fit(x, extremes, float(low))


def fit_robust_scaler(x: PyTree) -> Scaler:
    """To median 0 and interquartile range 1: ``shift = q_0.5``, ``scale = q_0.75 - q_0.25``; outliers hardly matter.

    Quantiles interpolate linearly. ``scale`` is 1 where the quartiles are equal, up to
    ``10 eps max(|q_0.25|, |q_0.75|)`` with float64's eps: such a column need not be constant.

    Differs from scikit-learn's RobustScaler as :func:`fit_minmax_scaler` does: the threshold is relative here.

    Args:
        x: as in :func:`fit_standard_scaler`.

    Returns:
        Scaler of NumPy arrays.

    Raises:
        TypeError: as :func:`fit_standard_scaler`.
        ValueError: as :func:`fit_standard_scaler`.

    Example:
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0], [1000.0]])
        >>> transform(fit_robust_scaler(x), x).ravel().tolist()
        [-1.0, -0.5, 0.0, 0.5, 499.0]
    """
    return _fit(x, _median_and_quartiles, 0.0)


def transform(scaler: Scaler, x: PyTree) -> PyTree:
    """Scaled features, ``z = (x - shift) / scale + offset``.

    Args:
        scaler: the Scaler; may be traced.
        x: features ``[..., *shape of one example]`` (one example, or any leading axes), a pytree of such with the tree
            the scaler was fitted on, or a Batch: of that only ``.x`` changes. May be traced.

    Returns:
        What ``x`` is, in its dtype if that is a float, else in the scaler's. NumPy arrays stay NumPy arrays.

    Raises:
        TypeError: ``x`` holds no arrays of real numbers.
        ValueError: ``x`` has other features than the scaler was fitted on.

    Example:
        >>> scaler = fit_minmax_scaler(np.array([[0.0], [4.0]]))
        >>> float(jax.grad(lambda x: transform(scaler, x).sum())(jnp.array([3.0]))[0])
        0.25
    """
    return _apply("transform", _forward, scaler, x)


def inverse_transform(scaler: Scaler, x: PyTree) -> PyTree:
    """Features in their unit again, ``x = (z - offset) * scale + shift``: the inverse of :func:`transform`.

    Args:
        scaler: the Scaler; may be traced.
        x: scaled features, in the forms that :func:`transform` takes. May be traced.

    Returns:
        As :func:`transform`.

    Raises:
        TypeError: as :func:`transform`.
        ValueError: as :func:`transform`.

    Example:
        >>> x = np.array([[1.0, 5.0], [3.0, 5.0]])
        >>> scaler = fit_standard_scaler(x)
        >>> inverse_transform(scaler, transform(scaler, x)).tolist()
        [[1.0, 5.0], [3.0, 5.0]]
    """
    return _apply("inverse_transform", _backward, scaler, x)


def _mean_and_deviation(values: NDArray[Any]) -> _Statistics:
    rows, mean = len(values), values.mean(axis=0)
    variance = ((values - mean) ** 2).mean(axis=0)
    constant = variance <= rows * _EPS * variance + (rows * mean * _EPS) ** 2
    return mean, np.where(constant, 1.0, np.sqrt(variance))


def _median_and_quartiles(values: NDArray[Any]) -> _Statistics:
    first, median, third = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    return median, _spread_or_one(first, third)


def _spread_or_one(low: NDArray[Any], high: NDArray[Any]) -> NDArray[Any]:
    constant = high - low <= 10 * _EPS * np.maximum(np.abs(low), np.abs(high))
    return np.where(constant, 1.0, high - low)


def _fit(x: PyTree, statistics: Callable[[NDArray[Any]], _Statistics], offset: float) -> Scaler:
    has_weight = None
    if isinstance(x, Batch):
        num_examples("x", x)
        if x.weight is not None:
            check_concrete("x.weight", x.weight)
            weight = np.asarray(x.weight)
            has_weight = (weight > 0).any(tuple(range(1, weight.ndim)))
        x = x.x
    leaves, tree = jax.tree.flatten(x)
    if not leaves:
        raise TypeError(f"x: expected an array, got {x!r}")
    fitted = [
        _fit_leaf(f"x[{path}]" if path else "x", leaf, has_weight, statistics, offset) for path, leaf in named_leaves(x)
    ]
    return Scaler(*(jax.tree.unflatten(tree, part) for part in zip(*fitted, strict=True)))


def _fit_leaf(
    name: str,
    leaf: Any,
    has_weight: NDArray[np.bool_] | None,
    statistics: Callable[[NDArray[Any]], _Statistics],
    offset: float,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    check_real(name, leaf)
    check_concrete(name, leaf)
    values = np.asarray(leaf)
    if has_weight is not None and not has_weight.all():
        values = values[has_weight]
    if values.ndim == 0 or len(values) == 0:
        weighted = "" if has_weight is None else " of positive weight"
        raise ValueError(f"{name}: expected at least one row{weighted}, got the shape {list(values.shape)}")
    check_finite(name, values)
    dtype = np.dtype(np.float64 if values.dtype == np.float64 else np.float32)
    columns = values.reshape(len(values), -1)
    first = _large_integers(columns)
    shift, scale = (np.empty(columns.shape[1], np.float64 if first is not None else dtype) for _ in range(2))
    # Block by block: the float64 copy of a large data set would not fit where the data set does.
    width = max(1, _BLOCK_VALUES // len(columns))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, columns.shape[1], width):
            block = slice(start, start + width)
            part = columns[:, block] if first is None else columns[:, block].astype(np.int64) - first[block]
            shift[block], scale[block] = statistics(part.astype(np.float64))
            # The mean of equal numbers may differ from them in the last bit: take the number itself.
            shift[block] = np.where((part == part[0]).all(axis=0), part[0], shift[block])
    overflowed = ~(np.isfinite(shift) & np.isfinite(scale))
    if overflowed.any():
        feature = [int(i) for i in np.unravel_index(np.argmax(overflowed), values.shape[1:])]
        raise ValueError(f"{name}: expected features whose spread fits {dtype}, got an overflow in feature {feature}")
    # A spread that underflows, or is flushed to zero on a device, would be divided by.
    scale[scale < np.finfo(dtype).tiny] = 1.0
    offsets = np.full(shift.shape, offset, dtype)
    if first is not None:
        whole = np.rint(shift).astype(np.int64)
        offsets = (offset + (whole - shift) / scale).astype(dtype)
        shift, scale = first + whole, scale.astype(dtype)
        fits = np.iinfo(np.int32)
        if len(shift) and fits.min <= shift.min() and shift.max() <= fits.max:
            shift = shift.astype(np.int32)  # which passes through a compiled program of 32 bits
    return (
        shift.reshape(values.shape[1:]),
        scale.reshape(values.shape[1:]),
        offsets.reshape(values.shape[1:]),
    )


def _large_integers(columns: NDArray[Any]) -> NDArray[np.int64] | None:
    """The first row of integers that float32 cannot hold, to measure the others from; None for all other numbers."""
    if not is_integer(columns.dtype) or columns.size == 0:
        return None
    low, high = columns.min(axis=0), columns.max(axis=0)
    lowest, highest = int(low.min()), int(high.max())
    if max(-lowest, highest) <= 2**24 or highest - lowest >= 2**62 or highest >= 2**63:
        return None
    return columns[0].astype(np.int64)


def _apply(caller: str, formula: Callable[..., Any], scaler: Scaler, x: PyTree) -> PyTree:
    if not isinstance(scaler, Scaler):
        raise TypeError(f"scaler: expected a Scaler, as fit_standard_scaler returns one, got {shown(scaler)}")
    if isinstance(x, Batch):
        return x._replace(x=_apply(caller, formula, scaler, x.x))
    expected, got = jax.tree.structure(scaler.shift), jax.tree.structure(x)
    if expected != got:
        raise ValueError(f"x: {caller} expected the tree the scaler was fitted on, {expected}, got {got}")
    names = [f"x[{path}]" if path else "x" for path, _ in named_leaves(x)]
    columns = [jax.tree.leaves(part) for part in (x, *scaler)]
    return jax.tree.unflatten(got, [_apply_leaf(formula, *each) for each in zip(names, *columns, strict=True)])


def _apply_leaf(formula: Callable[..., Any], name: str, values: Any, *parts: Any) -> Any:
    check_real(name, values)
    shape, features = tuple(values.shape), tuple(parts[0].shape)
    if shape[len(shape) - len(features) :] != features:
        raise ValueError(
            f"{name}: expected features {list(features)} as the scaler was fitted on, got the shape {list(shape)}"
        )
    arrays: tuple[Any, ...] = (values, *parts)
    on_host = all(isinstance(each, (np.ndarray, np.generic)) for each in arrays)
    if not on_host:
        # Broadcast by name: JAX may be told to refuse the implicit kind.
        arrays = tuple(jnp.broadcast_to(jnp.asarray(each), shape) for each in arrays)
    fitted: Any = arrays[2].dtype
    dtype: Any = arrays[0].dtype if jnp.issubdtype(arrays[0].dtype, np.floating) else fitted
    working = np.promote_types(dtype, fitted) if on_host else promote(dtype, fitted)
    if on_host and is_integer(arrays[1].dtype) and not is_integer(values.dtype):
        working = np.float64  # the shift does not fit float32
    return formula(working, *arrays).astype(dtype, copy=False)


def _forward(dtype: Any, x: Any, shift: Any, scale: Any, offset: Any) -> Any:
    return _minus(x, shift, dtype) / scale.astype(dtype) + offset.astype(dtype)


def _backward(dtype: Any, z: Any, shift: Any, scale: Any, offset: Any) -> Any:
    return (z.astype(dtype) - offset.astype(dtype)) * scale.astype(dtype) + shift.astype(dtype)


def _minus(x: Any, shift: Any, dtype: Any) -> Any:
    """``x - shift`` in ``dtype``: of two integers exact before it is rounded."""
    rounded = x.astype(dtype) - shift.astype(dtype)
    if not (is_integer(x.dtype) and is_integer(shift.dtype)):
        return rounded
    on_host = isinstance(rounded, (np.ndarray, np.generic))
    whole = np.dtype(np.int64) if on_host else jax.dtypes.canonicalize_dtype(np.int64)
    exact = (x.astype(whole) - shift.astype(whole)).astype(dtype)
    # Integers may be too far apart for an integer to say how far. Then the rounding is small beside it.
    near = abs(rounded) < 2.0 ** (8 * whole.itemsize - 2)
    return np.where(near, exact, rounded) if on_host else jnp.where(near, exact, rounded)
