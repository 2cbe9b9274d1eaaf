"""How good scores and probabilities are, over a whole set: their order, and their size."""

import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import (
    check_class_labels,
    check_distributions,
    check_each,
    check_positive_int,
    check_weight,
    concrete_array,
    plain_array,
)
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.metrics._arrays import indices, ratio, reals
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["average_precision", "calibration_error", "log_loss", "roc_auc"]


def roc_auc(labels: ArrayLike, scores: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Area under the ROC curve: how likely a positive example has a higher score than a negative one; a tie is half.

    Args:
        labels: ``[N]``: 0 or 1, or booleans.
        scores: ``[N]``: logits or probabilities of 1; only their order matters.
        weight: ``[N]`` non-negative, or None.

    Returns:
        A scalar; NaN where only one class has weight.

    Raises:
        ValueError: not ``[N]``; a concrete label is neither 0 nor 1; a concrete weight is negative or not finite.

    >>> float(roc_auc(jnp.array([0, 0, 1, 1]), jnp.array([0.1, 0.4, 0.35, 0.8])))
    0.75
    """
    positive, s, w = _binary(labels, scores, weight)
    order = jnp.argsort(s)
    s, positive, w = s[order], positive[order], w[order]
    below = jnp.concatenate([jnp.zeros(1, w.dtype), jnp.cumsum(jnp.where(positive, 0, w))])
    first, last = jnp.searchsorted(s, s, side="left"), jnp.searchsorted(s, s, side="right")
    beaten = (below[first] + below[last]) / 2
    return jnp.sum(jnp.where(positive, w * beaten, 0)) / (jnp.sum(jnp.where(positive, w, 0)) * below[-1])


def average_precision(labels: ArrayLike, scores: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Average precision: Σ (R_n - R_{n-1})·P_n over the thresholds, the area under steps of precision against recall.

    Args:
        labels, scores, weight: as for :func:`roc_auc`.

    Returns:
        A scalar; NaN where no positive example has weight.

    Raises:
        ValueError: as :func:`roc_auc`.

    >>> round(float(average_precision(jnp.array([0, 0, 1, 1]), jnp.array([0.1, 0.4, 0.35, 0.8]))), 4)
    0.8333
    """
    positive, s, w = _binary(labels, scores, weight)
    order = jnp.argsort(-s)
    s, positive, w = s[order], positive[order], w[order]
    hits, seen = jnp.cumsum(jnp.where(positive, w, 0)), jnp.cumsum(w)
    last = jnp.searchsorted(-s, -s, side="right") - 1  # equal scores are one threshold
    return jnp.sum(jnp.where(positive, w * ratio(hits[last], seen[last]), 0)) / hits[-1]


def log_loss(labels: ArrayLike, probabilities: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Cross-entropy of predicted probabilities: -mean log p of the true class. For logits there are the losses.

    Args:
        labels: ``[N]`` integer classes.
        probabilities: ``[N, C]`` rows that sum to 1, or ``[N]`` of class 1. A 0 counts as the rounding of the dtype.
        weight: ``[N]`` non-negative, or None.

    Returns:
        A scalar.

    Raises:
        TypeError: classes are not integers.
        ValueError: shapes that do not match; a concrete class is out of range or a row no distribution.

    >>> round(float(log_loss(jnp.array([0, 1]), jnp.array([[0.5, 0.5], [0.2, 0.8]]))), 4)
    0.4581
    """
    p, classes, w = _predicted(labels, probabilities, weight)
    true = jnp.take_along_axis(p, classes[:, None], 1)[:, 0]
    eps = jnp.finfo(p.dtype).eps
    return jnp.sum(-w * jnp.log(jnp.clip(true, eps, 1 - eps))) / jnp.sum(w)


def calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, weight: ArrayLike | None = None, *, bins: int = 15
) -> Array:
    """Expected calibration error: how far confidence and accuracy are apart, Σ_b n_b/N·abs(accuracy_b - confidence_b).

    The confidence of an example is its largest probability; the bins split (0, 1] into equal parts.

    Args:
        labels, probabilities, weight: as for :func:`log_loss`.
        bins: static.

    Returns:
        A scalar in [0, 1]; 0 is perfectly calibrated.

    Raises:
        TypeError, ValueError: as :func:`log_loss`.

    References:
        Guo et al., "On calibration of modern neural networks", 2017, equation 3.

    >>> round(float(calibration_error(jnp.array([0, 1]), jnp.array([[0.8, 0.2], [0.8, 0.2]]))), 4)
    0.3
    """
    check_positive_int("bins", bins)
    p, classes, w = _predicted(labels, probabilities, weight)
    confidence, right = p.max(1), (p.argmax(1) == classes).astype(p.dtype)
    which = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    gaps = jnp.zeros(bins, p.dtype).at[which].add(w * (right - confidence))
    return jnp.sum(jnp.abs(gaps)) / jnp.sum(w)


def _binary(labels: ArrayLike, scores: ArrayLike, weight: ArrayLike | None) -> tuple[Array, Array, Array]:
    labels, s = plain_array("labels", labels), reals("scores", scores)
    if s.ndim != 1 or np.shape(labels) != s.shape:
        raise ValueError(f"labels: expected [N] for scores [N], got {list(np.shape(labels))} for {list(s.shape)}")
    known = concrete_array(labels)
    if known is not None:
        check_each("labels", known, np.isin(known, (0, 1)), "0 or 1")
    return jnp.asarray(labels) == 1, s, _weights(weight, s)


def _predicted(labels: ArrayLike, probabilities: ArrayLike, weight: ArrayLike | None) -> tuple[Array, Array, Array]:
    p = reals("probabilities", probabilities)
    if p.ndim == 1:
        p = jnp.stack([1 - p, p], 1)
    labels = plain_array("labels", labels)
    if p.ndim != 2 or np.shape(labels) != p.shape[:1]:
        raise ValueError(
            f"probabilities: expected [N, C] or [N] for labels [N], got {list(np.shape(probabilities))} for "
            f"{list(np.shape(labels))}"
        )
    check_class_labels("labels", labels, p.shape[1])
    check_distributions("probabilities", p)
    return p, indices(labels), _weights(weight, p[:, 0])


def _weights(weight: ArrayLike | None, like: Array) -> Array:
    if weight is None:
        return jnp.ones_like(like)
    weight = plain_array("weight", weight)
    check_weight("weight", weight, like.shape[0])
    w = jnp.asarray(weight)
    return w.astype(compute_dtype(w)).astype(like.dtype)
