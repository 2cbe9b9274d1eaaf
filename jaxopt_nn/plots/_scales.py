"""Axes for the values of hyperparameters and of objectives, which may be names, zeros, or spread over decades."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOG", "Scale", "format_value", "height", "marks", "scale_of", "use_log", "window"]

_FEW = 12  # values that each get a place of their own
LOG = 30.0  # the ratio of largest to smallest from which an axis is logarithmic


class Scale(NamedTuple):
    """How the values of one hyperparameter lie on an axis.

    Attributes:
        positions: from a value to its place.
        ticks: places that are labelled; None where matplotlib chooses.
        labels: of the ticks.
        log: whether the axis is logarithmic.
        ends: the lowest and the highest place.
    """

    positions: Any
    ticks: list[float] | None
    labels: list[str]
    log: bool
    ends: tuple[float, float]


def _is_number(value: Any) -> bool:
    """Whether it is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _distinct(values: Sequence[Any]) -> list[Any]:
    """The different values: numbers in order, else as they come."""
    found = list(dict.fromkeys(values))
    return sorted(found) if all(map(_is_number, found)) else found


def scale_of(values: Sequence[Any]) -> Scale:
    """A place for each of few values, which may be anything; an axis of numbers for many."""
    found = _distinct(values)
    if len(found) <= _FEW or not all(map(_is_number, found)):
        places = {value: float(place) for place, value in enumerate(found)}
        return Scale(
            places.__getitem__,
            list(places.values()),
            [format_value(value) for value in found],
            False,
            (0.0, len(found) - 1.0),
        )
    return Scale(float, None, [], use_log(np.array(found, np.float64)), (float(found[0]), float(found[-1])))


def height(scale: Scale, value: Any) -> float:
    """The place of a value between 0 and 1."""
    place = scale.positions(value)
    low, high = scale.ends
    if scale.log:
        place, low, high = np.log([place, low, high])
    return float((place - low) / (high - low)) if high > low else 0.5


def marks(scale: Scale) -> list[tuple[float, str]]:
    """Heights and labels: of each of few values, of five numbers between the ends of many."""
    if scale.ticks is not None:
        low, high = scale.ends
        return [
            ((tick - low) / (high - low) if high > low else 0.5, label)
            for tick, label in zip(scale.ticks, scale.labels, strict=True)
        ]
    between = np.geomspace if scale.log else np.linspace
    return [
        (place, format_value(float(f"{value:.2g}")))
        for place, value in zip(np.linspace(0, 1, 5), between(*scale.ends, 5), strict=True)
    ]


def use_log(values: NDArray[Any]) -> bool:
    """Whether the finite ones are positive and spread over decades."""
    finite = values[np.isfinite(values)]
    return len(finite) > 1 and bool(finite.min() > 0) and bool(finite.max() / finite.min() >= LOG)


def window(values: NDArray[Any], mode: str) -> tuple[float, float]:
    """The range to show: from the best to far above the median, so that a bad value does not flatten the others."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    sign = 1.0 if mode == "min" else -1.0
    ranked = np.sort(sign * finite)
    best, middle = ranked[0], ranked[len(ranked) // 2]
    end = min(ranked[-1], best + 3 * (middle - best)) if middle > best else ranked[-1]
    low, high = sorted((sign * best, sign * end))
    return float(low), float(high)


def format_value(value: Any) -> str:
    """A value as a label: short."""
    if isinstance(value, tuple):
        return "–".join(format_value(each) for each in value)
    if isinstance(value, float) and value and not 1e-2 <= abs(value) < 1e4:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(getattr(value, "__name__", value))
