"""The choice between the old and the new state of a step, made leaf by leaf."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxopt_nn._lanes import in_lanes
from jaxopt_nn.types import Array, TrainState

__all__ = ["chosen_early"]


def chosen_early(advance: Callable[[], TrainState], old: TrainState, applied: Array) -> TrainState:
    """``advance()``, but ``old`` in lanes where it is not applied, chosen leaf by leaf as soon as a new one is there.

    What ``advance`` computes of a new leaf, as parameters of moments, it then computes of the chosen one: the same
    where the step is applied, and thrown away where not. Chosen at the end, moments would be copied first: XLA for CPUs
    computes them once more for the parameters, from old moments that the new ones write over.
    """
    traced, shape = jax.make_jaxpr(advance, return_shape=True)()
    jaxpr, applied = traced.jaxpr, jnp.where(in_lanes(applied), applied, True)
    places = list(zip(jaxpr.outvars, jax.tree.leaves(old), strict=True))
    before = {var: leaf for var, leaf in places if isinstance(var, core.Var)}
    values: dict[Any, Any] = {}

    def choose(new: Any, leaf: Any) -> Any:
        return leaf if new is leaf else lax.select_n(applied, leaf, new)

    def write(names: list[Any], news: list[Any]) -> None:
        values.update((v, choose(new, before[v]) if v in before else new) for v, new in zip(names, news, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    write(jaxpr.constvars, traced.consts)
    for equation in jaxpr.eqns:
        with equation.ctx.manager:
            bound = equation.primitive.get_bind_params(equation.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)  # a tuple in older versions of JAX
            outs = equation.primitive.bind(*functions, *map(read, equation.invars), **params)
        write(equation.outvars, outs if equation.primitive.multiple_results else [outs])
    # What is no variable has not been chosen yet, and a variable that is several leaves for one of them only.
    done = [isinstance(atom, core.Var) and before[atom] is leaf for atom, leaf in places]
    leaves = [read(atom) if ok else choose(read(atom), leaf) for ok, (atom, leaf) in zip(done, places, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(shape), leaves)
