"""A whole training run as one pure function, and so one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_key
from jaxopt_nn.optimizers import evaluation_params
from jaxopt_nn.training._checks import check_run_arguments
from jaxopt_nn.training._describe import describe
from jaxopt_nn.training._devices import varying_axes
from jaxopt_nn.training._epoch import train_epoch
from jaxopt_nn.training._programs import compiled, is_traced_any, static_unless_number
from jaxopt_nn.training._recipe import Recipe, RecipeFn, build_recipe, check_recipe
from jaxopt_nn.training._run_state import EpochMetrics, RunKeys, RunState, init_run_state, weights_of
from jaxopt_nn.training._step import cond
from jaxopt_nn.types import Array, Batch, Key, Params, PyTree, State, TrainState

__all__ = ["RunResult", "check_run_key", "finish", "make_run", "split_key"]

Run = Callable[..., "RunResult"]


class RunResult(NamedTuple):
    """What a run returns.

    Attributes:
        params: the trained parameters: with early stopping those of the best epoch, otherwise the last ones. If the
            optimizer keeps other weights to evaluate with (a moving average, look-ahead), these.
        model_state: the model state at that epoch, such as BatchNorm's running statistics. Warning: these are the
            statistics of the weights that were trained. With an average of weights they may not fit, and the model can
            be far worse than either (accuracy 0.56 instead of 0.95 in one case). Then make new ones with
            :func:`~jaxopt_nn.training.update_batch_statistics`, or use a normalization without statistics.
        history: name to array ``[epochs]``, NaN for epochs that were not run: ``train_loss`` (the mean over the epoch's
            examples, each with the parameters of its step, without penalty), ``train_<metric>`` (likewise, with
            ``train_metrics=True``), ``gradient_norm`` (the mean over the steps of the global L2 norm), ``penalty``
            (likewise, if there is one), ``learning_rate`` (of the last step, if the optimizer records it),
            ``valid_loss`` and ``valid_<metric>`` (if there is a validation set; NaN for epochs that were not
            validated). A metric that is an array makes an array ``[epochs, ...]``.
        epochs: int32 scalar, the number of epochs that were begun.
        best_epoch: int32 scalar, the epoch (from 0) that ``params`` come from; without early stopping the last one; −1
            if no epoch was finite, or early stopping looked at none.
        status: int32 scalar, a :class:`~jaxopt_nn.training.Status`.
        first_bad_step: int32 scalar, the step (from 0) that ended the run because its loss or gradient was not finite:
            the first of ``nonfinite_limit`` in a row; −1 if there was none. Skipped steps are not counted.
        skipped_steps: int32 scalar, the number of steps whose loss or gradient was not finite; they changed nothing.
        state: the last finite training state, from which training can go on: the one before ``first_bad_step``. If
            parameters overflowed although loss and gradient were finite, the one before that epoch.
    """

    params: Params
    model_state: State
    history: dict[str, Array]
    epochs: Array
    best_epoch: Array
    status: Array
    first_bad_step: Array
    skipped_steps: Array
    state: TrainState

    def __repr__(self) -> str:
        """How the run ended; the numbers are in the fields."""
        run = (self.status, self.epochs, self.best_epoch, self.first_bad_step, self.skipped_steps, self.history)
        text = describe(*run)
        if text is None:  # a tree of something else, such as shapes
            return f"RunResult({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"
        return f"<RunResult: {text}>"


def make_run(recipe: RecipeFn) -> Run:
    """The training run of a recipe: initialization, epochs of shuffled mini-batches, evaluation, early stopping.

    Args:
        recipe: a function from hyperparameters to a :class:`Recipe`.

    Returns:
        ``run(key, hparams, train, valid=None, init_from=None) -> RunResult``, a pure function for ``jit``, ``vmap`` and
        ``grad``:

        * ``key``: a PRNG key, or :class:`RunKeys`;
        * ``hparams``: any pytree of numbers, which may be traced, and of ``Static`` values: strings, functions, widths.
          ``jax.jit`` refuses a string without ``Static``;
        * ``train``, ``valid``: data sets of type ``Batch``;
        * ``init_from``: what to start from instead of new parameters, as in :func:`fit`.

        Every argument may be mapped by ``vmap``. Say which: ``jax.vmap(run, (None, 0, None, None))``. Lanes that share
        ``RunKeys.order`` share their batches. A lane that has ended waits, unchanged, for the others; no lane affects
        another. Gradients with respect to ``hparams`` treat the stopping epoch and the choice of the best epoch as
        constants.

    Outside of ``jit`` a call of ``run`` is one program too, which is compiled once for all equal recipes.

    Raises:
        ValueError, TypeError: from ``run``, naming the argument: parts that do not fit together, a batch size larger
            than the data, and, if the data are not traced, values that cannot be used.

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
    check_recipe(recipe)

    def run(
        key: Key | RunKeys, hparams: PyTree, train: Batch, valid: Batch | None = None, init_from: PyTree = None
    ) -> RunResult:
        check_run_key(key)
        parts = build_recipe(recipe, hparams)
        train, valid = check_run_arguments(parts, train, valid)
        arguments = (key, hparams, train, valid, weights_of(init_from))
        if is_traced_any(arguments):
            return _run(parts, *arguments)

        def program(key: Key | RunKeys, hparams: PyTree, train: Batch, valid: Batch | None, start: PyTree) -> RunResult:
            return _run(build_recipe(recipe, hparams), key, hparams, train, valid, start)

        arguments = (key, static_unless_number(hparams), *arguments[2:])
        return compiled(program, *arguments)[0](*arguments)

    # jax.jit refuses a string before run is called, in a message that shows this name.
    run.__qualname__ = "run (wrap what is no number in hparams as jaxopt_nn.types.Static(value))"
    return run


