"""Losses of single examples: plain functions ``loss(outputs, targets) -> [N]``, and the mean that respects weights.

A loss that has a number takes it as a keyword, to be fixed with ``functools.partial(huber, delta=0.5)``. The first axis
counts examples; the loss is averaged over the axes behind it, so that each example has one. ``outputs`` must be floats;
losses are computed and returned in float32 (float64 if ``outputs`` are float64), and targets are cast to that. Shapes
must agree: nothing broadcasts.

Targets that a loss is not defined for (a class out of range, a probability that is none) raise ``ValueError`` naming
the first of them. Within a compiled program no error can be raised: there the example's loss is NaN, and its gradient
0. A NaN loss makes the mean NaN unless the example's weight is 0.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import (
    check_class_labels,
    check_each,
    check_number,
    check_same_shape,
    check_weight,
    concrete_array,
)
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["Loss", "huber", "mean_squared_error", "sigmoid_cross_entropy", "softmax_cross_entropy", "weighted_mean"]

Loss = Callable[[Array, Array], Array]
"""``loss(outputs, targets) -> [N]``."""

_TOLERANCE = 1e-2  # on targets that are probabilities: in bfloat16, or mixed, they miss 0, 1 and the sum 1 a little


def softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike, *, label_smoothing: ArrayLike = 0.0) -> Array:
    """Cross-entropy of classes that exclude one another.

    ℓ = -Σ_c q_c·log softmax(z)_c, with q = (1 - α)·p + α/C for the labels' distribution p and the smoothing α.

    Args:
        logits: ``[N, ..., C]`` with C >= 2. A class of logit -inf is excluded: it adds 0 where q is 0.
        labels: integer classes ``[N, ...]`` in [0, C), or one-hot rows or distributions ``[N, ..., C]``.
        label_smoothing: α in [0, 1]; may be traced.

    Returns:
        ``[N]``, averaged over the axes between.

    Raises:
        TypeError: ``logits`` are not floats, or classes not integers.
        ValueError: fewer than two classes; shapes that do not match; α or a concrete label out of range.

    References:
        Szegedy et al., "Rethinking the Inception architecture", 2016, section 7 (smoothing).

    >>> loss = softmax_cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))
    >>> bool(jnp.allclose(loss, jnp.log(4.0)))
    True
    """
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)
    z = _floats("logits", logits)
    if z.ndim < 2 or z.shape[-1] < 2:
        hint = "; for one output and two classes use sigmoid_cross_entropy"
        raise ValueError(f"logits: expected [N, ..., C] with at least two classes, got {list(z.shape)}{hint}")
    p, valid = _class_probabilities(labels, z)
    log_softmax = jax.nn.log_softmax(z)
    if np.ndim(labels) < z.ndim and isinstance(label_smoothing, (int, float)) and label_smoothing == 0:
        terms = jnp.where(p > 0, log_softmax, 0)
    else:
        alpha = jnp.asarray(label_smoothing, z.dtype)
        terms = _times_log((1 - alpha) * p + alpha / z.shape[-1], log_softmax)
    return _mean_of_trailing(jnp.where(valid, -jnp.sum(terms, -1), jnp.nan))


def sigmoid_cross_entropy(logits: ArrayLike, targets: ArrayLike) -> Array:
    """Cross-entropy of one yes or no, or of several that do not exclude one another (multi-label).

    ℓ = -t·log σ(z) - (1 - t)·log σ(-z)

    Args:
        logits: ``[N, ...]``.
        targets: ``[N, ...]`` in [0, 1]: booleans, integers or probabilities.

    Returns:
        ``[N]``, averaged over the axes behind.

    Raises:
        TypeError: ``logits`` are not floats, or targets not real.
        ValueError: shapes differ, or a concrete target lies outside [0, 1].

    >>> loss = sigmoid_cross_entropy(jnp.array([0.0, 1e4]), jnp.array([1, 1]))
    >>> bool(jnp.allclose(loss, jnp.array([jnp.log(2.0), 0.0])))
    True
    """
    z, t = _pair("logits", logits, "targets", targets)
    values = concrete_array(targets)
    if values is not None:
        check_each("targets", values, _in_unit_interval(values), "a probability in [0, 1]")
    loss = -_times_log(t, jax.nn.log_sigmoid(z)) - _times_log(1 - t, jax.nn.log_sigmoid(-z))
    return _mean_of_trailing(jnp.where(_in_unit_interval(t), loss, jnp.nan))


def mean_squared_error(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Squared error, averaged over an example's outputs: ℓ = mean (o - t)².

    Args:
        outputs: ``[N, ...]``.
        targets: ``[N, ...]``.

    Returns:
        ``[N]``.

    Raises:
        TypeError: ``outputs`` are not floats, or targets not real.
        ValueError: shapes differ.

    Differs from ``optax.l2_loss`` in the factor: that one is half of it.

    >>> mean_squared_error(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 0.0]])).tolist()
    [5.0]
    """
    o, t = _pair("outputs", outputs, "targets", targets)
    return _mean_of_trailing(jnp.square(o - t))


