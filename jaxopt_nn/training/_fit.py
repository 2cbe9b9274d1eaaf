"""The same run, driven from the host, with a progress bar, callbacks and Ctrl-C."""

import inspect
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.training._checks import check_run_arguments
from jaxopt_nn.training._epoch import EpochMetrics, RunKeys, RunState, init_run_state, train_epoch
from jaxopt_nn.training._programs import as_arrays, compiled, is_traced_any, static_unless_number
from jaxopt_nn.training._recipe import RecipeFn, build_recipe
from jaxopt_nn.training._run import RunResult, check_run_key, finish, split_key
from jaxopt_nn.training._status import Status
from jaxopt_nn.types import Array, Batch, Key, PyTree, TrainState

__all__ = ["EpochEnd", "fit"]


class EpochEnd(NamedTuple):
    """What a callback of :func:`fit` is given after each epoch.

    Attributes:
        epoch: its index, from 0.
        metrics: its row of the history, as Python floats.
        state: the training state after it.
    """

    epoch: int
    metrics: dict[str, float]
    state: TrainState


Callback = Callable[[EpochEnd], Any]

_SECONDS_PER_CALL = 2.0


def fit(
    recipe: RecipeFn,
    hparams: PyTree,
    train: Batch,
    valid: Batch | None = None,
    *,
    key: Key | RunKeys,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool | None = None,
    epochs_per_call: int = 1,
) -> RunResult:
    """Trains as ``make_run(recipe)`` does, to the same bits, but epoch by epoch from the host.

    Args:
        recipe: a function from hyperparameters to a :class:`Recipe`. A second ``fit`` of an equal recipe compiles
            nothing, also with other numbers in ``hparams``. Global variables that the recipe reads are read anew.
        hparams: any pytree. Strings, functions and bools need no ``Static`` around them here.
        train, valid: data sets.
        key: a PRNG key, or :class:`RunKeys`.
        callbacks: each is called with an :class:`EpochEnd` after each epoch. It returns None, or whether to end the
            run.
        progress_bar: True for a tqdm bar, False for none, None for one if tqdm is installed and stderr is a terminal.
        epochs_per_call: the most epochs in one call of the program. Calls are kept below about two seconds, so that
            Ctrl-C works. Callbacks still see each epoch, but with the state after the last epoch of the call. The
            result is the same to the bit, unless a callback ends the run.

    Returns:
        The same as the run. If Ctrl-C or a callback ended it, the status is INTERRUPTED, and the result is that of the
        completed epochs.

    Raises:
        ValueError, TypeError: as the run; also inside of ``jit``, ``vmap`` or ``grad``, or if a callback is no
            function.
        ImportError: if ``progress_bar`` is True and tqdm is missing.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, training
    >>> from jaxopt_nn.types import Batch
    >>> train = Batch(jnp.arange(8.0).reshape(8, 1) / 8, jnp.arange(8.0).reshape(8, 1))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.adam(hp), batch_size=4)
    >>> seen = []
    >>> result = training.fit(recipe, 0.1, train, key=jax.random.key(0), callbacks=[lambda end: seen.append(end.epoch)])
    >>> seen
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    check_positive_int("epochs_per_call", epochs_per_call)
    _check_callbacks(callbacks)
    if is_traced_any((hparams, train, valid, key)):
        raise _traced_error()
    check_run_key(key)
    parts = build_recipe(recipe, hparams)
    train, valid = check_run_arguments(parts, train, valid)
    hparams = static_unless_number(hparams)
    start_run, run_epochs = _programs(recipe, min(epochs_per_call, parts.epochs))

    arguments = (hparams, key, train)
    order, run_state = compiled(start_run, *arguments)[0](*arguments)
    if is_traced_any(run_state):
        raise _traced_error()
    run_epochs, (_, shapes) = compiled(run_epochs, hparams, run_state, order, 0, 1, train, valid)
    history: dict[str, Any] = {name: np.full(parts.epochs, np.nan, shape.dtype) for name, shape in shapes.items()}
    first, count, interrupted = 0, 1, False
    with _open_progress_bar(progress_bar, parts.epochs) as show:
        try:
            while first < parts.epochs and not interrupted and int(run_state.status) == Status.COMPLETED:
                started = time.perf_counter()
                after, rows = run_epochs(hparams, run_state, order, first, count, train, valid)
                rows = jax.device_get(rows)  # waits; Ctrl-C until here leaves `run_state` and `history` as they are
                seconds = max(time.perf_counter() - started, 1e-6)
                run_state = after
                for name, values in rows.items():
                    history[name][first : first + count] = values[:count]
                for epoch in range(first, int(run_state.epochs)):
                    end = EpochEnd(
                        epoch, {name: float(values[epoch]) for name, values in history.items()}, run_state.state
                    )
                    show(end.metrics)
                    interrupted |= any([_asks_to_stop(callback, end) for callback in callbacks])
                first += count
                count = max(1, min(epochs_per_call, parts.epochs - first, int(count * _SECONDS_PER_CALL / seconds)))
        except KeyboardInterrupt:
            interrupted = True
    if interrupted and int(run_state.status) == Status.COMPLETED:
        run_state = run_state._replace(status=np.int32(Status.INTERRUPTED))
    return as_arrays(finish(_with_known_counts(run_state), history))


def _programs(recipe: RecipeFn, limit: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions: one starts a run, the other runs up to ``limit`` more epochs."""

    def start_run(hparams: PyTree, key: Key | RunKeys, train: Batch) -> tuple[Key, RunState]:
        keys = split_key(key)
        return keys.order, init_run_state(build_recipe(recipe, hparams), keys, train)

    def run_epochs(
        hparams: PyTree, run_state: RunState, order: Key, first: Array, count: Array, train: Batch, valid: Batch | None
    ) -> tuple[RunState, EpochMetrics]:
        parts = build_recipe(recipe, hparams)

        def body(run_state: RunState, index: Array) -> tuple[RunState, EpochMetrics]:
            return train_epoch(parts, run_state, order, first + index, train, valid, due=index < count)

        return lax.scan(body, run_state, jnp.arange(limit))

    return start_run, run_epochs


