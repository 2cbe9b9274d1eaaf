"""Evaluation and prediction, in bounded memory."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn import losses
from jaxopt_nn.training._batches import count_examples
from jaxopt_nn.training._checks import check_data, check_values, examples_at_once, init_shapes
from jaxopt_nn.training._devices import slice_rows, split_rows
from jaxopt_nn.training._programs import compiled, is_traced_any, static_unless_number
from jaxopt_nn.training._recipe import Recipe, RecipeFn, build_recipe, losses_of, model_of, per_example
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, Batch, Params, PyTree, State

__all__ = ["Trained", "evaluate", "evaluate_model", "predict", "run_program", "variables_of"]


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
        trained: has ``params`` and ``model_state``: a run's result (its best weights), or a ``TrainState``.
        x: features ``[N, ...]``, N >= 1.

    Returns:
        The outputs ``[N, ...]``, for a classifier usually logits, computed ``evaluation_batch_size`` examples at a
        time. Outside of ``jit`` a call is one program, which is compiled once.

    Raises:
        TypeError: ``trained`` has no parameters, or ``x`` is a ``Batch``.
        ValueError: the parameters are not those of this model (naming the paths), ``x`` has another number of features
            (naming the layer) or holds NaN, infinity or, for an embedding, ids out of range.
    """
    if isinstance(x, Batch):
        raise TypeError("x: expected features, got a Batch: pass its x")
    batch = Batch(x, None)
    parts = build_recipe(recipe, hparams)
    batch = check_data("", batch)
    variables = variables_of(parts, trained, batch.x)
    check_values(parts, variables, batch)

    def outputs(hparams: PyTree, variables: tuple[Params, State], x: PyTree) -> PyTree:
        return _predict(build_recipe(recipe, hparams), *variables, x)

    return run_program(outputs, hparams, variables, batch.x)


def evaluate(recipe: RecipeFn, hparams: PyTree, trained: Trained, batch: Batch) -> dict[str, Array]:
    """The mean loss (without penalty) and metrics of a trained model over a data set, weighted by example.

    Args:
        recipe, hparams: what it was trained with.
        trained: has ``params`` and ``model_state``: a run's result (its best weights), or a ``TrainState``.
        batch: the data set.

    Returns:
        ``{"loss": ..., <name>: ...}`` with the recipe's metrics. Outside of ``jit`` a call is one program, which is
        compiled once.

    Raises:
        TypeError, ValueError: as :func:`predict`, and for unusable data (see :func:`jaxopt_nn.data.check_batch`), such
            as targets that the loss or a metric is not defined for.
    """
    parts = build_recipe(recipe, hparams)
    batch = check_data("batch", batch)
    variables = variables_of(parts, trained, batch.x)
    check_values(parts, variables, batch, "batch", [parts.loss, *parts.metrics.values()])

    def values(hparams: PyTree, variables: tuple[Params, State], batch: Batch) -> dict[str, Array]:
        return evaluate_model(build_recipe(recipe, hparams), *variables, batch)

    return run_program(values, hparams, variables, batch)


def run_program(function: Callable[..., Any], hparams: PyTree, *arguments: PyTree) -> Any:
    """Calls the function: inside of a program that is being traced, or else as a program that is compiled once."""
    if is_traced_any((hparams, arguments)):
        return function(hparams, *arguments)
    arguments = (static_unless_number(hparams), *arguments)
    return compiled(function, *arguments)[0](*arguments)


def _predict(parts: Recipe, params: Params, model_state: State, x: PyTree) -> PyTree:
    examples = count_examples(Batch(x, None))
    size = examples_at_once(parts, examples)
    if size == examples:
        return _outputs(parts, params, model_state, x)

    def outputs(x: PyTree) -> PyTree:
        return _outputs(parts, params, model_state, x)

    count = -(-examples // size)
    windows = lax.map(outputs, jax.tree.map(lambda leaf: split_rows(leaf, count, size), x))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:examples], windows)


def evaluate_model(parts: Recipe, params: Params, model_state: State, data: Batch) -> dict[str, Array]:
    """The same for a recipe's parts; ``evaluation_batch_size`` examples at a time, each counted once."""

    def per_example_values(rows: Batch) -> dict[str, Array]:
        outputs, length = _outputs(parts, params, model_state, rows.x), count_examples(rows)
        values = {"loss": losses_of(parts, outputs, rows.y, length)}
        for name, function in parts.metrics.items():
            values[name] = per_example(f"metrics[{name!r}]", function(outputs, rows.y), length)
        return values

    def sums(rows: Batch, is_new: Array | None) -> tuple[dict[str, Array], Array]:
        values = per_example_values(rows)
        weight = jnp.ones_like(values["loss"]) if rows.weight is None else rows.weight.astype(values["loss"].dtype)
        weight = weight if is_new is None else jnp.where(is_new, weight, 0)
        total = jnp.sum(weight)
        return {name: losses.weighted_mean(value, weight) * total for name, value in values.items()}, total

    examples = count_examples(data)
    size = examples_at_once(parts, examples)
    if size == examples:
        totals, count = sums(data, None)
    else:
        # The last window overlaps the one before, and rows that were counted there have weight 0. So nothing is padded.
        def window(index: Array) -> tuple[dict[str, Array], Array]:
            start = jnp.minimum(index * size, examples - size)
            rows = jax.tree.map(lambda leaf: slice_rows(leaf, start, size), data)
            return sums(rows, start + jnp.arange(size) >= index * size)

        totals, count = jax.tree.map(lambda sum_: sum_.sum(0), lax.map(window, jnp.arange(-(-examples // size))))
    return {name: total / count for name, total in totals.items()}


def _outputs(parts: Recipe, params: Params, model_state: State, x: PyTree) -> PyTree:
    return model_of(parts).apply(params, model_state, x, train=False, key=None, weight=None)[0]


def variables_of(parts: Recipe, trained: Any, x: PyTree) -> tuple[Params, State]:
    """Parameters and model state. Only paths are compared here; a layer reports a wrong shape."""
    if not (hasattr(trained, "params") and hasattr(trained, "model_state")):
        raise TypeError(
            f"trained: expected what has params and model_state, as a run's result or a TrainState, got a "
            f"{type(trained).__name__}"
        )
    variables = (trained.params, trained.model_state)
    for name, want, have in zip(("params", "model_state"), init_shapes(parts, x), variables, strict=True):
        expected, got = {path for path, _ in named_leaves(want)}, {path for path, _ in named_leaves(have)}
        if expected != got:
            missing, unexpected = sorted(expected - got), sorted(got - expected)
            raise ValueError(f"{name}: not those of this model: missing {missing}, unexpected {unexpected}")
    return variables
