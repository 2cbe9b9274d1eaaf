"""Weights of examples and of single outputs, and the metrics of a recipe that do not take them.

A weight ``[N, T]`` weighs each of an example's T outputs. Then the outputs count as examples of their own: their axes
are merged, to ``[N·T, ...]``. So the mean over all outputs is exact, however many of them an example has.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_nn import losses
from jaxopt_nn._arguments import plain_array
from jaxopt_nn.metrics._in_runs import Unweighted, WholeSet
from jaxopt_nn.training._batches import count_examples
from jaxopt_nn.types import Array, Batch, PyTree

__all__ = ["Rows", "example_weight", "is_whole_set", "rows_of", "training_metrics", "values_of", "whole_set_value"]


class Rows(NamedTuple):
    """What losses and metrics see.

    Attributes:
        outputs, targets: ``[rows, ...]``.
        weight: ``[rows]`` or None.
        size: the number of rows.
    """

    outputs: PyTree
    targets: PyTree
    weight: Array | None
    size: int


def rows_of(outputs: PyTree, batch: Batch) -> Rows:
    """The outputs of a batch; a row is an example, or, if each output has a weight, an output."""
    weight = batch.weight
    if weight is None or weight.ndim == 1:
        return Rows(outputs, batch.y, weight, count_examples(batch))
    shape = weight.shape

    def merged(leaf: Array) -> Array:
        if leaf.shape[: len(shape)] != shape:
            raise ValueError(
                f"weight: expected one a row, [{shape[0]}], or one an output, with the first axes of outputs and "
                f"targets, got {list(shape)} for {list(leaf.shape)}"
            )
        return leaf.reshape(-1, *leaf.shape[len(shape) :])

    return Rows(jax.tree.map(merged, outputs), jax.tree.map(merged, batch.y), weight.reshape(-1), math.prod(shape))


def example_weight(weight: Array | None) -> Array | None:
    """The weights ``[N]`` for layers with statistics: of an example with several, the largest."""
    return weight if weight is None or weight.ndim == 1 else jnp.max(weight, tuple(range(1, weight.ndim)))


def is_whole_set(metric: Any) -> bool:
    """Whether a metric is computed from all examples at once."""
    return isinstance(metric.metric if isinstance(metric, Unweighted) else metric, WholeSet)


def values_of(name: str, metric: Any, rows: Rows) -> Array:
    """The values ``[rows]`` of a metric of single examples, floats."""
    values = jnp.asarray(metric(rows.outputs, rows.targets))
    if values.shape != (rows.size,):
        hint = "; average over the axes behind the first" if values.ndim > 1 else ""
        hint = hint if values.ndim else "; one of a whole set is metrics.whole_set(function)"
        raise ValueError(
            f"metrics[{name!r}]: expected one number an example, [{rows.size}], got {list(values.shape)}{hint}"
        )
    return values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(jnp.float32)


def whole_set_value(name: str, metric: Any, rows: Rows) -> Array:
    """The value of a metric of a whole set, in floats, since a history marks epochs that were not run with NaN."""
    value = jnp.asarray(plain_array(f"metrics[{name!r}]", metric(rows.outputs, rows.targets, rows.weight)))
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise TypeError(f"metrics[{name!r}]: expected real numbers, got {value.dtype}")
    return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.float32)


def training_metrics(metrics: Mapping[str, Any], rows: Rows, dtype: Any) -> dict[str, Array]:
    """The metrics of a training batch: ``train_<name>``, the mean over its rows.

    Of an unweighted one with weights W: the sum over the rows that count, divided by ΣW; and ``count_train_<name>``,
    their number, divided by ΣW. So the two are those of the whole batch if micro-batches average them by weight.
    """
    rows = rows._replace(outputs=jax.lax.stop_gradient(rows.outputs))
    found: dict[str, Array] = {}
    for name, metric in metrics.items():
        if is_whole_set(metric):
            continue
        values = values_of(name, metric, rows)
        if isinstance(metric, Unweighted) and rows.weight is not None:
            counts, total = (rows.weight > 0).astype(values.dtype), jnp.sum(rows.weight)
            share = jnp.where(total == 0, 0, jnp.sum(counts) / jnp.where(total == 0, 1, total))
            found[f"count_train_{name}"] = share.astype(dtype)
            found[f"train_{name}"] = (losses.weighted_mean(values, counts) * share).astype(dtype)
        else:
            found[f"train_{name}"] = losses.weighted_mean(values, rows.weight).astype(dtype)
    return found
