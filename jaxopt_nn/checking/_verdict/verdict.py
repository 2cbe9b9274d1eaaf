"""The verdict on one leaf, and its row of the report. The first of these rules that holds decides.

1. DEAD: f does not change along this leaf, or by round-off alone, and nobody claims another gradient.
2. BLOCKED: differences contradict the claim, and no longer do so with every ``stop_gradient``'s output constant.
3. At kinks of f the leaf is parted, see ``kinks``; then FAIL, INCONCLUSIVE or KINK_OK.
4. FAIL: differences contradict the claim along a line.
5. FAIL: rule-stripped AD contradicts it, and differences at the worst coordinates do too, or are too coarse.
6. Where differences are too coarse to say anything: PASS if rule-stripped AD agrees, which is said; else INCONCLUSIVE.
7. PASS.

A claim that is what AD derives from f without anybody's rules does not FAIL: then it is the differences that are of no
use, or kinks that meet, and the verdict is INCONCLUSIVE.
"""

import math

import numpy as np

from jaxopt_nn.checking._objective.objective import Arguments
from jaxopt_nn.checking._objective.own_precision import OwnDtype
from jaxopt_nn.checking._report import Curve, LeafReport
from jaxopt_nn.checking._sampling.differences import Floats
from jaxopt_nn.checking._sampling.directions import Line, along, project
from jaxopt_nn.checking._sampling.lines import Probe
from jaxopt_nn.checking._verdict.comparison import at_kink, compare
from jaxopt_nn.checking._verdict.evidence import Evidence, Finding, Settings, look_along
from jaxopt_nn.checking._verdict.explanation import (
    Oracle,
    agreed,
    blocked,
    contradicted,
    disputed,
    explain,
    failed,
    kinks_meet,
)
from jaxopt_nn.checking._verdict.kinks import at_kinks

__all__ = ["judge", "not_finite", "row"]


def judge(probe: Probe, evidence: Evidence, reach: float | None, settings: Settings, oracle: Oracle) -> Finding:
    """Decides on a leaf.

    Args:
        probe: samples lines.
        evidence: of this leaf.
        reach: where the claimed gradient is round-off only, the norm of one by which this leaf would move f as much as
            the most influential leaf does; else None.
        settings: of the check.
        oracle: what else is known about the leaf.

    Returns:
        The verdict.
    """
    finding = _judged(probe, evidence, reach, settings, oracle)
    if finding.verdict not in ("FAIL", "BLOCKED"):
        return finding
    if kinks_meet(probe, evidence, finding, settings, oracle):
        reason = (
            "several kinks meet at this very point, and JAX's slopes of each make none of f's: move the point a little"
        )
    elif finding.verdict == "FAIL" and agreed(evidence.claim, oracle):
        why = oracle.why or "f is too steep or too uneven here for any of their steps; move the point a little"
        reason = f"rule-stripped AD says what is claimed, differences do not: {why}"
    else:
        return finding
    return Finding("INCONCLUSIVE", reason)


def not_finite(gradient: Floats) -> Finding | None:
    """FAIL where a claimed gradient has NaN or inf."""
    bad = np.argwhere(~np.isfinite(gradient))
    if not len(bad):
        return None
    first = [int(axis) for axis in bad[0]]
    return Finding("FAIL", f"claimed is not finite at {len(bad)} of {np.size(gradient)} coordinates, first at {first}")


