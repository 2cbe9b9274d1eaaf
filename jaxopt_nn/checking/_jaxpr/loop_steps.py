"""What each step of a loop adds to the gradient of a leaf that all steps share, such as the kernel of a recurrence."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from jaxopt_nn._jaxprs.equations import Call, Scan, closed, inner_programs, opened
from jaxopt_nn.checking._jaxpr.interpreter import bind, place_of
from jaxopt_nn.checking._jaxpr.rule_stripped import NO_DERIVATIVE, differentiate
from jaxopt_nn.checking._objective.objective import Objective
from jaxopt_nn.checking._sampling.differences import Floats

__all__ = ["step_terms"]

_MOST = 128  # steps


def step_terms(objective: Objective, leaves: Sequence[Any], leaf: int) -> list[tuple[str, Floats]]:
    """The steps of the first ``lax.scan`` that takes a leaf whole, in words, and each one's part of the gradient.

    Empty where there is no such loop, it has one step or very many, or f has no derivative.
    """
    shape = np.shape(leaves[leaf])
    found: list[tuple[int, str]] = []

    def value(stacks: Sequence[Any], rest: Any) -> Any:
        others, cotangent, point = rest
        inputs = [*point, *others]
        out, *_ = _evaluate(objective.program, inputs, {leaf}, stacks[0] if stacks else None, found)
        out = jnp.asarray(out, jnp.float64)
        return out if cotangent is None else jnp.sum(out * cotangent)

    rest = (objective.rest[0], objective.cotangent, list(leaves))
    jax.eval_shape(lambda rest: value([], rest), rest)
    if objective.by_hand or objective.widen or not found or not 2 <= found[0][0] <= _MOST:
        return []
    (length, place), *_ = found
    found.clear()
    stack = np.broadcast_to(np.asarray(leaves[leaf]), (length, *shape))
    gradient, _ = differentiate(jax.grad, value, [stack], rest, NO_DERIVATIVE)
    if gradient is None:
        return []
    return [(f"step {step} of {length} of the scan at {place}", part) for step, part in enumerate(gradient[0], 1)]


def _evaluate(
    program: Any, inputs: Sequence[Any], marked: set[int], stack: Any, found: list[tuple[int, str]]
) -> list[Any]:
    """The outputs of a program; the first loop that takes a marked input whole gets a row of ``stack`` at each step."""
    jaxpr = opened(program)
    values: dict[Any, Any] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*getattr(program, "consts", ()), *inputs], strict=True)
    )
    whole = {jaxpr.invars[index] for index in marked}

    def is_whole(atom: Any) -> bool:
        return not isinstance(atom, core.Literal) and atom in whole

    for equation in jaxpr.eqns:
        ins = [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in equation.invars]
        marks = {index for index, atom in enumerate(equation.invars) if is_whole(atom)}
        inner = inner_programs(equation)
        if isinstance(inner, Scan) and not found and any(index < inner.consts for index in marks):
            found.append((inner.length, place_of(equation)[0]))
            position = min(marks)
            outs = bind(equation, ins) if stack is None else _scan(inner, ins, position, stack)
        elif isinstance(inner, Call) and not inner.rule:
            outs = _evaluate(inner.program, ins, marks, stack, found)
        else:
            outs = bind(equation, ins)
        values.update(zip(equation.outvars, outs, strict=True))
    return [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in jaxpr.outvars]


def _scan(scan: Scan, ins: Sequence[Any], position: int, stack: Any) -> list[Any]:
    """The same loop, with a row of ``stack`` at each step in place of one of its constants."""
    last = scan.consts + scan.carry
    consts, carry, xs = list(ins[: scan.consts]), list(ins[scan.consts : last]), list(ins[last:])
    body: Callable[..., list[Any]] = core.jaxpr_as_fun(closed(opened(scan.body), getattr(scan.body, "consts", ())))

    def step(carry: list[Any], x: tuple[Any, list[Any]]) -> tuple[list[Any], list[Any]]:
        row, own = x
        outs = body(*consts[:position], row, *consts[position + 1 :], *carry, *own)
        return list(outs[: scan.carry]), list(outs[scan.carry :])

    carry, ys = lax.scan(step, carry, (stack, xs), scan.length, reverse=scan.reverse, unroll=scan.unroll)
    return [*carry, *ys]
