"""From values of f along a line to its slope at the middle, with an error bar. Host code: NumPy in float64.

B lines are sampled at ``-h_j, 0, h_j`` for a ladder of steps ``h_0 > h_1 > ...`` of constant ratio. Central
differences err by ``c2 h² + c4 h⁴ + ...`` plus round-off ``ε / h``; Neville's table (Richardson, Ridders) removes the
first terms. Each entry's error is taken as the largest of

- how far it is from the two entries it was made of (Ridders), and the lines' median of that, because one line's
  two entries may agree by accident;
- its round-off, with ε measured on the lines;
- how far entries of smaller steps contradict it beyond their own round-off: a kink or a period between two steps.

The entry of the smallest error wins. One-sided slopes (powers 1, 2, 3 instead of 2, 4, 6) come the same way. No error
is below what rounding the numbers on the way to f does: a relative change of 2⁻⁵² there moves the slope by f's second
derivative times that, at every step alike.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LADDER", "ROUND_OFF_OF_F", "Slopes", "chi_square_quantile", "round_off", "slopes_at_zero"]

Floats = NDArray[np.float64]

LADDER = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""Steps relative to the leaf. Long, because the smallest must lie below the nearest kinks of a net of many ReLUs."""


ROUND_OFF_OF_F = 1e-13
"""A gradient times the leaf's scale that is this small beside f may be what round-off leaves of zero."""

_ROUNDINGS = 4  # on the way to f


class Slopes(NamedTuple):
    """Slopes of B lines at their middle; NaN with an infinite error where f is not finite around it.

    Attributes:
        value: ``[B]`` two-sided slopes.
        sigma: ``[B]`` their error bars.
        step: ``[B]`` the smallest step each value rests on.
        left: ``[B]`` slopes from below.
        left_sigma: ``[B]`` their error bars.
        right: ``[B]`` slopes from above.
        right_sigma: ``[B]`` their error bars.
    """

    value: Floats
    sigma: Floats
    step: Floats
    left: Floats
    left_sigma: Floats
    right: Floats
    right_sigma: Floats


def slopes_at_zero(
    middle: Floats, above: Floats, below: Floats, steps: Floats, noise: float, unit: float = 1.0
) -> Slopes:
    """Two-sided and one-sided slopes of a block of lines.

    Args:
        middle: ``[B]`` values at 0.
        above: ``[B, m]`` values at ``steps``.
        below: ``[B, m]`` values at ``-steps``.
        steps: ``[m]`` steps, decreasing by a constant ratio.
        noise: round-off of one value.
        unit: the size of the numbers that are moved, and of those that they are added to; at least 1 counts.

    Returns:
        The slopes with their error bars.

    >>> h = np.array(LADDER)
    >>> s = slopes_at_zero(np.array([1.0]), np.exp(h)[None], np.exp(-h)[None], h, 1e-16)
    >>> bool(abs(s.value[0] - 1) < 1e-11), bool(s.sigma[0] < 1e-11)
    (True, True)

    References:
        Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Advances in Engineering Software 4 (1982).
    """
    with np.errstate(all="ignore"):
        value, sigma, step = _extrapolate((above - below) / (2 * steps), steps, noise, (2, 4, 6))
        left, left_sigma, _ = _extrapolate((middle[:, None] - below) / steps, steps, 2 * noise, (1, 2, 3))
        right, right_sigma, _ = _extrapolate((above - middle[:, None]) / steps, steps, 2 * noise, (1, 2, 3))
        bent = np.abs(above + below - 2 * middle[:, None]) / steps**2
    largest = np.argmax(np.isfinite(bent), axis=1)  # the largest step that is of use
    floor = _ROUNDINGS * 2.0**-52 * max(unit, 1.0) * np.nan_to_num(bent[np.arange(len(bent)), largest])
    sigma, left_sigma, right_sigma = (np.maximum(bars, floor) for bars in (sigma, left_sigma, right_sigma))
    return Slopes(value, sigma, step, left, left_sigma, right, right_sigma)


