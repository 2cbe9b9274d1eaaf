"""Batches of a stream as chunks on the device, read ahead by a thread of their own."""

import queue
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.data._streams import Stream, batch_of, iterator_of
from jaxopt_nn.training._batches import count_examples
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Batch

__all__ = ["Chunk", "Form", "Place", "form_of", "open_stream", "prefetched", "read", "read_chunks"]


_SECONDS_PER_CHUNK = 1.0


class Place(NamedTuple):
    """Where a stream stands.

    Attributes:
        epoch: the epoch.
        step: the batches of it that were taken.
        state: what its iterator says of it; None if it does not.
    """

    epoch: int = 0
    step: int = 0
    state: Any = None


class Form(NamedTuple):
    """What all batches of a stream have in common.

    Attributes:
        layout: path, dtype and the shape of an example, of each leaf of a batch.
        batch_size: the examples in each batch that is not short.
        short: what becomes of a batch of fewer: ``"pad"`` or ``"drop"``.
        weighted: whether batches get weights, so that padding can have the weight 0.
    """

    layout: tuple[tuple[str, Any, tuple[int, ...]], ...]
    batch_size: int
    short: str
    weighted: bool


class Chunk(NamedTuple):
    """Some batches that follow each other.

    Attributes:
        batch: arrays ``[size, batch_size, ...]``, of which the first ``steps`` are read.
        steps: the batches in it.
        places: where the stream stands after each.
        last: whether the epoch ends with it.
    """

    batch: Batch
    steps: int
    places: tuple[Place, ...]
    last: bool


Item = tuple[Place, Batch | None]
"""A batch and the place after it; None where an epoch ends."""


def form_of(first: Batch, batch_size: int, last_batch: str, stream: Stream) -> Form:
    """The form of a stream by its first batch."""
    rows = count_examples(first)
    if rows != batch_size:
        raise ValueError(f"batch_size: expected {rows}, which the batches of train have, got {batch_size}")
    return Form(_layout(first), batch_size, last_batch, last_batch == "pad" and not stream.full)


def open_stream(stream: Stream, epochs: int) -> tuple[Batch, Iterator[Any]]:
    """The first batch of a stream, and an iterator of the values of its first epoch that has not lost it.

    Raises:
        TypeError, ValueError: the stream has none, or none for so many epochs.
    """
    if stream.once and epochs > 1:
        raise TypeError(
            f"train: expected what can be iterated in each of {epochs} epochs, as a list or a function epoch -> "
            f"iterable, got a {stream.description}, which ends after one"
        )
    values = iterator_of(stream, 0)
    for value in values:
        return _batch(value, Place()), _Resumable(value, values)
    raise ValueError(f"train: expected batches, got none from a {stream.description}")


class _Resumable:
    """An iterator with its first value put back."""

    def __init__(self, first: Any, rest: Iterator[Any]) -> None:
        self._first, self.rest = [first], rest

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._first.pop() if self._first else next(self.rest)


def read(stream: Stream, form: Form, place: Place, epochs: int, opened: Iterator[Any] | None) -> Generator[Item]:
    """The batches from a place on, each of the full size, up to the end of ``epochs``.

    ``opened`` is an iterator that stands at the place; None for a new one.
    """
    values, given = _values_from(stream, form, place) if opened is None else (opened, place.step)
    step = place.step
    for epoch in range(place.epoch, epochs):
        if epoch > place.epoch:
            step = given = 0
            values = values if stream.continues else iterator_of(stream, epoch)
        while not (stream.continues and step == stream.length):
            here = Place(epoch, given)
            try:
                value = next(values)
            except StopIteration:
                if not stream.continues:
                    break
                values = iterator_of(stream, epoch)  # what has an end begins again
                value = next(values, None)
                if value is None:
                    raise _ended(stream, here) from None
            except Exception as error:
                error.add_note(f"fit: raised by train, {_at(here)}")
                raise
            given += 1
            batch = _formed(form, _batch(value, here), here)
            if batch is not None:
                step += 1
                yield Place(epoch, step, _state_of(values)), batch
        if step == 0 or (stream.length is not None and not stream.continues and given != stream.length):
            raise _ended(stream, Place(epoch, given))
        yield Place(epoch + 1, 0, _state_of(values) if stream.continues else None), None


def _values_from(stream: Stream, form: Form, place: Place) -> tuple[Iterator[Any], int]:
    """An iterator that stands at a place, and how many batches of that epoch it has given, short ones too.

    If it takes no state, what comes before the place is read and left out.
    """
    values = iterator_of(stream, place.epoch)
    if place.state is not None and hasattr(values, "set_state"):
        cast("Any", values).set_state(place.state)
        return values, place.step
    before = place.epoch * stream.length if stream.continues and stream.length is not None else 0
    given = kept = 0
    while kept < before + place.step:
        here, value = Place(place.epoch, given), next(values, None)
        if value is not None:
            given += 1
            kept += _formed(form, _batch(value, here), here) is not None
        elif stream.continues and given:
            values = iterator_of(stream, place.epoch)
        else:
            raise _ended(stream, here)
    return values, given


