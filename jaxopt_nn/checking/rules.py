"""The first oracle: automatic differentiation of what f computes, without the rules that somebody wrote for it.

Exact to round-off, no step size. It cannot look into callbacks and Pallas kernels, and it trusts JAX's own primitives;
differences of f are the judge of both. Where the two gradients differ, the rules and the stop_gradients of f are taken
one at a time to see which of them matters.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxopt_nn.checking.differences import Floats
from jaxopt_nn.checking.interpret import Policy, Site, is_jax_code, place_of, run
from jaxopt_nn.checking.problem import Objective

__all__ = [
    "Changed",
    "Stripped",
    "blame",
    "has_own_rules",
    "single_rules",
    "stripped_gradient",
    "summands",
    "terms",
    "through_stops",
]

_MOST = 12  # sites that are tried one at a time: each is a program to compile
_SEEN = 1e-9  # a relative change of the gradient that is no round-off


class Stripped(NamedTuple):
    """The gradient of the leaves without custom rules.

    Attributes:
        gradient: per leaf, float64; None where it could not be had.
        reason: why not, else empty.
    """

    gradient: list[Floats] | None
    reason: str


def has_own_rules(objective: Objective) -> bool:
    """Whether the oracle can tell anything that ``jax.grad`` does not: a rule outside JAX, or a stop_gradient."""
    return any(not is_jax_code(site) for site in objective.sites)


def stripped_gradient(objective: Objective, leaves: Sequence[Any], *, frozen: bool) -> Stripped:
    """Derivative of f's plain computation at ``leaves``; stop_gradients count as constants if ``frozen``."""
    try:
        return Stripped(_gradient(objective, leaves, Policy(lambda _: True, lambda _: frozen)), "")
    except Exception as error:  # whatever a primitive without a derivative raises
        text = str(error).splitlines()
        return Stripped(None, text[0][:160] if text else type(error).__name__)


Changed = tuple[list[Floats], list[tuple[Site, list[Floats]]]]
"""A gradient, and what it is with one site read in another way, site by site."""


def single_rules(objective: Objective, leaves: Sequence[Any]) -> Changed | None:
    """The gradient without any rule, and with each one of those that are not JAX's own; None if it is not to be had."""
    own = [site for site in objective.sites if site.kind != "stop_gradient" and not is_jax_code(site)]
    return _changed(objective, leaves, own, lambda site: Policy(lambda other: other != site, lambda _: True))


def through_stops(objective: Objective, leaves: Sequence[Any]) -> Changed | None:
    """The gradient with every stop_gradient, and with each of them made transparent; None if it is not to be had."""
    stops = [site for site in objective.sites if site.kind == "stop_gradient"]
    return _changed(objective, leaves, stops, lambda site: Policy(lambda _: True, lambda other: other != site))


def blame(changed: Changed | None, leaf: int) -> list[tuple[Site, float]]:
    """The sites that matter to the gradient of ``leaf``, with the relative change that they make, largest first."""
    if changed is None:
        return []
    plain = changed[0][leaf]
    found: list[tuple[Site, float]] = []
    for site, gradients in changed[1]:
        gradient = gradients[leaf]
        difference = float(np.linalg.norm(gradient - plain))
        norm = max(float(np.linalg.norm(plain)), float(np.linalg.norm(gradient)))
        if norm and difference > _SEEN * norm:
            found.append((site, difference / norm))
    return sorted(found, key=lambda item: -item[1])


def terms(objective: Objective, leaves: Sequence[Any]) -> list[tuple[str, list[Floats]]]:
    """The summands of a scalar f, each in words and with its gradient; nothing if f is no sum."""
    program, found = objective.program, summands(objective.program)
    if objective.cotangent is not None or not 2 <= len(found) <= _MOST:
        return []
    outvars = [atom for atom, _ in found]
    jaxpr = program.jaxpr.replace(outvars=outvars, debug_info=program.jaxpr.debug_info._replace(result_paths=None))
    whole = core.ClosedJaxpr(jaxpr, program.consts)
    policy = Policy(lambda _: True, lambda _: False)
    others = objective.rest[0]

    def values(leaves: Sequence[Any]) -> Any:
        return jnp.stack([jnp.asarray(out, jnp.float64) for out in run(whole, policy, [*leaves, *others])[0]])

    try:
        jacobian = jax.jit(jax.jacrev(values))([jnp.asarray(leaf) for leaf in leaves])
    except Exception:  # as above: there is no derivative to be had
        return []
    named = [f"term {i} of {len(found)} of f ({place})" for i, (_, place) in enumerate(found, 1)]
    return [(name, [np.asarray(leaf[i]) for leaf in jacobian]) for i, name in enumerate(named)]


def summands(program: Any) -> list[tuple[Any, str]]:
    """The variables that are added (or subtracted) to the scalar output of a closed jaxpr, with their places."""
    jaxpr = program.jaxpr
    makers = {var: equation for equation in jaxpr.eqns for var in equation.outvars}
    found: list[tuple[Any, str]] = []
    waiting = [jaxpr.outvars[0]]
    while waiting and len(found) <= _MOST:
        atom = waiting.pop(0)
        equation = None if isinstance(atom, core.Literal) else makers.get(atom)
        if equation is not None and equation.primitive.name in ("add", "add_any", "sub", "convert_element_type", "neg"):
            waiting = [*equation.invars, *waiting]
        elif equation is not None:
            found.append((atom, place_of(equation)[0]))
    return found


def _changed(
    objective: Objective, leaves: Sequence[Any], tried: list[Site], policy: Callable[[Site | None], Policy]
) -> Changed | None:
    if not tried:
        return None
    try:
        plain = _gradient(objective, leaves, policy(None))
    except Exception:  # whatever a primitive without a derivative raises
        return None
    found: list[tuple[Site, list[Floats]]] = []
    for site in tried[:_MOST]:
        # A rule that closes over values of the trace that called it cannot be run again.
        with contextlib.suppress(Exception):
            found.append((site, _gradient(objective, leaves, policy(site))))
    return plain, found


def _gradient(objective: Objective, leaves: Sequence[Any], policy: Policy) -> list[Floats]:
    differentiate = jax.jit(jax.grad(lambda leaves, rest: objective.value(leaves, rest, policy)[0]))
    return [np.asarray(leaf) for leaf in differentiate([np.asarray(leaf) for leaf in leaves], objective.rest)]