def huber(outputs: ArrayLike, targets: ArrayLike, *, delta: ArrayLike = 1.0) -> Array:
    """Huber's loss: quadratic in small errors, linear in large ones, averaged over an example's outputs.

    With e = o - t: ℓ = e²/2 where abs(e) <= δ, and δ·(abs(e) - δ/2) beyond.

    Args:
        outputs: ``[N, ...]``.
        targets: ``[N, ...]``.
        delta: the error δ > 0 at which the loss turns linear; may be traced.

    Returns:
        ``[N]``.

    Raises:
        TypeError: ``outputs`` are not floats, or targets not real.
        ValueError: shapes differ, or δ is not positive and finite.

    References:
        Huber, "Robust estimation of a location parameter", 1964.

    >>> huber(jnp.array([0.5, 3.0]), jnp.array([0.0, 0.0])).tolist()
    [0.125, 2.5]
    """
    check_number("delta", delta, 0.0, open_low=True)
    o, t = _pair("outputs", outputs, "targets", targets)
    error, d = o - t, jnp.asarray(delta, o.dtype)
    # e²/2 = max_c (c·e - c²/2), here over |c| <= δ: one expression, with the right second derivative at e = 0 also.
    c = jnp.clip(error, -d, d)
    return _mean_of_trailing(c * (error - 0.5 * c))


def weighted_mean(per_example: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Mean of losses or metrics of examples: Σ w·ℓ / Σ w, and 0 where Σ w = 0.

    Where a weight is 0, an infinite or NaN ℓ counts as 0, and the gradient with respect to ℓ is exactly 0. (Behind a
    NaN *output* it still becomes 0·NaN on the way back through the loss: padded rows must hold finite numbers.)

    Args:
        per_example: ``[N]``.
        weight: ``[N]``, non-negative and finite, or None where all examples count the same.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: not ``[N]``, or a concrete weight is negative or not finite.

    >>> float(weighted_mean(jnp.array([1.0, 4.0, jnp.nan]), jnp.array([2.0, 1.0, 0.0])))
    2.0
    """
    values = jnp.asarray(per_example)
    if values.ndim != 1:
        raise ValueError(f"per_example: expected one number an example, [N], got {list(values.shape)}")
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    if weight is None:
        return jnp.sum(values) / max(values.size, 1)
    check_weight("weight", weight, values.size)
    w = jnp.asarray(weight, values.dtype)
    # Finite values stay although their weight is 0, so that the derivative with respect to such a weight is right.
    values = jnp.where((w == 0) & ~jnp.isfinite(values), 0, values)
    total = jnp.sum(w)
    empty = total == 0
    return jnp.where(empty, 0, jnp.sum(w * values) / jnp.where(empty, 1, total))


def _class_probabilities(labels: ArrayLike, logits: Array) -> tuple[Array, Array]:
    """What labels of either form say of each row of ``logits``: a distribution over classes, and whether it is one."""
    num_classes, shape = logits.shape[-1], np.shape(labels)
    if shape == logits.shape[:-1]:
        check_class_labels("labels", labels, num_classes)
        classes = jnp.asarray(labels)
        classes = classes.astype(jnp.result_type(classes, jnp.int32))  # uint8 cannot be compared with 256 classes
        valid = (classes >= 0) & (classes < num_classes)
        return jax.nn.one_hot(classes, num_classes, dtype=logits.dtype), valid
    if shape == logits.shape:
        values = concrete_array(labels)
        if values is not None:
            check_each("labels", values, _is_distribution(values.astype(np.float64)), "probabilities that sum to 1")
        p = _reals("labels", labels, logits.dtype)
        return p, _is_distribution(p)
    raise ValueError(
        f"labels: expected classes {list(logits.shape[:-1])} or distributions {list(logits.shape)} "
        f"for logits {list(logits.shape)}, got {list(shape)}"
    )


def _times_log(p: Array, log_q: Array) -> Array:
    """p·log q with 0·(-inf) = 0, as in an entropy; derivatives alike."""
    return p * jnp.where((p == 0) & jnp.isneginf(log_q), 0, log_q)


def _is_distribution(p: Any) -> Any:
    return (p >= -_TOLERANCE).all(-1) & (abs(p.sum(-1) - 1) <= _TOLERANCE)


def _in_unit_interval(p: Any) -> Any:
    return (p >= -_TOLERANCE) & (p <= 1 + _TOLERANCE)


def _pair(name: str, outputs: ArrayLike, targets_name: str, targets: ArrayLike) -> tuple[Array, Array]:
    """Outputs and targets as floats of one dtype and one shape ``[N, ...]``."""
    o = _floats(name, outputs)
    if o.ndim < 1:
        raise ValueError(f"{name}: expected [N, ...], got a scalar")
    check_same_shape(targets_name, targets, name, outputs)
    return o, _reals(targets_name, targets, o.dtype)


def _floats(name: str, value: ArrayLike) -> Array:
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a float dtype, got {array.dtype}{list(array.shape)}")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _reals(name: str, value: ArrayLike, dtype: Any) -> Array:
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}{list(array.shape)}")
    return array.astype(dtype)


def _mean_of_trailing(loss: Array) -> Array:
    return jnp.mean(loss, axis=tuple(range(1, loss.ndim)))
