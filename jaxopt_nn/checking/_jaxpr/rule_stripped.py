"""The first oracle: automatic differentiation of what f computes, without the rules that somebody wrote for it.

Exact to round-off, no step size. It cannot look into callbacks and Pallas kernels, and it trusts JAX's own primitives;
differences of f are the judge of both. Where the two gradients differ, the rules and the stop_gradients of f are taken
one at a time to see which of them matters.

A program is rewritten first, which must succeed, and differentiated then, which need not: some operations have no
derivative, and somebody's rule may not run outside the trace that it was made in. That is told, as a reason.
"""

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxopt_nn._jaxprs.cache import evaluator
from jaxopt_nn._jaxprs.equations import closed
from jaxopt_nn.checking._jaxpr.interpreter import Policy, Site, is_jax_code, place_of, run
from jaxopt_nn.checking._objective.objective import Objective
from jaxopt_nn.checking._sampling.differences import Floats

__all__ = [
    "NO_DERIVATIVE",
    "Changed",
    "Stripped",
    "blame",
    "conventional_gradient",
    "differentiate",
    "has_own_rules",
    "single_rules",
    "stops_gradients",
    "stripped_gradient",
    "summands",
    "terms",
    "through_stops",
    "trust",
]

_MOST = 12  # sites that are tried one at a time: each is a program to compile
_SEEN = 1e-9  # a relative change of the gradient that is no round-off


# What JAX raises for an operation without a derivative, which becomes a note of the report. NotImplementedError: a
# primitive without a rule. ValueError: a callback, and a while_loop in reverse mode. UnexpectedTracerError: a rule that
# closes over the trace it was made in. Our own reading of a program is traced before, outside of the try.
NO_DERIVATIVE = (NotImplementedError, ValueError, jax.errors.UnexpectedTracerError)
_NO_TRANSPOSED_SOLVE = "transpose_solve required"  # and for a linear solve without a transposed one: a TypeError


Excused = tuple[type[Exception], ...]


class Stripped(NamedTuple):
    """The gradient of the leaves without custom rules.

    Attributes:
        gradient: per leaf, float64; None where it could not be had.
        reason: why not, else empty.
    """

    gradient: list[Floats] | None
    reason: str


class Changed(NamedTuple):
    """A gradient, and what it is with one site read in another way, site by site.

    Attributes:
        plain: the gradient; None where it could not be had, or no site is there.
        by_site: the gradient with that one changed.
        reasons: what could not be had, and why.
    """

    plain: list[Floats] | None
    by_site: list[tuple[Site, list[Floats]]]
    reasons: list[str]


def has_own_rules(objective: Objective) -> bool:
    """Whether the oracle can tell anything that ``jax.grad`` does not: a rule outside JAX, or a stop_gradient."""
    return any(not is_jax_code(site) for site in objective.sites)


def trust(objective: Objective, trusted: Callable[..., Any] | str | Sequence[Callable[..., Any] | str]) -> Objective:
    """The function whose derivative the ``trusted`` rules are; raises where f has no such rule."""
    names: Any = trusted if isinstance(trusted, Sequence) and not isinstance(trusted, str) else [trusted]
    rules = [site for site in objective.sites if site.kind != "stop_gradient"]
    sites: list[Site] = []
    for one in names:
        if isinstance(one, str):
            name, known = one, [site for site in rules if site.name == one]
        elif callable(one):
            code = getattr(inspect.unwrap(one), "__code__", None)
            name = getattr(one, "__name__", repr(one))
            place = f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}" if code else ""
            known = [site for site in rules if (site.name, site.defined) == (name, place)]
        else:
            raise TypeError(
                f"trusted_rules: expected functions or their names, got {one!r} of type {type(one).__name__}"
            )
        if not known:
            got = ", ".join(str(site) for site in rules if not is_jax_code(site)) or "no rule of its own"
            raise ValueError(f"trusted_rules: expected a function with a rule in f, got {name!r}; f has {got}")
        sites += known
    return objective._replace(trusted=tuple(sites))


