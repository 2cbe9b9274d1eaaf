"""Metrics of single examples: their weighted mean over any batches is that of the whole set."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_nn._arguments import (
    check_number,
    check_positive_int,
    check_probabilities,
    is_probability,
    plain_array,
)
from jaxopt_nn.metrics._arrays import mean_of_trailing, pair, true_classes
from jaxopt_nn.types import Array, ArrayLike

__all__ = [
    "Metric",
    "absolute_error",
    "absolute_percentage_error",
    "accuracy",
    "binary_accuracy",
    "squared_error",
    "top_k_accuracy",
]

Metric = Callable[[Array, Array], Array]
"""``metric(outputs, targets) -> [N]``."""


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
    _, higher, usable = _ranked(outputs, labels, lambda index, true: index < true)
    return mean_of_trailing((higher == 0) & usable)


def top_k_accuracy(outputs: ArrayLike, labels: ArrayLike, *, k: int = 5) -> Array:
    """1 where the true class is among the k largest outputs, else 0. Of equal outputs the last rank higher.

    Args:
        outputs: ``[N, ..., C]`` with C >= 2: logits or probabilities.
        labels: as for :func:`accuracy`.
        k: in [1, C]; static.

    Returns:
        ``[N]`` float32.

    Raises:
        TypeError: as :func:`accuracy`.
        ValueError: as :func:`accuracy`, or k is not in [1, C].

    Of equal outputs the last rank higher, as in ``sklearn.metrics.top_k_accuracy_score``; in :func:`accuracy`, as in
    ``argmax`` and ``jax.lax.top_k``, the first do. So where outputs are equal, k = 1 may differ from the accuracy.

    >>> top_k_accuracy(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([2]), k=2).tolist()
    [1.0]
    """
    o, higher, usable = _ranked(outputs, labels, lambda index, true: index > true)
    check_positive_int("k", k, high=o.shape[-1])
    return mean_of_trailing((higher < k) & usable)


def _ranked(
    outputs: ArrayLike, labels: ArrayLike, before: Callable[[Array, Array], Array]
) -> tuple[Array, Array, Array]:
    """The outputs; how many rank above that of the true class, with equal ones ``before`` it; where that is known."""
    o = jnp.asarray(plain_array("outputs", outputs))
    if o.ndim < 2 or o.shape[-1] < 2:
        hint = "; for one output and two classes use binary_accuracy, with threshold=0.5 if it is a probability"
        raise ValueError(f"outputs: expected [N, ..., C] with at least two classes, got {list(o.shape)}{hint}")
    classes, defined = true_classes(labels, o)
    index, true_index = lax.broadcasted_iota(classes.dtype, o.shape, o.ndim - 1), classes[..., None]
    true_output = jnp.sum(jnp.where(index == true_index, o, 0), axis=-1, keepdims=True)
    higher = (o > true_output) | ((o == true_output) & before(index, true_index))
    exists = (index == true_index).any(-1)
    return o, higher.sum(-1), exists & defined & ~jnp.isnan(o).any(-1)


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
    z, t = pair("logits", logits, targets)
    check_probabilities("targets", plain_array("targets", targets), or_nan=True)
    right = (z > jnp.asarray(threshold, z.dtype)) == (t > 0.5)
    return mean_of_trailing(right & ~jnp.isnan(z) & is_probability(t))


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
    o, t = pair("outputs", outputs, targets)
    return mean_of_trailing(jnp.abs(o - t))


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
    o, t = pair("outputs", outputs, targets)
    return mean_of_trailing(jnp.square(o - t))


def absolute_percentage_error(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Absolute error relative to the target, averaged over an example's outputs: mean abs(o - t) / max(abs(t), ε).

    Args:
        outputs: ``[N, ...]``.
        targets: ``[N, ...]``; of a target of 0 an error counts as 1/ε times as much, with ε the rounding of float64,
            2.2e-16, as in scikit-learn.

    Returns:
        ``[N]`` float32 (float64 if ``outputs`` are).

    Raises:
        ValueError: shapes differ.

    >>> absolute_percentage_error(jnp.array([3.0, 1.0]), jnp.array([2.0, 4.0])).tolist()
    [0.5, 0.75]
    """
    o, t = pair("outputs", outputs, targets)
    return mean_of_trailing(jnp.abs(o - t) / jnp.maximum(jnp.abs(t), np.finfo(np.float64).eps))