def row(
    arguments: Arguments, i: int, claimed: Floats, evidence: Evidence, finding: Finding, own: OwnDtype, oracle: Oracle
) -> LeafReport:
    """The report on leaf ``i``."""
    # Of a dead leaf there is nothing that an error could be relative to.
    unit = math.nan if finding.verdict == "DEAD" else evidence.norm or 1.0
    units = evidence.claim.units
    comparisons = [evidence.comparison, *([evidence.places.comparison] if evidence.places else [])]
    # The gradient in the own dtype is compared with the one in float64: of that one something has to be known.
    known = finding.verdict not in ("DEAD", "INCONCLUSIVE")
    return LeafReport(
        path=arguments.paths[i],
        shape=np.shape(claimed),
        size=int(np.size(claimed)),
        dtype=arguments.dtypes[i],
        verdict=finding.verdict,
        hypothesis=finding.hypothesis,
        claimed_norm=float(np.linalg.norm(claimed)),
        numeric_norm=math.nan if np.ndim(units) else evidence.numeric_norm,
        relative_error=evidence.error_norm / unit,
        relative_sigma=evidence.sigma / unit,
        miss_bound=evidence.miss_bound / unit,
        step=float(np.median(evidence.sample.slopes.step)),
        directions=sum(len(comparison.jump) for comparison in comparisons),
        kinks=sum(int(np.count_nonzero(comparison.jump)) for comparison in comparisons),
        worst=finding.worst,
        dtype_error=None if finding.verdict == "DEAD" else own.error,
        dtype_verdict=own.verdict if known else None,
        rule_error=None if oracle.stripped is None else float(np.linalg.norm(claimed * units - oracle.stripped)) / unit,
        curve=_curve(evidence),
    )


def _judged(probe: Probe, evidence: Evidence, reach: float | None, settings: Settings, oracle: Oracle) -> Finding:
    claim, places, tolerance, comparison = evidence.claim, evidence.places, evidence.tolerance, evidence.comparison
    crossed = evidence.sample.curve.crossed[:, -1]  # by all steps
    wrong = bool(np.any(comparison.wrong)) or (places is not None and bool(np.any(places.comparison.wrong)))
    kinked = (
        at_kink(comparison, settings.directions)
        or (places is not None and bool(np.any(places.comparison.jump)))
        or (bool(np.any(comparison.wrong)) and bool(np.all(crossed[comparison.wrong])))
    )
    if evidence.sample.constant and not np.any(claim.gradient) and not (claim.rounding or disputed(claim, oracle)):
        return Finding("DEAD", "f does not depend on this leaf here, and the claimed gradient is zero")
    if reach and not (kinked or claim.rounding) and _nothing_seen(evidence, 1e-6 * reach):
        return Finding("DEAD", "zero but for round-off, claimed and numeric")
    if wrong and (finding := blocked(evidence, settings, oracle)):
        return finding
    if kinked:
        return _along_blocks(probe, evidence, settings, oracle) or at_kinks(probe, evidence, reach, settings, oracle)
    if wrong:
        return explain(probe, evidence, settings, oracle)
    if not reach and (finding := contradicted(probe, evidence, settings, oracle)):
        return finding
    if claim.slack and (finding := _off_along_itself(probe, evidence, settings, oracle)):
        return finding
    if claim.rounding or not evidence.miss_bound <= tolerance.resolution * evidence.norm:
        smooth = bool(np.all(np.isfinite(evidence.sample.slopes.value))) and not np.any(crossed)
        if smooth and not reach and np.any(claim.gradient) and agreed(claim, oracle) and oracle.steady():
            return Finding("PASS", "by rule-stripped AD alone: differences are too coarse here")
        if claim.rounding:
            reason = (
                f"f rounds to a shorter float (unit {claim.rounding:.1e}) on this leaf's way: differences see no more"
            )
            return Finding("INCONCLUSIVE", reason)
        if not np.any(claim.gradient) and np.isfinite(evidence.miss_bound):
            reason = "the claim is zero, and so is the numeric slope within its error bar: no gradient to compare with"
            return Finding("INCONCLUSIVE", f"{reason}; at a minimum, move the point a little")
        share = evidence.miss_bound / evidence.norm if evidence.norm else np.inf
        size = f"a relative error of {share:.0e}" if np.isfinite(share) else "any error"
        near = (
            ""
            if np.all(np.isfinite(evidence.sample.slopes.value))
            else "; f is not finite, or has no slope, next to the point"
        )
        return Finding("INCONCLUSIVE", f"the error bar is too wide: {size} could escape{near}")
    return Finding("PASS", "")


