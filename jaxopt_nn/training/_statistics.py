"""Running statistics anew, for weights that are not those that were trained, as an average of weights."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_key
from jaxopt_nn.training._batches import count_examples, epoch_order, take_batch
from jaxopt_nn.training._checks import check_data
from jaxopt_nn.training._evaluation import checked_variables, run_program
from jaxopt_nn.training._recipe import RecipeFn, build_recipe, model_of
from jaxopt_nn.types import Array, Batch, Key, Layer, Params, PyTree, State

__all__ = ["update_batch_statistics"]


def update_batch_statistics(recipe: RecipeFn, hparams: PyTree, trained: Any, train: Batch, *, key: Key) -> Any:
    """The same trained model with running statistics that are those of its weights, as torch's ``update_bn``.

    An average of weights (:func:`~jaxopt_nn.optimizers.weight_ema`, ``weight_average``, ``schedule_free``) comes with
    statistics of the weights that were trained, and can be useless with them. Here one epoch of batches goes through
    the model as in training, with dropout, and each running statistic becomes the mean of what the batches say.

    Args:
        recipe, hparams: what it was trained with: the model and the batch size.
        trained: a run's result or a ``TrainState``.
        train: the data, of at least one batch; a last, smaller batch is left out.
        key: for the order of the examples and for dropout.

    Returns:
        ``trained`` with another ``model_state``. Its parts that a batch does not move towards a value of its own, such
        as counters, are left as they are.

    Raises:
        TypeError, ValueError: as :func:`predict`.

    References:
        Izmailov et al., "Averaging weights leads to wider optima and better generalization", 2018, section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, training
    >>> from jaxopt_nn.types import Batch
    >>> train = Batch(5.0 + jnp.arange(8.0).reshape(8, 1), jnp.zeros((8, 1)))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.serial(layers.batch_norm(), layers.dense(1)), loss=losses.mean_squared_error,
    ...         optimizer=optimizers.sgd(hp), batch_size=4, epochs=1)
    >>> result = training.make_run(recipe)(jax.random.key(0), 0.1, train)
    >>> result = training.update_batch_statistics(recipe, 0.1, result, train, key=jax.random.key(1))
    >>> round(float(result.model_state["batch_norm_0"]["mean"][0]), 4)
    8.5
    """
    check_key("key", key)
    parts = build_recipe(recipe, hparams)
    train = check_data("train", train)
    variables = checked_variables(parts, trained, train, "train")
    batch_size = min(parts.batch_size, count_examples(train))

    def program(hparams: PyTree, variables: tuple[Params, State], train: Batch, key: Key) -> State:
        parts = build_recipe(recipe, hparams)
        return _statistics(model_of(parts), batch_size, variables, train, key)

    return trained._replace(model_state=run_program(program, hparams, variables, train, key))


def _statistics(model: Layer, batch_size: int, variables: tuple[Params, State], train: Batch, key: Key) -> State:
    params, old = variables
    order_key, noise_key = jax.random.split(key)
    rows, _ = epoch_order(order_key, count_examples(train), batch_size, "drop", True)

    def after(state: State, batch: Batch, key: Key) -> State:
        return model.apply(params, state, batch.x, train=True, key=key, weight=batch.weight)[1]

    def body(sums: tuple[State, State], step: tuple[Array, Array]) -> tuple[tuple[State, State], None]:
        index, indices = step
        batch, key = take_batch(train, indices, None), jax.random.fold_in(noise_key, index)
        zeros, ones = jax.tree.map(jnp.zeros_like, old), jax.tree.map(jnp.ones_like, old)
        return jax.tree.map(jnp.add, sums, (after(zeros, batch, key), after(ones, batch, key))), None

    zeros = jax.tree.map(jnp.zeros_like, old)
    (from_zero, from_one), _ = lax.scan(body, (zeros, zeros), (jnp.arange(len(rows)), rows))

    def mean(old: Array, from_zero: Array, from_one: Array) -> Array:
        # A batch turns the statistic s into (1 - m)·s + m·b, with a momentum that only the layer knows. From s = 0 and
        # s = 1 both m and b can be told.
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return old
        momentum = 1 - (from_one - from_zero) / len(rows)
        follows = momentum > 1e-6
        return jnp.where(follows, from_zero / (len(rows) * jnp.where(follows, momentum, 1)), old).astype(old.dtype)

    return jax.tree.map(mean, old, from_zero, from_one)