def _run(
    parts: Recipe, key: Key | RunKeys, hparams: PyTree, train: Batch, valid: Batch | None, init_from: PyTree
) -> RunResult:
    keys = split_key(key)
    varying_over = varying_axes((key, hparams, train, valid, init_from))
    start = init_run_state(parts, keys, train, varying_over, init_from)

    def body(run_state: RunState, epoch: Array) -> tuple[RunState, EpochMetrics]:
        return train_epoch(parts, run_state, keys.order, epoch, train, valid)

    run_state, history = lax.scan(body, start, jnp.arange(parts.epochs))
    return finish(run_state, history)


def finish(run_state: RunState, history: dict[str, Array]) -> RunResult:
    """The result of a run that has ended; inside of a program, or on the host, where it compiles nothing."""
    state, best = run_state.state, run_state.best
    params, model_state = evaluation_params(state.opt_state, state.params), state.model_state
    epochs, failed = run_state.epochs, run_state.first_bad_step >= 0
    best_epoch = cond(failed, lambda: epochs - 2, lambda: epochs - 1)
    if best is not None:
        # A run that failed in its first epoch has no best weights, so it returns the last finite ones.
        some, last = best.epoch >= 0, (params, model_state)
        params, model_state = cond(some, lambda: (best.params, best.model_state), lambda: last)
        best_epoch = best.epoch
    assert state.notfinite is not None
    return RunResult(
        params,
        model_state,
        history,
        epochs,
        best_epoch,
        run_state.status,
        run_state.first_bad_step,
        state.notfinite.total_notfinite,
        state,
    )


def check_run_key(key: Any) -> None:
    """Raises ``TypeError`` unless ``key`` is a key, or ``RunKeys`` of keys."""
    if isinstance(key, RunKeys):
        for name, part in key._asdict().items():
            check_key(f"key.{name}", part)
    else:
        check_key("key", key)


def split_key(key: Key | RunKeys) -> RunKeys:
    """The three keys of a run, from one key; ``RunKeys`` are returned as they are."""
    return key if isinstance(key, RunKeys) else RunKeys(*jax.random.split(key, 3))
