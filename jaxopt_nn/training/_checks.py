"""Checks of a run's data: shapes and dtypes always, values only if they are not traced.

The loss and the metrics know which targets are valid, and the model knows which features are. So each is called once on
all rows. The parameters are traced, so nothing is computed, but the rows have their values.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn.data._checks import check_batch, first_where, is_integer, is_traced, num_examples
from jaxopt_nn.losses._targets import activation_before, check_targets
from jaxopt_nn.training._augmentation import check_augmentation
from jaxopt_nn.training._programs import as_arrays
from jaxopt_nn.training._recipe import Recipe, model_of
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Batch, Key, Params, PyTree, State

__all__ = ["check_data", "check_run_arguments", "check_values", "init_shapes", "is_known"]


def check_run_arguments(parts: Recipe, train: Batch, valid: Batch | None) -> tuple[Batch, Batch | None]:
    """The data sets of a run as JAX arrays. Raises for unusable data; warns of a model that ends with a softmax."""
    train = check_data("train", train)
    valid = None if valid is None else check_data("valid", valid)
    if is_known(train) or is_known(valid):
        variables = init_shapes(parts, train.x)
        check_values(parts, variables, train, "train", [parts.loss])
        check_augmentation(parts.augment, train)
        if valid is not None:
            check_values(parts, variables, valid, "valid", [parts.loss, *parts.metrics.values()])
        activation = activation_before(parts.loss, _apply(parts), variables, _shapes(train.x, 1))
        if activation is not None:
            message = (
                f"loss: it takes logits, but the model ends with a {activation}; leave that out, or training is slow"
            )
            warnings.warn(message, stacklevel=3)
    return train, valid


def check_data(name: str, batch: Batch) -> Batch:
    """The data set as JAX arrays; raises ``TypeError`` or ``ValueError`` if it is unusable."""
    num_examples(name, batch)
    check_batch(name, batch)
    converted: Batch = as_arrays(batch)
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
    """The shapes of a model's parameters and state, for these features."""
    shapes = _shapes(x, len(jax.tree.leaves(x)[0]))

    def init(key: Key) -> tuple[Params, State]:
        return model_of(parts).init(key, shapes)

    return jax.eval_shape(init, jax.random.key(0))


def check_values(
    parts: Recipe,
    variables: tuple[Params, State],
    batch: Batch,
    name: str = "",
    functions: Sequence[Callable[[Any, Any], Any]] = (),
) -> None:
    """Raises the errors of the model for values of features, and of each loss and metric for values of targets."""
    if is_known(batch):
        apply, leaves = _apply(parts), jax.tree.leaves(batch.x)
        if any(is_integer(leaf.dtype) for leaf in leaves):  # ids have to be in range
            outputs = jax.eval_shape(lambda variables: apply(variables, batch.x), variables)
        else:
            outputs = jax.eval_shape(apply, variables, _shapes(batch.x, examples_at_once(parts, len(leaves[0]))))
        for function in functions:
            check_targets(f"{name}.y", function, outputs, batch.y)


def examples_at_once(parts: Recipe, examples: int) -> int:
    """How many examples are evaluated at once: the fewest passes, of equal size, within the limit."""
    limit = 1024 if parts.evaluation_batch_size is None else parts.evaluation_batch_size
    return -(-examples // -(-examples // limit))


def is_known(batch: Batch | None) -> bool:
    """Whether any value is known, and not traced."""
    return batch is not None and not all(is_traced(leaf) for leaf in jax.tree.leaves((batch.x, batch.y)))


def _apply(parts: Recipe) -> Callable[[tuple[Params, State], PyTree], PyTree]:
    return lambda variables, x: model_of(parts).apply(*variables, x, train=False, key=None, weight=None)[0]


def _shapes(x: PyTree, examples: int) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((examples, *leaf.shape[1:]), leaf.dtype), x)
