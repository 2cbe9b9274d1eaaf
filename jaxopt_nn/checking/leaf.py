"""The verdict on one leaf."""

import numpy as np

from jaxopt_nn.checking.directions import Line, project
from jaxopt_nn.checking.evidence import Evidence, Finding, Settings, look_along
from jaxopt_nn.checking.explain import Oracle, blocked, contradicted, explain
from jaxopt_nn.checking.judge import at_kink, compare
from jaxopt_nn.checking.probe import Probe

__all__ = ["judge"]


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
    claim, places, tolerance = evidence.claim, evidence.places, evidence.tolerance
    kinked = at_kink(evidence.comparison, settings.directions) or (
        places is not None and bool(np.any(places.comparison.jump))
    )
    if evidence.sample.constant and not np.any(claim.gradient):
        return Finding("DEAD", "f does not depend on this leaf here, and the claimed gradient is zero")
    if np.any(evidence.comparison.wrong) or (places is not None and np.any(places.comparison.wrong)):
        finding = blocked(evidence, settings, oracle) or _together(probe, evidence, settings, oracle)
        return finding or explain(probe, evidence, settings, oracle)
    if kinked and (finding := _together(probe, evidence, settings, oracle)):
        return finding
    if not reach and (finding := contradicted(probe, evidence, settings, oracle)):
        return finding
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


def _together(probe: Probe, evidence: Evidence, settings: Settings, oracle: Oracle) -> Finding | None:
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
    found = compare(claimed, sample.slopes, evidence.norm, evidence.tolerance)
    plain = found.wrong & (found.jump == 0)
    if not np.any(plain):
        return None
    first = int(np.argmax(plain))
    causes = "".join(
        f"; {site} is wrong: it changes the gradient by {share:.2g} of it" for site, share in oracle.rules()
    )
    text = (
        f"where coordinates {lines[first].low} to {lines[first].high} of the flattened leaf move alike, and ties stay "
        f"ties, claimed {claimed[first]:.6g}, numeric {found.numeric[first]:.6g}: all of it to each of several ties?"
    )
    return Finding("FAIL", text + causes)
