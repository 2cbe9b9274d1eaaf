"""One leaf of the gradient, from samples to a verdict."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.checking import localize
from jaxopt_nn.checking.differences import Floats, Slopes
from jaxopt_nn.checking.directions import Line, project, random_lines
from jaxopt_nn.checking.judge import (
    Comparison,
    Tolerance,
    at_kink,
    compare,
    gaussian_miss_bound,
    leave_out_crossings,
    numeric_norm,
)
from jaxopt_nn.checking.probe import Probe, Sample
from jaxopt_nn.checking.report import Coordinate, Verdict

__all__ = ["Claim", "Evidence", "Finding", "Settings", "gather", "judge"]

_EXHAUSTIVE = 16  # leaves up to this size are compared at every coordinate, always


class Settings(NamedTuple):
    """What holds for all leaves.

    Attributes:
        directions: Gaussian lines per leaf, and as many of random signs.
        max_coordinates: the largest leaf that is searched coordinate by coordinate.
        tolerance: what counts as equal.
        words: what the lines are drawn from.
        stop_gradient: whether f stops a gradient somewhere.
    """

    directions: int
    max_coordinates: int
    tolerance: Tolerance
    words: tuple[int, ...]
    stop_gradient: bool


class Claim(NamedTuple):
    """What is claimed about a leaf, and how far float64 goes there.

    Attributes:
        leaf: index of the leaf.
        gradient: the claimed gradient, float64, in the leaf's shape.
        rounding: unit of rounding of the shortest float that the leaf passes through in f; 0 for float64.
        own_rounding: unit of rounding of the float in which the gradient came; 0 for float64.
    """

    leaf: int
    gradient: Floats
    rounding: float
    own_rounding: float


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
    places: localize.Places | None
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
    """

    verdict: Verdict
    hypothesis: str
    worst: tuple[Coordinate, ...] = ()


def gather(probe: Probe, claim: Claim, settings: Settings) -> Evidence:
    """Samples a leaf; with a finer and a coarser ladder too where the usual one leaves the error bar too wide."""
    size = claim.gradient.size
    lines = random_lines((*settings.words, 1, claim.leaf), size, settings.directions)
    sample = probe(claim.leaf, lines)
    if not np.isfinite(sample.middle):
        raise ValueError(f"f: expected a finite value at the point, got {sample.middle}")
    if claim.rounding:
        sample = probe(claim.leaf, lines, noise=claim.rounding * abs(sample.middle))
    evidence = _weigh(claim, lines, sample, None, settings)
    if (
        not claim.rounding
        and not sample.constant
        and evidence.miss_bound > settings.tolerance.resolution * evidence.norm
    ):
        for stretch in (1e-4, 1e3):
            sample = _sharper(sample, probe(claim.leaf, lines, stretch=stretch))
        evidence = _weigh(claim, lines, sample, None, settings)
    if size > _EXHAUSTIVE:
        return evidence
    return _weigh(claim, lines, sample, _places(probe, evidence, np.arange(size), settings), settings)


def judge(probe: Probe, evidence: Evidence, reach: float | None, settings: Settings) -> Finding:
    """Decides on a leaf.

    Args:
        probe: samples lines.
        evidence: of this leaf.
        reach: where the claimed gradient is round-off only, the norm of one by which this leaf would move f as much as
            the most influential leaf does; else None.
        settings: of the check.

    Returns:
        The verdict.
    """
    claim, places, tolerance = evidence.claim, evidence.places, evidence.tolerance
    kinked = at_kink(evidence.comparison, settings.directions) or (
        places is not None and bool(np.any(places.comparison.jump))
    )
    if evidence.sample.constant and not np.any(claim.gradient):
        return Finding("DEAD", "f does not depend on this leaf here, and the claimed gradient is zero")
    if np.any(evidence.comparison.wrong) or (places is not None and np.any(places.comparison.wrong)):
        return _explain(probe, evidence, settings)
    if claim.rounding:
        reason = f"f rounds to a shorter float (unit {claim.rounding:.1e}) on this leaf's way: differences see no more"
        return Finding("INCONCLUSIVE", reason)
    seen = np.median(np.abs(evidence.comparison.numeric) + evidence.comparison.error)
    if not kinked and reach and seen <= 1e-6 * reach:
        return Finding("DEAD", "zero but for round-off, claimed and numeric")
    if not evidence.miss_bound <= tolerance.resolution * evidence.norm:
        share = evidence.miss_bound / evidence.norm if evidence.norm else np.inf
        size = f"a relative error of {share:.0e}" if np.isfinite(share) else "any error"
        smooth = bool(np.all(np.isfinite(evidence.sample.slopes.value)))
        near = "" if smooth else "; f is not finite, or has no slope, next to the point"
        return Finding("INCONCLUSIVE", f"the error bar is too wide: {size} could escape{near}")
    if kinked:
        return Finding("KINK_OK", "f has a kink at the point; the claimed slopes lie between the one-sided ones")
    return Finding("PASS", "")


