"""The same run, driven from the host, with a progress bar, callbacks and Ctrl-C."""

import inspect
import math
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, cast

import numpy as np

from jaxopt_nn._arguments import check_choice, check_positive_int
from jaxopt_nn._safetensors import is_key
from jaxopt_nn.training._batches import count_examples
from jaxopt_nn.training._checkpoint import Checkpoint, check_checkpoint
from jaxopt_nn.training._checks import check_run_arguments
from jaxopt_nn.training._drive import (
    Position,
    Run,
    by_epochs,
    by_steps,
    part_shapes,
    program_checksum,
    start_run,
    steps_per_epoch,
    with_missing,
)
from jaxopt_nn.training._epoch import EpochPart
from jaxopt_nn.training._folders import encode, fingerprints
from jaxopt_nn.training._programs import as_arrays, compiled, is_traced_any, static_unless_number
from jaxopt_nn.training._recipe import Recipe, RecipeFn, build_recipe
from jaxopt_nn.training._records import EpochEnd
from jaxopt_nn.training._run import RunResult, check_run_key, finish
from jaxopt_nn.training._run_state import RunKeys, RunState, weights_of
from jaxopt_nn.training._save import features_of, key_type, versions
from jaxopt_nn.training._signals import deferred_signals
from jaxopt_nn.training._status import Status
from jaxopt_nn.training._store import Identity, Plan, Store, opened
from jaxopt_nn.training._stream import Source, batches_in_all, by_chunks, describe, open_source, room_for
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Batch, Key, PyTree, Static

__all__ = ["EpochEnd", "fit"]


Callback = Callable[[EpochEnd], Any]


