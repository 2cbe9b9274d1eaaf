"""Programs that are compiled once, for all checks that run them: what a program computes is its own name.

A check makes new function objects, and ``jax.jit`` knows functions by their identity alone, so a property-based test
would compile everything anew for each example. Here a traced program is known by its operations, literals and types.
The arrays that it closes over become inputs: functions that differ in these alone share what is compiled.

Nothing is taken for the same that may differ: a callback is known by its identity, and so is whatever has no equality
of its own. f itself is traced anew by every check.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from jaxopt_nn._jaxprs import equations
from jaxopt_nn._jaxprs.identity import identity

__all__ = ["Program", "evaluator", "share"]

_KEPT = 256  # compiled programs; the one that was used least recently goes first


@dataclasses.dataclass(frozen=True)
class Program:
    """A jaxpr without constants, equal to every other one that computes the same.

    Attributes:
        closed: the closed jaxpr; its inputs are those of the traced function, then its constants.
        identity: what it computes.
    """

    closed: Any = dataclasses.field(compare=False)
    identity: tuple[Any, ...]


def share(closed: Any) -> tuple[Program, list[Any]]:
    """A closed jaxpr as a program that may be shared, and the constants, its last inputs."""
    jaxpr = closed.jaxpr
    names = jaxpr.debug_info._replace(arg_names=None)
    open_ = jaxpr.replace(constvars=[], invars=[*jaxpr.invars, *jaxpr.constvars], debug_info=names)
    return Program(equations.closed(open_, []), identity(open_)), list(closed.consts)


def evaluator(closed: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """The outputs of a closed jaxpr at flat inputs; compiled at the first call, unless an equal one has been."""
    program, consts = share(closed)
    run = _compiled(program)
    return lambda inputs: run(*inputs, *consts)


@functools.lru_cache(maxsize=_KEPT)
def _compiled(program: Program) -> Callable[..., list[Any]]:
    return jax.jit(core.jaxpr_as_fun(program.closed))
