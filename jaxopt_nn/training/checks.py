"""Checks of a run's data: of shapes and dtypes always, of values where they are not traced.

Which targets are right is for the loss and the metrics to say, and which features for the model. So they are called
once on all rows: traced with unknown parameters, so that nothing is computed, but with the rows themselves.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn.data.checks import check_batch, first_where, is_traced, num_examples
from jaxopt_nn.training.recipe import Recipe, losses_of, model_of, per_example
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Batch, Key, Params, PyTree, State

__all__ = ["check_data", "check_run_arguments", "check_values", "init_shapes"]


def check_run_arguments(parts: Recipe, train: Batch, valid: Batch | None) -> tuple[Batch, Batch | None]:
    """The data sets of a run as JAX arrays; raises for data that cannot be used."""
    train = check_data("train", train)
    valid = None if valid is None else check_data("valid", valid)
    for name, batch, metrics in (("train", train, {}), ("valid", valid, parts.metrics)):
        if batch is not None and not all(is_traced(leaf) for leaf in jax.tree.leaves((batch.x, batch.y))):
            check_values(parts, init_shapes(parts, batch.x), batch, name, {"loss": parts.loss, **metrics})
    return train, valid


def check_data(name: str, batch: Batch) -> Batch:
    """The data set as JAX arrays; raises ``TypeError`` or ``ValueError`` for one that nobody should fit a model to."""
    num_examples(name, batch)
    check_batch(name, batch)
    converted: Batch = jax.tree.map(jnp.asarray, batch)
    for (path, leaf), array in zip(named_leaves(batch), jax.tree.leaves(converted), strict=True):
        if not is_traced(leaf) and leaf.dtype != array.dtype and jnp.issubdtype(array.dtype, jnp.floating):
            finite = np.isfinite(np.asarray(array))
            if not finite.all():
                where = ".".join(part for part in (name, path.replace("/", ".")) if part)
                raise ValueError(
                    f"{where}: expected numbers that fit {array.dtype}, got {first_where(np.asarray(leaf), ~finite)}"
                )
    return converted


def init_shapes(parts: Recipe, x: PyTree) -> tuple[Params, State]:
    """Parameters and model state of a model of these features, as shapes."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)

    def init(key: Key) -> tuple[Params, State]:
        return model_of(parts).init(key, shapes)

    return jax.eval_shape(init, jax.random.key(0))


def check_values(
    parts: Recipe,
    variables: tuple[Params, State],
    batch: Batch,
    name: str = "",
    functions: Mapping[str, Callable[[Any, Any], Any]] = {},
) -> None:
    """Raises what the model says of the features, and the loss and metrics in ``functions`` of the targets."""

    def outputs_of(variables: tuple[Params, State]) -> PyTree:
        return model_of(parts).apply(*variables, batch.x, train=False, key=None, weight=None)[0]

    outputs, examples = jax.eval_shape(outputs_of, variables), num_examples(name, batch)

    for function_name, function in functions.items():

        def values_of(outputs: PyTree, function_name: str = function_name, function: Any = function) -> Any:
            try:
                values = function(outputs, batch.y)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}.y: {error}") from error
            return values
