"""Decisions: from sampled lines of a leaf to differences that count, and to a bound on what may have escaped."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.checking._sampling.differences import Floats, Slopes, chi_square_quantile
from jaxopt_nn.checking._sampling.lines import Sample

__all__ = [
    "Comparison",
    "Tolerance",
    "at_kink",
    "compare",
    "gaussian_miss_bound",
    "leave_out_crossings",
    "numeric_norm",
]


class Tolerance(NamedTuple):
    """What counts as equal and what counts as seen; all but ``z`` relative to the norm of the leaf's gradient.

    Attributes:
        rtol: difference that is allowed on top of the error bar.
        z: error bars that are allowed.
        resolution: a leaf of which errors of this size could escape is INCONCLUSIVE.
        miss_probability: how surely they must not escape.
    """

    rtol: float
    z: float
    resolution: float
    miss_probability: float


class Comparison(NamedTuple):
    """Claimed against numeric slope, line by line.

    Attributes:
        residual: claimed minus numeric; at a kink the distance to the interval of the one-sided slopes.
        numeric: the slope it was compared with.
        error: ``z`` error bars.
        bound: the largest residual that passes.
        jump: at a kink the distance of the one-sided slopes, else 0.
    """

    residual: Floats
    numeric: Floats
    error: Floats
    bound: Floats
    jump: Floats

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which residuals are beyond their bounds; a slope that could not be had is not."""
        return np.abs(self.residual) > self.bound


def compare(claimed: Floats, slopes: Slopes, norm: float | Floats, tolerance: Tolerance) -> Comparison:
    """Compares claimed and numeric slopes; ``norm`` is the norm of the leaf's gradient, the unit of ``rtol``."""
    slack = tolerance.rtol * norm
    with np.errstate(invalid="ignore"):
        one_sided = tolerance.z * np.maximum(slopes.left_sigma, slopes.right_sigma)
        jump = np.abs(slopes.right - slopes.left)
        kink = jump > 2 * one_sided + slack
        inside = np.clip(claimed, np.minimum(slopes.left, slopes.right), np.maximum(slopes.left, slopes.right))
        numeric = np.where(kink, inside, slopes.value)
        error = np.where(kink, one_sided, tolerance.z * slopes.sigma)
        residual = claimed - numeric
    return Comparison(residual, numeric, error, error + slack, np.where(kink, jump, 0.0))


def at_kink(comparison: Comparison, gaussian: int) -> bool:
    """Whether f has a kink at the point: then most Gaussian lines show it. A kink nearby shows on one line or two."""
    return float(np.mean(comparison.jump[:gaussian] > 0)) > 0.5


def leave_out_crossings(comparison: Comparison, gaussian: int) -> Comparison:
    """Takes the evidence from lines that met a kink nearby, where the point itself is none: their error becomes inf."""
    if at_kink(comparison, gaussian):
        return comparison
    crossed = comparison.jump > 0
    error, bound = (np.where(crossed, np.inf, bars) for bars in (comparison.error, comparison.bound))
    return comparison._replace(error=error, bound=bound)


def numeric_norm(sample: Sample) -> float:
    """Norm of the numeric gradient from random lines: E (g·v)² = ‖g‖² for independent coordinates of variance 1.

    At a kink the larger side counts.
    """
    slopes = sample.slopes
    sides = np.abs(np.stack([slopes.value, slopes.left, slopes.right]) * sample.scale)
    sides[~np.isfinite(sides)] = 0.0
    return float(np.sqrt(np.max(np.mean(sides**2, axis=1))))


def gaussian_miss_bound(
    comparison: Comparison, sample: Sample, gaussian: int, norm: float, tolerance: Tolerance
) -> float:
    """The norm of error that the first ``gaussian`` lines would have missed with at most ``miss_probability``.

    The residuals r_k of K Gaussian directions are ‖error‖ times normal numbers, so ‖error‖² <= Σ r_k² / χ²_{K;δ} with
    probability 1 − δ. Each |r_k| is widened by its error bar. Lines that met a kink tell only of claims outside of an
    interval, so they bound nothing, and are left out: which ones depends on f's values, not on the claimed gradient.
    """
    error, scale = comparison.error[:gaussian], sample.scale[:gaussian]
    usable = (error <= tolerance.resolution * norm) & (comparison.jump[:gaussian] == 0)
    count = int(np.sum(usable))
    if not count:
        return math.inf
    total = float(np.sum(np.square((np.abs(comparison.residual[:gaussian]) + error) * scale)[usable]))
    return math.sqrt(total / chi_square_quantile(tolerance.miss_probability, count))
