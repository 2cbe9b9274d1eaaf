"""Splits of a data set into disjoint parts, by key: on the host, exact in size, stratified by class.

The order comes from the key alone, not from JAX's version or the device: the rows are sorted by raw draws of a
counter-based generator that is seeded with the key's data.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._arguments import check_choice, check_key, check_number, check_positive_int
from jaxopt_nn.data._checks import check_concrete, is_integer, num_examples
from jaxopt_nn.types import Batch, Key

__all__ = ["Stratify", "kfold", "permutation", "split"]

Stratify = bool | Literal["auto"]


def split(key: Key, batch: Batch, fractions: Sequence[float], *, stratify: Stratify = "auto") -> tuple[Batch, ...]:
    """Disjoint random parts that together are the whole data set, such as train, validation and test.

    Part ``i`` has ``floor(N f_i)`` rows, and one more where the remainder ``N f_i - floor(N f_i)`` is among the largest
    (equal ones: the earlier part). Stratified, a class has within one of its share of part ``i``: ``n_c N_i / N`` rows
    of a class of ``n_c`` rows, where part ``i`` has ``N_i``.

    Args:
        key: one PRNG key, concrete. Equal keys give equal splits.
        batch: the data set, concrete; ``x`` and ``y`` may be pytrees.
        fractions: positive numbers that sum to 1, static.
        stratify: True keeps the class proportions of ``y``, integer labels ``[N]``; False does not look at ``y``;
            ``"auto"`` does so where ``y`` is such labels.

    Returns:
        One Batch of NumPy arrays for each fraction, its rows in random order.

    Raises:
        TypeError: ``key`` is no key; ``stratify=True`` without integer labels ``[N]``; something is traced.
        ValueError: the fractions do not sum to 1, or a part would be empty.

    Example:
        >>> data = Batch(np.arange(10.0, dtype=np.float32)[:, None], np.array([0] * 5 + [1] * 5))
        >>> train, test = split(jax.random.key(0), data, (0.8, 0.2))
        >>> sorted(train.y.tolist()), sorted(test.y.tolist())
        ([0, 0, 0, 0, 1, 1, 1, 1], [0, 1])
    """
    rows = _check("split", key, batch)
    parts = _check_fractions(fractions)
    sizes = _largest_remainder(rows, parts)
    for i, (size, fraction) in enumerate(zip(sizes, parts, strict=True)):
        if size == 0:
            raise ValueError(
                f"fractions[{i}]: part {i} of {len(parts)} would be empty: {fraction:g} of {rows} examples is 0 rows"
            )
    labels, order = _labels(batch, stratify), permutation(key, rows)
    part_of = _assign(sizes, None if labels is None else labels[order])
    return tuple(_take(batch, order[part_of == i]) for i in range(len(sizes)))


def kfold(key: Key, batch: Batch, k: int, *, stratify: Stratify = "auto") -> Iterator[tuple[Batch, Batch]]:
    """``k`` pairs ``(train, valid)`` for cross-validation: each row is in one ``valid``, and in all other ``train``.

    Fold sizes differ by one row at most, and so do, stratified, the rows of a class in them.

    Args:
        key: one PRNG key, concrete.
        batch: the data set, concrete.
        k: number of folds, ``2 <= k <= N``, static.
        stratify: as in :func:`split`.

    Returns:
        Iterator over ``k`` pairs of Batches of NumPy arrays; a pair is made when it is asked for.

    Raises:
        TypeError: as :func:`split`.
        ValueError: ``k`` is out of range.

    Example:
        >>> data = Batch(np.ones((7, 2), np.float32), np.zeros(7, np.int32))
        >>> [(len(train.y), len(valid.y)) for train, valid in kfold(jax.random.key(0), data, 3)]
        [(4, 3), (5, 2), (5, 2)]
    """
    rows = _check("kfold", key, batch)
    check_positive_int("k", k, high=rows)
    if k < 2:
        raise ValueError(f"k: expected at least 2 folds, got {k}")
    labels, order = _labels(batch, stratify), permutation(key, rows)
    part_of = np.empty(rows, np.int64)
    # Sorted by class, every k-th row: that spreads each class, and all rows, evenly.
    part_of[slice(None) if labels is None else np.argsort(labels[order], kind="stable")] = np.arange(rows) % k
    return ((_take(batch, order[part_of != i]), _take(batch, order[part_of == i])) for i in range(k))


def _check(caller: str, key: Key, batch: Batch) -> int:
    check_key("key", key)
    check_concrete(f"{caller}: key", key)
    rows = num_examples("batch", batch)
    check_concrete(f"{caller}: batch", batch)
    return rows


def _check_fractions(fractions: Sequence[float]) -> NDArray[np.float64]:
    if isinstance(fractions, (int, float, str)) or not hasattr(fractions, "__len__"):
        raise TypeError(f"fractions: expected a sequence of numbers such as (0.8, 0.2), got {fractions!r}")
    for i, fraction in enumerate(fractions):
        check_number(f"fractions[{i}]", fraction, 0.0, 1.0, open_low=True)
    parts = np.array([float(fraction) for fraction in fractions])
    total = float(parts.sum())
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"fractions: expected a sum of 1, got {total:g} from {tuple(parts.tolist())}")
    return parts / total


def _labels(batch: Batch, stratify: Stratify) -> NDArray[Any] | None:
    check_choice("stratify", stratify, True, False, "auto")
    y = batch.y
    has_labels = hasattr(y, "dtype") and is_integer(y.dtype) and y.ndim == 1
    if stratify and stratify != "auto" and not has_labels:
        got = f"{y.dtype}{list(y.shape)}" if hasattr(y, "dtype") else type(y).__name__
        raise TypeError(f"stratify: expected integer labels batch.y [N] to stratify by, got {got}; use stratify=False")
    return np.asarray(y) if stratify and has_labels else None


def _assign(sizes: NDArray[np.int64], labels: NDArray[Any] | None) -> NDArray[np.int64]:
    """The part that each row belongs to, for rows in random order with these labels."""
    if labels is None:
        return np.repeat(np.arange(len(sizes)), sizes)
    _, counts = np.unique(labels, return_counts=True)
    part_of = np.empty(len(labels), np.int64)
    shares = _allocate(counts, sizes).ravel()
    part_of[np.argsort(labels, kind="stable")] = np.repeat(np.tile(np.arange(len(sizes)), len(counts)), shares)
    return part_of


def permutation(key: Key, rows: int, *more: int) -> NDArray[np.int64]:
    """The order of rows that a key, and more numbers, determine."""
    # NumPy promises the streams of SeedSequence and of bit generators for ever, unlike those of Generator.permutation;
    # jax.random.permutation would compile a program for every number of rows.
    words = np.asarray(jax.random.key_data(key)).ravel()
    bits = np.random.Philox(np.random.SeedSequence([*map(int, words), *more])).random_raw(rows)
    return np.argsort(bits, kind="stable")


def _largest_remainder(rows: int, parts: NDArray[np.float64]) -> NDArray[np.int64]:
    quotas = np.round(rows * parts, 9)  # equal fractions must have equal remainders
    sizes = np.floor(quotas).astype(np.int64)
    most = np.argsort(-np.round(quotas - sizes, 9), kind="stable")
    sizes[most[: rows - sizes.sum()]] += 1
    return sizes


def _allocate(counts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of each class (first axis) in each part (second axis), with exactly these sums along both axes.

    Every cell starts at the floor of its quota. What a class still has goes, one row each, to the parts that lack most:
    the construction of Gale and Ryser, which finds a table of floors and floors + 1 if there is one. There is: the
    quotas themselves have these sums, and a table with whole sums can be rounded without changing them.
    """
    table = counts[:, None] * sizes[None, :] // sizes.sum()
    lacking = sizes - table.sum(axis=0)
    for row, left in zip(table, counts - table.sum(axis=1), strict=True):
        chosen = np.argsort(-lacking, kind="stable")[:left]
        row[chosen] += 1
        lacking[chosen] -= 1
    return table


def _take(batch: Batch, rows: NDArray[np.int64]) -> Batch:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], batch)
