"""Metrics of a recipe that are no plain mean over the examples: of a whole set at once, or without example weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxopt_nn._arguments import shown
from jaxopt_nn.metrics._per_example import Metric
from jaxopt_nn.trees import takes
from jaxopt_nn.types import Array

__all__ = ["Unweighted", "WholeSet", "unweighted", "whole_set"]


class WholeSet(NamedTuple):
    """A metric ``(outputs, targets, weight=None) -> number or array`` of a whole set, made by :func:`whole_set`."""

    function: Callable[..., Any]
    predictions: Callable[[Any], Any] | None

    def __call__(self, outputs: Any, targets: Any, weight: Array | None = None) -> Any:
        predictions = outputs if self.predictions is None else self.predictions(outputs)
        return self.function(targets, predictions, weight=weight)


class Unweighted(NamedTuple):
    """A metric for which each example of positive weight counts the same, made by :func:`unweighted`."""

    metric: Metric | WholeSet

    def __call__(self, outputs: Any, targets: Any, weight: Array | None = None) -> Any:
        if isinstance(self.metric, WholeSet):
            return self.metric(outputs, targets, None if weight is None else (weight > 0).astype(weight.dtype))
        return self.metric(outputs, targets)


def whole_set(function: Callable[..., Any], predictions: Callable[[Any], Any] | None = None) -> WholeSet:
    """A metric of a recipe that is computed from all examples at once, as an area under a curve is.

    In ``Recipe(metrics=...)`` it is computed after each epoch over the whole validation set, each example once. The
    outputs of the whole set are held for that.

    Args:
        function: ``(targets, predictions, weight=...) -> value``, as :func:`r2_score`, :func:`roc_auc` and
            scikit-learn's have it, in ``jax.numpy``. ``weight`` is ``[N]``, or None where all examples count the same.
            The value is a number or an array, such as a confusion matrix.
        predictions: makes predictions of the model's outputs, such as ``lambda logits: logits.argmax(-1)``; None takes
            the outputs.

    Returns:
        A metric for a recipe. As a function it is ``(outputs, targets, weight=None) -> value``.

    Raises:
        TypeError: an argument is no such function.

    >>> import functools, jax.numpy as jnp
    >>> from jaxopt_nn import metrics
    >>> logits, labels = jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 1])
    >>> auc = whole_set(metrics.roc_auc, lambda logits: logits[:, 1] - logits[:, 0])
    >>> float(auc(logits, labels))
    1.0
    >>> f1 = whole_set(functools.partial(metrics.macro_f1, num_classes=2), lambda logits: logits.argmax(-1))
    >>> float(f1(logits, labels))
    1.0
    """
    if not callable(function) or isinstance(function, (WholeSet, Unweighted)):
        raise TypeError(
            f"function: expected a function (targets, predictions, weight=...), as metrics.roc_auc, "
            f"got {shown(function)}"
        )
    if predictions is not None and (not callable(predictions) or not takes(predictions, None)):
        raise TypeError(f"predictions: expected a function of the outputs, got {shown(predictions)}")
    return WholeSet(function, predictions)


def unweighted(metric: Metric | WholeSet) -> Unweighted:
    """The same metric without example weights: each example counts the same, and those of weight 0 not at all.

    Args:
        metric: ``(outputs, targets) -> [N]``, as :func:`accuracy`, or one made by :func:`whole_set`.

    Returns:
        A metric for a recipe, beside others that take the weights of ``Batch.weight``, as all do by themselves.

    Raises:
        TypeError: it is no metric.

    >>> import jax.numpy as jnp
    >>> from jaxopt_nn import metrics
    >>> unweighted(metrics.accuracy)(jnp.array([[2.0, 1.0]]), jnp.array([0])).tolist()
    [1.0]
    """
    if not callable(metric) or isinstance(metric, Unweighted):
        raise TypeError(f"metric: expected a metric, as metrics.accuracy, got {shown(metric)}")
    return Unweighted(metric)
