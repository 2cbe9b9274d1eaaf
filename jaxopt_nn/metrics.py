"""Metrics of single examples, which are averaged over any batches, and metrics of a whole set of predictions.

The first kind are plain functions ``metric(outputs, targets) -> [N]``, as losses are, so their weighted mean over
padded batches is exact. Set their numbers with ``functools.partial(top_k_accuracy, k=3)``. The first axis counts
examples. A metric is averaged over the axes behind it, and nothing broadcasts. A row with a NaN output or target is
never correct.

The second kind take the truth first, as in scikit-learn, and then the predictions.

Targets that are no classes (integers out of range, the numbers of a regression) raise ``ValueError``. In a compiled
program such a row is never correct, and a confusion matrix does not count it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_nn._arguments import (
    check_class_labels,
    check_distributions,
    check_number,
    check_positive_int,
    check_probabilities,
    check_same_shape,
    check_weight,
    concrete_array,
    is_distribution,
    is_probability,
    plain_array,
)
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn._scale import power_of_two
from jaxopt_nn.types import Array, ArrayLike

__all__ = [
    "ClassScores",
    "Metric",
    "absolute_error",
    "accuracy",
    "binary_accuracy",
    "confusion_matrix",
    "precision_recall_f1",
    "r2_score",
    "squared_error",
    "top_k_accuracy",
]

Metric = Callable[[Array, Array], Array]
"""``metric(outputs, targets) -> [N]``."""

_LARGEST_SUMS = 2**22  # numbers: 16 MiB in float32


def accuracy(outputs: ArrayLike, labels: ArrayLike) -> Array:
    """1 where the largest output is that of the true class, else 0. Of equal outputs the first counts as the largest.

    Args:
        outputs: ``[N, ..., C]`` with C >= 2: logits or probabilities. For two classes from a single output, use
            :func:`binary_accuracy`.
        labels: integer classes ``[N, ...]``, or one-hot rows or distributions ``[N, ..., C]``, of which the largest
            (the first of equals) is the true class.

    Returns:
        ``[N]`` float32.

    Raises:
        TypeError: classes are not integers.
        ValueError: fewer than two outputs; shapes that do not match; a concrete class is out of range, or a concrete
            row no distribution.

    >>> accuracy(jnp.array([[1.0, 3.0], [2.0, 2.0]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    return top_k_accuracy(outputs, labels, k=1)


def top_k_accuracy(outputs: ArrayLike, labels: ArrayLike, *, k: int = 5) -> Array:
    """1 where the true class is among the k largest outputs, else 0. Of equal outputs the first rank higher.

    Args:
        outputs: ``[N, ..., C]`` with C >= 2: logits or probabilities.
        labels: as for :func:`accuracy`.
        k: in [1, C]; static.

    Returns:
        ``[N]`` float32.

    Raises:
        TypeError: as :func:`accuracy`.
        ValueError: as :func:`accuracy`, or k is not in [1, C].

    Differs from ``sklearn.metrics.top_k_accuracy_score`` in ties: there the last rank higher.

    >>> top_k_accuracy(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([2]), k=2).tolist()
    [1.0]
    """
    o = jnp.asarray(plain_array("outputs", outputs))
    if o.ndim < 2 or o.shape[-1] < 2:
        hint = "; for one output and two classes use binary_accuracy, with threshold=0.5 if it is a probability"
        raise ValueError(f"outputs: expected [N, ..., C] with at least two classes, got {list(o.shape)}{hint}")
    check_positive_int("k", k, high=o.shape[-1])
    classes, defined = _true_classes(labels, o)
    index, true_index = lax.broadcasted_iota(classes.dtype, o.shape, o.ndim - 1), classes[..., None]
    true_output = jnp.sum(jnp.where(index == true_index, o, 0), axis=-1, keepdims=True)
    higher = (o > true_output) | ((o == true_output) & (index < true_index))
    exists = (index == true_index).any(-1)
    return _mean_of_trailing((higher.sum(-1) < k) & exists & defined & ~jnp.isnan(o).any(-1))


def binary_accuracy(logits: ArrayLike, targets: ArrayLike, *, threshold: ArrayLike = 0.0) -> Array:
    """1 where a logit is above the threshold and its target above 1/2, or neither is; else 0.

    Args:
        logits: ``[N, ...]``; if an example has several (multi-label), the result is their mean.
        targets: ``[N, ...]``: booleans, 0 and 1, or probabilities.
        threshold: a logit; 0 is the probability 1/2; may be traced. If the outputs are probabilities, pass 0.5.

    Returns:
        ``[N]`` float32.

    Raises:
        ValueError: shapes differ, or a concrete target lies outside [0, 1].

    >>> binary_accuracy(jnp.array([2.0, -1.0]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    check_number("threshold", threshold)
    z, t = _pair("logits", logits, targets)
    check_probabilities("targets", plain_array("targets", targets), or_nan=True)
    right = (z > jnp.asarray(threshold, z.dtype)) == (t > 0.5)
    return _mean_of_trailing(right & ~jnp.isnan(z) & is_probability(t))


def absolute_error(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Absolute error, averaged over an example's outputs: mean abs(o - t).

    Args:
        outputs: ``[N, ...]``.
        targets: ``[N, ...]``.

    Returns:
        ``[N]`` float32 (float64 if ``outputs`` are).

    Raises:
        ValueError: shapes differ.

    >>> absolute_error(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 0.0]])).tolist()
    [2.0]
    """
    o, t = _pair("outputs", outputs, targets)
    return _mean_of_trailing(jnp.abs(o - t))


def squared_error(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Squared error, averaged over an example's outputs: mean (o - t)².

    Args:
        outputs: ``[N, ...]``.
        targets: ``[N, ...]``.

    Returns:
        ``[N]`` float32 (float64 if ``outputs`` are).

    Raises:
        ValueError: shapes differ.

    >>> squared_error(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 0.0]])).tolist()
    [5.0]
    """
    o, t = _pair("outputs", outputs, targets)
    return _mean_of_trailing(jnp.square(o - t))


def confusion_matrix(
    labels: ArrayLike, predictions: ArrayLike, num_classes: int, weight: ArrayLike | None = None
) -> Array:
    """How often each true class (row) was predicted as each class (column).

    Args:
        labels: ``[N]`` integer true classes.
        predictions: ``[N]`` integer predicted classes, ``outputs.argmax(-1)``.
        num_classes: C; static.
        weight: ``[N]`` non-negative, or None.

    Returns:
        ``[C, C]``: int32 counts, or float sums of weights.

    Raises:
        TypeError: classes are not integers.
        ValueError: not ``[N]``; a concrete class is out of range; a concrete weight is negative or not finite.

    >>> confusion_matrix(jnp.array([0, 0, 1]), jnp.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    check_positive_int("num_classes", num_classes)
    labels, predictions = plain_array("labels", labels), plain_array("predictions", predictions)
    check_class_labels("labels", labels, num_classes)
    check_class_labels("predictions", predictions, num_classes)
    check_same_shape("predictions", predictions, "labels", labels)
    if np.ndim(labels) != 1:
        raise ValueError(f"labels: expected [N], got {list(np.shape(labels))}")
    if weight is not None:
        weight = plain_array("weight", weight)
        check_weight("weight", weight, np.shape(labels)[0])
        known = concrete_array(labels), concrete_array(predictions), concrete_array(weight)
        if all(each is not None for each in known):
            return _weigh_on_host(*known, num_classes)
    rows, columns = _indices(labels), _indices(predictions)
    # JAX counts a negative index from the end, and drops one that is too large.
    rows, columns = jnp.where(rows >= 0, rows, num_classes), jnp.where(columns >= 0, columns, num_classes)
    if weight is None:
        return jnp.zeros((num_classes, num_classes), jnp.int32).at[rows, columns].add(1, mode="drop")
    amount = jnp.asarray(weight)
    amount = amount.astype(compute_dtype(amount))
    # A float32 sum of ones stops at 2^24, so many rows are added in several sums, which are added at the end.
    sums = max(1, min(rows.size // 2**12, _LARGEST_SUMS // num_classes**2))
    which = jnp.arange(rows.size) % sums
    totals = jnp.zeros((sums, num_classes, num_classes), amount.dtype)
    return totals.at[which, rows, columns].add(amount, mode="drop").sum(0)


def _weigh_on_host(labels: Any, predictions: Any, weight: Any, num_classes: int) -> Array:
    cells = labels.astype(np.int64) * num_classes + predictions.astype(np.int64)
    sums = np.bincount(cells, weight.astype(np.float64), num_classes**2).reshape(num_classes, num_classes)
    return jnp.asarray(sums, compute_dtype(weight))


class ClassScores(NamedTuple):
    """Scores of each class. Their mean is the macro average, their mean weighted by ``support`` the weighted average.

    Attributes:
        precision: ``[C]`` share of the predictions of a class that are right; 0 where it was never predicted.
        recall: ``[C]`` share of the examples of a class that were found; 0 where there are none.
        f1: ``[C]`` harmonic mean of both; 0 where a class neither occurs nor was predicted.
        support: ``[C]`` number (or weight) of the examples of a class, in the dtype of the confusion matrix.
    """

    precision: Array
    recall: Array
    f1: Array
    support: Array


def precision_recall_f1(confusion: ArrayLike) -> ClassScores:
    """Precision, recall and F1 of each class: TP/(TP + FP), TP/(TP + FN), 2·TP/(2·TP + FP + FN).

    Args:
        confusion: ``[C, C]``, from :func:`confusion_matrix`: rows are true classes.

    Returns:
        ``[C]`` scores of the classes, in float32 or wider. The accuracy is ``trace(confusion) / sum(confusion)``.

    Raises:
        ValueError: not a square matrix; a count that does not fit int32.

    >>> scores = precision_recall_f1(jnp.array([[1, 1], [0, 1]]))
    >>> scores.precision.tolist(), scores.recall.tolist()
    ([1.0, 0.5], [0.5, 1.0])
    """
    counts = jnp.asarray(plain_array("confusion", confusion))
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"confusion: expected a square matrix [C, C], got {list(counts.shape)}")
    floats = counts.astype(compute_dtype(counts))  # twice a count may not fit an integer
    hits, predicted, support = jnp.diagonal(floats), floats.sum(0), floats.sum(1)
    return ClassScores(
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, support),
        f1=_ratio(hits, (predicted + support) / 2),
        support=counts.sum(1),
    )


def r2_score(targets: ArrayLike, outputs: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Coefficient of determination R² = 1 - Σ w·(t - o)² / Σ w·(t - t̄)², averaged over outputs. 1 is best.

    Where targets are constant it is 1 for exact outputs and 0 for all others.

    Args:
        targets: ``[N, ...]``, the truth.
        outputs: ``[N, ...]``, the predictions.
        weight: ``[N]`` non-negative, or None. Rows of weight 0 count nowhere, even if they hold NaN.

    Returns:
        A scalar, float32 (float64 if ``outputs`` are); NaN if all weights are 0.

    Raises:
        ValueError: no examples; shapes differ; a concrete weight is negative or not finite.

    >>> float(r2_score(jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 2.0, 2.0])))
    0.0
    """
    o, t = _pair("outputs", outputs, targets)
    if o.shape[0] == 0:
        raise ValueError(f"outputs: expected at least one example, got {list(o.shape)}")
    o, t = o.reshape((o.shape[0], -1)), t.reshape((o.shape[0], -1))
    if weight is None:
        w = jnp.ones((o.shape[0], 1), o.dtype)
    else:
        weight = plain_array("weight", weight)
        check_weight("weight", weight, o.shape[0])
        w = jnp.asarray(weight)
        w = w.astype(compute_dtype(w))
        w = (w / power_of_two(jnp.max(w))).astype(o.dtype)[:, None]
        o, t = jnp.where(w > 0, o, 0), jnp.where(w > 0, t, 0)
    both = jnp.maximum(_scaled(o)[1], _scaled(t)[1])
    error = t / both - o / both
    # Squares can overflow although their quotient does not, so numbers are first scaled to at most 2.
    t, t_scale = _scaled(t)
    t_off = jnp.where(w > 0, t - t[jnp.argmax(w[:, 0] > 0)][None], 0)  # exactly 0 if all targets are equal
    spread, spread_scale = _scaled(t_off - (jnp.sum(w * t_off, axis=0) / jnp.sum(w))[None])
    error, error_scale = _scaled(error)
    scale = (both / t_scale * (error_scale / spread_scale))[0]
    error, spread = jnp.sum(w * jnp.square(error), axis=0), jnp.sum(w * jnp.square(spread), axis=0)
    constant = spread == 0
    score = 1 - error * scale / jnp.where(constant, 1, spread) * scale  # the square of scale alone might overflow
    return jnp.mean(jnp.where(constant & (error > 0), 0, score))


def _true_classes(labels: ArrayLike, outputs: Array) -> tuple[Array, Array]:
    """Class indices ``[N, ...]`` from labels of either form, and where they are defined (hold no NaN)."""
    labels = plain_array("labels", labels)
    num_classes, shape = outputs.shape[-1], np.shape(labels)
    if shape == outputs.shape[:-1]:
        check_class_labels("labels", labels, num_classes)
        return _indices(labels), jnp.ones(shape, bool)
    if shape == outputs.shape:
        check_distributions("labels", labels, or_nan=True)
        rows = _reals("labels", labels)
        return jnp.argmax(rows, axis=-1), is_distribution(rows)
    raise ValueError(
        f"labels: expected classes {list(outputs.shape[:-1])} or rows {list(outputs.shape)} "
        f"for outputs {list(outputs.shape)}, got {list(shape)}"
    )


def _pair(name: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    """Outputs and targets of one shape ``[N, ...]``, as floats of one dtype, float32 or wider."""
    o, t = _reals(name, outputs), _reals("targets", targets)
    if o.ndim < 1:
        raise ValueError(f"{name}: expected [N, ...], got a scalar")
    check_same_shape("targets", t, name, o)
    return o, t.astype(o.dtype)


def _reals(name: str, value: ArrayLike) -> Array:
    """As an array of floats, float32 or wider."""
    array = jnp.asarray(plain_array(name, value))
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}{list(array.shape)}")
    return array.astype(compute_dtype(array))


def _scaled(columns: Array) -> tuple[Array, Array]:
    """Columns ``[N, C]`` of numbers up to 2 in size, and the powers of two ``[1, C]`` they were divided by."""
    scale = power_of_two(jnp.max(jnp.abs(columns), axis=0, keepdims=True))
    return columns / scale, scale


def _indices(classes: ArrayLike) -> Array:
    array = jnp.asarray(classes)
    return array.astype(jnp.result_type(array, jnp.int32))  # uint8 cannot hold 256, the number of classes


def _mean_of_trailing(values: Array) -> Array:
    # NumPy's promotion, since JAX's raises for bool and float32 if jax_numpy_dtype_promotion is "strict".
    values = values.astype(np.promote_types(values.dtype, np.float32))
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _ratio(part: Any, whole: Any) -> Array:
    """``part / whole``, and 0 where ``whole`` is 0."""
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))