def round_off(middle: Floats, above: Floats, below: Floats, steps: Floats) -> float:
    """Round-off of one value of f, measured where it shows: between the two smallest steps, as the lines' median."""
    floor = 2.0**-53 * float(np.max(np.abs(middle)))
    with np.errstate(all="ignore"):
        slopes = (above[:, -2:] - below[:, -2:]) / (2 * steps[-2:])
        change = np.abs(slopes[:, 1] - slopes[:, 0])
    finite = change[np.isfinite(change)]
    # The factor 3 turns the median of a few draws of a normal law into a standard deviation it is rarely below.
    return max(floor, 3 * float(np.median(finite)) * float(steps[-1])) if finite.size else floor


def chi_square_quantile(probability: float, degrees: int) -> float:
    """The x with P(χ² <= x) = ``probability`` for k = ``degrees``, by bisection on the series of P(k/2, x/2).

    >>> round(chi_square_quantile(0.05, 4), 6)
    0.710723
    """
    low, high = 0.0, 1.0
    while _chi_square_cdf(high, degrees) < probability:
        high *= 2
    while high - low > 1e-13 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _chi_square_cdf(middle, degrees) < probability else (low, middle)
    return high


def _extrapolate(slopes: Floats, steps: Floats, noise: float, powers: tuple[int, ...]) -> tuple[Floats, Floats, Floats]:
    ratio = steps[0] / steps[1]
    round_offs = noise / steps
    values: list[Floats] = []
    errors: list[Floats] = []
    smallest: list[Any] = []
    column = slopes
    for level in range(len(powers) + 1):
        if level == 0:
            entries, error = column[:, 1:], np.abs(column[:, 1:] - column[:, :-1])
        else:
            factor = ratio ** powers[level - 1]
            entries = (factor * column[:, 1:] - column[:, :-1]) / (factor - 1)
            error = np.maximum(np.abs(entries - column[:, 1:]), np.abs(entries - column[:, :-1]))
            column = entries
        error = np.where(np.isfinite(error), error, np.inf)
        own_steps, own_round_off = steps[-entries.shape[1] :], round_offs[-entries.shape[1] :]
        error = np.maximum(np.maximum(error, _median(error)), own_round_off)
        for j in range(entries.shape[1]):
            contradiction = np.abs(entries[:, j + 1 :] - entries[:, j : j + 1]) - 3 * own_round_off[j + 1 :]
            contradiction = np.max(np.where(np.isnan(contradiction), np.inf, contradiction), axis=1, initial=0.0)
            values.append(entries[:, j])
            errors.append(np.maximum(error[:, j], contradiction))
            smallest.append(own_steps[j])
    table, bars = np.stack(values, axis=1), np.stack(errors, axis=1)
    best = np.argmin(bars, axis=1)
    rows = np.arange(len(best))
    sigma = bars[rows, best]
    return np.where(np.isfinite(sigma), table[rows, best], np.nan), sigma, np.array(smallest)[best]


def _median(error: Floats) -> Floats:
    """The median of each column's finite entries; lines that left f's branch at a step have none there."""
    ordered = np.sort(np.where(np.isfinite(error), error, np.inf), axis=0)
    count, columns = np.sum(np.isfinite(error), axis=0), np.arange(error.shape[1])
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(error) - 1)
    return 0.5 * (ordered[low, columns] + ordered[high, columns])


def _chi_square_cdf(x: float, degrees: int) -> float:
    if x <= 0:
        return 0.0
    a, half = 0.5 * degrees, 0.5 * x
    term = total = 1.0
    n = 0
    while term > 1e-17 * total:
        n += 1
        term *= half / (a + n)
        total += term
    return min(1.0, total * math.exp(a * math.log(half) - half - math.lgamma(a + 1)))
