"""One leaf of the gradient: what is claimed, and the samples that speak for or against it."""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.checking._report import Coordinate, Verdict
from jaxopt_nn.checking._sampling.differences import Floats, Slopes
from jaxopt_nn.checking._sampling.directions import Line, project, random_lines
from jaxopt_nn.checking._sampling.lines import Probe, Sample
from jaxopt_nn.checking._verdict import localization
from jaxopt_nn.checking._verdict.comparison import (
    Comparison,
    Tolerance,
    at_kink,
    compare,
    gaussian_miss_bound,
    leave_out_crossings,
    numeric_norm,
)

__all__ = ["Claim", "Evidence", "Finding", "Settings", "along_lines", "gather", "look_along", "places_at"]

_EXHAUSTIVE = 16  # leaves up to this size are compared at every coordinate, always
_COARSEST = 0.5  # relative error that may escape, of a gradient in a short float, before nothing is said of it
_LOUD = 1e-10  # round-off of f in float64, relative, that is seldom true
_LOUDER = 10.0  # times what was measured along random lines


class Settings(NamedTuple):
    """What holds for all leaves.

    Attributes:
        directions: Gaussian lines per leaf, and as many of random signs.
        max_coordinates: the largest leaf that is searched coordinate by coordinate.
        tolerance: what counts as equal.
        words: what the lines are drawn from.
    """

    directions: int
    max_coordinates: int
    tolerance: Tolerance
    words: tuple[int, ...]


class Claim(NamedTuple):
    """What is claimed about a leaf, and how far float64 goes there.

    Attributes:
        leaf: index of the leaf.
        gradient: the claimed gradient, float64, in the leaf's shape and units.
        rounding: unit of rounding of the shortest float that the leaf passes through on the way to what is sampled; 0
            for float64.
        slack: relative norm of the error that a shorter float explains, in f or in what ``grad_fn`` returned.
        slack_along: the same of its component along the gradient itself.
        units: of the leaf's coordinates, see ``coordinate_units``; slopes and norms are in these.
        keep: which coordinates of the flattened leaf the claim is about; None for all.
    """

    leaf: int
    gradient: Floats
    rounding: float = 0.0
    slack: float = 0.0
    slack_along: float = 0.0
    units: Floats = np.ones(())
    keep: NDArray[np.bool_] | None = None

    @property
    def places(self) -> NDArray[np.int64]:
        """The coordinates that the claim is about."""
        return np.arange(self.gradient.size) if self.keep is None else np.flatnonzero(self.keep)


class Evidence(NamedTuple):
    """What the random lines, and on a small leaf the coordinates, showed.

    Attributes:
        claim: what was claimed.
        lines: the random lines.
        claimed: the claimed slopes along them.
        sample: the numeric ones.
        comparison: the two compared.
        places: all coordinates of a small leaf, else None.
        tolerance: what counts as equal on this leaf.
        norm: the larger of claimed and numeric norm.
        numeric_norm: norm of the numeric gradient.
        error_norm: norm of the difference.
        sigma: its error bar.
        miss_bound: norm of the error that may have escaped.
    """

    claim: Claim
    lines: list[Line]
    claimed: Floats
    sample: Sample
    comparison: Comparison
    places: localization.Places | None
    tolerance: Tolerance
    norm: float
    numeric_norm: float
    error_norm: float
    sigma: float
    miss_bound: float


class Finding(NamedTuple):
    """The verdict on a leaf.

    Attributes:
        verdict: the verdict.
        hypothesis: what it rests on, in words.
        worst: the worst coordinates.
        lines: other lines than the random ones along which the claim is wrong.
    """

    verdict: Verdict
    hypothesis: str
    worst: tuple[Coordinate, ...] = ()
    lines: tuple[Line, ...] = ()


