"""What data say of themselves before training: constant or shuffled labels, leaks, scales, duplicates. All in NumPy."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_nn.types import Batch

__all__ = ["Measured", "classes_of", "duplicates", "leak", "relation", "sample_rows", "scales", "table"]

Matrix = np.ndarray[Any, Any]

_NUMBERS = 20_000_000  # of a sample of rows, at the most
_LEAST_ROWS = 100  # fewer tell too little of a relation
_NEIGHBOURS = 5
_CLEAR = 3.5  # standard deviations
_BITS = 40.0  # of information in a row, from which on equal rows are no chance


class Measured(NamedTuple):
    """One number and what to say of it.

    Attributes:
        figure: the number.
        text: a sentence, or "" where nothing is wrong.
    """

    figure: float
    text: str


def table(x: Any) -> Matrix | None:
    """The features as a matrix ``[N, D]`` of floats; None without any numbers."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(x)]
    if not leaves or any(leaf.dtype.kind not in "fiub" and leaf.dtype.name != "bfloat16" for leaf in leaves):
        return None
    return np.concatenate([leaf.reshape(len(leaf), -1).astype(np.float32) for leaf in leaves], 1)


def sample_rows(batch: Batch, limit: int = 2000) -> Batch:
    """Some of the rows that have weight, evenly spread, in NumPy."""
    leaves = jax.tree.leaves(batch.x)
    rows = np.arange(len(leaves[0]))
    if batch.weight is not None:
        rows = rows[np.asarray(batch.weight) > 0]
    width = sum(math.prod(leaf.shape[1:]) for leaf in leaves)
    count = min(len(rows), limit, max(_LEAST_ROWS, _NUMBERS // max(width, 1)))
    chosen = rows[np.linspace(0, len(rows) - 1, count).astype(int)] if count else rows
    return jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], batch)


def classes_of(y: Any) -> Matrix | None:
    """Targets ``[N]`` as classes 0, 1, …; of one-hot rows or distributions the likeliest; None if they are numbers."""
    if not hasattr(y, "dtype") or y.ndim not in (1, 2) or not len(y):
        return None
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        rows = y.astype(np.float64)
        is_distribution = rows.shape[1] > 1 and bool((rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-2))
        return rows.argmax(1) if is_distribution else None
    labels, classes = np.unique(y, return_inverse=True)
    whole = y.dtype.kind in "iub" or bool((labels == np.round(labels)).all())
    return classes if whole and len(labels) <= max(2, len(y) ** 0.5) else None


def numbers_of(y: Any) -> Matrix | None:
    """Targets as ``[N, K]`` floats."""
    if not hasattr(y, "dtype") or y.ndim < 1 or np.asarray(y).dtype.kind not in "fiub":
        return None
    return np.asarray(y).reshape(len(y), -1).astype(np.float64)


def relation(x: Matrix, y: Any) -> Measured | None:
    """How clearly targets depend on features, in standard deviations: nearest neighbours, and a linear model.

    The clearest one of the classes or numbers counts. Shuffled labels stay below 3.5 in 99 of 100 cases.
    """
    chosen = np.linspace(0, len(x) - 1, min(len(x), 1000)).astype(int)
    x, classes, numbers = x[chosen].astype(np.float64), classes_of(y), numbers_of(y)
    if len(x) < _LEAST_ROWS or (classes is None and numbers is None):
        return None
    if classes is not None:
        classes = classes[chosen]
        targets = np.concatenate([np.eye(int(classes.max()) + 1)[classes], classes[:, None]], 1)  # they may be ordered
    else:
        assert numbers is not None
        targets = numbers[chosen, :16]
    targets = targets[:, targets.std(0) > 0]
    if not targets.shape[1]:
        return None
    x = x[:, x.std(0) > 0]
    x = (x - x.mean(0)) / x.std(0) if x.shape[1] else np.zeros((len(x), 1))
    products = x @ x.T / x.shape[1]
    distance = np.diag(products)[:, None] + np.diag(products)[None] - 2 * products
    np.fill_diagonal(distance, np.inf)
    nearest = targets[distance.argsort(1)[:, :_NEIGHBOURS]].mean(1)
    linear = np.zeros_like(targets)
    folds = np.arange(len(x)) % 5
    for fold in range(5):
        known, asked = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        mean = targets[known].mean(0)
        kernel = products[np.ix_(known, known)] + 0.1 * np.eye(len(known))
        linear[asked] = mean + products[np.ix_(asked, known)] @ np.linalg.solve(kernel, targets[known] - mean)
    z = max(_correlation(nearest, targets), _correlation(linear, targets)) * len(x) ** 0.5
    text = (
        f"the targets do not seem to depend on the features: nearest neighbours and a linear model are {z:.1f} "
        f"standard deviations above chance, on {len(x)} rows; are they shuffled, or in another order?"
    )
    return Measured(z, "" if z >= _CLEAR else text)


