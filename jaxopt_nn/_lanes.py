"""The lanes of an enclosing ``vmap``: decisions that all of them take together, and arrays of each one's own."""

import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from jaxopt_nn.types import Array

__all__ = ["any_lane", "in_lanes", "lane_by_lane"]


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


def in_lanes(x: Array) -> Array:
    """Whether an enclosing ``vmap`` gives each lane an ``x`` of its own.

    Outside of one this is the constant False, for which XLA leaves out the other branch of
    ``lax.cond(in_lanes(x), several, single)``; in lanes it is the constant True.
    """
    return _in_lanes(_corner(x))


@custom_vmap
def _in_lanes(x: Array) -> Array:
    del x
    return jnp.zeros((), bool)


@_in_lanes.def_vmap
def _in_lanes_of_batch(axis_size: int, in_batched: list[bool], x: Array) -> tuple[Array, bool]:
    del axis_size
    return (jnp.ones((), bool) if in_batched[0] else _in_lanes(x)), False


def lane_by_lane(x: Array, like: Array) -> Array:
    """``x``, of which each lane of an enclosing ``vmap`` gets one of its own if it has one of ``like``."""
    return lax.select_n(_flag(_corner(like)), x, x)  # a choice that each lane makes for itself


def _corner(x: Array) -> Array:
    """A bool of ``x``, by which only lanes are told: without a derivative, as a ``custom_vmap`` has no transpose.

    ``lax.stop_gradient`` would do, but a gradient check would look into each model for what it hides.
    """
    if x.size == 0:
        return jnp.zeros((), bool)
    corner = lax.slice(x, (0,) * x.ndim, (1,) * x.ndim).reshape(())
    return corner != corner


@custom_vmap
def _flag(like: Array) -> Array:
    del like
    return jnp.zeros((), bool)


@_flag.def_vmap
def _flag_of_each(axis_size: int, in_batched: list[bool], like: Array) -> tuple[Array, bool]:
    return (jnp.zeros(axis_size, bool), True) if in_batched[0] else (_flag(like), False)
