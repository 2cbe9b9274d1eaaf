"""Batches that are read while a run goes on: from any iterable, or from arrays on a disk, block by block.

:func:`jaxopt_nn.training.fit` takes a :class:`Stream`, or what :func:`stream` makes one of, in place of a data set.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._arguments import check_key, check_positive_int, shown
from jaxopt_nn.trees import named_leaves, takes
from jaxopt_nn.types import Batch, Key

__all__ = ["Stream", "batch_of", "iterator_of", "stream", "stream_blocks"]


class Stream(NamedTuple):
    """The batches of each epoch; made by :func:`stream` or :func:`stream_blocks`.

    Attributes:
        batches: ``epoch -> iterable of batches``. If its iterator has ``get_state()`` and ``set_state(state)``, as
            Grain's have, a run that goes on from a checkpoint sets the state; otherwise it reads the batches before
            once more and leaves them out.
        length: the batches of an epoch; None if that is not known before they are read.
        continues: whether all epochs are one iterable, of which each takes the next ``length`` batches.
        full: whether all batches are known to have the batch size. Otherwise the last may have fewer examples, and
            batches that are padded have weights.
        once: whether it is an iterator, such as a generator, that has batches for one epoch alone.
        description: what it is, in words.
    """

    batches: Callable[[int], Iterable[Any]]
    length: int | None
    continues: bool
    full: bool
    once: bool
    description: str


def stream(source: Any, *, batches_per_epoch: int | None = None, full: bool = False) -> Stream:
    """Batches from any iterable: a list, a PyTorch ``DataLoader``, a Grain loader, a function of the epoch.

    A batch is a ``Batch``, ``(x, y)``, ``(x, y, weight)``, or a dictionary with these names, of arrays of any library
    that NumPy can read.

    Args:
        source: something that is iterated anew in each epoch; or ``epoch -> iterable``, which says the order of each
            epoch; or with ``batches_per_epoch`` an iterator, or an iterable without an end.
        batches_per_epoch: where an epoch ends, for a source that does not say. The next epoch goes on from there, and
            what has an end begins again after it.
        full: whether each batch has the batch size. Then no batch needs weights, as in a run on arrays whose last batch
            is full. It is found out for a list, and for a loader with ``drop_last``.

    Returns:
        A :class:`Stream`, for :func:`jaxopt_nn.training.fit`, which calls this itself for what is no ``Stream``.

    Raises:
        TypeError: the source is no iterable, or one array, tuple or dictionary.
        ValueError: it has no batches.

    >>> train = stream([Batch(np.ones((2, 3)), np.zeros(2))] * 5)
    >>> train.length
    5
    """
    if batches_per_epoch is not None:
        check_positive_int("batches_per_epoch", batches_per_epoch)
    refused = isinstance(source, (Batch, tuple, str, bytes, Mapping, np.ndarray, jax.Array))
    is_function = callable(source) and not isinstance(source, Iterable)
    if refused or not (isinstance(source, Iterable) or hasattr(source, "__getitem__") or is_function):
        hint = "; write Batch(x, y)" if isinstance(source, tuple) else ""
        raise TypeError(
            f"train: expected a Batch(x, y, weight), or an iterable of batches, got a {_kind(source)}{hint}"
        )
    if is_function:
        function = cast("Callable[[int], Iterable[Any]]", source)
        if not takes(function, 0):
            raise TypeError(f"train: expected a function epoch -> iterable of batches, got {shown(source)}")
        if batches_per_epoch is None:
            return Stream(function, None, False, full, False, _kind(source))
        return Stream(
            lambda epoch: itertools.islice(function(epoch), batches_per_epoch),
            batches_per_epoch, False, full, False, _kind(source),
        )  # fmt: skip
    length = len(source) if isinstance(source, Sized) and batches_per_epoch is None else batches_per_epoch
    if length == 0:
        raise ValueError(f"train: expected batches, got an empty {_kind(source)}")
    continues = batches_per_epoch is not None
    once = isinstance(source, Iterator) and not continues
    items = cast("Iterable[Any]", source)
    return Stream(lambda epoch: items, length, continues, full or _is_full(source), once, _kind(source))


def _is_full(source: Any) -> bool:
    """Whether the source shows that its last batch is as long as the others."""
    if isinstance(source, list):
        ends = cast("list[Any]", source)[:: max(1, len(cast("list[Any]", source)) - 1)]
        return len({len(jax.tree.leaves(each)[0]) for each in ends if np.ndim(jax.tree.leaves(each)[0])}) == 1
    return getattr(source, "drop_last", False) is True


def stream_blocks(
    data: Batch, batch_size: int, *, key: Key | None = None, rows_per_block: int = 1024, blocks_at_once: int = 16
) -> Stream:
    """Batches from arrays that are not in memory, as ``numpy.load(path, mmap_mode="r")``, read in shuffled blocks.

    A block is some rows that follow each other, which a disk reads fast. In each epoch the blocks are read in a new
    order, some at once, and the rows of these are shuffled together. So every row is read once in an epoch, and rows
    that are near each other on the disk stay near each other in time: by ``blocks_at_once`` of all blocks at the most.

    Args:
        data: arrays ``[N, ...]`` of any kind that has ``shape``, ``dtype`` and slices of rows: memory-mapped, HDF5,
            Zarr. What was sorted by class is best shuffled once on the disk.
        batch_size: that of the recipe. The last batch has the rows that are left.
        key: with which the order is drawn, anew in each epoch; None to read the rows in their order.
        rows_per_block: the rows that are read in one piece.
        blocks_at_once: the blocks in memory.

    Returns:
        A :class:`Stream`. A run that goes on from a checkpoint reads on where it stood.

    Raises:
        TypeError, ValueError: ``data`` are no such arrays, or of different lengths; there are fewer rows than
            ``batch_size``.

    >>> rows = Batch(np.arange(10.0)[:, None], np.arange(10))
    >>> train = stream_blocks(rows, 4, key=jax.random.key(0), rows_per_block=2)
    >>> train.length, sorted(int(y) for batch in train.batches(0) for y in batch.y)
    (3, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    if not isinstance(data, Batch):
        raise TypeError(f"data: expected a Batch(x, y, weight), got {shown(data)}")
    for name, value in (("batch_size", batch_size), ("rows_per_block", rows_per_block)):
        check_positive_int(name, value)
    check_positive_int("blocks_at_once", blocks_at_once)
    if key is not None:
        check_key("key", key)
    rows = _count_rows(data)
    if rows < batch_size:
        raise ValueError(f"batch_size: expected at most the number of rows, {rows}, got {batch_size}")
    seed = None if key is None else np.asarray(_key_numbers(key)).reshape(-1).tolist()
    sizes = _Sizes(rows, batch_size, rows_per_block, blocks_at_once)
    order = "in their order" if seed is None else f"shuffled with {seed}"
    description = f"{rows} rows in blocks of {rows_per_block}, {blocks_at_once} at once, {order}"
    return Stream(
        lambda epoch: _Blocks(data, sizes, None if seed is None else [*seed, epoch]),
        -(-rows // batch_size),
        False,
        rows % batch_size == 0,
        False,
        description,
    )


class _Sizes(NamedTuple):
    """The numbers of :func:`stream_blocks`."""

    rows: int
    batch_size: int
    rows_per_block: int
    blocks_at_once: int


class _Blocks:
    """The batches of one epoch of :func:`stream_blocks`, an iterator with Grain's two functions for its place."""

    def __init__(self, data: Batch, sizes: _Sizes, seed: list[int] | None) -> None:
        self._data, self._sizes, self._seed = data, sizes, seed
        self.set_state({"batches": 0})

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self._done += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """Where it stands: how many batches it has given."""
        return {"batches": self._done}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Continues at the position that ``get_state`` returned, without reading the batches before it."""
        self._done = state["batches"]
        self._batches = _block_batches(self._data, self._sizes, self._seed, self._done)


def _block_batches(data: Batch, sizes: _Sizes, seed: list[int] | None, skip: int) -> Iterator[Batch]:
    """The batches of an epoch but the first ones. Rows that fill no batch are shuffled with the next blocks."""
    random = None if seed is None else np.random.default_rng(seed)
    blocks = np.arange(-(-sizes.rows // sizes.rows_per_block))
    blocks = blocks if random is None else random.permutation(blocks)
    rest: NDArray[Any] = np.empty(0, np.int64)  # row numbers
    for first in range(0, len(blocks), sizes.blocks_at_once):
        starts = blocks[first : first + sizes.blocks_at_once] * sizes.rows_per_block
        spans = [(int(start), min(int(start) + sizes.rows_per_block, sizes.rows)) for start in starts]
        rows = np.concatenate([rest, *(np.arange(*span) for span in spans)])
        order = np.arange(len(rows)) if random is None else random.permutation(len(rows))
        is_last = first + sizes.blocks_at_once >= len(blocks)
        full = len(rows) if is_last else len(rows) // sizes.batch_size * sizes.batch_size
        count = -(-full // sizes.batch_size)
        before, rest = rest, rows[order[full:]]
        if skip < count:
            pool = jax.tree.map(lambda leaf, before=before, spans=spans: _read(leaf, before, spans), data)
            pool = pool if random is None else jax.tree.map(lambda leaf, order=order: leaf[order], pool)
            for index in range(skip, count):
                part = slice(index * sizes.batch_size, min((index + 1) * sizes.batch_size, full))
                yield jax.tree.map(lambda leaf, part=part: leaf[part], pool)
        skip = max(0, skip - count)


def _read(leaf: Any, rows: NDArray[Any], spans: list[tuple[int, int]]) -> NDArray[Any]:
    """Single rows, fewer than a batch, and then whole spans."""
    single = [np.asarray(leaf[int(row) : int(row) + 1]) for row in rows]
    return np.concatenate([*single, *(np.asarray(leaf[start:stop]) for start, stop in spans)])


def _count_rows(data: Batch) -> int:
    lengths: dict[str, int] = {}
    for path, leaf in named_leaves(data):
        shape: Any = getattr(leaf, "shape", ())
        if not (len(shape) and hasattr(leaf, "dtype") and hasattr(leaf, "__getitem__")):
            raise TypeError(f"data.{path}: expected an array [N, ...] with slices of rows, got {shown(leaf)}")
        lengths[path] = int(shape[0])
    if len(set(lengths.values())) != 1:
        raise ValueError(f"data: expected equally many rows, got {lengths}")
    return next(iter(lengths.values()))


def _key_numbers(key: Key) -> Any:
    return jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key


def batch_of(value: Any) -> Batch:
    """What a source gives as a ``Batch`` of NumPy arrays.

    Raises:
        TypeError: it is none, or has something that is no array.
    """
    if isinstance(value, Batch):
        batch = value
    elif isinstance(value, Mapping) and {"x", "y"} <= value.keys() <= {"x", "y", "weight"}:
        batch = Batch(**cast("Mapping[str, Any]", value))
    elif isinstance(value, (tuple, list)) and len(cast("list[Any]", value)) in (2, 3):
        batch = Batch(*cast("list[Any]", value))
    else:
        raise TypeError(
            f'expected a Batch, (x, y), (x, y, weight) or {{"x": x, "y": y}}, got {_kind(value)} {shown(value)}'
        )
    return jax.tree.map(_as_numpy, batch)


def _as_numpy(leaf: Any) -> NDArray[Any]:
    if isinstance(leaf, np.ndarray):
        return leaf
    if not hasattr(leaf, "__array__") and not hasattr(leaf, "__dlpack__"):
        raise TypeError(f"expected arrays with the rows first, got {_kind(leaf)} {shown(leaf)}")
    return np.asarray(leaf) if hasattr(leaf, "__array__") else np.from_dlpack(leaf)


def _kind(value: Any) -> str:
    return type(value).__name__


def iterator_of(stream: Stream, epoch: int) -> Iterator[Any]:
    """A new iterator of an epoch's batches.

    Raises:
        TypeError: what the source gives is no iterable.
    """
    batches: Any = stream.batches(epoch)
    try:
        return iter(batches)
    except TypeError as error:
        raise TypeError(f"train: expected an iterable of batches in epoch {epoch}, got {shown(batches)}") from error
