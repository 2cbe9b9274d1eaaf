"""Where a program leaves float64 for a shorter float, and the same program without that.

Differences of what is rounded to float32 or bfloat16 see nothing. So the program that they sample, and that
rule-stripped AD differentiates, takes every such conversion for the identity and computes in float64 throughout. The
claimed gradient keeps its conversions: it may differ by what they cost, which is measured.
"""

from collections.abc import Sequence
from typing import Any

import jax

from jaxopt_nn._jaxprs.equations import opened, programs_in
from jaxopt_nn.checking._jaxpr.analysis import is_shorter
from jaxopt_nn.checking._jaxpr.interpreter import Policy, place_of
from jaxopt_nn.checking._objective.objective import Objective

__all__ = ["casts", "has_primitive", "widened"]

_MOST = 3  # places that are named


def widened(objective: Objective, leaves: Sequence[Any]) -> tuple[Objective, str]:
    """``(objective, reason)``: f in float64 throughout if a leaf passes through a shorter float; or why that fails."""
    if not any(objective.reading.rounding):
        return objective, ""
    widened = objective._replace(widen=True)
    policy = Policy(lambda _: True, lambda _: False)
    try:
        jax.eval_shape(lambda leaves, rest: widened.value(leaves, rest, policy), list(leaves), objective.rest)
    except Exception as error:  # any operation may insist on the float that it was traced for
        text = str(error).splitlines() or [type(error).__name__]
        return objective, f"f could not be taken to float64 throughout: {text[0][:160]}"
    reading = objective.reading
    return widened._replace(reading=reading._replace(rounding=tuple(0.0 for _ in reading.rounding))), ""


def casts(program: Any) -> list[str]:
    """``dtype at file.py:line`` of the conversions to a shorter float, in the order of the program."""
    places: dict[str, None] = {}
    _collect_casts(opened(program), places)
    more = len(places) - _MOST
    return [*list(places)[:_MOST], *([f"{more} more places"] if more > 0 else [])]


def has_primitive(program: Any, name: str) -> bool:
    """Whether a program has a primitive of this name, at any depth."""
    return any(
        equation.primitive.name == name or any(has_primitive(inner, name) for inner in programs_in(equation.params))
        for equation in opened(program).eqns
    )


def _collect_casts(jaxpr: Any, places: dict[str, None]) -> None:
    for equation in jaxpr.eqns:
        inner = list(programs_in(equation.params))
        for var in equation.outvars if not inner else ():
            if any(is_shorter(var.aval.dtype, atom.aval.dtype) for atom in equation.invars):
                places[f"{var.aval.dtype} at {place_of(equation)[0]}"] = None
        for program in inner:
            _collect_casts(opened(program), places)
