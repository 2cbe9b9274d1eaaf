"""The claimed gradient in the caller's own dtype against the one in float64: a verdict of its own.

Half of the digits are due: a relative error above √ε (3e-4 for float32, 0.09 for bfloat16) fails, unless rounding the
arguments alone does as much. Then the problem is sensitive, and no program for it does better.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxopt_nn.checking._objective.float64 import in_float64
from jaxopt_nn.checking._objective.objective import Arguments, Gradient, Objective, other_arrays, own_dtype_gradient
from jaxopt_nn.checking._report import DtypeVerdict
from jaxopt_nn.checking._sampling.differences import Floats

__all__ = ["OwnDtype", "compare_own_dtype", "round_off_of_claims"]

_EXCUSED = 30.0  # times what rounding the arguments does to the gradient
_SURE, _LIKELY, _CAP = 2.0, 100.0, 0.01  # units of rounding: always, and as long as they are less than this share
_TIMES = 6.0  # what moved inputs change
_DRAWS = 4  # of such roundings, and of coarser ones; the largest change counts


class OwnDtype(NamedTuple):
    """What there is to say about the gradient of a leaf in its own dtype.

    Attributes:
        error: relative norm of its difference from the one in float64; None where it was not compared.
        verdict: ``PASS`` or ``FAIL``; None where it was not compared.
    """

    error: float | None
    verdict: DtypeVerdict | None


def compare_own_dtype(
    f: Callable[..., Any],
    grad_fn: Callable[..., Any] | None,
    arguments: Arguments,
    objective: Objective,
    claimed: list[Floats],
    gradient: Gradient,
    vanishing: Sequence[float | None],
) -> tuple[list[OwnDtype], tuple[str, ...]]:
    """Compares every leaf, in the caller's own precision; returns notes too.

    Args:
        f: the function.
        grad_fn: the claimed gradient, or None.
        arguments: of f.
        objective: f in float64.
        claimed: the claimed gradient in float64.
        gradient: the claimed gradient as a function of float64 leaves and of the other arrays.
        vanishing: for leaves whose gradient is round-off only, a number; such a leaf is not compared.
    """
    nothing = [OwnDtype(None, None)] * len(claimed)
    if all(dtype == "float64" for dtype in arguments.dtypes):
        return nothing, ()
    if objective.reading.random:
        note = "f draws random numbers; other ones in another dtype, so the gradient in the own dtype is not compared"
        return nothing, (note,)
    own = own_dtype_gradient(f, grad_fn, arguments, objective)
    errors = [_relative(narrow, exact) for narrow, exact in zip(own, claimed, strict=True)]
    units = [_unit(dtype) for dtype in arguments.dtypes]
    compared = [unit > 0 and reach is None for unit, reach in zip(units, vanishing, strict=True)]
    bad = [one and not error <= math.sqrt(unit) for one, error, unit in zip(compared, errors, units, strict=True)]
    if any(bad):
        # The same arguments, each number rounded up or down in its own dtype, still in float64: a few times, since a
        # small leaf may be lucky once; and rounded as much coarser as is excused, since a gradient may jump at a kink.
        with in_float64():
            draws = np.random.default_rng(0)
            others = [(leaf, _unit(leaf.dtype)) for leaf in other_arrays(arguments)]
            excused = [0.0] * len(claimed)
            for coarser in (1.0, _EXCUSED) * _DRAWS:
                perturbed = gradient(
                    [_nudged(leaf, coarser * unit, draws) for leaf, unit in zip(arguments.leaves, units, strict=True)],
                    [_nudged(leaf, coarser * unit, draws) for leaf, unit in others],
                )
                changes = [_EXCUSED / coarser * _relative(a, b) for a, b in zip(perturbed, claimed, strict=True)]
                excused = [max(pair) for pair in zip(excused, changes, strict=True)]
        bad = [
            one and (not math.isfinite(error) or error > most)
            for one, error, most in zip(bad, errors, excused, strict=True)
        ]
    results = [
        OwnDtype(error if unit else None, ("FAIL" if wrong else "PASS") if one else None)
        for error, unit, wrong, one in zip(errors, units, bad, compared, strict=True)
    ]
    return results, ()


def round_off_of_claims(
    gradient: Gradient, arguments: Arguments, claimed: Sequence[Floats], units: Sequence[float]
) -> list[tuple[float, float]]:
    """What each claimed gradient may be off by for a shorter float in f or in ``grad_fn``, relative to its norm.

    ``units`` are those of rounding, 0.0 for float64. A few roundings, and several times what it changes by where every
    number that goes in is moved by half a unit; to be called under ``enable_x64``. The second number is that of the
    component along the gradient itself, where errors of the coordinates cancel: of a common factor one knows more.
    """
    if not any(units):
        return [(0.0, 0.0)] * len(units)
    draws, unit, others = np.random.default_rng(0), max(units), other_arrays(arguments)
    errors = [(0.0, 0.0)] * len(units)
    for _ in range(_DRAWS):
        again = gradient(
            [_nudged(leaf, own, draws) for leaf, own in zip(arguments.leaves, units, strict=True)],
            [_nudged(leaf, unit if jnp.issubdtype(leaf.dtype, jnp.floating) else 0.0, draws) for leaf in others],
        )
        errors = [
            (max(whole, _relative(a, b)), max(part, _along(a, b)))
            for (whole, part), a, b in zip(errors, again, claimed, strict=True)
        ]
    least = [max(_SURE * unit, min(_LIKELY * unit, _CAP)) for unit in units]
    return [
        (few + _TIMES * whole, few + _TIMES * part) if few else (0.0, 0.0)
        for few, (whole, part) in zip(least, errors, strict=True)
    ]


def _along(a: Floats, b: Floats) -> float:
    square = float(np.vdot(b, b))
    return abs(float(np.vdot(a - b, b))) / square if square else 0.0


def _unit(dtype: Any) -> float:
    """The unit of rounding of a float shorter than float64, else 0."""
    short = jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 8
    return float(jnp.finfo(dtype).eps) if short else 0.0


def _nudged(leaf: Any, unit: float, draws: np.random.Generator) -> Any:
    if not unit:
        return leaf
    exact = np.asarray(leaf).astype(np.float64)
    return exact * (1 + unit * draws.choice((-0.5, 0.5), np.shape(leaf)))


def _relative(narrow: Floats, exact: Floats) -> float:
    with np.errstate(invalid="ignore"):  # inf - inf
        norm, difference = float(np.linalg.norm(exact)), float(np.linalg.norm(narrow - exact))
    return difference / norm if norm else 0.0 if not difference else math.inf
