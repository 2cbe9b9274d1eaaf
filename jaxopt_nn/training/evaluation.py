"""Evaluation and prediction, in bounded memory."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn import losses
from jaxopt_nn.data import check_batch
from jaxopt_nn.training.batches import count_examples
from jaxopt_nn.training.recipe import Recipe, RecipeFn, build_recipe, model_of
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, Batch, Params, PyTree, State

__all__ = ["evaluate", "evaluate_model", "predict"]

PerExample = Callable[[Any, Any], Array]


class Trained(Protocol):
    """Anything with trained parameters: a ``RunResult``, a ``TrainState``."""

    @property
    def params(self) -> Params: ...
    @property
    def model_state(self) -> State: ...


def predict(recipe: RecipeFn, hparams: PyTree, trained: Trained, x: PyTree) -> PyTree:
    """The outputs of a trained model in evaluation mode.

    Args:
        recipe, hparams: what it was trained with.
        trained: what has ``params`` and ``model_state``: a run's result (its best weights), or a ``TrainState``.
        x: features ``[N, ...]``, N >= 1.

    Returns:
        The outputs ``[N, ...]``, for a classifier usually logits; ``evaluation_batch_size`` examples at a time.

    Raises:
        ValueError: if the parameters are not those of this model (naming the paths), or ``x`` has another number of
            features (naming the layer).
    """
    parts = build_recipe(recipe, hparams)
    check_batch("", Batch(x, None))
    _check_params(parts, trained, x)
    x = jax.tree.map(jnp.asarray, x)
    examples = count_examples(Batch(x, None))
    size = _examples_at_once(parts, examples)
    whole = examples // size * size

    def outputs(x: PyTree) -> PyTree:
        return _outputs(parts, trained.params, trained.model_state, x)

    pieces: list[PyTree] = []
    if whole:
        chunks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), x)
        pieces.append(jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), lax.map(outputs, chunks)))
    if whole < examples:
        pieces.append(outputs(jax.tree.map(lambda leaf: leaf[whole:], x)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pieces)


def evaluate(recipe: RecipeFn, hparams: PyTree, trained: Trained, batch: Batch) -> dict[str, Array]:
    """The mean loss (without penalty) and metrics of a trained model over a data set, weighted by example.

    Args:
        recipe, hparams: what it was trained with.
        trained: what has ``params`` and ``model_state``: a run's result (its best weights), or a ``TrainState``.
        batch: the data set.

    Returns:
        ``{"loss": ..., <name>: ...}`` with the recipe's metrics.

    Raises:
        ValueError: as :func:`predict`, and for unusable data (see :func:`jaxopt_nn.data.check_batch`).
    """
    parts = build_recipe(recipe, hparams)
    check_batch("batch", batch)
    _check_params(parts, trained, batch.x)
    return evaluate_model(parts, trained.params, trained.model_state, batch)


def evaluate_model(parts: Recipe, params: Params, model_state: State, data: Batch) -> dict[str, Array]:
    """The same for a recipe's parts; ``evaluation_batch_size`` examples at a time, each counted once."""
    functions: Mapping[str, PerExample] = {"loss": parts.loss, **parts.metrics}
    data = jax.tree.map(jnp.asarray, data)

    def sums(rows: Batch, fresh: Array | None) -> tuple[dict[str, Array], Array]:
        outputs = _outputs(parts, params, model_state, rows.x)
        values = {name: function(outputs, rows.y) for name, function in functions.items()}
        weight = jnp.ones_like(values["loss"]) if rows.weight is None else rows.weight.astype(values["loss"].dtype)
        weight = weight if fresh is None else weight * fresh
        total = jnp.sum(weight)
        return {name: losses.weighted_mean(value, weight) * total for name, value in values.items()}, total

    examples = count_examples(data)
    size = _examples_at_once(parts, examples)
    if size == examples:
        totals, count = sums(data, None)
    else:
        # The last window overlaps the one before it: what was counted there has weight 0 here. No padded copy is made.
        def window(index: Array) -> tuple[dict[str, Array], Array]:
            start = jnp.minimum(index * size, examples - size)
            rows = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size), data)
            return sums(rows, start + jnp.arange(size) >= index * size)

        totals, count = jax.tree.map(lambda sum_: sum_.sum(0), lax.map(window, jnp.arange(-(-examples // size))))
    return {name: total / count for name, total in totals.items()}


def _examples_at_once(parts: Recipe, examples: int) -> int:
    """In the smallest number of passes of equal size."""
    limit = parts.evaluation_batch_size
    if limit is None:
        limit = 1024
    return -(-examples // -(-examples // limit))


def _outputs(parts: Recipe, params: Params, model_state: State, x: PyTree) -> PyTree:
    return model_of(parts).apply(params, model_state, x, train=False, key=None, weight=None)[0]


def _check_params(parts: Recipe, trained: Trained, x: PyTree) -> None:
    """Compares only the paths: a wrong shape is reported by the layer that meets it."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    expected = jax.eval_shape(model_of(parts).init, jax.random.key(0), shapes)
    for name, want, have in zip(
        ("params", "model_state"), expected, (trained.params, trained.model_state), strict=True
    ):
        wanted, given = {path for path, _ in named_leaves(want)}, {path for path, _ in named_leaves(have)}
        if wanted != given:
            missing, unexpected = sorted(wanted - given), sorted(given - wanted)
            raise ValueError(f"{name}: not those of this model: missing {missing}, unexpected {unexpected}")