def _with_known_counts(run_state: RunState) -> RunState:
    """The same, with counts as NumPy numbers, so that arithmetic on them compiles nothing."""
    best = None if run_state.best is None else run_state.best._replace(epoch=np.asarray(run_state.best.epoch))
    epochs, first_bad_step = (np.asarray(count) for count in (run_state.epochs, run_state.first_bad_step))
    return run_state._replace(best=best, epochs=epochs, first_bad_step=first_bad_step)


def _check_callbacks(callbacks: Any) -> None:
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"callbacks: expected a list of functions, got {callbacks!r}")
    for index, callback in enumerate(cast("Sequence[Any]", callbacks)):
        if not callable(callback):
            raise TypeError(f"callbacks[{index}]: expected a function of an EpochEnd, got {callback!r}")
        with suppress(ValueError):  # some built-in functions have no signature to read
            signature = inspect.signature(callback)
            try:
                signature.bind(None)
            except TypeError as error:
                raise TypeError(
                    f"callbacks[{index}]: expected a function of one argument, an EpochEnd, got one of {signature}"
                ) from error


def _asks_to_stop(callback: Callback, end: EpochEnd) -> bool:
    """Whether a callback wants the run to end."""
    answer = callback(end)
    if answer is None:
        return False
    if isinstance(answer, bool) or (getattr(answer, "dtype", None) == np.bool_ and np.ndim(answer) == 0):
        return bool(answer)
    name = getattr(callback, "__name__", repr(callback))
    raise TypeError(f"callbacks: expected {name} to return None, True or False, got {answer!r}")


def _traced_error() -> TypeError:
    return TypeError(
        "fit: expected to be called outside of jit, vmap and grad; inside of them use "
        "training.make_run(recipe)(key, hparams, train, valid)"
    )


@contextmanager
def _open_progress_bar(wanted: bool | None, epochs: int) -> Generator[Callable[[dict[str, float]], None]]:
    """A function that shows one more epoch."""
    bar_class = None if wanted is False else _import_tqdm(required=wanted is True)
    if bar_class is None:
        yield lambda metrics: None
        return
    shown = {"train_loss": "train", "valid_loss": "valid", "valid_accuracy": "accuracy"}
    layout = "{n_fmt}/{total_fmt} epochs |{bar}| {elapsed}<{remaining}{postfix}"  # fits 80 columns
    with bar_class(total=epochs, bar_format=layout, disable=None if wanted is None else False) as bar:

        def show(metrics: dict[str, float]) -> None:
            values = [f"{label} {metrics[name]:.4f}" for name, label in shown.items() if name in metrics]
            bar.set_postfix_str(", ".join(values), refresh=False)
            bar.update()

        yield show


def _import_tqdm(*, required: bool) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        if required:
            raise ImportError("progress_bar needs tqdm: pip install 'jaxopt-nn[progress]'") from error
        return None
    return tqdm
