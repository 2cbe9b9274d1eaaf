"""Why a leaf is wrong: where, by which rule, and whether a ``stop_gradient`` or a custom rule is the cause."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.checking._jaxpr.interpreter import Site
from jaxopt_nn.checking._report import Coordinate
from jaxopt_nn.checking._sampling.differences import LADDER, ROUND_OFF_OF_F, Floats
from jaxopt_nn.checking._sampling.directions import Line, coordinate, project
from jaxopt_nn.checking._sampling.lines import Probe, Sample
from jaxopt_nn.checking._verdict import localization
from jaxopt_nn.checking._verdict.comparison import Comparison, compare
from jaxopt_nn.checking._verdict.diagnoses import Known, Samples, simplest
from jaxopt_nn.checking._verdict.evidence import Claim, Evidence, Finding, Settings, look_along, places_at

__all__ = [
    "Near",
    "Oracle",
    "agreed",
    "allowed",
    "blocked",
    "contradicted",
    "disputed",
    "explain",
    "failed",
    "kinks_meet",
]

_AGREE = 1e-7  # relative difference of two derivatives of one program that round-off explains


class Near(NamedTuple):
    """Between which values a gradient lies at points next to the point, coordinate by coordinate.

    Attributes:
        low: ``[size]`` the smallest values.
        high: ``[size]`` the largest.
        exact: whether this is the gradient by rule-stripped AD, and not the claim's own.
    """

    low: Floats
    high: Floats
    exact: bool


class Oracle(NamedTuple):
    """What else is known about a leaf, in the units of its coordinates; most of it is found out only when it is needed.

    Attributes:
        path: the leaf's path.
        value: the leaf.
        stripped: its gradient by rule-stripped AD; None where that was not to be had, or tells nothing new.
        conventional: as ``stripped``, with the rules of JAX's own functions.
        plain: whether the claim is what JAX derives from an f without anybody's rules.
        near: the gradient next to the point, on the two sides of its kinks; None where it could not be had.
        steady: whether the claimed gradient stays what it is where the point moves by a few units in the last place.
        why: why differences along a line are no slope of the claim, where a part of f is known for that; else empty.
        frozen: samples lines with every stop_gradient's output frozen; None if f has none.
        rules: the custom rules that change this leaf's gradient, and by how much.
        stops: the stop_gradients that block a part of it, and how much.
        terms: the summands of f, with their gradients.
        sizes: lengths of axes of the arguments.
        masks: of each argument of zeros and ones, how many ones of how many.
    """

    path: str
    value: Floats
    stripped: Floats | None
    conventional: Callable[[], Floats | None]
    plain: bool
    near: Callable[[], Near | None]
    steady: Callable[[], bool]
    why: str
    frozen: Callable[[list[Line]], Sample] | None
    rules: Callable[[], list[tuple[Site, float]]]
    stops: Callable[[], list[tuple[Site, float]]]
    terms: Callable[[], list[tuple[str, Floats]]]
    sizes: Sequence[int]
    masks: Sequence[tuple[int, int]] = ()


def disputed(claim: Claim, oracle: Oracle) -> bool:
    """Whether rule-stripped AD says anything else than the claim."""
    return oracle.stripped is not None and len(_suspicious(claim, oracle.stripped)) > 0


def contradicted(probe: Probe, evidence: Evidence, settings: Settings, oracle: Oracle) -> Finding | None:
    """FAIL where rule-stripped AD contradicts a claim in which differences along random lines saw nothing wrong.

    The differences decide at the coordinates at which the two gradients differ most. Only where they are too coarse
    to decide anything, and the point is inside a smooth piece of f, the exact oracle is believed alone.
    """
    if oracle.stripped is None:
        return None
    suspicious = _suspicious(evidence.claim, oracle.stripped)
    if not len(suspicious):
        return None
    gap = np.abs(evidence.claim.gradient - oracle.stripped).ravel()
    worst = suspicious[np.argsort(-gap[suspicious])[:4]]
    places = places_at(probe, evidence, worst, settings)
    with np.errstate(invalid="ignore"):
        confirmed = np.abs(places.comparison.residual) > places.comparison.error + 0.5 * gap[worst]
    if np.any(confirmed):
        return explain(probe, evidence, settings, oracle, trusted=True)
    coarse = bool(evidence.claim.rounding) or not evidence.miss_bound <= evidence.tolerance.resolution * evidence.norm
    smooth = not np.any(evidence.sample.curve.crossed[:, -1])
    clear = max(1e-6, 2 * evidence.claim.slack)
    unit = float(evidence.sample.curve.steps[0]) / LADDER[0]
    # Where terms cancel, two programs for one gradient leave round-off that is none of f's.
    round_off = ROUND_OFF_OF_F * abs(evidence.sample.middle) / unit
    if coarse and smooth and float(np.linalg.norm(gap)) > max(clear * evidence.norm, round_off):
        finding = explain(probe, evidence, settings, oracle, trusted=True)
        return finding._replace(
            hypothesis=finding.hypothesis + "; by rule-stripped AD alone, differences are too coarse"
        )
    return None


def blocked(evidence: Evidence, settings: Settings, oracle: Oracle) -> Finding | None:
    """BLOCKED where the claim is right if every stop_gradient's output is a constant, and only then.

    Where kinks meet it may seem so: there the claim is what AD through every stop_gradient says too.
    """
    if oracle.frozen is None:
        return None
    sample = oracle.frozen(evidence.lines)
    comparison = compare(evidence.claimed, sample.slopes, evidence.norm, evidence.tolerance)
    usable = comparison.error <= 1e-3 * evidence.norm
    if np.any(comparison.wrong) or not np.any(usable):
        return None
    through = oracle.conventional() if oracle.stripped is None else oracle.stripped
    if through is not None and not len(_suspicious(evidence.claim, through)):
        return None
    causes = [f"{site} blocks {share:.2g} of it" for site, share in oracle.stops()[:3]]
    text = "a stop_gradient blocks a part of this leaf's gradient; the rest is right"
    places = _against(evidence, oracle.stripped) if oracle.stripped is not None else None
    claim = evidence.claim
    worst = localization.worst_places(places, claim.gradient.shape, claim.units) if places else ()
    count = f"; {localization.count_text(places, claim.gradient.shape)}" if places else ""
    return Finding("BLOCKED", f"{text}{''.join(f'; {cause}' for cause in causes)}{count}", worst)


def agreed(claim: Claim, oracle: Oracle) -> bool:
    """Whether the claim is what AD derives from f without anybody's rules."""
    exact = oracle.conventional() if oracle.stripped is None else oracle.stripped
    return exact is not None and _is(claim, exact)


