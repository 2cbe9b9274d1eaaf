"""The quick way for a gradient that is right: all leaves at once, along a few lines through the whole tree.

Leaf i moves in units a_i = m / ‖c_i‖, where c_i is its claimed gradient, m = min_i ‖c_i‖·s_i, and s_i the leaf's root
mean square. Each leaf then claims the same share m of the slope, so none is drowned by the others, and none moves
further than it would alone. With an error of e_i in leaf i the residual along a Gaussian line is normal with variance
Σ (a_i‖e_i‖)² >= (m·‖e_i‖/‖c_i‖)²: K lines miss a relative error with the probability with which those of one leaf do.

What is not beyond doubt here is looked at leaf by leaf: a residual beyond what one leaf alone would be allowed, an
error bar as wide as that, a kink, a float32 on the way, a contradicting oracle. So nothing fails by the quick way, and
what passes has met bounds at least as tight as ``rtol`` of every single leaf.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxopt_nn.checking._sampling.differences import Floats, Slopes
from jaxopt_nn.checking._sampling.lines import Probe
from jaxopt_nn.checking._verdict.comparison import Comparison
from jaxopt_nn.checking._verdict.evidence import Claim, Evidence, Finding, Settings, along_lines

__all__ = ["check_groups", "influence_groups", "zero_groups"]

_SPREAD = 1e4  # of influence within a group: what is lost in sharpness on the most influential leaf


def influence_groups(norms: Sequence[float], scales: Sequence[float], chosen: Sequence[bool]) -> list[Floats]:
    """Groups of ``chosen`` leaves of like influence ‖c‖·s, two leaves at least: the units a_i, 0 outside the group.

    Args:
        norms: of the claimed gradient, leaf by leaf.
        scales: of the leaves.
        chosen: the leaves that may be taken together.
    """
    influence = np.multiply(norms, scales)
    left = [int(i) for i in np.argsort(-influence) if chosen[i] and norms[i]]
    groups: list[Floats] = []
    while left:
        members = [i for i in left if influence[i] * _SPREAD >= influence[left[0]]]
        left = left[len(members) :]
        if len(members) > 1:
            units = np.zeros(len(norms))
            units[members] = influence[members[-1]] / np.array(norms)[members]
            groups.append(units)
    return groups


def zero_groups(norms: Sequence[float], scales: Sequence[float], chosen: Sequence[bool]) -> list[Floats]:
    """The group of ``chosen`` leaves whose claimed gradient is zero, each in its own unit; none for a single one."""
    members = np.array([one and not norm for one, norm in zip(chosen, norms, strict=True)])
    return [np.where(members, scales, 0.0)] if np.sum(members) > 1 else []


def check_groups(
    probe: Probe, claims: Sequence[Claim], groups: Sequence[Floats], settings: Settings
) -> dict[int, tuple[Evidence, Finding]]:
    """Evidence and finding, by index, for the leaves of those groups in which everything is right."""
    findings: dict[int, tuple[Evidence, Finding]] = {}
    for number, units in enumerate(groups, len(claims)):
        members = [i for i, unit in enumerate(units) if unit]
        gradient = np.concatenate([a * claim.gradient.ravel() for a, claim in zip(units, claims, strict=True)])
        tolerance = settings.tolerance._replace(rtol=settings.tolerance.rtol / math.sqrt(len(members)))
        claim = Claim(number, gradient)
        evidence = along_lines(probe, claim, settings._replace(tolerance=tolerance))
        finding = _finding(evidence, settings, len(members))
        if finding is not None:
            findings.update({i: (_share(evidence, claims[i], float(units[i])), finding) for i in members})
    return findings


def _finding(evidence: Evidence, settings: Settings, members: int) -> Finding | None:
    comparison = evidence.comparison
    if evidence.sample.constant and not np.any(evidence.claim.gradient):
        return Finding("DEAD", "f does not depend on this leaf here, and the claimed gradient is zero")
    one = evidence.norm / math.sqrt(members)  # the share of a leaf
    sharp = np.all(comparison.error <= settings.tolerance.rtol * one) and np.all(np.isfinite(comparison.residual))
    if not sharp or np.any(comparison.wrong) or np.any(comparison.jump):
        return None
    return Finding("PASS", "") if evidence.miss_bound <= settings.tolerance.resolution * one else None


def _share(evidence: Evidence, claim: Claim, unit: float) -> Evidence:
    """What the lines through all leaves say of one: all of the slopes, in the unit of the leaf."""
    slopes, curve, comparison = evidence.sample.slopes, evidence.sample.curve, evidence.comparison
    per_leaf: Callable[[Floats], Floats] = lambda values: values / unit  # noqa: E731
    shared = Slopes(*map(per_leaf, slopes))._replace(step=slopes.step * unit)
    curve = curve._replace(
        steps=curve.steps * unit, two_sided=per_leaf(curve.two_sided), forward=per_leaf(curve.forward)
    )
    return evidence._replace(
        claim=claim,
        claimed=per_leaf(evidence.claimed),
        sample=evidence.sample._replace(slopes=shared, curve=curve),
        comparison=Comparison(*map(per_leaf, comparison)),
        norm=float(np.linalg.norm(claim.gradient)),
        numeric_norm=math.nan,
        error_norm=evidence.error_norm / unit,
        sigma=evidence.sigma / unit,
        miss_bound=evidence.miss_bound / unit,
    )
