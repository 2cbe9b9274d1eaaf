"""Running statistics anew, for weights that are not those that were trained, as an average of weights."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_key
from jaxopt_nn.training._augmentation import training_batch
from jaxopt_nn.training._batches import count_examples, epoch_order
from jaxopt_nn.training._checks import check_data
from jaxopt_nn.training._evaluation import checked_variables, run_program
from jaxopt_nn.training._recipe import Recipe, RecipeFn, build_recipe, model_of
from jaxopt_nn.training._weighting import example_weight
from jaxopt_nn.types import Array, Batch, Key, Params, PyTree, State

__all__ = ["update_batch_statistics"]


def update_batch_statistics(recipe: RecipeFn, hparams: PyTree, trained: Any, train: Batch, *, key: Key) -> Any:
    """The same trained model with running statistics that are those of its weights, as torch's ``update_bn``.

    An average of weights (:func:`~jaxopt_nn.optimizers.weight_ema`, ``weight_average``, ``schedule_free``) comes with
    statistics of the weights that were trained, and can be useless with them. Here one epoch of batches goes through
    the model as in training, augmented and with dropout, and each running statistic becomes the mean of what the
    batches say.

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
        return _statistics(parts, batch_size, variables, train, key)

    return trained._replace(model_state=run_program(program, hparams, variables, train, key))


def _statistics(parts: Recipe, batch_size: int, variables: tuple[Params, State], train: Batch, key: Key) -> State:
    model, (params, old) = model_of(parts), variables
    order_key, noise_key = jax.random.split(key)
    rows, _ = epoch_order(order_key, count_examples(train), batch_size, "drop", True)

    leaves, treedef = jax.tree.flatten(old)
    follows_data = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    zeros = [jnp.zeros_like(leaf) for leaf, is_float in zip(leaves, follows_data, strict=True) if is_float]

    def body(sums: tuple[list[Array], list[Array]], step: tuple[Array, Array]) -> tuple[Any, None]:
        index, indices = step
        batch = training_batch(parts.augment, train, (indices, None), noise_key, 0)
        key = jax.random.fold_in(noise_key, index)

        def after(floats: list[Array]) -> list[Array]:
            rest = iter(floats)
            filled = [next(rest) if is_float else leaf for leaf, is_float in zip(leaves, follows_data, strict=True)]
            state = treedef.unflatten(filled)
            new = model.apply(params, state, batch.x, train=True, key=key, weight=example_weight(batch.weight))[1]
            return [leaf for leaf, is_float in zip(jax.tree.leaves(new), follows_data, strict=True) if is_float]

        return jax.tree.map(jnp.add, sums, jax.jvp(after, (zeros,), ([jnp.ones_like(leaf) for leaf in zeros],))), None

    (from_zero, slopes), _ = lax.scan(body, (zeros, zeros), (jnp.arange(len(rows)), rows))

    def mean(old: Array, from_zero: Array, slope: Array) -> Array:
        # A batch turns the statistic s into (1 - m)·s + m·b, with a momentum that only the layer knows: the value at
        # s = 0 and the derivative tell m and b, however large b is.
        momentum = 1 - slope / len(rows)
        follows = momentum > 1e-6
        return jnp.where(follows, from_zero / (len(rows) * jnp.where(follows, momentum, 1)), old).astype(old.dtype)

    sums = iter(zip(from_zero, slopes, strict=True))
    means = [mean(leaf, *next(sums)) if is_float else leaf for leaf, is_float in zip(leaves, follows_data, strict=True)]
    return treedef.unflatten(means)
