"""Decisions that all lanes of a vmapped run take together."""

import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxopt_nn.types import Array

__all__ = ["any_lane"]


@custom_vmap
def any_lane(flag: Array) -> Array:
    """Whether ``flag`` (a bool scalar) holds in any lane of the enclosing ``vmap``; outside of one, ``flag`` itself.

    The answer is not batched. So ``lax.cond(any_lane(active), work, skip)`` stays a real branch under ``vmap``, where a
    batched predicate would make it a select that always does the work.
    """
    return flag


@any_lane.def_vmap
def _any_lane_of_batch(axis_size: int, in_batched: list[bool], flag: Array) -> tuple[Array, bool]:
    del axis_size
    return (any_lane(jnp.any(flag)) if in_batched[0] else any_lane(flag)), False