def stops_gradients(objective: Objective) -> bool:
    """Whether f has a stop_gradient that is not inside of JAX's own functions."""
    return any(site.kind == "stop_gradient" and not is_jax_code(site) for site in objective.sites)


def stripped_gradient(objective: Objective, leaves: Sequence[Any], *, frozen: bool) -> Stripped:
    """Derivative of f's plain computation at ``leaves``; stop_gradients count as constants if ``frozen``."""
    return _gradient(objective, leaves, Policy(lambda _: True, lambda _: frozen), NO_DERIVATIVE)


def stripped_field(objective: Objective, leaves: Sequence[Any], *, frozen: bool) -> Callable[[Any], list[Floats]]:
    """``stripped_gradient`` as a function of the leaves, traced once; to be called where there is one."""
    policy = Policy(lambda _: True, lambda _: frozen)
    leaves = [np.asarray(leaf) for leaf in leaves]
    program = jax.make_jaxpr(lambda leaves, rest: objective.value(leaves, rest, policy)[0])(leaves, objective.rest)
    return _derived(jax.grad, program, leaves, objective.rest)


def conventional_gradient(objective: Objective, leaves: Sequence[Any], *, frozen: bool) -> Stripped:
    """As ``stripped_gradient``, but with the rules of JAX itself, which say what its functions' slopes are at kinks."""
    return _gradient(objective, leaves, Policy(lambda site: not is_jax_code(site), lambda _: frozen), NO_DERIVATIVE)


def single_rules(objective: Objective, leaves: Sequence[Any]) -> Changed:
    """The gradient without any rule, and with each one of those that are not JAX's own."""
    rules = [site for site in objective.sites if site.kind != "stop_gradient" and not is_jax_code(site)]
    own = [site for site in rules if site not in objective.trusted]
    return _changed(
        objective, leaves, own, lambda site: Policy(lambda other: other != site, lambda _: True), (Exception,)
    )


def through_stops(objective: Objective, leaves: Sequence[Any]) -> Changed:
    """The gradient with every stop_gradient, and with each of them made transparent."""
    stops = [site for site in objective.sites if site.kind == "stop_gradient" and not is_jax_code(site)]
    policy = lambda site: Policy(lambda _: True, lambda other: other != site)  # noqa: E731
    return _changed(objective, leaves, stops, policy, NO_DERIVATIVE)


def blame(changed: Changed, leaf: int) -> list[tuple[Site, float]]:
    """The sites that matter to the gradient of ``leaf``, with the relative change that they make, largest first."""
    if changed.plain is None:
        return []
    plain = changed.plain[leaf]
    influences: list[tuple[Site, float]] = []
    for site, gradients in changed.by_site:
        gradient = gradients[leaf]
        difference = float(np.linalg.norm(gradient - plain))
        norm = max(float(np.linalg.norm(plain)), float(np.linalg.norm(gradient)))
        if norm and difference > _SEEN * norm:
            influences.append((site, difference / norm))
    return sorted(influences, key=lambda item: -item[1])


def terms(objective: Objective, leaves: Sequence[Any]) -> tuple[list[tuple[str, list[Floats]]], str]:
    """The summands of a scalar f, each in words and with its gradient; nothing if f is no sum, or why not."""
    program, summed = objective.program, summands(objective.program)
    if objective.cotangent is not None or not 2 <= len(summed) <= _MOST:
        return [], ""
    outvars = [atom for atom, _ in summed]
    jaxpr = program.jaxpr.replace(outvars=outvars, debug_info=program.jaxpr.debug_info._replace(result_paths=None))
    whole = closed(jaxpr, program.consts)
    policy = Policy(lambda _: True, lambda _: False, widen=objective.widen)

    def values(leaves: Sequence[Any], rest: Any) -> Any:
        return jnp.stack([jnp.asarray(out, jnp.float64) for out in run(whole, policy, [*leaves, *rest[0]])[0]])

    jacobian, reason = differentiate(jax.jacrev, values, leaves, objective.rest, NO_DERIVATIVE)
    if jacobian is None:
        return [], f"the terms of f have no gradient: {reason}"
    named = [f"term {i} of {len(summed)} of f ({place})" for i, (_, place) in enumerate(summed, 1)]
    return [(name, [np.asarray(leaf[i]) for leaf in jacobian]) for i, name in enumerate(named)], ""


