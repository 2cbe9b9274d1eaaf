"""Losses of classes: exclusive ones (softmax), independent ones (sigmoid), ordered ones."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_nn._arguments import (
    check_class_labels,
    check_distributions,
    check_each,
    check_number,
    check_probabilities,
    check_same_shape,
    concrete_array,
    is_distribution,
    is_probability,
    plain_array,
)
from jaxopt_nn.losses._arrays import floats, mean_of_trailing, pair, reals
from jaxopt_nn.types import Array, ArrayLike

__all__ = [
    "hinge",
    "kl_divergence",
    "ordinal",
    "sigmoid_cross_entropy",
    "sigmoid_focal",
    "softmax_cross_entropy",
    "softmax_focal",
]


def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, label_smoothing: ArrayLike = 0.0, class_weight: ArrayLike | None = None
) -> Array:
    """Cross-entropy of classes that exclude one another.

    ℓ = -Σ_c w_c·q_c·log softmax(z)_c, with q = (1 - α)·p + α/C for the labels' distribution p and the smoothing α.

    Args:
        logits: ``[N, ..., C]`` with C >= 2; not the outputs of a softmax, which is part of this loss. A class with
            the logit -inf is excluded: it adds 0 where q is 0.
        labels: integer classes ``[N, ...]`` in [0, C), or one-hot rows or distributions ``[N, ..., C]``.
        label_smoothing: α in [0, 1]; may be traced.
        class_weight: w ``[C]``, non-negative, which may be traced; None for 1.

    Returns:
        ``[N]``, averaged over the axes between.

    Raises:
        TypeError: ``logits`` are not floats, or classes not integers.
        ValueError: fewer than two classes; shapes that do not match; α or a concrete label out of range.

    References:
        Szegedy et al., "Rethinking the Inception architecture", 2016, section 7 (smoothing).

    Differs from ``torch.nn.CrossEntropyLoss(weight=w)``, whose mean over a batch is divided by Σ w_y. Here it is
    divided by N, as in Keras with ``class_weight``.

    >>> loss = softmax_cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))
    >>> bool(jnp.allclose(loss, jnp.log(4.0)))
    True
    """
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)
    z = _class_logits(logits)
    w = _class_weight(class_weight, z)
    p, valid = _class_probabilities(labels, z)
    log_softmax = jax.nn.log_softmax(z)
    if np.ndim(labels) < z.ndim and isinstance(label_smoothing, (int, float)) and label_smoothing == 0:
        terms = jnp.where(p > 0, log_softmax, 0)
    else:
        alpha = jnp.asarray(label_smoothing, z.dtype)
        terms = _times_log((1 - alpha) * p + alpha / z.shape[-1], log_softmax)
    return mean_of_trailing(jnp.where(valid, -jnp.sum(terms if w is None else w * terms, -1), jnp.nan))


def sigmoid_cross_entropy(logits: ArrayLike, targets: ArrayLike, *, positive_weight: ArrayLike = 1.0) -> Array:
    """Cross-entropy of binary targets: one for each example, or several independent ones (multi-label).

    ℓ = -w·t·log σ(z) - (1 - t)·log σ(-z)

    Args:
        logits: ``[N, ...]``; not the outputs of a sigmoid, which is part of this loss.
        targets: ``[N, ...]`` in [0, 1]: booleans, integers or probabilities.
        positive_weight: w >= 0 of the positive targets, as torch's ``pos_weight``: a number, or one for each output.
            The number of negatives divided by that of positives makes both count the same. May be traced.

    Returns:
        ``[N]``, averaged over the axes behind.

    Raises:
        TypeError: ``logits`` are not floats, or targets not real.
        ValueError: shapes differ, or a concrete target lies outside [0, 1].

    >>> loss = sigmoid_cross_entropy(jnp.array([0.0, 1e4]), jnp.array([1, 1]))
    >>> bool(jnp.allclose(loss, jnp.array([jnp.log(2.0), 0.0])))
    True
    """
    z, t = pair("logits", logits, "targets", targets)
    check_probabilities("targets", plain_array("targets", targets))
    w = _positive_weight(positive_weight, z)
    positive = _times_log(t, jax.nn.log_sigmoid(z))
    loss = -(positive if w is None else w * positive) - _times_log(1 - t, jax.nn.log_sigmoid(-z))
    return mean_of_trailing(jnp.where(is_probability(t), loss, jnp.nan))


def sigmoid_focal(
    logits: ArrayLike, targets: ArrayLike, *, gamma: ArrayLike = 2.0, alpha: ArrayLike | None = None
) -> Array:
    """The focal loss of binary targets: a cross-entropy in which easy examples count less.

    ℓ = -α·t·(1 - p)^γ·log p - (1 - α)·(1 - t)·p^γ·log(1 - p), with p = σ(z); without α both factors are 1.

    Args:
        logits: ``[N, ...]``: not the outputs of a sigmoid.
        targets: ``[N, ...]`` in [0, 1].
        gamma: γ >= 0; 0 is the cross-entropy; may be traced.
        alpha: α in [0, 1], which may be traced, or None.

    Returns:
        ``[N]``, averaged over the axes behind.

    Raises:
        TypeError: ``logits`` are not floats, or targets not real.
        ValueError: shapes differ; γ, α or a concrete target is out of range.

    References:
        Lin et al., "Focal loss for dense object detection", 2017, equations 4 and 5.

    >>> loss = sigmoid_focal(jnp.array([0.0]), jnp.array([1]))
    >>> bool(jnp.allclose(loss, 0.25 * jnp.log(2.0)))
    True
    """
    check_number("gamma", gamma, 0.0)
    if alpha is not None:
        check_number("alpha", alpha, 0.0, 1.0)
    z, t = pair("logits", logits, "targets", targets)
    check_probabilities("targets", plain_array("targets", targets))
    g, log_p, log_q = jnp.asarray(gamma, z.dtype), jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    positive, negative = _times_log(t * jnp.exp(g * log_q), log_p), _times_log((1 - t) * jnp.exp(g * log_p), log_q)
    if alpha is not None:
        a = jnp.asarray(alpha, z.dtype)
        positive, negative = a * positive, (1 - a) * negative
    return mean_of_trailing(jnp.where(is_probability(t), -positive - negative, jnp.nan))


def softmax_focal(
    logits: ArrayLike, labels: ArrayLike, *, gamma: ArrayLike = 2.0, class_weight: ArrayLike | None = None
) -> Array:
    """The focal loss of classes that exclude one another: ℓ = -Σ_c w_c·q_c·(1 - p_c)^γ·log p_c, with p = softmax(z).

    Args:
        logits: ``[N, ..., C]`` with C >= 2: not the outputs of a softmax.
        labels: as for :func:`softmax_cross_entropy`: classes, or distributions q.
        gamma: γ >= 0; 0 is the cross-entropy; may be traced.
        class_weight: w ``[C]``, non-negative, which may be traced; None for 1.

    Returns:
        ``[N]``, averaged over the axes between.

    Raises:
        TypeError, ValueError: as :func:`softmax_cross_entropy`; γ is negative.

    References:
        Lin et al., "Focal loss for dense object detection", 2017.

    >>> loss = softmax_focal(jnp.zeros((1, 2)), jnp.array([1]), gamma=1.0)
    >>> bool(jnp.allclose(loss, 0.5 * jnp.log(2.0)))
    True
    """
    check_number("gamma", gamma, 0.0)
    z = _class_logits(logits)
    w = _class_weight(class_weight, z)
    q, valid = _class_probabilities(labels, z)
    log_p = jax.nn.log_softmax(z)
    # 1 - p from log p. Where p rounds to 1, the loss and its slope are 0 up to rounding.
    near_one = jnp.minimum(log_p, -jnp.finfo(z.dtype).eps)
    log_rest = jnp.log(-jnp.expm1(near_one))
    terms = _times_log(q * jnp.exp(jnp.asarray(gamma, z.dtype) * log_rest), log_p)
    return mean_of_trailing(jnp.where(valid, -jnp.sum(terms if w is None else w * terms, -1), jnp.nan))


def kl_divergence(logits: ArrayLike, targets: ArrayLike) -> Array:
    """Kullback-Leibler divergence from the model's distribution to the target's, as in distillation.

    ℓ = Σ_c q_c·(log q_c - log softmax(z)_c): the cross-entropy without the entropy of q, 0 for a perfect model.

    Args:
        logits: ``[N, ..., C]`` with C >= 2.
        targets: ``[N, ..., C]``: distributions q.

    Returns:
        ``[N]``, averaged over the axes between.

    Raises:
        TypeError: ``logits`` are not floats, or targets not real.
        ValueError: shapes differ, or a concrete row is no distribution.

    >>> bool(jnp.allclose(kl_divergence(jnp.zeros((1, 2)), jnp.array([[0.5, 0.5]])), 0.0))
    True
    """
    z = _class_logits(logits)
    check_same_shape("targets", targets, "logits", z)
    q, valid = _class_probabilities(targets, z)
    entropy = _times_log(q, jnp.log(jnp.where(q > 0, q, 1)))
    return mean_of_trailing(jnp.where(valid, jnp.sum(entropy - _times_log(q, jax.nn.log_softmax(z)), -1), jnp.nan))


def hinge(outputs: ArrayLike, targets: ArrayLike, *, margin: ArrayLike = 1.0) -> Array:
    """The hinge loss of a support vector machine: ℓ = max(0, m - y·o), averaged over an example's outputs.

    Args:
        outputs: ``[N, ...]``.
        targets: ``[N, ...]``: 1 for yes; 0 or -1 for no (y is -1 for both).
        margin: m > 0; may be traced.

    Returns:
        ``[N]``.

    Raises:
        TypeError: ``outputs`` are not floats, or targets not real.
        ValueError: shapes differ, the margin is not positive, or a concrete target is another number.

    >>> hinge(jnp.array([0.5, 0.5]), jnp.array([1, 0])).tolist()
    [0.5, 1.5]
    """
    check_number("margin", margin, 0.0, open_low=True)
    o, t = pair("outputs", outputs, "targets", targets)
    signs = concrete_array(plain_array("targets", targets))
    if signs is not None:
        check_each("targets", signs, np.isin(signs, (-1, 0, 1)), "1, 0 or -1")
    loss = jnp.maximum(0, jnp.asarray(margin, o.dtype) - jnp.where(t > 0, o, -o))
    return mean_of_trailing(jnp.where((t == 1) | (t == 0) | (t == -1), loss, jnp.nan))


def ordinal(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Cross-entropy of ordered classes, with one binary output for each k: is the class above k?

    ℓ = -Σ_k [y > k]·log σ(z_k) + [y <= k]·log σ(-z_k), k = 0 … C - 2.

    Args:
        logits: ``[N, ..., C - 1]``, C >= 2. The predicted class is the number of positive ones.
        labels: classes ``[N, ...]`` in [0, C).

    Returns:
        ``[N]``, averaged over the axes between.

    Raises:
        TypeError: ``logits`` are not floats, or classes not integers.
        ValueError: shapes that do not match, or a concrete class is out of range.

    References:
        Cao, Mirjalili and Raschka, "Rank consistent ordinal regression", 2020, equation 4.

    >>> loss = ordinal(jnp.zeros((1, 3)), jnp.array([2]))
    >>> bool(jnp.allclose(loss, 3 * jnp.log(2.0)))
    True
    """
    z = floats("logits", logits)
    labels = plain_array("labels", labels)
    if z.ndim < 2 or z.shape[-1] < 1 or np.shape(labels) != z.shape[:-1]:
        raise ValueError(
            f"logits: expected [N, ..., C - 1] for classes [N, ...], got {list(z.shape)} for {list(np.shape(labels))}"
        )
    steps = z.shape[-1]
    check_class_labels("labels", labels, steps + 1)
    classes = jnp.asarray(labels)
    classes = classes.astype(jnp.result_type(classes, jnp.int32))
    above = classes[..., None] > lax.broadcasted_iota(classes.dtype, z.shape, z.ndim - 1)
    loss = -jnp.sum(jnp.where(above, jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)), -1)
    return mean_of_trailing(jnp.where((classes >= 0) & (classes <= steps), loss, jnp.nan))