def _correlation(a: Matrix, b: Matrix) -> float:
    """Of the columns of two tables: the largest."""
    a, b = (each - each.mean(0) for each in (a, b))
    a, b = a / np.maximum(a.std(0), 1e-12), b / np.maximum(b.std(0), 1e-12)
    return float((a * b).mean(0).max())


def leak(x: Matrix, y: Any) -> Measured | None:
    """How well the best single feature tells the target: 1 is a copy of it."""
    classes, numbers = classes_of(y), numbers_of(y)
    if len(x) < 50 or numbers is None or np.array_equal(x, numbers):  # an autoencoder
        return None
    best, column = 0.0, -1
    if classes is not None and len(np.unique(classes)) > 1:
        for index in np.flatnonzero(x.std(0) > 0):
            score = _separation(x[:, index], classes)
            best, column = max((best, column), (score, int(index)))
    elif classes is None:
        a = x.astype(np.float64) - x.mean(0, dtype=np.float64)
        b = numbers - numbers.mean(0)
        norms = np.linalg.norm(a, axis=0)[:, None] * np.linalg.norm(b, axis=0)[None]
        share = np.where(norms > 0, np.abs(a.T @ b) / np.where(norms > 0, norms, 1), 0)
        best, column = float(share.max()), int(share.max(1).argmax())
    text = f"feature {column} is the target itself, or a copy of it with little noise (agreement {best:.4f})"
    return Measured(best, text if best > (0.9 if classes is not None else 0.9999) else "")


def _separation(values: Matrix, classes: Matrix) -> float:
    """1 where each class has its own value and no other; 0 where values of different classes mix.

    Also where one class has one value, and all others another one.
    """
    ranges = [(values[classes == each].min(), values[classes == each].max()) for each in np.unique(classes)]
    ranges.sort()
    widest = max(high - low for low, high in ranges)
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(ranges)]
    distinct = np.unique(values)
    if len(distinct) == 2 and len(ranges) > 2 and widest == 0:
        return 1.0
    return float(max(0.0, min(gaps)) / (max(0.0, min(gaps)) + widest)) if min(gaps) > 0 else 0.0


def scales(x: Matrix) -> Measured:
    """The largest spread or offset of a feature; the sentence if it is far from 1, or far from those of the others."""
    spread, offset = x.std(0, dtype=np.float64), np.abs(x.mean(0, dtype=np.float64))
    spread = spread[spread > 0]
    if not len(spread):
        return Measured(0.0, "the features are constant (the largest standard deviation is 0)")
    low, high, middle = float(spread.min()), float(max(spread.max(), offset.max())), float(np.median(spread))
    if high > 30:
        text = f"the features are not scaled: standard deviations from {low:.3g} to {spread.max():.3g}, means up to "
        return Measured(high, text + f"{offset.max():.3g}")
    if spread.max() > 100 * middle and spread.max() > 5:
        return Measured(high, f"one feature is {spread.max() / middle:.0f} times as large as most")
    if high < 0.01:
        return Measured(high, f"the features are tiny: the largest standard deviation is {spread.max():.2g}")
    return Measured(high, "")


def duplicates(train: Batch, valid: Batch) -> Measured | None:
    """The share of validation rows whose features are in the training set, where that is no chance."""
    if any(np.asarray(leaf).dtype.kind not in "fiub" for leaf in jax.tree.leaves((train.x, valid.x))):
        return None
    known, asked = set(_digests(train)), _digests(valid)
    twice = sum(row in known for row in asked)
    share = twice / max(len(asked), 1)
    rows = table(sample_rows(train, 500).x)
    if not twice or rows is None or _information(rows) < _BITS:
        return Measured(share, "")
    text = f"{twice} of {len(asked)} validation rows ({share:.1%}) are in the training set too"
    return Measured(share, text if share > 0.01 else "")


def _digests(batch: Batch) -> list[bytes]:
    leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(batch.x)]
    return [b"".join(leaf[row].tobytes() for leaf in leaves) for row in range(len(leaves[0]))]


def _information(rows: Matrix) -> float:
    """Bits that tell two rows apart, if features were independent: the sum over features of their collision entropy."""
    bits = 0.0
    for column in rows.T:
        shares = np.unique(column, return_counts=True)[1] / len(column)
        bits -= math.log2(float((shares**2).sum()))
        if bits >= _BITS:
            break
    return bits
