"""What a traced function tells before it runs: where it leaves float64, whether it draws random numbers, what it is.

Everything here reads jaxprs; nothing is evaluated.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from jaxopt_nn._jaxprs.equations import Call, Cond, Scan, ShardMap, While, inner_programs, opened

__all__ = ["Reading", "check_untraced", "is_shorter", "read"]


class Reading(NamedTuple):
    """What a float64 trace of f says.

    Attributes:
        rounding: per input of f, the unit of rounding of the coarsest dtype that it passes through; 0.0 if it stays
            in float64 all the way.
        random: whether f draws random numbers.
    """

    rounding: tuple[float, ...]
    random: bool


def check_untraced(program: Any) -> None:
    """Raises ``TypeError`` where a closed jaxpr of f closes over a traced value."""
    for const in program.consts:
        if isinstance(const, Tracer):
            raise TypeError(f"f: it closes over a traced value ({const.aval}); pass that as an argument, outside jit")


def read(program: Any) -> Reading:
    """Reads a closed jaxpr whose float inputs are float64; what its outputs do not depend on is left out."""
    rounding: dict[float, int] = {}
    names: set[str] = set()
    count = len(program.jaxpr.invars)
    # Without this, running statistics that f computes in float32 and throws away would spoil the leaf they come from.
    live, _ = dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars), instantiate=True)
    _flow(live, [1 << i for i in range(count)], rounding, names)
    worst = tuple(max((eps for eps, mask in rounding.items() if mask >> i & 1), default=0.0) for i in range(count))
    return Reading(worst, bool(names & _RANDOM))


_RANDOM = frozenset({"random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform", "random_gamma"})


def _flow(jaxpr: Any, inputs: list[int], rounding: dict[float, int], names: set[str]) -> list[int]:
    """Carries bit masks "depends on input i" through the equations; notes where a float becomes a shorter one."""
    masks: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))

    def mask_of(atom: Any) -> int:
        return 0 if isinstance(atom, core.Literal) else masks.get(atom, 0)

    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        ins = [mask_of(atom) for atom in equation.invars]
        any_in = _union(ins)
        outs = _flow_inside(equation, ins, rounding, names)
        for position, var in enumerate(equation.outvars):
            dtype = var.aval.dtype
            is_float = jnp.issubdtype(dtype, jnp.inexact)
            wider = _union(
                mask for atom, mask in zip(equation.invars, ins, strict=True) if is_shorter(dtype, atom.aval.dtype)
            )
            if outs is None and wider:
                eps = float(jnp.finfo(dtype).eps)
                rounding[eps] = rounding.get(eps, 0) | wider
            # A comparison or an index carries no slope, so it passes no dependence on.
            masks[var] = (any_in if outs is None else outs[position]) if is_float else 0
        if equation.primitive.name == "reduce_precision" and equation.params["mantissa_bits"] < 52:
            eps = 2.0 ** -equation.params["mantissa_bits"]
            rounding[eps] = rounding.get(eps, 0) | any_in
    return [mask_of(atom) for atom in jaxpr.outvars]


def _flow_inside(equation: Any, ins: list[int], rounding: dict[float, int], names: set[str]) -> list[int] | None:
    """The outputs' masks of an equation that holds programs; None for a plain operation."""
    inner = inner_programs(equation)
    if inner is None:
        return None
    if isinstance(inner, Scan):
        last = inner.consts + inner.carry
        consts, carry, slices = ins[: inner.consts], ins[inner.consts : last], ins[last:]
        return _fixpoint(opened(inner.body), consts, carry, slices, rounding, names)
    if isinstance(inner, While):
        operands = ins[inner.condition_consts :]
        consts, carry = operands[: inner.body_consts], operands[inner.body_consts :]
        return _fixpoint(opened(inner.body), consts, carry, [], rounding, names)
    if isinstance(inner, Cond):
        branches = [_flow(opened(branch), ins[1:], rounding, names) for branch in inner.branches]
        return [_union(masks) for masks in zip(*branches, strict=True)]
    if isinstance(inner, (Call, ShardMap)):
        return _flow(opened(inner.program), ins, rounding, names)
    for program in map(opened, inner.programs):  # what it takes is not known: everything may depend on everything
        _flow(program, [_union(ins)] * len(program.invars), rounding, names)
    return [_union(ins)] * len(equation.outvars)


def is_shorter(dtype: Any, other: Any) -> bool:
    """Whether a float has fewer digits than another one."""
    if not (jnp.issubdtype(dtype, jnp.inexact) and jnp.issubdtype(other, jnp.inexact)):
        return False
    return bool(jnp.finfo(dtype).eps > jnp.finfo(other).eps)


def _fixpoint(
    body: Any, consts: list[int], carry: list[int], rest: list[int], rounding: dict[float, int], names: set[str]
) -> list[int]:
    while True:
        outs = _flow(body, [*consts, *carry, *rest], rounding, names)
        wider = [a | b for a, b in zip(carry, outs[: len(carry)], strict=True)]
        if wider == carry:
            return outs
        carry = wider


def _union(masks: Any) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union
