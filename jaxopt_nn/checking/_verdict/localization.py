"""Where a leaf's gradient is wrong, and how: single coordinates, and the simplest rule that explains the difference."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.checking._report import Coordinate
from jaxopt_nn.checking._sampling.differences import Floats
from jaxopt_nn.checking._sampling.directions import Line, coordinate, part, project
from jaxopt_nn.checking._sampling.lines import Sample
from jaxopt_nn.checking._verdict.comparison import Comparison, Tolerance, compare
from jaxopt_nn.checking._verdict.diagnoses import constant_ratio, ratio_text

__all__ = ["Places", "bisect", "count_text", "measure", "worst_places"]

Look = Callable[[list[Line]], Sample]


class Places(NamedTuple):
    """Coordinates of a leaf, each compared.

    Attributes:
        flat: ``[k]`` their places in the flattened leaf.
        claimed: ``[k]`` claimed partial derivatives.
        comparison: their comparison, ``[k]`` entries each.
    """

    flat: NDArray[np.int64]
    claimed: Floats
    comparison: Comparison


def measure(
    look: Look, claimed: Floats, flat: NDArray[np.int64], block: int, norm: float | None, tolerance: Tolerance
) -> Places:
    """Differences at the coordinates ``flat``, in blocks; ``norm`` is the unit of ``rtol``, None: each slope's own."""
    partial = claimed.ravel()[flat]
    parts = [Comparison(*(np.zeros(0) for _ in Comparison._fields))]
    for start in range(0, len(flat), block):
        own, places = partial[start : start + block], flat[start : start + block]
        slopes = look([coordinate(int(i)) for i in places]).slopes
        unit = np.fmax(np.abs(own), np.abs(slopes.value)) if norm is None else norm
        parts.append(compare(own, slopes, unit, tolerance))
    return Places(flat, partial, Comparison(*(np.concatenate(column) for column in zip(*parts, strict=True))))


def bisect(
    look: Look,
    claimed: Floats,
    words: tuple[int, ...],
    block: int,
    norm: float,
    tolerance: Tolerance,
    keep: NDArray[np.bool_] | None = None,
) -> int:
    """A wrong coordinate of a large leaf in O(block · log size) lines: the worst of ``block`` parts, again and again.

    Random signs on a part give a slope error of about the norm of the part's error.
    """
    low, high = 0, claimed.size
    while high - low > 1:
        edges = [int(edge) for edge in np.unique(np.linspace(low, high, block + 1).round())]
        lines = [part(words, a, b, keep) for a, b in itertools.pairwise(edges)]
        comparison = compare(project(claimed, lines), look(lines).slopes, norm, tolerance)
        excess = np.abs(comparison.residual) - comparison.error
        worst = lines[int(np.argmax(np.where(np.isnan(excess), -np.inf, excess)))]
        low, high = worst.low, worst.high
    return low


def worst_places(places: Places, shape: tuple[int, ...], units: Floats, count: int = 3) -> tuple[Coordinate, ...]:
    """The ``count`` worst of the wrong places, worst first; ``units`` are those of the leaf's coordinates."""
    comparison = places.comparison
    order = sorted(np.flatnonzero(comparison.wrong), key=lambda i: -abs(float(comparison.residual[i])))[:count]
    coordinates: list[Coordinate] = []
    for i in order:
        flat = int(places.flat[i])
        unit = float(np.broadcast_to(units, shape).ravel()[flat])
        place = tuple(int(axis) for axis in np.unravel_index(flat, shape))
        numbers = (places.claimed[i], comparison.numeric[i], comparison.error[i])
        coordinates.append(Coordinate(place, *(float(number) / unit for number in numbers)))
    return tuple(coordinates)


def count_text(places: Places, shape: tuple[int, ...] = ()) -> str:
    """How many of all coordinates are wrong, whether they are whole rows, and by which factor if it is one."""
    wrong = places.comparison.wrong
    count = int(np.sum(wrong))
    part = Comparison(*(column[wrong] for column in places.comparison))
    claimed = places.claimed[wrong]
    if count > 1 and (row := _whole_rows(places.flat[wrong], shape)):
        # Where nothing is claimed: a row, an example or a step of time that was left out.
        return f"{row} " + ("wrong, and all others right" if np.any(claimed) else "missing in the claimed gradient")
    ratio = constant_ratio(claimed, part.numeric, part.error, part.bound) if count > 1 else None
    return f"{count} of {len(wrong)} coordinates are wrong" + (f"; there {ratio_text(*ratio)}" if ratio else "")


def _whole_rows(flat: NDArray[np.int64], shape: tuple[int, ...]) -> str:
    """The one index of an axis at which all coordinates in ``flat`` lie, if they are most of it; else empty."""
    if len(shape) < 2:
        return ""
    for axis, indices in enumerate(np.unravel_index(flat, shape)):
        size = int(np.prod(shape)) // shape[axis]
        if len(set(indices.tolist())) == 1 and 2 * len(flat) > size:
            index = int(indices[0])
            last = " (the last)" if index == shape[axis] - 1 else " (the first)" if index == 0 else ""
            return f"index {index}{last} of axis {axis}: {len(flat)} of its {size} coordinates are"
    return ""
