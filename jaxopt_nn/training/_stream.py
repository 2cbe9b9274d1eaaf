"""A run driven from the host over a stream of batches, some steps in one dispatch.

It is :func:`by_steps` of another source: the batches come from the host, and the epoch's end is where they end.
"""

import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_nn.data._streams import Stream
from jaxopt_nn.data._streams import stream as make_stream
from jaxopt_nn.training._drive import Ahead, Position, Run, goes_on, recorded
from jaxopt_nn.training._epoch import EpochPart, end_epoch, start_chunks, train_chunk
from jaxopt_nn.training._programs import as_arrays, compiled
from jaxopt_nn.training._reader import Form, Place, form_of, open_stream, prefetched, read, read_chunks
from jaxopt_nn.training._recipe import Recipe, build_recipe
from jaxopt_nn.training._records import records_of
from jaxopt_nn.training._run_state import EpochMetrics, RunState
from jaxopt_nn.types import Array, Batch, PyTree

__all__ = ["Source", "batches_in_all", "by_chunks", "describe", "open_source", "room_for"]

_CHUNK_BYTES = 16 * 2**20
_MOST_STEPS = 256
_STEPS = 4096
"""The steps for which an epoch of unknown length has room at first; it doubles."""
_SECONDS_PER_CALL = 2.0
_PATIENCE = 30.0
"""Seconds without a batch after which a warning names the source."""


class Source(NamedTuple):
    """A stream of which the first batch is known.

    Attributes:
        stream: the stream.
        form: the form of its batches.
        example: the first batch, without weights.
        values: an iterator of its first epoch, the first batch included.
        size: the steps in a chunk.
    """

    stream: Stream
    form: Form
    example: Batch
    values: Iterator[Any]
    size: int