def kinks_meet(probe: Probe, evidence: Evidence, finding: Finding, settings: Settings, oracle: Oracle) -> bool:
    """Whether a gradient that seems wrong is what JAX's conventions give where several kinks meet.

    JAX takes one slope of each kink, and relu(x) - relu(-x) has the slope 1 at 0, not the 0 that comes of two of them.
    So it is where f takes another branch next to the point wherever the claim is wrong, and the claim is what JAX
    derives from f without anybody's rules.
    """
    lines = [line for line, wrong in zip(evidence.lines, evidence.comparison.wrong, strict=True) if wrong]
    shape = evidence.claim.gradient.shape
    lines += [*finding.lines, *(coordinate(int(np.ravel_multi_index(bad.place, shape))) for bad in finding.worst)]
    sample = look_along(probe, evidence)(lines or evidence.lines)
    if not np.all(sample.curve.crossed[:, -1]):
        return False
    conventional = oracle.conventional()
    return conventional is not None and not len(_suspicious(evidence.claim, conventional))


def explain(probe: Probe, evidence: Evidence, settings: Settings, oracle: Oracle, *, trusted: bool = False) -> Finding:
    """Something is wrong along a line that meets no kink: where, and by which rule?"""
    gradient, units = evidence.claim.gradient, evidence.claim.units
    if oracle.stripped is not None and (trusted or _agrees(evidence, oracle.stripped)):
        samples, places = _exactly(evidence, oracle.stripped)
        if np.any(places.comparison.wrong):
            rule = simplest(samples, _known(gradient, oracle)) or localization.count_text(places, gradient.shape)
            order = np.argsort(-np.abs(places.comparison.residual))[:3]
            wrong_places = places_at(probe, evidence, order, settings)
            worst = localization.worst_places(wrong_places, gradient.shape, units)
            worst = worst or localization.worst_places(places, gradient.shape, units)
            return failed(rule, worst, oracle)
    return _by_lines(probe, evidence, settings, oracle)


