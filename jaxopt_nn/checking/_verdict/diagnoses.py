"""What is wrong with a gradient, in words: the simplest rule that turns the numeric gradient into the claimed one."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxopt_nn.checking._report import LeafReport
from jaxopt_nn.checking._sampling.differences import Floats

__all__ = ["Known", "Samples", "constant_ratio", "name_ratio", "one_factor", "ratio_text", "simplest"]


_SMALL = 8  # a length up to this is that of many an axis


class Samples(NamedTuple):
    """Claimed and numeric slopes, along lines or at coordinates.

    Attributes:
        claimed: ``[k]``.
        numeric: ``[k]``.
        error: ``[k]`` the error bars of ``numeric``.
        bound: ``[k]`` what counts as equal.
        project: the slopes ``[k]`` of another gradient, of the leaf's shape.
    """

    claimed: Floats
    numeric: Floats
    error: Floats
    bound: Floats
    project: Callable[[Floats], Floats]


class Known(NamedTuple):
    """What a hypothesis may be made of.

    Attributes:
        path: the leaf's path.
        value: the leaf.
        gradient: the claimed gradient.
        sizes: lengths of axes of the arguments: candidates for the number of examples.
        terms: the summands of f, each in words and with its gradient with respect to the leaf.
        masks: of each argument of zeros and ones, how many ones of how many.
    """

    path: str
    value: Floats
    gradient: Floats
    sizes: Sequence[int]
    terms: Sequence[tuple[str, Floats]]
    masks: Sequence[tuple[int, int]] = ()


def simplest(samples: Samples, known: Known) -> str:
    """The first hypothesis that explains every sample within its bound; empty if none does."""
    claimed, numeric, error, bound, project = samples
    if ratio := constant_ratio(claimed, numeric, error, bound):
        return ratio_text(*ratio, known.path, known.sizes, known.masks)
    transposable = known.gradient.ndim == 2 and known.gradient.shape[0] == known.gradient.shape[1]
    if transposable and np.any(np.isfinite(error)):
        other = project(known.gradient.T)
        if not np.any(np.abs(other - numeric) > bound):
            return f"claimed is the transpose of the numeric gradient on {known.path}"
    residual = claimed - numeric
    fits = [(place, constant_ratio(residual, project(gradient), error, bound)) for place, gradient in known.terms]
    for place, fit in fits:
        if fit and abs(abs(fit[0]) - 1) <= max(fit[1], 1e-6):
            what = "is missing" if fit[0] < 0 else "counts twice"
            return f"{place} {what} in the claimed gradient on {known.path}"
    if fit := constant_ratio(residual, project(known.value), error, bound):
        return (
            f"claimed - numeric = λ·w with λ = {fit[0]:.6g}±{fit[1]:.0e} on {known.path}: "
            "a penalty that counts twice, or not at all"
        )
    for place, fit in fits:
        if fit:
            return f"{place} counts {1 + fit[0]:.6g}±{fit[1]:.0e} times in the claimed gradient on {known.path}"
    return ""


def constant_ratio(claimed: Floats, numeric: Floats, error: Floats, bound: Floats) -> tuple[float, float] | None:
    """``(r, ±)`` with claimed = r · numeric on every line within the bounds; None where there is no such r."""
    claimed, numeric, error, bound = (part[np.isfinite(bound)] for part in (claimed, numeric, error, bound))
    square = float(np.sum(numeric**2))
    if square <= float(np.sum(bound**2)):
        return None
    ratio = float(np.sum(claimed * numeric)) / square
    allowed = (1 + abs(ratio)) * bound
    if np.any(np.abs(claimed - ratio * numeric) > allowed):
        return None
    misfit = np.abs(claimed - ratio * numeric) + (1 + abs(ratio)) * error
    return ratio, float(np.sqrt(np.sum(misfit**2) / square))


def ratio_text(
    ratio: float,
    margin: float,
    path: str = "",
    sizes: Sequence[int] = (),
    masks: Sequence[tuple[int, int]] = (),
) -> str:
    """A constant ratio in words.

    >>> ratio_text(2.0, 1e-8, "dense_1/kernel")
    'ratio 2.0000±1e-08 on dense_1/kernel: twice the numeric gradient'
    """
    where = f" on {path}" if path else ""
    if abs(ratio) <= margin:
        return f"claimed is zero{where}, numeric is not: a stopped gradient or a cut branch?"
    plain = abs(abs(ratio) - 1) >= 5e-4 and abs(ratio) >= 0.01
    digits = f"{ratio:.4f}" if plain or abs(ratio + 1) <= margin else f"{ratio:.8g}"
    name = name_ratio(ratio, margin, sizes, masks)
    return f"ratio {digits}±{margin:.0e}{where}" + (f": {name}" if name else "")


def name_ratio(ratio: float, margin: float, sizes: Sequence[int] = (), masks: Sequence[tuple[int, int]] = ()) -> str:
    """What a ratio usually comes from; "perhaps" where it may well be a coincidence; empty if nothing is known.

    >>> name_ratio(32 / 31, 1e-9, [32, 10])
    'B/(B-1) with B = 32: divided by B - 1 for B'
    >>> name_ratio(1.25, 1e-9)
    'perhaps 1/keep with keep = 0.8'
    """
    close = min(max(margin, 1e-7 * abs(ratio)), 1e-3)

    def equal(value: float) -> bool:
        return abs(ratio - value) <= close

    exact = {-1.0: "the sign is flipped", 2.0: "twice the numeric gradient", 0.5: "half the numeric gradient"}
    names = [name for value, name in exact.items() if equal(value)]
    perhaps: list[str] = []
    for ones, size in masks:
        if equal(ones / size):
            names.append(f"k/B with k = {ones} ones of B = {size} in a mask: divided by B for k")
        elif equal(size / ones):
            names.append(f"B/k with k = {ones} ones of B = {size} in a mask: divided by k for B")
    for size in sorted({size for size in sizes if size > 2}):
        cases = {
            size / (size - 1): f"B/(B-1) with B = {size}: divided by B - 1 for B",
            (size - 1) / size: f"(B-1)/B with B = {size}: divided by B for B - 1",
            float(size): f"B with B = {size}: a sum for a mean",
            1 / size: f"1/B with B = {size}: a mean for a sum",
            math.sqrt(size): f"√d with d = {size}",
            1 / math.sqrt(size): f"1/√d with d = {size}",
        }
        # Small numbers are lengths of many axes, and near many other ratios.
        (names if size > _SMALL else perhaps).extend(name for value, name in cases.items() if equal(value))
    keeps = (percent / 100 for percent in range(5, 100, 5))
    for keep in keeps if not names else ():
        perhaps += [
            f"{name} with keep = {keep:g}" for value, name in ((1 / keep, "1/keep"), (keep, "keep")) if equal(value)
        ]
    guesses = [f"perhaps {perhaps[0]}", *perhaps[1:]] if perhaps else []
    return ", or ".join([*names, *guesses][:2])


def one_factor(leaves: Sequence[LeafReport]) -> list[str]:
    """A note where every leaf is wrong by one and the same factor, which then comes from outside of the layers."""
    wrong = [leaf for leaf in leaves if leaf.verdict != "DEAD"]
    pairs = [(bad.claimed, bad.numeric) for leaf in wrong for bad in leaf.worst]
    if len(wrong) < 2 or not all(leaf.verdict == "FAIL" and leaf.worst for leaf in wrong):
        return []
    if not all(claimed and numeric for claimed, numeric in pairs):
        return []
    ratios = [claimed / numeric for claimed, numeric in pairs]
    if max(ratios) - min(ratios) > 1e-4 * abs(ratios[0]):
        return []
    norm = math.hypot(*(leaf.claimed_norm for leaf in wrong))
    round_norm = abs(norm - float(f"{norm:.1g}")) <= 1e-5 * norm
    clipped = f"clipped to the norm {norm:.1g}?" if round_norm else "a scale of the loss, or a clipped gradient?"
    return [f"one factor for all leaves, {ratios[0]:.6g}: {clipped}"]
