"""Shortcuts for CPUs: where they may be taken, and what several of them need."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn.types import Array

__all__ = ["VECTOR", "in_a_branch", "one_cpu", "turned"]

VECTOR = 16
"""The float32 numbers of a vector: XLA's loops over an innermost axis of fewer hardly use vectors."""


def one_cpu() -> bool:
    """Whether what is traced is for a single CPU device: the only one there is, or each one's part in a ``shard_map``.

    What regroups the axes of a batch for the sake of XLA's kernels is for there alone. Of arrays that several devices
    share, it would break up axes that are spread over them.
    """
    if jax.default_backend() != "cpu":
        return False
    mesh = jax.sharding.get_abstract_mesh()
    return jax.device_count() == 1 or (bool(mesh.axis_names) and set(mesh.manual_axes) == set(mesh.axis_names))


def in_a_branch(function: Callable[..., Any], found: Any, *arrays: Array) -> Any:
    """``function(*arrays)``, a tree of the shapes of ``found``; on a CPU in a branch that XLA cannot know to be taken.

    XLA for CPUs computes a thing anew inside of each kernel that uses it, for each number that this reads: a hash once
    for each of the units that it serves, the place in a window by divisions. An optimization barrier does not keep it
    from that. It cannot move anything out of such a branch, where it is computed once, as vectors.
    """
    if jax.default_backend() != "cpu":
        return function(*arrays)

    def zeros(*arrays: Array) -> Any:
        del arrays
        with jax.enable_x64(True):  # for a dtype of 64 bits
            return jax.tree.map(lambda form: jnp.zeros(form.shape, form.dtype), found)

    return lax.cond(lax.optimization_barrier(jnp.asarray(True)), function, zeros, *arrays)


def turned(x: Array) -> Array:
    """``[batch, ..., channels]`` as ``[channels, ..., batch]``, and back.

    XLA for CPUs copies, compares and adds the windows of an array as vectors only along its innermost axes, where a few
    channels are too short. Between layers that turn their inputs and turn their outputs back, past activations too,
    XLA leaves out both. Layers of images do so; those of sequences do not, for the sake of dense layers, attention and
    recurrences between them.
    """
    return jnp.swapaxes(x, 0, -1)