def _class_logits(logits: ArrayLike) -> Array:
    z = floats("logits", logits)
    if z.ndim < 2 or z.shape[-1] < 2:
        hint = "; for one output and two classes use sigmoid_cross_entropy"
        raise ValueError(f"logits: expected [N, ..., C] with at least two classes, got {list(z.shape)}{hint}")
    return z


def _class_weight(class_weight: ArrayLike | None, logits: Array) -> Array | None:
    if class_weight is None:
        return None
    classes, weight = logits.shape[-1], plain_array("class_weight", class_weight)
    if np.shape(weight) != (classes,):
        raise ValueError(f"class_weight: expected one number a class, [{classes}], got {list(np.shape(weight))}")
    _check_factors("class_weight", weight)
    return _per_output(reals("class_weight", weight, logits.dtype), logits)


def _positive_weight(positive_weight: ArrayLike, logits: Array) -> Array | None:
    if isinstance(positive_weight, (int, float)) and positive_weight == 1:
        return None
    weight = plain_array("positive_weight", positive_weight)
    if np.shape(weight) not in ((), logits.shape[1:]):
        raise ValueError(
            f"positive_weight: expected one number, or one an output, {list(logits.shape[1:])}, "
            f"got {list(np.shape(weight))}"
        )
    _check_factors("positive_weight", weight)
    return _per_output(reals("positive_weight", weight, logits.dtype), logits)


