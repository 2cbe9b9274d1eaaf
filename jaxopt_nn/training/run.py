"""A whole training run as one pure function, and so one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_key
from jaxopt_nn.data.checks import check_batch, is_traced, num_examples
from jaxopt_nn.optimizers import evaluation_params
from jaxopt_nn.training.epoch import Progress, Row, RunKeys, init_progress, train_epoch
from jaxopt_nn.training.recipe import Recipe, RecipeFn, build_recipe, model_of
from jaxopt_nn.types import Array, Batch, Key, Params, PyTree, State, TrainState

__all__ = ["RunResult", "check_run_arguments", "finish", "make_run", "split_key"]

Run = Callable[..., "RunResult"]


class RunResult(NamedTuple):
    """What a run returns.

    Attributes:
        params: the trained parameters: with early stopping those of the best epoch, else the last ones. With an
            optimizer that keeps other weights to evaluate with (a moving average, look-ahead), those.
        model_state: the model state that belongs to them, such as BatchNorm's running statistics.
        history: name to array ``[epochs]``, NaN where an epoch was not run. ``train_loss`` (the mean over the epoch's
            examples, each seen with the parameters of its step, without penalty), ``gradient_norm`` (the mean over the
            steps of the global L2 norm), ``penalty`` (likewise, if there is one), ``learning_rate`` (of the last
            step, if the optimizer records it), ``valid_loss`` and ``valid_<metric>`` (if there is a validation set).
        epochs: int32 scalar, the epochs begun.
        best_epoch: int32 scalar, the epoch (from 0) that ``params`` come from; the last without early stopping; −1 if
            no epoch was finite.
        status: int32 scalar, a :class:`~jaxopt_nn.training.Status`.
        first_bad_step: int32 scalar, the step (from 0) that ended the run because its loss or gradient was not finite,
            the first of ``nonfinite_limit`` in a row; −1 if none did. Skipped steps are not counted as steps.
        skipped_steps: int32 scalar, all steps whose loss or gradient was not finite: nothing of them is in the state.
        state: the last finite training state, to go on from: the one before ``first_bad_step``. (If parameters
            overflowed although loss and gradient were finite: the one before that epoch.)
    """

    params: Params
    model_state: State
    history: Row
    epochs: Array
    best_epoch: Array
    status: Array
    first_bad_step: Array
    skipped_steps: Array
    state: TrainState


def make_run(recipe: RecipeFn) -> Run:
    """The training run of a recipe: init, every epoch of shuffled mini-batches, early stopping, evaluation.

    Args:
        recipe: a function from hyperparameters to a :class:`Recipe`.

    Returns:
        ``run(key, hparams, train, valid=None) -> RunResult``, a pure function for ``jit``, ``vmap`` and ``grad``:

        * ``key``: a PRNG key, or :class:`RunKeys`;
        * ``hparams``: any pytree of numbers, and of ``Static`` values that are not traced;
        * ``train``, ``valid``: data sets of type ``Batch``.

        Under ``vmap`` every argument may have lanes. Lanes that share ``RunKeys.order`` share their batches. A lane
        that has ended waits unchanged for the others; no lane can touch another. Gradients with respect to
        ``hparams`` treat the stopping epoch and the choice of the best epoch as constants.

    Raises:
        ValueError, TypeError: from ``run``, naming the argument: for parts that do not fit together, a batch size
            larger than the data, and, where the data are not traced, for data to which no model should be fitted.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, training
    >>> from jaxopt_nn.types import Batch
    >>> x = jax.random.normal(jax.random.key(0), (64, 3))
    >>> train = Batch(x, x @ jnp.array([[1.0], [-2.0], [0.5]]))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error,
    ...         optimizer=optimizers.sgd(hp["learning_rate"]), batch_size=16, epochs=40)
    >>> run = jax.jit(training.make_run(recipe))
    >>> result = run(jax.random.key(1), {"learning_rate": 0.1}, train)
    >>> bool(result.history["train_loss"][-1] < 1e-6), training.Status(int(result.status)).name
    (True, 'COMPLETED')
    >>> rates = {"learning_rate": jnp.array([0.0, 0.1])}
    >>> lanes = jax.vmap(run, (None, 0, None))(jax.random.key(1), rates, train)
    >>> lanes.history["train_loss"].shape
    (2, 40)
    """

    def run(key: Key | RunKeys, hparams: PyTree, train: Batch, valid: Batch | None = None) -> RunResult:
        keys = split_key(key)
        parts = build_recipe(recipe, hparams)
        check_run_arguments(parts, train, valid)
        train, valid = jax.tree.map(jnp.asarray, (train, valid))

        def body(progress: Progress, epoch: Array) -> tuple[Progress, Row]:
            return train_epoch(parts, progress, keys.order, epoch, train, valid)

        progress, history = lax.scan(body, init_progress(parts, keys, train), jnp.arange(parts.epochs))
        return finish(progress, history)

    return run


def finish(progress: Progress, history: Row) -> RunResult:
    """The result of a run that has come to its end."""
    state, best = progress.state, progress.best
    params, model_state = evaluation_params(state.opt_state, state.params), state.model_state
    best_epoch = progress.epochs - jnp.where(progress.first_bad_step < 0, 1, 2)
    if best is not None:
        # A run that failed before its first epoch ended has no best weights: then the last finite ones.
        some, found = best.epoch >= 0, (best.params, best.model_state)
        last = (params, model_state)
        params, model_state = lax.cond(some, lambda: found, lambda: last)  # a branch: no kernel for each leaf
        best_epoch = best.epoch
    return RunResult(
        params,
        model_state,
        history,
        progress.epochs,
        best_epoch,
        progress.status,
        progress.first_bad_step,
        progress.guard.skipped,
        state,
    )


def split_key(key: Any) -> RunKeys:
    """The keys of a run from one key; ``RunKeys`` pass as they are."""
    if isinstance(key, RunKeys):
        for name, part in key._asdict().items():
            check_key(f"key.{name}", part)
        return key
    check_key("key", key)
    return RunKeys(*jax.random.split(key, 3))


def check_run_arguments(parts: Recipe, train: Batch, valid: Batch | None) -> None:
    """Raises for data that cannot be used: their shapes and dtypes always, their values where they are concrete."""
    for name, batch in [("train", train)] + ([] if valid is None else [("valid", valid)]):
        num_examples(name, batch)  # before the model sees the shapes
        check_batch(name, batch, num_outputs=_count_classes(parts, batch))


def _count_classes(parts: Recipe, batch: Batch) -> int | None:
    """The number of the model's outputs, if the targets are integer labels of them whose values are known."""
    if any(is_traced(leaf) for leaf in jax.tree.leaves(batch.y)):
        return None  # nothing to check: what it takes to count, one evaluation's tracing, can be saved
    y, x = batch.y, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), batch.x)
    if len(jax.tree.leaves(y)) != 1 or not jnp.issubdtype(jax.tree.leaves(y)[0].dtype, jnp.integer):
        return None

    def outputs(key: Key, x: PyTree) -> PyTree:
        params, state = model_of(parts).init(
            key, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
        )
        return model_of(parts).apply(params, state, x, train=False, key=None, weight=None)[0]

    shape = jax.eval_shape(outputs, jax.random.key(0), x)
    return shape.shape[-1] if isinstance(shape, jax.ShapeDtypeStruct) and shape.ndim == jnp.ndim(y) + 1 else None