def _off_along_itself(probe: Probe, evidence: Evidence, settings: Settings, oracle: Oracle) -> Finding | None:
    """FAIL where a claim in a short float is off by a factor: along itself its errors cancel, but not that one."""
    claim = evidence.claim
    if claim.rounding or not np.any(claim.gradient):
        return None
    lines = [along(claim.gradient)]
    (claimed,) = project(claim.gradient, lines)
    tolerance = evidence.tolerance._replace(rtol=max(settings.tolerance.rtol, claim.slack_along))
    comparison = compare(np.array([claimed]), look_along(probe, evidence)(lines).slopes, abs(claimed), tolerance)
    if not np.any(comparison.wrong):
        return None
    ratio = f"ratio {claimed / comparison.numeric[0]:.3g} along the claimed gradient itself"
    finding = failed(ratio, (), oracle)
    return finding._replace(lines=tuple(lines))


def _nothing_seen(evidence: Evidence, limit: float) -> bool:
    """Whether the slopes that differences see are below ``limit``, those too in which the claim seems wrong."""
    comparisons = [evidence.comparison, *([evidence.places.comparison] if evidence.places else [])]
    against = np.concatenate([one.numeric[one.wrong] for one in comparisons])
    typical = np.median(np.abs(evidence.comparison.numeric) + evidence.comparison.error)
    return bool(typical <= limit and np.all(np.abs(against) <= limit))


def _along_blocks(probe: Probe, evidence: Evidence, settings: Settings, oracle: Oracle) -> Finding | None:
    """FAIL where the claim is wrong along a line that moves many coordinates alike, the whole leaf or a part.

    Ties stay ties along it, so that f has a plain slope there: a rule that gives the whole cotangent to each of several
    tied maxima lies between the one-sided slopes at every single coordinate, and along most random lines.
    """
    size = evidence.claim.gradient.size
    if not np.any(evidence.comparison.jump):
        return None
    widths = [size // parts for parts in (1, 2, 4) if size >= 2 * parts]
    lines = [Line("one", (), low, low + width) for width in widths for low in range(0, size - width + 1, width)]
    lines = lines[: 2 * settings.directions]
    if not lines:
        return None
    claimed = project(evidence.claim.gradient, lines)
    sample = look_along(probe, evidence)(lines)
    comparison = compare(claimed, sample.slopes, evidence.norm, evidence.tolerance)
    plain = comparison.wrong & (comparison.jump == 0)
    if not np.any(plain):
        return None
    first = int(np.argmax(plain))
    causes = "".join(
        f"; {site} is wrong: it changes the gradient by {share:.2g} of it" for site, share in oracle.rules()
    )
    text = (
        f"where coordinates {lines[first].low} to {lines[first].high} of the flattened leaf move alike, and ties stay "
        f"ties, claimed {claimed[first]:.6g}, numeric {comparison.numeric[first]:.6g}: all of it to each of several "
        "ties?"
    )
    return Finding("FAIL", text + causes, lines=tuple(line for line, off in zip(lines, plain, strict=True) if off))


def _curve(evidence: Evidence) -> Curve:
    """Median differences at each step from the claimed slopes, relative to the gradient, over the random lines."""
    curve, unit = evidence.sample.curve, evidence.norm or 1.0
    claimed = evidence.claimed[:, None]
    with np.errstate(all="ignore"):
        errors = [np.median(np.abs(slopes - claimed), axis=0) / unit for slopes in (curve.two_sided, curve.forward)]
    return Curve(
        steps=tuple(float(step) for step in curve.steps),
        two_sided=tuple(float(error) for error in errors[0]),
        one_sided=tuple(float(error) for error in errors[1]),
        crossed=tuple(float(share) for share in np.mean(curve.crossed, axis=0)),
    )