def _per_output(factors: Array, logits: Array) -> Array:
    """The same, with as many axes as the logits."""
    return jnp.expand_dims(factors, tuple(range(logits.ndim - factors.ndim)))


def _check_factors(name: str, weight: ArrayLike) -> None:
    values = concrete_array(weight)
    if values is not None:
        check_each(name, values, np.isfinite(values) & (values >= 0), "a finite number >= 0")


def _class_probabilities(labels: ArrayLike, logits: Array) -> tuple[Array, Array]:
    """Labels of either form as a distribution over classes, for each row of ``logits``, and whether it is valid."""
    labels = plain_array("labels", labels)
    num_classes, shape = logits.shape[-1], np.shape(labels)
    if shape == logits.shape[:-1]:
        check_class_labels("labels", labels, num_classes)
        classes = jnp.asarray(labels)
        classes = classes.astype(jnp.result_type(classes, jnp.int32))  # uint8 cannot be compared with 256 classes
        valid = (classes >= 0) & (classes < num_classes)
        return jax.nn.one_hot(classes, num_classes, dtype=logits.dtype), valid
    if shape == logits.shape:
        p = reals("labels", labels, logits.dtype)
        check_distributions("labels", labels)
        return p, is_distribution(p)
    raise ValueError(
        f"labels: expected classes {list(logits.shape[:-1])} or distributions {list(logits.shape)} "
        f"for logits {list(logits.shape)}, got {list(shape)}"
    )


def _times_log(p: Array, log_q: Array) -> Array:
    """p·log q with 0·(-inf) = 0, as in an entropy, also in derivatives."""
    return p * jnp.where((p == 0) & jnp.isneginf(log_q), 0, log_q)
