"""The learning rate range test: one short run in which the rate grows from step to step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_number, check_positive_int
from jaxopt_nn.training._augmentation import training_batch
from jaxopt_nn.training._batches import EpochOrder, count_examples, count_steps, order_of_steps
from jaxopt_nn.training._checks import check_run_arguments
from jaxopt_nn.training._programs import compiled, is_traced_any
from jaxopt_nn.training._recipe import Recipe, build_recipe
from jaxopt_nn.training._recipe_step import make_recipe_step
from jaxopt_nn.training._run import check_run_key, split_key
from jaxopt_nn.training._run_state import RunKeys, init_run_state
from jaxopt_nn.types import Array, Batch, Key, TrainState

__all__ = ["RangeTest", "learning_rate_range_test"]

_SMOOTHING = 0.9


class RangeTest(NamedTuple):
    """What :func:`learning_rate_range_test` saw.

    Attributes:
        learning_rate: ``[steps]``.
        loss: ``[steps]`` the loss of each step's batch, without penalty; NaN after the run has diverged.
        smooth_loss: ``[steps]`` its debiased moving average.
        suggestion: a tenth of the rate at which the smooth loss is least; NaN if no loss is finite. A starting point
            for a sweep, not an optimum.
    """

    learning_rate: Array
    loss: Array
    smooth_loss: Array
    suggestion: Array


def learning_rate_range_test(
    recipe: Callable[[Any], Recipe],
    train: Batch,
    *,
    key: Key | RunKeys,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
) -> RangeTest:
    """Trains for some steps while the learning rate grows from ``low`` to ``high``, equally fast on a logarithmic axis.

    Too small a rate leaves the loss where it is; a good one makes it fall; too large a one makes it explode.

    Args:
        recipe: a function from the learning rate, a traced number, to a :class:`Recipe`. Of a recipe with more
            hyperparameters: ``lambda rate: recipe({**hparams, "learning_rate": rate})``.
        train: the data; after its last batch a new epoch begins.
        key: a PRNG key, or :class:`RunKeys`.
        low, high: the first and the last rate, 0 < low < high.
        steps: static; how many, >= 2.

    Returns:
        A :class:`RangeTest`. :func:`jaxopt_nn.plots.plot_range_test` draws it. Called outside of ``jit`` it is one
        program, compiled once.

    Raises:
        ValueError, TypeError: as a run; ``low`` is not below ``high``.

    References:
        Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, training
    >>> from jaxopt_nn.types import Batch
    >>> x = jax.random.normal(jax.random.key(0), (64, 3))
    >>> train = Batch(x, x @ jnp.array([[1.0], [-2.0], [0.5]]))
    >>> def recipe(rate):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(rate), batch_size=16)
    >>> test = training.learning_rate_range_test(recipe, train, key=jax.random.key(1), low=1e-4, high=10.0)
    >>> bool(1e-3 < test.suggestion < 1.0)
    True
    """
    check_number("low", low, 0.0, open_low=True)
    check_number("high", high, float(low), open_low=True)
    check_positive_int("steps", steps)
    if steps < 2:
        raise ValueError(f"steps: expected at least 2, got {steps}")
    check_run_key(key)
    rates = jnp.geomspace(low, high, steps, dtype=jnp.float32)
    train, _ = check_run_arguments(build_recipe(recipe, rates[0]), train, None)

    def program(key: Key | RunKeys, rates: Array, train: Batch) -> RangeTest:
        losses = _losses(recipe, split_key(key), rates, train)
        smooth = _smooth(losses)
        best = rates[jnp.nanargmin(smooth)]
        return RangeTest(rates, losses, smooth, jnp.where(jnp.isnan(smooth).all(), jnp.nan, best / 10))

    if is_traced_any((key, train)):
        return program(key, rates, train)
    return compiled(program, key, rates, train)[0](key, rates, train)


def _losses(recipe: Callable[[Any], Recipe], keys: RunKeys, rates: Array, train: Batch) -> Array:
    parts = build_recipe(recipe, rates[0])
    examples = count_examples(train)
    steps_per_epoch = count_steps(examples, parts.batch_size, parts.last_batch)
    orders = order_of_steps(keys.order, examples, parts.batch_size, parts.last_batch, parts.shuffle, len(rates))
    start = init_run_state(parts, keys, train)

    def body(state: TrainState, step: tuple[Array, EpochOrder]) -> tuple[TrainState, Array]:
        rate, indices = step
        # The state of an optimizer does not depend on its rate: each step is of a recipe of its own.
        parts = build_recipe(recipe, rate)
        epoch = 0 if parts.augment is None else state.step // steps_per_epoch
        batch = training_batch(parts.augment, train, indices, state.key, epoch)
        state, metrics = make_recipe_step(parts, start)(state, batch)
        return state, jnp.where(metrics["applied"], metrics["data_loss"], jnp.nan)

    return lax.scan(body, start.state, (rates, orders))[1]


def _smooth(losses: Array) -> Array:
    def body(average: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        step, loss = now
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        return average, average / (1 - _SMOOTHING ** (step + 1))

    return lax.scan(body, jnp.zeros((), losses.dtype), (jnp.arange(len(losses)), losses))[1]