def summands(program: Any) -> list[tuple[Any, str]]:
    """The variables that are added (or subtracted) to the scalar output of a closed jaxpr, with their places."""
    jaxpr = program.jaxpr
    makers = {var: equation for equation in jaxpr.eqns for var in equation.outvars}
    terms: list[tuple[Any, str]] = []
    waiting = [jaxpr.outvars[0]]
    while waiting and len(terms) <= _MOST:
        atom = waiting.pop(0)
        equation = None if isinstance(atom, core.Literal) else makers.get(atom)
        if equation is not None and equation.primitive.name in ("add", "add_any", "sub", "convert_element_type", "neg"):
            waiting = [*equation.invars, *waiting]
        elif equation is not None:
            terms.append((atom, place_of(equation)[0]))
    return terms


def _changed(
    objective: Objective,
    leaves: Sequence[Any],
    tried: list[Site],
    policy: Callable[[Site | None], Policy],
    excused: Excused,
) -> Changed:
    if not tried:
        return Changed(None, [], [])
    plain, reason = _gradient(objective, leaves, policy(None), NO_DERIVATIVE)
    if plain is None:
        suspects = ", ".join(str(site) for site in tried[:_MOST])
        return Changed(None, [], [f"could not be tried alone, and may be wrong: {suspects} ({reason})"])
    changed = Changed(plain, [], [])
    for site in tried[:_MOST]:
        gradient, reason = _gradient(objective, leaves, policy(site), excused)
        if gradient is None:
            changed.reasons.append(f"{site} could not be tried alone: {reason}")
        else:
            changed.by_site.append((site, gradient))
    return changed


def _gradient(objective: Objective, leaves: Sequence[Any], policy: Policy, excused: Excused) -> Stripped:
    value = lambda leaves, rest: objective.value(leaves, rest, policy)[0]  # noqa: E731
    return Stripped(*differentiate(jax.grad, value, leaves, objective.rest, excused))


def differentiate(
    derivative: Callable[..., Any], fn: Callable[..., Any], leaves: Sequence[Any], rest: Any, excused: Excused
) -> tuple[list[Floats] | None, str]:
    """The derivative of ``fn(leaves, rest)`` by leaves, or None and the reason if an ``excused`` exception is raised.

    What ``fn`` itself raises while it is traced is raised: that is this package's own code.
    """
    leaves = [np.asarray(leaf) for leaf in leaves]
    program = jax.make_jaxpr(fn)(leaves, rest)
    try:
        result = _derived(derivative, program, leaves, rest)(leaves)
    except (*excused, TypeError) as error:
        if not isinstance(error, excused) and not str(error).startswith(_NO_TRANSPOSED_SOLVE):
            raise
        text = str(error).splitlines()
        return None, text[0][:160] if text else type(error).__name__
    return result, ""


def _derived(
    derivative: Callable[..., Any], program: Any, leaves: Sequence[Any], rest: Any
) -> Callable[[Sequence[Any]], list[Floats]]:
    """The derivative of a traced function of leaves and rest, as a function of the leaves."""
    flat, fn = jax.tree.leaves(rest), core.jaxpr_as_fun(program)
    differentiated = jax.make_jaxpr(derivative(lambda leaves, rest: fn(*leaves, *rest)[0]))(list(leaves), flat)
    run = evaluator(differentiated)
    return lambda leaves: [np.asarray(leaf) for leaf in run([*leaves, *flat])]