def _weigh(
    claim: Claim, lines: list[Line], sample: Sample, places: localize.Places | None, settings: Settings
) -> Evidence:
    tolerance = settings.tolerance
    tolerance = tolerance._replace(rtol=max(tolerance.rtol, 32 * claim.rounding, 32 * claim.own_rounding))
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


def _explain(probe: Probe, evidence: Evidence, settings: Settings) -> Finding:
    """Something is wrong along a line: where, by which rule, or is it only kinks?"""
    comparison, gradient = evidence.comparison, evidence.claim.gradient
    searchable = gradient.size <= settings.max_coordinates
    kinked = at_kink(evidence.comparison, settings.directions)
    if kinked and not searchable and np.max(np.abs(comparison.residual)) <= 2 * np.max(comparison.jump):
        return Finding(
            "INCONCLUSIVE",
            "f has kinks at this very point, and the leaf is too large to part them: move the point a little",
        )
    rule, ratio = "", None
    if not kinked:
        ratio = localize.constant_ratio(
            evidence.claimed, evidence.sample.slopes.value, comparison.error, comparison.bound
        )
        rule = localize.ratio_text(*ratio) if ratio else _transposed(evidence)
    places = evidence.places
    if places is None and ratio and np.any(gradient):  # the same factor everywhere: the largest are the worst
        places = _places(probe, evidence, np.argsort(-np.abs(gradient).ravel())[:3], settings)
    elif places is None and searchable:
        places = _places(probe, evidence, np.arange(gradient.size), settings)
    elif places is None:
        words, block = (*settings.words, 2, evidence.claim.leaf), 2 * settings.directions
        found = localize.bisect(_look(probe, evidence), gradient, words, block, evidence.norm, evidence.tolerance)
        places = _places(probe, evidence, np.array([found]), settings)
    wrong, complete = places.comparison.wrong, len(places.flat) == gradient.size
    if complete and not np.any(wrong) and _kinks_explain(evidence, places):
        return Finding("KINK_OK", "f has kinks at the point; each claimed slope lies between the one-sided ones")
    worst = localize.worst_places(places, gradient.shape)
    if not rule and complete and np.any(wrong):
        rule = localize.count_text(places)
    rule = rule or (
        "found by bisection, there may be more" if worst else "the difference is spread thinly over the leaf"
    )
    named = "".join(
        f"; worst at {list(bad.place)}: claimed {bad.claimed:.6g}, numeric {bad.numeric:.6g}" for bad in worst[:1]
    )
    hint = "; f contains a stop_gradient" if settings.stop_gradient else ""
    return Finding("FAIL", rule + named + hint, worst)


def _places(probe: Probe, evidence: Evidence, flat: NDArray[np.int64], settings: Settings) -> localize.Places:
    look, block = _look(probe, evidence), 2 * settings.directions
    return localize.measure(look, evidence.claim.gradient, flat, block, evidence.norm, evidence.tolerance)


def _look(probe: Probe, evidence: Evidence) -> localize.Look:
    return lambda lines: probe(evidence.claim.leaf, lines, noise=evidence.sample.noise)


def _transposed(evidence: Evidence) -> str:
    """Whether the transpose of a claimed square matrix would have been right."""
    gradient = evidence.claim.gradient
    if (
        gradient.ndim != 2
        or gradient.shape[0] != gradient.shape[1]
        or not np.any(np.isfinite(evidence.comparison.error))
    ):
        return ""
    other = compare(project(gradient.T, evidence.lines), evidence.sample.slopes, evidence.norm, evidence.tolerance)
    return "" if np.any(other.wrong) else "claimed is the transpose of the numeric gradient"


def _kinks_explain(evidence: Evidence, places: localize.Places) -> bool:
    """Whether jumps at coordinates account for the differences along random lines, which mix kinks of both signs."""
    jumps = float(np.linalg.norm(places.comparison.jump))
    excess = (np.abs(evidence.comparison.residual) - evidence.comparison.bound) * evidence.sample.scale
    # A random line weighs the coordinates with variance 1, and each is off by at most its jump.
    return jumps > 0 and float(np.max(excess)) <= 4 * jumps


def _sharper(a: Sample, b: Sample) -> Sample:
    """Line by line the slopes with the smaller error bar."""
    better = b.slopes.sigma < a.slopes.sigma
    slopes = Slopes(*(np.where(better, y, x) for x, y in zip(a.slopes, b.slopes, strict=True)))
    return a._replace(slopes=slopes, constant=a.constant and b.constant, repeatable=a.repeatable and b.repeatable)


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")
