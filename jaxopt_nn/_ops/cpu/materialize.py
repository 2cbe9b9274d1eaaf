"""Results that XLA computes once, by themselves."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn.types import Array

__all__ = ["materialize"]


def materialize(function: Callable[..., Any], *arrays: Array) -> Any:
    """``function(*arrays)`` in a branch that is always taken, though XLA cannot know it.

    XLA for CPUs computes a thing anew inside of each kernel that uses it, for each number that this reads: the place of
    a maximum by divisions, a sum of padded parts by asking for each number which parts it has. An optimization barrier
    does not keep it from that. It cannot move anything out of a branch, where it is computed once, as vectors.
    """
    shapes = jax.eval_shape(function, *arrays)

    def zeros(*arrays: Array) -> Any:
        # Made of the arrays: under shard_map both branches have to vary over the same axes of the mesh.
        def zeros_of(form: Any) -> Array:
            parts = [lax.full_like(array, 0, form.dtype, form.shape) for array in arrays]
            return functools.reduce(jnp.add, parts)

        return jax.tree.map(zeros_of, shapes)

    return lax.cond(lax.optimization_barrier(jnp.asarray(True)), function, zeros, *arrays)