def _state_of(values: Any) -> Any:
    values = values.rest if isinstance(values, _Resumable) else values
    return values.get_state() if hasattr(values, "get_state") and hasattr(values, "set_state") else None


def _batch(value: Any, place: Place) -> Batch:
    try:
        return batch_of(value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"train, {_at(place)}: {error}") from error


def _formed(form: Form, batch: Batch, place: Place) -> Batch | None:
    """The batch, padded if it is short; None if short ones are dropped.

    Raises:
        ValueError: it has another tree, shape or dtype than the first.
    """
    layout = _layout(batch)
    if layout != form.layout:
        expected, got = (_words(each) for each in (form.layout, layout))
        raise ValueError(f"train, {_at(place)}: expected {expected}, as in the first batch, got {got}")
    rows = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    count = max(rows)
    if len(rows) > 1 or count > form.batch_size or count == 0:
        raise ValueError(
            f"train, {_at(place)}: expected 1 to {form.batch_size} examples in all its arrays, got {sorted(rows)}"
        )
    missing = form.batch_size - count
    if missing and form.short == "drop":
        return None
    if missing and not form.weighted:
        raise ValueError(f"train, {_at(place)}: expected {form.batch_size} examples, got {count}")
    if form.weighted and batch.weight is None:
        batch = batch._replace(weight=np.ones(count, np.float32))
    if not missing:
        return batch
    # Filled up with its first example, which is finite if the batch is.
    filled = jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[:1], missing, 0)]), batch)
    filled.weight[count:] = 0
    return filled


def _ended(stream: Stream, place: Place) -> ValueError:
    if place.step == 0:
        return ValueError(
            f"train: expected batches in epoch {place.epoch}, got none from a {stream.description}. It has to be "
            f"iterable anew in each epoch"
        )
    return ValueError(
        f"train: expected {stream.length} batches in epoch {place.epoch}, as its length says, got {place.step}"
    )


def _at(place: Place) -> str:
    return f"batch {place.step} of epoch {place.epoch}"


def _layout(batch: Batch) -> tuple[tuple[str, Any, tuple[int, ...]], ...]:
    return tuple((path, leaf.dtype, leaf.shape[1:]) for path, leaf in named_leaves(batch))


def _words(layout: tuple[tuple[str, Any, tuple[int, ...]], ...]) -> str:
    return ", ".join(f"{path}: {dtype}{['N', *shape]}".replace("'", "") for path, dtype, shape in layout)


def read_chunks(items: Iterator[Item], size: int) -> Generator[Chunk]:
    """Batches in chunks of at most ``size``, on the device; of fewer where the source is slow."""
    batches: list[Batch] = []
    places: list[Place] = []
    began = time.monotonic()
    for place, batch in items:
        late = batches and time.monotonic() - began > _SECONDS_PER_CHUNK
        if batch is None or len(batches) == size or late:
            if batch is None:  # the place at the start of the next epoch
                places[-1] = place
            yield Chunk(_stacked(batches, size), len(batches), tuple(places), batch is None)
            batches, places, began = [], [], time.monotonic()
        if batch is not None:
            batches.append(batch)
            places.append(place)


def _stacked(batches: list[Batch], size: int) -> Batch:
    """One array for each leaf. What is behind the last batch is not set, and not read."""

    def stacked(*leaves: NDArray[Any]) -> Any:
        dtype = jax.dtypes.canonicalize_dtype(leaves[0].dtype)
        whole = np.empty((size, *leaves[0].shape), dtype)
        np.stack(leaves, out=whole[: len(leaves)], casting="same_kind")
        return jax.device_put(whole)

    return jax.tree.map(stacked, *batches)


def prefetched(chunks: Iterator[Chunk]) -> Generator[Chunk | None]:
    """The same chunks, of which the next is read by another thread meanwhile; None for each second without one."""
    ready: queue.Queue[tuple[Chunk | None, BaseException | None]] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def put(item: tuple[Chunk | None, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for chunk in chunks:
                put((chunk, None))
                if stop.is_set():
                    return
            put((None, None))
        except BaseException as error:  # raised again by who waits for the chunk
            put((None, error))

    thread = threading.Thread(target=work, name="jaxopt_nn reader", daemon=True)
    thread.start()
    try:
        while True:
            try:
                chunk, error = ready.get(timeout=1.0)
            except queue.Empty:
                yield None
                continue
            if error is not None:
                raise error
            if chunk is None:
                return
            yield chunk
    finally:
        stop.set()
        thread.join(1.0)  # not for ever: a source may be stuck
