"""A leaf at kinks of f: the coordinates that meet none are compared by themselves, the others on both sides.

Along a random line all kinks of a leaf jump at once, and an interval between one-sided slopes that is as wide as all
jumps together hides an error of the claim. So the leaf is parted:

1. Where kinks are is told by the gradient at pairs of points next to the point, on opposite sides of it: exact where
   rule-stripped AD is to be had, else the claim's own, a guess. Where it does not tell, differences at each coordinate
   do, or at a random sample of a large leaf.
2. The coordinates that meet no kink move along random lines of their own, with the bounds of a leaf without kinks.
3. At each of the others the claim must lie between the one-sided slopes: those of the exact gradient, and where it
   does not lie between these, those of differences. Where there is no exact gradient, differences alone decide.

Kinked lines themselves give no bound on what may have escaped. Where every coordinate meets a kink, as where a residual
is exactly zero under an absolute error, the third rule is all there is.
"""

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.checking._sampling.differences import Floats
from jaxopt_nn.checking._sampling.lines import Probe
from jaxopt_nn.checking._verdict import localization
from jaxopt_nn.checking._verdict.evidence import Evidence, Finding, Settings, along_lines, places_at
from jaxopt_nn.checking._verdict.explanation import Near, Oracle, allowed, blocked, explain, failed

__all__ = ["at_kinks"]

_JUMP = 1e-6  # of a slope, beside the largest one, that is a kink
_SAMPLED = 512  # coordinates of a leaf that is too large for all of them
_WORST = 4  # coordinates that differences look at where the claim is not what the exact gradient says
_ALWAYS = 8  # coordinates at kinks that differences look at, whatever the exact gradient says
_NEGLIGIBLE = 1e-3  # norm of the part without kinks, of the whole, below which it need not be known as sharply


def at_kinks(probe: Probe, evidence: Evidence, reach: float | None, settings: Settings, oracle: Oracle) -> Finding:
    """The verdict on a leaf that meets kinks: FAIL, BLOCKED, INCONCLUSIVE, KINK_OK. ``reach``: see ``leaf.judge``."""
    claim, near = evidence.claim, oracle.near()
    size = claim.gradient.size
    generator = np.random.default_rng((*settings.words, 4, claim.leaf))
    every = size <= settings.max_coordinates
    exact = False
    kinked = _kinked(near, size)
    if near is not None and near.exact:
        exact = True
        off = np.flatnonzero(_outside(claim.gradient.ravel(), near, allowed(claim, np.maximum(-near.low, near.high))))
        gap = np.maximum(near.low - claim.gradient.ravel(), claim.gradient.ravel() - near.high)
        worst = off[np.argsort(-gap[off])[:_WORST]]
        beside = generator.permutation(off[kinked[off]])[: settings.max_coordinates]
        chosen = np.unique([*worst, *beside, *generator.permutation(np.flatnonzero(kinked))[:_ALWAYS]]).astype(int)
    else:
        off = np.zeros(0, int)
        likely = np.flatnonzero(kinked) if np.any(kinked) else np.arange(size)
        chosen = np.arange(size) if every else generator.permutation(likely)[:_SAMPLED]
    places = evidence.places or places_at(probe, evidence, chosen, settings)
    kinked[places.flat[places.comparison.jump > 0]] = True
    keep = ~kinked
    part = _part(probe, evidence, keep, settings)
    if part is not None and np.any(part.comparison.jump):  # there are others: only what differences looked at is known
        chosen = np.arange(size) if every else np.union1d(places.flat, generator.permutation(size)[:_SAMPLED])
        places = places_at(probe, evidence, chosen, settings)
        kinked[places.flat[places.comparison.jump > 0]] = True
        keep = np.zeros(size, bool)
        keep[places.flat[places.comparison.jump == 0]] = True
        part = _part(probe, evidence, keep, settings)
    if part is not None and np.any(part.comparison.wrong):
        own = _about(oracle, keep.reshape(claim.gradient.shape))
        return blocked(part, settings, own) or explain(probe, part, settings, own)
    if np.any(places.comparison.wrong):
        count = int(np.sum(places.comparison.wrong))
        text = f"at {count} of {len(places.flat)} coordinates that were looked at the claim is not between the slopes"
        worst = localization.worst_places(places, claim.gradient.shape, claim.units)
        return failed(f"{text} on the two sides of a kink", worst, oracle)
    whole = max(evidence.norm, reach or 0.0)
    return _right(evidence, part, whole, int(np.sum(kinked)), len(places.flat), exact and not len(off), oracle)


def _right(
    evidence: Evidence,
    part: Evidence | None,
    whole: float,
    kinked: int,
    looked: int,
    exactly: bool,
    oracle: Oracle,
) -> Finding:
    """Nothing is wrong: how much is known?"""
    size = evidence.claim.gradient.size
    sampled = kinked if exactly else min(kinked, looked)
    text = f"f has a kink at {kinked} of {size} coordinates; the claim lies between the one-sided slopes"
    text += f" at {sampled} that were looked at" if sampled < kinked else " there"
    if part is None:
        return Finding("KINK_OK", text)
    norm = max(part.norm, _NEGLIGIBLE * whole)
    others = len(part.claim.places)
    if part.miss_bound <= part.tolerance.resolution * norm:
        bound = f"an error of {part.miss_bound / (evidence.norm or 1.0):.0e} of the norm would have been seen"
        return Finding("KINK_OK", f"{text}; at {others} others {bound}")
    if exactly and oracle.steady():
        return Finding("KINK_OK", f"{text}; at {others} others by rule-stripped AD alone, differences are too coarse")
    return Finding("INCONCLUSIVE", f"{text}; at {others} others the error bar is too wide")


def _kinked(near: Near | None, size: int) -> NDArray[np.bool_]:
    if near is None:
        return np.zeros(size, bool)
    largest = float(np.max(np.maximum(np.abs(near.low), np.abs(near.high))))
    return near.high - near.low > _JUMP * largest


def _outside(claimed: Floats, near: Near, bound: Floats) -> NDArray[np.bool_]:
    """Where a claim is in no interval; next to the point a smooth slope is another one by much less than a jump."""
    bound = bound + 0.1 * _JUMP * float(np.max(np.maximum(np.abs(near.low), np.abs(near.high))))
    return (claimed < near.low - bound) | (claimed > near.high + bound)


def _part(probe: Probe, evidence: Evidence, keep: NDArray[np.bool_], settings: Settings) -> Evidence | None:
    """Evidence on the coordinates ``keep`` alone; None if there are none."""
    if not np.any(keep):
        return None
    claim = evidence.claim
    gradient = np.where(keep.reshape(claim.gradient.shape), claim.gradient, 0.0)
    return along_lines(probe, claim._replace(gradient=gradient, keep=keep), settings)


def _about(oracle: Oracle, keep: NDArray[np.bool_]) -> Oracle:
    """What is known about the coordinates ``keep``, and nothing of the others."""
    only = lambda values: np.where(keep, values, 0.0)  # noqa: E731
    return oracle._replace(
        value=only(oracle.value),
        stripped=None if oracle.stripped is None else only(oracle.stripped),
        conventional=lambda: None if (value := oracle.conventional()) is None else only(value),
        terms=lambda: [(place, only(gradient)) for place, gradient in oracle.terms()],
    )