def open_source(train: Any, parts: Recipe, steps_per_call: int | None) -> Source:
    """The stream of the batches of ``train``; its first batch is read."""
    stream = train if isinstance(train, Stream) else make_stream(train)
    series = [name for name, each in records_of(parts.record, "step", "layer").items() if each.series]
    if series and stream.length is None:
        raise ValueError(
            f"record[{series[0]!r}].series: expected a stream that says how many batches an epoch has, got a "
            f"{stream.description}; data.stream(source, batches_per_epoch=...) says it"
        )
    first, values = open_stream(stream, parts.epochs)
    form = form_of(first, parts.batch_size, parts.last_batch, stream)
    # About 16 MiB, and no more than an epoch has.
    bytes_each = max(1, sum(leaf.nbytes for leaf in jax.tree.leaves(first)))
    size = max(1, min(_CHUNK_BYTES // bytes_each, _MOST_STEPS)) if steps_per_call is None else steps_per_call
    return Source(stream, form, first._replace(weight=None), values, min(size, stream.length or size))


def describe(source: Source) -> str:
    """What of a stream has to be the same in a run that goes on."""
    length = "" if source.stream.length is None else f", {source.stream.length} an epoch"
    return f"{source.stream.description}: batches of {source.form.batch_size}{length}"


def batches_in_all(source: Source, run: Run) -> int | None:
    """The batches in all epochs; None if nobody knows."""
    return None if source.stream.length is None else source.stream.length * run.epochs


def room_for(steps: int, run: Run, source: Source, run_state: RunState) -> EpochPart:
    """The shapes of a part of an epoch, with room for all of its steps, or at least for ``steps``."""
    room = _STEPS if source.stream.length is None else source.stream.length
    while room < steps:
        room *= 2

    def start(hparams: PyTree, run_state: RunState, batch: Batch) -> EpochPart:
        return start_chunks(build_recipe(run.recipe, hparams), run_state, batch, room)

    return jax.eval_shape(start, run.hparams, run_state, run.train)


def by_chunks(
    run: Run, source: Source, run_state: RunState, seconds_per_call: float
) -> tuple[Mapping[str, Any], Callable[[Position, Ahead], Generator[Position]]]:
    """Some steps of one epoch in a dispatch, of batches that are read meanwhile.

    Args:
        run: the run; its ``train`` is an example of a batch.
        source: where they come from.
        run_state: a start, or its shapes.
        seconds_per_call: about how long a dispatch may take.

    Returns:
        The shapes of an epoch's metrics; and what yields each next position of one. While nothing can be read it yields
        the same position once a second.
    """

    def run_steps(
        hparams: PyTree, run_state: RunState, part: EpochPart, chunk: Batch, skip: Array, first: Array, count: Array
    ) -> EpochPart:
        return train_chunk(build_recipe(run.recipe, hparams), run_state, part, chunk, skip, first, count)

    def finish_epoch(
        hparams: PyTree, run_state: RunState, part: EpochPart, epoch: Array, valid: Batch | None
    ) -> tuple[RunState, EpochMetrics]:
        return end_epoch(build_recipe(run.recipe, hparams), run_state, part, epoch, valid)

    shapes = room_for(0, run, source, run_state)
    end, (_, metrics) = compiled(finish_epoch, run.hparams, run_state, shapes, 0, run.valid)
    limit = min(seconds_per_call, _SECONDS_PER_CALL)

    def positions(position: Position, ahead: Ahead) -> Generator[Position]:
        steps = end_of = None
        blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes._replace(state=None))
        blank, count, waited = as_arrays(blank), 1, 0
        begins = position.place == Place()
        items = read(source.stream, source.form, position.place, run.epochs, source.values if begins else None)
        with closing(prefetched(read_chunks(items, source.size))) as ready:
            for chunk in ready if goes_on(run, position) else ():
                if chunk is None:
                    waited += 1
                    if waited == _PATIENCE:
                        here = f"batch {position.steps} of epoch {position.epochs}"
                        warnings.warn(f"train: {here} has not come for {waited} s. The run waits", stacklevel=4)
                    yield position
                    continue
                epoch, waited, done = position.epochs, 0, 0
                while done < chunk.steps:
                    part = position.part or blank._replace(state=position.run_state.state)
                    first = position.steps
                    count = max(1, min(count, chunk.steps - done, ahead(position)[1]))
                    part = _with_room(part, first + count)
                    started = time.perf_counter()
                    arguments = (run.hparams, position.run_state, part, chunk.batch, done, first, count)
                    if steps is None or part.terms.shape != end_of:
                        steps, end_of = compiled(run_steps, *arguments)[0], part.terms.shape
                    part = jax.block_until_ready(steps(*arguments))
                    seconds = max(time.perf_counter() - started, 1e-6)
                    done += count
                    place = chunk.places[done - 1]
                    position = position._replace(
                        part=part, steps=first + count, place=place, batches=position.batches + count
                    )
                    count = max(1, int(count * limit / seconds))
                    if done < chunk.steps or not chunk.last:
                        yield position
                if chunk.last:
                    assert position.part is not None
                    arguments = (run.hparams, position.run_state, position.part, epoch, run.valid)
                    program = (
                        end
                        if position.part.terms.shape == shapes.terms.shape
                        else compiled(finish_epoch, *arguments)[0]
                    )
                    run_state, row = program(*arguments)
                    rows = jax.tree.map(lambda value: value[None], jax.device_get(row))
                    history = recorded(position.history, epoch, 1, rows)
                    position = position._replace(run_state=run_state, history=history, part=None, steps=0)
                    yield position
                    if not goes_on(run, position):
                        return

    return metrics, positions


def _with_room(part: EpochPart, steps: int) -> EpochPart:
    """The same part with room for so many steps."""
    room = part.terms.shape[0]
    while room < steps:
        room *= 2
    if room == part.terms.shape[0]:
        return part
    terms = np.zeros((room, *part.terms.shape[1:]), part.terms.dtype)
    terms[: part.terms.shape[0]] = np.asarray(part.terms)
    return part._replace(terms=as_arrays(terms))
