"""What a confusion matrix says of each class."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import (
    check_class_labels,
    check_each,
    check_number,
    check_positive_int,
    check_same_shape,
    check_weight,
    concrete_array,
    plain_array,
)
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.metrics._arrays import indices, ratio
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["ClassScores", "confusion_matrix", "f_beta", "macro_f1", "matthews_correlation", "precision_recall_f1"]

_LARGEST_SUMS = 2**22  # numbers: 16 MiB in float32


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
    rows, columns = indices(labels), indices(predictions)
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
    counts = _counts(confusion)
    floats = counts.astype(compute_dtype(counts))  # twice a count may not fit an integer
    hits, predicted, support = jnp.diagonal(floats), floats.sum(0), floats.sum(1)
    return ClassScores(
        precision=ratio(hits, predicted),
        recall=ratio(hits, support),
        f1=ratio(hits, (predicted + support) / 2),
        support=counts.sum(1),
    )


def macro_f1(labels: ArrayLike, predictions: ArrayLike, num_classes: int, weight: ArrayLike | None = None) -> Array:
    """The mean of the classes' F1, as ``sklearn.metrics.f1_score(average="macro")``.

    Args:
        labels, predictions, num_classes, weight: as for :func:`confusion_matrix`.

    Returns:
        A scalar in [0, 1]. A class that neither occurs nor was predicted counts as 0.

    Raises:
        TypeError, ValueError: as :func:`confusion_matrix`.

    Differs from scikit-learn's, which leaves out classes that neither occur nor were predicted, unless ``labels`` names
    them.

    >>> round(float(macro_f1(jnp.array([0, 0, 1]), jnp.array([0, 1, 1]), 2)), 4)
    0.6667
    """
    return jnp.mean(precision_recall_f1(confusion_matrix(labels, predictions, num_classes, weight)).f1)


def f_beta(confusion: ArrayLike, beta: ArrayLike = 1.0) -> Array:
    """F-β of each class: (1 + β²)·TP / ((1 + β²)·TP + β²·FN + FP). With β above 1 recall counts more than precision.

    Args:
        confusion: ``[C, C]``, from :func:`confusion_matrix`: rows are true classes.
        beta: β > 0; may be traced.

    Returns:
        ``[C]``; 0 where a class neither occurs nor was predicted.

    Raises:
        ValueError: not a square matrix, or β is not positive.

    >>> f_beta(jnp.array([[1, 1], [0, 0]]), beta=2.0)[1].tolist()
    0.0
    """
    check_number("beta", beta, 0.0, open_low=True)
    counts = _counts(confusion)
    counts = counts.astype(compute_dtype(counts))
    hits, square = jnp.diagonal(counts), jnp.square(jnp.asarray(beta, counts.dtype))
    missed, wrong = counts.sum(1) - hits, counts.sum(0) - hits
    return ratio((1 + square) * hits, (1 + square) * hits + square * missed + wrong)


def matthews_correlation(confusion: ArrayLike) -> Array:
    """Matthews' correlation of truth and prediction: 1 is perfect, 0 is chance; fair where classes are unequal.

    (c·s - Σ p_k·t_k) / √((s² - Σ p_k²)(s² - Σ t_k²)), with s examples, c of them right, t_k of class k, and p_k
    predicted as it.

    Args:
        confusion: ``[C, C]``, from :func:`confusion_matrix`: rows are true classes.

    Returns:
        A scalar; 0 where truth or prediction is a single class.

    Raises:
        ValueError: not a square matrix.

    References:
        Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", 2004.

    >>> float(matthews_correlation(jnp.array([[2, 0], [0, 3]])))
    1.0
    """
    counts = _counts(confusion)
    counts = counts.astype(compute_dtype(counts))
    shares = ratio(counts, counts.sum())  # squares of many examples would leave the range of float32
    right, truth, predicted = jnp.trace(shares), shares.sum(1), shares.sum(0)
    spread = (1 - jnp.sum(predicted**2)) * (1 - jnp.sum(truth**2))
    known = spread > 0
    return jnp.where(known, (right - jnp.sum(predicted * truth)) / jnp.sqrt(jnp.where(known, spread, 1)), 0)


def _counts(confusion: ArrayLike) -> Array:
    counts = jnp.asarray(plain_array("confusion", confusion))
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"confusion: expected a square matrix [C, C], got {list(counts.shape)}")
    if jnp.issubdtype(counts.dtype, jnp.complexfloating):
        raise TypeError(f"confusion: expected counts, got {counts.dtype}")
    values = concrete_array(counts)
    if values is not None:
        check_each("confusion", values, np.isfinite(values) & (values >= 0), "a count >= 0")
    return counts