def along_lines(probe: Probe, claim: Claim, settings: Settings) -> Evidence:
    """Samples random lines; on a finer and a coarser ladder too where the usual one leaves the error bar too wide."""
    lines = random_lines((*settings.words, 1, claim.leaf), claim.gradient.size, settings.directions, claim.keep)
    sample = probe(claim.leaf, lines)
    if not np.isfinite(sample.middle):
        raise ValueError(f"f: expected a finite value at the point, got {sample.middle}")
    if claim.rounding:
        sample = probe(claim.leaf, lines, noise=claim.rounding * abs(sample.middle))
    elif sample.noise > _LOUD * abs(sample.middle):
        # A steep f looks like round-off between two steps that are both too large. Round-off stays at smaller ones.
        fine = probe(claim.leaf, lines, stretch=1e-4)
        if _LOUDER * fine.noise < sample.noise:
            sample = probe(claim.leaf, lines, most=_LOUDER * fine.noise)
    evidence = _weigh(claim, lines, sample, None, settings)
    coarse = evidence.miss_bound > evidence.tolerance.resolution * evidence.norm
    if coarse and not (claim.rounding or sample.constant or at_kink(evidence.comparison, settings.directions)):
        for stretch in (1e-4, 1e3):
            most = _LOUDER * sample.noise
            sample = _sharper(sample, probe(claim.leaf, lines, most=most, stretch=stretch))
        evidence = _weigh(claim, lines, sample, None, settings)
    return evidence


def gather(probe: Probe, claim: Claim, settings: Settings) -> Evidence:
    """Samples random lines of a leaf, and every coordinate of a small one."""
    evidence = along_lines(probe, claim, settings)
    if claim.gradient.size > _EXHAUSTIVE:
        return evidence
    places = places_at(probe, evidence, np.arange(claim.gradient.size), settings)
    return _weigh(claim, evidence.lines, evidence.sample, places, settings)


def places_at(probe: Probe, evidence: Evidence, flat: NDArray[np.int64], settings: Settings) -> localization.Places:
    """Differences at the coordinates ``flat`` of the leaf."""
    look, block = look_along(probe, evidence), 2 * settings.directions
    norm = None if np.ndim(evidence.claim.units) else evidence.norm
    return localization.measure(look, evidence.claim.gradient, flat, block, norm, evidence.tolerance)


def look_along(probe: Probe, evidence: Evidence) -> localization.Look:
    """Samples lines of the leaf, with the round-off that was measured on it and the ladders that it took."""

    def look(lines: list[Line]) -> Sample:
        noise, leaf = evidence.sample.noise, evidence.claim.leaf
        stretches = evidence.sample.stretches
        samples = [probe(leaf, lines, noise=noise, most=_LOUDER * noise, stretch=each) for each in stretches]
        return functools.reduce(_sharper, samples)

    return look


def _weigh(
    claim: Claim, lines: list[Line], sample: Sample, places: localization.Places | None, settings: Settings
) -> Evidence:
    tolerance = settings.tolerance
    if claim.slack:
        resolution = max(tolerance.resolution, min(10 * claim.slack, _COARSEST))
        tolerance = tolerance._replace(rtol=max(tolerance.rtol, claim.slack), resolution=resolution)
    claimed = project(claim.gradient, lines)
    numeric = numeric_norm(sample)
    if places is not None and not np.any(places.comparison.jump) and np.all(np.isfinite(places.comparison.numeric)):
        numeric = float(np.linalg.norm(places.comparison.numeric))
    norm = max(float(np.linalg.norm(claim.gradient)), numeric)
    comparison = leave_out_crossings(compare(claimed, sample.slopes, norm, tolerance), settings.directions)
    bound = gaussian_miss_bound(comparison, sample, settings.directions, norm, tolerance)
    if places is None:
        residual, error = comparison.residual * sample.scale, comparison.error * sample.scale
        finite = np.isfinite(error) & np.isfinite(residual)
        error_norm, sigma = (_rms(part[finite]) for part in (residual, error))
    else:
        residual, error = places.comparison.residual, places.comparison.error
        error_norm, sigma = float(np.linalg.norm(residual)), float(np.linalg.norm(error))
        exact = float(np.linalg.norm(np.abs(residual) + error))
        bound = min(bound, exact) if np.isfinite(exact) else bound
    sigma /= tolerance.z
    return Evidence(
        claim, lines, claimed, sample, comparison, places, tolerance, norm, numeric, error_norm, sigma, bound
    )


def _sharper(a: Sample, b: Sample) -> Sample:
    """Line by line the slopes with the smaller error bar; a kink near the point looks like round-off to a ladder."""
    better = b.slopes.sigma < a.slopes.sigma
    return a._replace(
        slopes=Slopes(*(np.where(better, y, x) for x, y in zip(a.slopes, b.slopes, strict=True))),
        constant=a.constant and b.constant,
        repeatable=a.repeatable and b.repeatable,
        noise=min(a.noise, b.noise),
        stretches=a.stretches + b.stretches,
    )


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")
