"""A run driven from the host: dispatch by dispatch, of whole epochs or of some steps of one.

Both go on from any :class:`Position` and yield the next ones. How much one dispatch does changes no bit of the result.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from jaxopt_nn._jaxprs.identity import fingerprint
from jaxopt_nn.training._batches import count_examples, count_steps
from jaxopt_nn.training._epoch import EpochPart, end_epoch, start_epoch, train_epoch, train_steps
from jaxopt_nn.training._programs import as_arrays, compiled
from jaxopt_nn.training._reader import Place
from jaxopt_nn.training._recipe import RecipeFn, build_recipe
from jaxopt_nn.training._run import split_key
from jaxopt_nn.training._run_state import EpochMetrics, RunKeys, RunState, init_run_state
from jaxopt_nn.training._status import Status
from jaxopt_nn.types import Array, Batch, Key, PyTree

__all__ = [
    "Ahead",
    "History",
    "Position",
    "Run",
    "by_epochs",
    "by_steps",
    "goes_on",
    "part_shapes",
    "program_checksum",
    "recorded",
    "start_run",
    "steps_per_epoch",
    "with_missing",
]

History = dict[str, NDArray[Any]]
Ahead = Callable[["Position"], tuple[int, int]]
"""The epochs and the steps from a position that a dispatch may do, at the most."""

_SECONDS_PER_CALL = 2.0


class Run(NamedTuple):
    """What is the same in all of a run's dispatches: arguments of :func:`fit`, and the recipe's number of epochs."""

    recipe: RecipeFn
    hparams: PyTree
    train: Batch
    valid: Batch | None
    epochs: int


class Position(NamedTuple):
    """How far a run is.

    Attributes:
        order: the key of the order of the examples.
        run_state: what the run carries, after the last epoch that is done.
        history: name to array ``[epochs, ...]``, on the host.
        part: what is done of the next epoch; None for nothing.
        steps: the steps in ``part``.
        place: where the stream stands that the batches come from.
        batches: the batches of it that were trained with, in all.
    """

    order: Key
    run_state: RunState
    history: History
    part: EpochPart | None = None
    steps: int = 0
    place: Place = Place()
    batches: int = 0

    @property
    def epochs(self) -> int:
        """The epochs done."""
        return int(self.run_state.epochs)


def start_run(recipe: RecipeFn) -> Callable[..., tuple[Key, RunState]]:
    """The function that starts a run: ``(hparams, key, train, start) -> (key of the order, run state)``."""

    def start_run(hparams: PyTree, key: Key | RunKeys, train: Batch, start: PyTree) -> tuple[Key, RunState]:
        keys = split_key(key)
        return keys.order, init_run_state(build_recipe(recipe, hparams), keys, train, start=start)

    return start_run


def steps_per_epoch(run: Run) -> int:
    """The steps of one epoch."""
    parts = build_recipe(run.recipe, run.hparams)
    return count_steps(count_examples(run.train), parts.batch_size, parts.last_batch)


def by_epochs(
    run: Run, order: Key, run_state: RunState, at_most: int
) -> tuple[Mapping[str, Any], Callable[[Position, Ahead], Generator[Position]]]:
    """Whole epochs, ``at_most`` in one dispatch, and fewer where they take longer than about two seconds.

    Args:
        run: the run.
        order, run_state: a start, or its shapes.
        at_most: static.

    Returns:
        The shapes of an epoch's metrics; and what yields each next position of one.
    """

    def run_epochs(
        hparams: PyTree, run_state: RunState, order: Key, first: Array, count: Array, train: Batch, valid: Batch | None
    ) -> tuple[RunState, EpochMetrics]:
        parts = build_recipe(run.recipe, hparams)

        def body(run_state: RunState, index: Array) -> tuple[RunState, EpochMetrics]:
            return train_epoch(parts, run_state, order, first + index, train, valid, due=index < count)

        return lax.scan(body, run_state, jnp.arange(at_most))

    program, (_, metrics) = compiled(run_epochs, run.hparams, run_state, order, 0, 1, run.train, run.valid)
    metrics = {name: jax.ShapeDtypeStruct(shape.shape[1:], shape.dtype) for name, shape in metrics.items()}

    def positions(position: Position, ahead: Ahead) -> Generator[Position]:
        count = 1
        while goes_on(run, position):
            started, first = time.perf_counter(), position.epochs
            run_state, rows = program(
                run.hparams, position.run_state, position.order, first, count, run.train, run.valid
            )
            rows = jax.device_get(rows)  # waits; Ctrl-C until here leaves the position as it is
            seconds = max(time.perf_counter() - started, 1e-6)
            position = Position(position.order, run_state, recorded(position.history, first, count, rows))
            yield position
            within = int(count * _SECONDS_PER_CALL / seconds)
            count = max(1, min(at_most, run.epochs - position.epochs, within, ahead(position)[0]))

    return metrics, positions


def by_steps(
    run: Run, order: Key, run_state: RunState, seconds_per_call: float
) -> tuple[Mapping[str, Any], Callable[[Position, Ahead], Generator[Position]]]:
    """Some steps of one epoch, as many as take about ``seconds_per_call``; otherwise as :func:`by_epochs`."""

    def run_steps(
        hparams: PyTree,
        run_state: RunState,
        part: EpochPart,
        order: Key,
        epoch: Array,
        first: Array,
        count: Array,
        train: Batch,
    ) -> EpochPart:
        return train_steps(build_recipe(run.recipe, hparams), run_state, part, order, epoch, first, count, train)

    def finish_epoch(
        hparams: PyTree, run_state: RunState, part: EpochPart, epoch: Array, valid: Batch | None
    ) -> tuple[RunState, EpochMetrics]:
        return end_epoch(build_recipe(run.recipe, hparams), run_state, part, epoch, valid)

    shapes = part_shapes(run, order, run_state)
    steps, _ = compiled(run_steps, run.hparams, run_state, shapes, order, 0, 0, 1, run.train)
    end, (_, metrics) = compiled(finish_epoch, run.hparams, run_state, shapes, 0, run.valid)
    total, limit = steps_per_epoch(run), min(seconds_per_call, _SECONDS_PER_CALL)

    def positions(position: Position, ahead: Ahead) -> Generator[Position]:
        count = 1
        while goes_on(run, position):
            epoch, part = position.epochs, position.part
            if part is None:
                blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes._replace(state=None))
                part = as_arrays(blank)._replace(state=position.run_state.state)
            while (first := position.steps) < total:
                count = max(1, min(count, total - first, ahead(position)[1]))
                started = time.perf_counter()
                part = steps(run.hparams, position.run_state, part, position.order, epoch, first, count, run.train)
                jax.block_until_ready(part)
                seconds = max(time.perf_counter() - started, 1e-6)
                position = position._replace(part=part, steps=first + count)
                count = int(count * limit / seconds)
                if position.steps < total:
                    yield position
            run_state, row = end(run.hparams, position.run_state, part, epoch, run.valid)
            rows = jax.tree.map(lambda value: value[None], jax.device_get(row))
            position = Position(position.order, run_state, recorded(position.history, epoch, 1, rows))
            yield position

    return metrics, positions


def part_shapes(run: Run, order: Key, run_state: RunState) -> EpochPart:
    """The shapes of a part of an epoch."""

    def start(hparams: PyTree, run_state: RunState, order: Key, train: Batch) -> EpochPart:
        return start_epoch(build_recipe(run.recipe, hparams), run_state, order, train)

    return jax.eval_shape(start, run.hparams, run_state, order, run.train)


def program_checksum(run: Run, order: Key, run_state: RunState) -> str:
    """The same for recipes that compute the same, in this version of JAX."""

    def epoch(hparams: PyTree, run_state: RunState, order: Key, train: Batch, valid: Batch | None) -> Any:
        return train_epoch(build_recipe(run.recipe, hparams), run_state, order, jnp.int32(0), train, valid)

    program = jax.make_jaxpr(epoch)(run.hparams, run_state, order, run.train, run.valid)
    return hashlib.sha256(repr(fingerprint(program)).encode()).hexdigest()


def goes_on(run: Run, position: Position) -> bool:
    """Whether there is an epoch to do."""
    return position.epochs < run.epochs and int(position.run_state.status) == Status.COMPLETED


def with_missing(history: History, metrics: Mapping[str, Any], epochs: int) -> History:
    """The history with all entries that the run will have, NaN for the epochs before.

    Raises:
        ValueError: an entry has another shape than it had in the checkpoint that the history comes from.
    """
    history = dict(history)
    for name, shape in metrics.items():
        values = history.setdefault(name, np.full((epochs, *shape.shape), np.nan, shape.dtype))
        if values.shape[1:] != shape.shape:
            before, now = list(values.shape[1:]), list(shape.shape)
            raise ValueError(f"record: expected {name!r} to be {before}, as in the checkpoint of this run, got {now}")
    return history


def recorded(history: History, first: int, count: int, rows: History) -> History:
    """The history with some more epochs. A new one: what is interrupted has the old."""
    history = {name: values.copy() for name, values in history.items()}
    for name, values in rows.items():
        history[name][first : first + count] = values[:count]
    return history