def _by_lines(probe: Probe, evidence: Evidence, settings: Settings, oracle: Oracle) -> Finding:
    comparison, claim, gradient = evidence.comparison, evidence.claim, evidence.claim.gradient
    searchable = gradient.size <= settings.max_coordinates
    numeric = evidence.sample.slopes.value
    samples = Samples(
        evidence.claimed, numeric, comparison.error, comparison.bound, lambda other: project(other, evidence.lines)
    )
    rule = simplest(samples, _known(gradient, oracle))
    places = evidence.places
    if places is None and rule and np.any(gradient):  # one rule for all: the largest are the worst
        places = places_at(probe, evidence, np.argsort(-np.abs(gradient).ravel())[:3], settings)
    elif places is None and searchable:
        places = places_at(probe, evidence, claim.places, settings)
    elif places is None:
        words, block = (*settings.words, 2, claim.leaf), 2 * settings.directions
        look, norm = look_along(probe, evidence), evidence.norm
        index = localization.bisect(look, gradient, words, block, norm, evidence.tolerance, claim.keep)
        places = places_at(probe, evidence, np.array([index]), settings)
    wrong, complete = places.comparison.wrong, len(places.flat) == len(claim.places)
    worst = localization.worst_places(places, gradient.shape, claim.units)
    if not rule and complete and np.any(wrong):
        rule = localization.count_text(places, gradient.shape)
    rule = rule or (
        "found by bisection, there may be more" if worst else "the difference is spread thinly over the leaf"
    )
    return failed(rule, worst, oracle)


def failed(rule: str, worst: tuple[Coordinate, ...], oracle: Oracle) -> Finding:
    """FAIL, with the worst coordinate and the rules that are wrong."""
    named = "".join(
        f"; worst at {list(bad.place)}: claimed {bad.claimed:.6g}, numeric {bad.numeric:.6g}" for bad in worst[:1]
    )
    causes = [f"; {site} is wrong: it changes the gradient by {share:.2g} of it" for site, share in oracle.rules()]
    blocking = oracle.stops() if oracle.frozen is not None and not causes else []
    stops = [f"; {site} blocks {share:.2g} of it" for site, share in blocking]
    return Finding("FAIL", rule + named + "".join([*causes[:3], *stops[:2]]), worst)


def _known(gradient: Floats, oracle: Oracle) -> Known:
    return Known(oracle.path, oracle.value, gradient, oracle.sizes, oracle.terms(), oracle.masks)


def _suspicious(claim: Claim, stripped: Floats) -> NDArray[np.int64]:
    """The coordinates of the flattened leaf at which the claim is not what rule-stripped AD says."""
    gap = np.abs(claim.gradient - stripped).ravel()
    return np.flatnonzero(gap > allowed(claim, stripped.ravel()))


def _is(claim: Claim, gradient: Floats) -> bool:
    """Whether a claim is this gradient at every coordinate, and in a short float as a whole."""
    gap = claim.gradient - gradient
    size, norm, common = np.linalg.norm(gap), np.linalg.norm(gradient), abs(np.vdot(gap, gradient))
    whole = bool(size <= claim.slack * norm and common <= claim.slack_along * norm**2)
    return not len(_suspicious(claim, gradient)) and (whole or not claim.slack)


def allowed(claim: Claim, stripped: Floats) -> Floats:
    """What two exact derivatives of one program may differ by, coordinate by coordinate."""
    largest = float(np.max(np.abs(stripped)))
    bound = _AGREE * np.maximum(np.abs(claim.gradient.ravel()), np.abs(stripped)) + 1e-3 * _AGREE * largest
    # A short float spoils a coordinate of which terms cancel by as much as it does the whole.
    return bound + claim.slack * float(np.linalg.norm(stripped))


def _agrees(evidence: Evidence, stripped: Floats) -> bool:
    """Whether the differences along random lines are those of rule-stripped AD."""
    known = np.isfinite(evidence.comparison.error)
    comparison = compare(project(stripped, evidence.lines), evidence.sample.slopes, evidence.norm, evidence.tolerance)
    return bool(np.any(known)) and not np.any(comparison.wrong & known)


def _exactly(evidence: Evidence, stripped: Floats) -> tuple[Samples, localization.Places]:
    places = _against(evidence, stripped)
    comparison = places.comparison
    return Samples(places.claimed, comparison.numeric, comparison.error, comparison.bound, np.ravel), places


def _against(evidence: Evidence, stripped: Floats) -> localization.Places:
    """Every coordinate compared with the exact oracle."""
    claim, numeric = evidence.claim.gradient.ravel(), stripped.ravel()
    bound = allowed(evidence.claim, numeric)
    comparison = Comparison(claim - numeric, numeric, 1e-5 * bound, bound, np.zeros(claim.size))
    flat: NDArray[np.int64] = np.arange(claim.size)
    return localization.Places(flat, claim, comparison)