def fit(
    recipe: RecipeFn,
    hparams: PyTree,
    train: Any,
    valid: Batch | None = None,
    *,
    key: Key | RunKeys,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool | None = None,
    epochs_per_call: int = 1,
    steps_per_call: int | None = None,
    checkpoint: Checkpoint | None = None,
    init_from: PyTree = None,
) -> RunResult:
    """Trains as ``make_run(recipe)`` does, to the same bits, but epoch by epoch from the host.

    Args:
        recipe: a function from hyperparameters to a :class:`Recipe`. A second ``fit`` of an equal recipe compiles
            nothing, also with other numbers in ``hparams``. Global variables that the recipe reads are read anew.
        hparams: any pytree. Strings, functions and bools need no ``Static`` around them here.
        train, valid: data sets. For data larger than memory ``train`` is an iterable of batches, such as a PyTorch
            ``DataLoader``; a function ``epoch -> iterable``; or a :class:`~jaxopt_nn.data.Stream`, as
            :func:`~jaxopt_nn.data.stream_blocks` makes one. Its batches have the recipe's ``batch_size``; those of
            fewer examples are padded or left out, as ``last_batch`` says. ``shuffle`` is not read.
        key: a PRNG key, or :class:`RunKeys`.
        callbacks: each is called with an :class:`EpochEnd` after each epoch. It returns None, or whether to end the
            run.
        progress_bar: True for a tqdm bar, False for none, None for one if tqdm is installed and stderr is a terminal.
        epochs_per_call: the most epochs in one call of the program. Calls are kept below about two seconds, so that
            Ctrl-C works. Callbacks still see each epoch, but with the state after the last epoch of the call. The
            result is the same to the bit, unless a callback ends the run.
        steps_per_call: the steps in one call of the program, where batches are read from an iterable. They are held in
            memory three times: trained with, ready, and being read. None for about 16 MiB of them.
        checkpoint: where and when to keep what it takes to go on, as :class:`Checkpoint` says. The same call again goes
            on where it stood, or returns the result of a run that has ended; the result has the same bits as that of
            one call. The recipe may ask for more epochs than before.
        init_from: what to start from instead of new parameters. A ``TrainState`` is taken whole: the optimizer's
            state, the count of steps and the noise key go on. Of anything else that has ``params`` and ``model_state``,
            as a result or a loaded model, it takes these two; anything else are parameters.

    Returns:
        The same as the run. If Ctrl-C or a callback ended it, the status is INTERRUPTED, and the result is that of the
        completed epochs.

    Raises:
        ValueError, TypeError: as the run; also inside of ``jit``, ``vmap`` or ``grad``; if a callback is no function;
            if the checkpoint is of another run, or damaged; if ``init_from`` is of another model. All of these before
            anything is compiled, and with the path.
        OSError: the checkpoint's folder cannot be written to, or another process uses it.
        ImportError: if ``progress_bar`` is True and tqdm is missing, or for a checkpoint Orbax.
        Exception: what a callback raises, or the source of batches, such as a ``ValueError`` if it ends early or one
            of its batches has another shape. It has the result of the epochs before as its attribute ``result``, and
            the checkpoint is written.

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
    check_choice("progress_bar", progress_bar, None, True, False)
    _check_callbacks(callbacks)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    if steps_per_call is not None:
        check_positive_int("steps_per_call", steps_per_call)
    start = weights_of(init_from)
    known: Any = train if isinstance(train, (Batch, list)) else None
    if is_traced_any((hparams, known, valid, key, start)):
        raise _traced_error()
    check_run_key(key)
    parts = build_recipe(recipe, hparams)
    source = None if isinstance(train, Batch) else open_source(train, parts, steps_per_call)
    example = cast("Batch", train) if source is None else source.example
    train, valid = check_run_arguments(parts, example, valid)
    run = Run(recipe, static_unless_number(hparams), train, valid, parts.epochs)
    arguments = (run.hparams, key, train, as_arrays(start))
    begin, shapes = compiled(start_run(recipe), *arguments)
    with _store(checkpoint, run, parts, arguments, shapes, source) as store:

        def shapes_of_part(steps: int) -> EpochPart:
            return part_shapes(run, *shapes) if source is None else room_for(steps, run, source, shapes[1])

        position = None if store is None else store.latest(shapes, shapes_of_part)
        order, run_state = begin(*arguments) if position is None else position[:2]
        if is_traced_any(run_state):
            raise _traced_error()
        seconds = None if checkpoint is None else checkpoint.every_seconds
        if source is not None:
            metrics, positions = by_chunks(run, source, run_state, math.inf if seconds is None else seconds)
        elif (store is not None and store.within_epochs) or (position is not None and position.steps):
            metrics, positions = by_steps(run, order, run_state, math.inf if seconds is None else seconds)
        else:
            metrics, positions = by_epochs(run, order, run_state, min(epochs_per_call, parts.epochs))
        if store is not None:
            store.check_monitor(sorted(name for name, shape in metrics.items() if not shape.shape))
        history = {} if position is None else position.history
        history = with_missing(history, metrics, parts.epochs)
        position = Position(order, run_state, history) if position is None else position._replace(history=history)
        with (
            _open_progress_bar(progress_bar, position, run, source) as show,
            _signals(store) as signals,
        ):
            interrupted = False
            try:
                for after in positions(position, _no_limit if store is None else store.ahead):
                    before, position = position, after
                    if store is not None:
                        store.save_if_due(before, after)
                    for epoch in range(before.epochs, after.epochs):
                        row = {name: float(values[epoch]) for name, values in after.history.items() if values.ndim == 1}
                        arrays = {name: values[epoch] for name, values in after.history.items() if values.ndim > 1}
                        show(epoch + 1 if source is None else after.batches, row)
                        end = EpochEnd(epoch, row, after.run_state.state, arrays)
                        interrupted |= any([_asks_to_stop(callback, end) for callback in callbacks])
                    if source is not None and before.epochs == after.epochs:
                        show(after.batches, {})
                    interrupted |= bool(signals)
                    if interrupted:
                        break
            except KeyboardInterrupt:
                interrupted = True
            except Exception as error:
                _keep(error, position)
                raise
            finally:
                if store is not None:
                    store.finish(position)
            return _result(position, interrupted=interrupted)


def _store(
    checkpoint: Checkpoint | None,
    run: Run,
    parts: Recipe,
    arguments: tuple[Any, ...],
    shapes: tuple[Any, ...],
    source: Source | None,
) -> AbstractContextManager[Store | None]:
    """The folder of the checkpoint, for this run alone."""
    if checkpoint is None:
        return nullcontext()
    hparams, key, train, start = arguments
    arrays: dict[str, Any] = {}
    data = fingerprints(train) if source is None else {"stream": describe(source)}
    described = {
        "hparams": encode("hparams", hparams, arrays, opaque=True),
        "key": encode("key", key._asdict() if isinstance(key, RunKeys) else key, arrays),
        "features": features_of(train),
        "data": data,
        "state": key_type(shapes[1].state.key),
        "versions": versions(),
    }
    same = {name: str(getattr(parts, name)) for name in ("batch_size", "last_batch", "shuffle", "micro_batches")}
    numbers = {path: leaf for path, leaf in named_leaves({"hparams": hparams}) if not isinstance(leaf, Static)}
    same |= {path: _text(leaf) for path, leaf in numbers.items()}
    same |= {f"train/{path}": mark for path, mark in data.items()}
    same |= fingerprints({"key": key, "valid": run.valid, "init_from": start})
    identity = Identity(same, program_checksum(run, *shapes), described, arrays)
    return opened(checkpoint, identity, Plan(run.epochs, steps_per_epoch(run) if source is None else None))


def _text(leaf: Any) -> str:
    """A number as it is written; an array by what it holds."""
    return repr(np.asarray(leaf).item()) if np.ndim(leaf) == 0 and not is_key(leaf) else fingerprints(leaf)[""]


def _signals(store: Store | None) -> AbstractContextManager[list[int]]:
    """Where nothing is saved, signals do what they do: Ctrl-C raises ``KeyboardInterrupt``."""
    return nullcontext([]) if store is None else deferred_signals()


def _no_limit(position: Position) -> tuple[int, int]:
    del position
    return sys.maxsize, sys.maxsize


def _result(position: Position, *, interrupted: bool) -> RunResult:
    """The result of the epochs that are done."""
    run_state = position.run_state
    if interrupted and int(run_state.status) == Status.COMPLETED:
        run_state = run_state._replace(status=np.int32(Status.INTERRUPTED))
    return as_arrays(finish(_with_known_counts(run_state), cast("dict[str, Any]", position.history)))


def _keep(error: Exception, position: Position) -> None:
    """Hands the result of the epochs that are done to whoever catches the error."""
    with suppress(Exception):  # the error itself says more than what fails after it
        setattr(error, "result", _result(position, interrupted=True))  # noqa: B010, unknown to its type
        error.add_note(f"fit: the result of the epochs that are done, {position.epochs}, is in this error's .result")


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
def _open_progress_bar(
    wanted: bool | None, position: Position, run: Run, source: Source | None
) -> Generator[Callable[[int, dict[str, Any]], None]]:
    """A function that shows how many epochs, or batches of a stream, are done, and new metrics."""
    done, total = (position.epochs, run.epochs) if source is None else (position.batches, batches_in_all(source, run))
    examples = count_examples(run.train)  # of an epoch, or a batch
    bar_class = None if wanted is False else _import_tqdm(required=wanted is True)
    if bar_class is None:
        yield lambda done, metrics: None
        return
    layout = "{n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}{postfix}"  # fits 80 columns
    # At None tqdm looks for a terminal. A notebook is none, but somebody looks.
    disable = None if wanted is None and "ipykernel" not in sys.modules else False
    with bar_class(initial=done, total=total, bar_format=layout, disable=disable) as bar:
        values: dict[str, str] = {}

        def show(now: int, metrics: dict[str, Any]) -> None:
            if bar.disable:
                return
            rate = (now - done) * examples / max(bar.format_dict["elapsed"], 1e-6)
            for name, label in _shown(metrics).items():
                if name not in values or math.isfinite(metrics[name]):  # not each epoch is validated
                    values[name] = f"{label} {metrics[name]:.3f}"
            bar.set_postfix_str(", ".join([*values.values(), f"{bar.format_sizeof(rate)}/s"]), refresh=False)
            bar.update(now - bar.n)

        yield show


def _shown(metrics: dict[str, float]) -> dict[str, str]:
    """What the bar shows, with labels: the losses, and accuracy or else another metric, for which there is room."""
    own = [name for name in metrics if name.startswith("valid_") and name != "valid_loss"]
    own = sorted(own, key=lambda name: name != "valid_accuracy")[:1]
    labels = {"train_loss": "train", "valid_loss": "valid"} | {name: name.removeprefix("valid_") for name in own}
    return {name: label for name, label in labels.items() if name in metrics}


def _import_tqdm(*, required: bool) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        if required:
            raise ImportError("progress_bar needs tqdm: pip install 'jaxopt-nn[progress]'") from error
        return None
    return tqdm
