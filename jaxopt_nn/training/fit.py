"""The same run, driven from the host: for a progress bar, callbacks, and Ctrl-C."""

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.training.epoch import Progress, Row, RunKeys, init_progress, train_epoch
from jaxopt_nn.training.recipe import RecipeFn, build_recipe
from jaxopt_nn.training.run import RunResult, check_run_arguments, finish, split_key
from jaxopt_nn.training.status import Status
from jaxopt_nn.types import Array, Batch, Key, PyTree, Static, TrainState

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
    """Trains as ``make_run(recipe)`` does, with the same bits, but epoch by epoch under the host's eyes.

    Args:
        recipe: a function from hyperparameters to a :class:`Recipe`. A second ``fit`` of the same function object with
            other numbers compiles nothing.
        hparams: any pytree; here strings, functions and bools need no ``Static`` around them.
        train, valid: data sets.
        key: a PRNG key, or :class:`RunKeys`.
        callbacks: each is called with an :class:`EpochEnd` after each epoch; one that returns True ends the run.
        progress_bar: True for a tqdm bar, False for none, None for one if tqdm is installed and stderr is a terminal.
        epochs_per_call: epochs in one dispatch. Callbacks then see each epoch, but all with the state after the last of
            the dispatch.

    Returns:
        The same as the run. After Ctrl-C, or if a callback ended it, the status is INTERRUPTED and the result is that
        of the epochs completed.

    Raises:
        ValueError, TypeError: as the run; also for NaN and infinity in features and labels out of range.
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
    keys = split_key(key)
    hparams = jax.tree.map(_static_unless_number, hparams, is_leaf=lambda leaf: leaf is None)
    parts = build_recipe(recipe, hparams)
    check_run_arguments(parts, train, valid)
    train, valid = jax.tree.map(jnp.asarray, (train, valid))

    progress = _begin(recipe, hparams, keys, train)
    count = min(epochs_per_call, parts.epochs)
    row = _advance.eval_shape(recipe, hparams, progress, keys.order, 0, count, train, valid)[1]
    history = {name: np.full(parts.epochs, np.nan, value.dtype) for name, value in row.items()}
    begun, interrupted = 0, False
    with _bar(progress_bar, parts.epochs) as show:
        try:
            while begun < parts.epochs and not interrupted and int(progress.status) == Status.COMPLETED:
                count = min(epochs_per_call, parts.epochs - begun)
                after, rows = _advance(recipe, hparams, progress, keys.order, begun, count, train, valid)
                rows = jax.device_get(rows)  # waits; Ctrl-C until here leaves `progress` and `history` as they are
                progress = after
                for name, values in rows.items():
                    history[name][begun : begun + count] = values
                for epoch in range(begun, int(progress.epochs)):
                    end = EpochEnd(
                        epoch, {name: float(values[epoch]) for name, values in history.items()}, progress.state
                    )
                    show(end.metrics)
                    interrupted |= any([callback(end) is True for callback in callbacks])
                begun += count
        except KeyboardInterrupt:
            interrupted = True
    if interrupted and int(progress.status) == Status.COMPLETED:
        progress = progress._replace(status=jnp.int32(Status.INTERRUPTED))
    return _finish(progress, jax.tree.map(jnp.asarray, history))


@functools.partial(jax.jit, static_argnames=("recipe",))
def _begin(recipe: RecipeFn, hparams: PyTree, keys: RunKeys, train: Batch) -> Progress:
    return init_progress(build_recipe(recipe, hparams), keys, train)


@functools.partial(jax.jit, static_argnames=("recipe", "count"))
def _advance(
    recipe: RecipeFn,
    hparams: PyTree,
    progress: Progress,
    order_key: Key,
    first: int | Array,
    count: int,
    train: Batch,
    valid: Batch | None,
) -> tuple[Progress, Row]:
    parts = build_recipe(recipe, hparams)

    def body(progress: Progress, epoch: Array) -> tuple[Progress, Row]:
        return train_epoch(parts, progress, order_key, epoch, train, valid)

    return lax.scan(body, progress, first + jnp.arange(count))


_finish = jax.jit(finish)


def _static_unless_number(leaf: Any) -> Any:
    number = isinstance(leaf, (int, float, complex, np.number)) and not isinstance(leaf, bool)
    return leaf if number or isinstance(leaf, Static) or hasattr(leaf, "shape") else Static(leaf)


@contextmanager
def _bar(wanted: bool | None, epochs: int) -> Generator[Callable[[dict[str, float]], None]]:
    """A function that shows one more epoch."""
    bar_class = None if wanted is False else _tqdm(required=wanted is True)
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


def _tqdm(*, required: bool) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        if required:
            raise ImportError("progress_bar needs tqdm: pip install 'jaxopt-nn[progress]'") from error
        return None
    return tqdm
