"""Losses of single examples: plain functions ``loss(outputs, targets) -> [N]``, and the mean that respects weights.

A loss that has a number takes it as a keyword, to be fixed with ``functools.partial(huber, delta=0.5)``. The first axis
counts examples; the loss is averaged over the axes behind it, so that each example has one. ``outputs`` must be floats;
losses are computed and returned in float32 (float64 if ``outputs`` are float64), and targets are cast to that. Shapes
must agree: nothing broadcasts.

Targets that a loss is not defined for (a class out of range, a probability that is none) raise ``ValueError`` naming
the first of them. Within a compiled program no error can be raised: there the example's loss is NaN, and its gradient
0. A NaN loss makes the mean NaN unless the example's weight is 0.

Cross-entropies take logits, the outputs of a last layer without an activation. Of probabilities they compute something
else, without an error: the model learns slowly, and its predictions stay near 1/C.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Jaxpr, Literal

from jaxopt_nn._arguments import (
    UnusableValueError,
    check_class_labels,
    check_distributions,
    check_number,
    check_probabilities,
    check_same_shape,
    check_weight,
    is_distribution,
    is_probability,
    plain_array,
)
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn._scale import power_of_two
from jaxopt_nn.types import Array, ArrayLike, PyTree

__all__ = ["Loss", "huber", "mean_squared_error", "sigmoid_cross_entropy", "softmax_cross_entropy", "weighted_mean"]

Loss = Callable[[Array, Array], Array]
"""``loss(outputs, targets) -> [N]``."""


def softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike, *, label_smoothing: ArrayLike = 0.0) -> Array:
    """Cross-entropy of classes that exclude one another.

    ℓ = -Σ_c q_c·log softmax(z)_c, with q = (1 - α)·p + α/C for the labels' distribution p and the smoothing α.

    Args:
        logits: ``[N, ..., C]`` with C >= 2: not the outputs of a softmax, which is part of this loss. A class of logit
            -inf is excluded: it adds 0 where q is 0.
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
        logits: ``[N, ...]``: not the outputs of a sigmoid, which is part of this loss.
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
    check_probabilities("targets", plain_array("targets", targets))
    loss = -_times_log(t, jax.nn.log_sigmoid(z)) - _times_log(1 - t, jax.nn.log_sigmoid(-z))
    return _mean_of_trailing(jnp.where(is_probability(t), loss, jnp.nan))


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
    """Mean of losses or metrics of examples: Σ w·ℓ / Σ w, and 0 where Σ w = 0. Only the ratios of weights matter.

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
    values = jnp.asarray(plain_array("per_example", per_example))
    if values.ndim != 1:
        raise ValueError(f"per_example: expected one number an example, [N], got {list(values.shape)}")
    values = values.astype(compute_dtype(values))
    if weight is None:
        return jnp.sum(values) / max(values.size, 1)
    weight = plain_array("weight", weight)
    check_weight("weight", weight, values.size)
    w = jnp.asarray(weight)
    w = w.astype(compute_dtype(w))
    w = (w / power_of_two(jnp.max(w, initial=0.0))).astype(values.dtype)
    # Finite values stay although their weight is 0, so that the derivative with respect to such a weight is right.
    values = jnp.where((w == 0) & ~jnp.isfinite(values), 0, values)
    total = jnp.sum(w)
    empty = total == 0
    return jnp.where(empty, 0, jnp.sum(w * values) / jnp.where(empty, 1, total))


def check_targets(name: str, loss: Loss, outputs: PyTree, targets: PyTree) -> None:
    """Raises where ``loss`` refuses a value of the targets: a class out of range, a probability that is none.

    The loss is traced with the targets as they are and outputs of which only the shapes are known. So every row is
    looked at, nothing is computed or compiled, and what may be a target is for the loss to say. Only what this library
    says of values is raised, also from within a person's own loss: any other failure will show where the loss is used.

    Args:
        name: what the targets are called, such as ``"train.y"``.
        loss: or a metric, ``(outputs, targets) -> [N]``.
        outputs: ``jax.ShapeDtypeStruct`` or arrays ``[anything, ...]``: the first axis is that of the targets here.
        targets: ``[N, ...]``; nothing is checked if they are traced.

    Raises:
        ValueError: naming the first of them.
    """
    leaves = jax.tree.leaves(targets)
    if not leaves or not all(isinstance(leaf, (np.ndarray, jax.Array)) for leaf in leaves):
        return
    if any(isinstance(leaf, Tracer) or leaf.ndim == 0 for leaf in leaves):
        return
    rows = leaves[0].shape[0]
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), outputs)
    # NumPy arrays stay concrete through what a wrapper does with them, as in `lambda o, t: loss(o, t[:, None])`.
    values = jax.tree.map(np.asarray, targets)
    try:
        jax.eval_shape(lambda outputs: loss(outputs, values), shapes)
    except UnusableValueError as error:
        raise ValueError(f"{name}, as the loss takes it: {error}") from error
    except Exception:
        return


def activation_before(loss: Loss, outputs: Callable[..., Array], *args: PyTree) -> str | None:
    """The ``"softmax"`` or ``"sigmoid"`` that ``outputs(*args)`` ends with, if ``loss`` is one that takes logits.

    Such a model learns slowly and badly, and nothing fails. The function is traced, not run, so ``args`` may be shapes.
    A loss is recognized by itself or in a ``functools.partial``, not within a person's own function, which may well
    take the logarithm first.
    """
    while isinstance(loss, functools.partial):
        loss = loss.func
    if loss not in (softmax_cross_entropy, sigmoid_cross_entropy):
        return None
    jaxpr = jax.make_jaxpr(outputs)(*args).jaxpr
    last = _made_by(jaxpr, jaxpr.outvars[0]) if len(jaxpr.outvars) == 1 else None
    return last if isinstance(last, str) else None


_MOVES = {"broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze", "transpose"}


def _made_by(jaxpr: Jaxpr, var: Any) -> Any:
    """The name of the activation that computes ``var``; or the input of ``jaxpr`` that it is, only moved; or None."""
    makers = {source: eqn for eqn in jaxpr.eqns for source in eqn.outvars}
    while not isinstance(var, Literal):
        if var not in makers:
            return var
        eqn = makers[var]
        operation, inner = eqn.primitive.name, _called(eqn)
        if operation == "logistic":
            return "sigmoid"
        if operation == "div":
            above, below = (_operation(makers, each) for each in eqn.invars)
            return "softmax" if above == "exp" and below == "reduce_sum" else None
        if inner is not None:
            source = _made_by(inner, inner.outvars[eqn.outvars.index(var)])
            if source is None or isinstance(source, str) or source not in inner.invars:
                return source if isinstance(source, str) else None
            var = eqn.invars[inner.invars.index(source)]
        elif operation in _MOVES:
            var = eqn.invars[0]
        else:
            return None
    return None


def _operation(makers: dict[Any, Any], var: Any) -> str:
    """The primitive that computes ``var``, before it is moved."""
    while not isinstance(var, Literal) and var in makers:
        if makers[var].primitive.name not in _MOVES | {"stop_gradient"}:
            return makers[var].primitive.name
        var = makers[var].invars[0]
    return ""


def _called(eqn: Any) -> Any:
    """The program that an operation calls with its own inputs for its own outputs, as ``jit`` does; None if none."""
    for value in eqn.params.values():
        inner = getattr(value, "jaxpr", value)
        if isinstance(inner, Jaxpr):
            same_arity = len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(eqn.outvars)
            return inner if same_arity else None
    return None


def _class_probabilities(labels: ArrayLike, logits: Array) -> tuple[Array, Array]:
    """What labels of either form say of each row of ``logits``: a distribution over classes, and whether it is one."""
    labels = plain_array("labels", labels)
    num_classes, shape = logits.shape[-1], np.shape(labels)
    if shape == logits.shape[:-1]:
        check_class_labels("labels", labels, num_classes)
        classes = jnp.asarray(labels)
        classes = classes.astype(jnp.result_type(classes, jnp.int32))  # uint8 cannot be compared with 256 classes
        valid = (classes >= 0) & (classes < num_classes)
        return jax.nn.one_hot(classes, num_classes, dtype=logits.dtype), valid
    if shape == logits.shape:
        p = _reals("labels", labels, logits.dtype)
        check_distributions("labels", labels)
        return p, is_distribution(p)
    raise ValueError(
        f"labels: expected classes {list(logits.shape[:-1])} or distributions {list(logits.shape)} "
        f"for logits {list(logits.shape)}, got {list(shape)}"
    )


def _times_log(p: Array, log_q: Array) -> Array:
    """p·log q with 0·(-inf) = 0, as in an entropy; derivatives alike."""
    return p * jnp.where((p == 0) & jnp.isneginf(log_q), 0, log_q)


def _pair(name: str, outputs: ArrayLike, targets_name: str, targets: ArrayLike) -> tuple[Array, Array]:
    """Outputs and targets as floats of one dtype and one shape ``[N, ...]``."""
    o = _floats(name, outputs)
    if o.ndim < 1:
        raise ValueError(f"{name}: expected [N, ...], got a scalar")
    check_same_shape(targets_name, targets, name, outputs)
    return o, _reals(targets_name, targets, o.dtype)


def _floats(name: str, value: ArrayLike) -> Array:
    array = jnp.asarray(plain_array(name, value))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a float dtype, got {array.dtype}{list(array.shape)}")
    return array.astype(compute_dtype(array))


def _reals(name: str, value: ArrayLike, dtype: Any) -> Array:
    array = jnp.asarray(plain_array(name, value))
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}{list(array.shape)}")
    return array.astype(dtype)


def _mean_of_trailing(loss: Array) -> Array:
    return jnp.mean(loss, axis=tuple(range(1, loss.ndim)))
