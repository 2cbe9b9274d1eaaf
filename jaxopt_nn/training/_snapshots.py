"""Snapshot ensembles: the same run several times in a row, each from the weights of the one before."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.training._checks import check_run_arguments
from jaxopt_nn.training._evaluation import run_program
from jaxopt_nn.training._recipe import RecipeFn, build_recipe
from jaxopt_nn.training._run import RunResult, check_run_key, make_run, split_key
from jaxopt_nn.training._run_state import RunKeys, Weights, init_run_state
from jaxopt_nn.types import Array, Batch, Key, PyTree

__all__ = ["snapshot_ensemble"]


def snapshot_ensemble(
    recipe: RecipeFn,
    hparams: PyTree,
    train: Batch,
    valid: Batch | None = None,
    *,
    key: Key | RunKeys,
    cycles: int = 5,
) -> RunResult:
    """Trains one model after another, each from the weights of the one before: an ensemble for the price of one run.

    A cycle is a run of the recipe, with a new optimizer state, so the schedule of the learning rate begins anew. Let it
    fall to 0 over the epochs of the recipe, as :func:`jaxopt_nn.schedules.cosine_decay` does: each cycle ends in a
    minimum, and the large rate at the beginning of the next leaves it.

    Args:
        recipe, hparams, train, valid: as of a run. ``epochs`` are those of one cycle.
        key: a PRNG key, or :class:`RunKeys`. Cycle i takes ``fold_in(key, i)`` of the order and the noise.
        cycles: static; how many.

    Returns:
        A :class:`RunResult` of the cycles, each leaf with ``[cycles]`` in front. Predictions are those of the members,
        averaged as probabilities::

            outputs = jax.vmap(lambda member: training.predict(recipe, hparams, member, x))(members)
            probabilities = jax.nn.softmax(outputs).mean(0)

        A cycle that fails ends at its last finite weights, and the next begins there.

    Raises:
        ValueError, TypeError: as a run.

    References:
        Huang et al., "Snapshot ensembles: train 1, get M for free", ICLR 2017.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, schedules, training
    >>> from jaxopt_nn.types import Batch
    >>> x = jax.random.normal(jax.random.key(0), (64, 3))
    >>> train = Batch(x, x @ jnp.array([[1.0], [-2.0], [0.5]]))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, batch_size=16, epochs=5,
    ...         optimizer=optimizers.sgd(schedules.cosine_decay(hp, decay_steps=20)))
    >>> members = training.snapshot_ensemble(recipe, 0.1, train, key=jax.random.key(1), cycles=3)
    >>> members.params["kernel"].shape, bool(jnp.all(jnp.diff(members.history["train_loss"][:, -1]) < 0))
    ((3, 3, 1), True)
    """
    check_positive_int("cycles", cycles)
    check_run_key(key)
    train, valid = check_run_arguments(build_recipe(recipe, hparams), train, valid)

    def program(hparams: PyTree, key: Key | RunKeys, train: Batch, valid: Batch | None) -> RunResult:
        keys, run = split_key(key), make_run(recipe)
        first = init_run_state(build_recipe(recipe, hparams), keys, train).state

        def cycle(weights: Weights, index: Array) -> tuple[Weights, RunResult]:
            own = RunKeys(keys.init, *(jax.random.fold_in(each, index) for each in (keys.order, keys.noise)))
            result = run(own, hparams, train, valid, weights)
            return Weights(result.params, result.model_state), result

        return lax.scan(cycle, Weights(first.params, first.model_state), jnp.arange(cycles))[1]

    return run_program(program, hparams, key, train, valid)
