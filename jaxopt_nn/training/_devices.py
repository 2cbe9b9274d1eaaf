"""Operations on arrays that are sharded over several devices.

Inside of ``shard_map``, the type of an array names the mesh axes over which it *varies* from device to device. In a
mesh with explicit axes, the type of an array includes its sharding, and an operation on rows has to give that of its
result.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxopt_nn.types import Array, PyTree

__all__ = ["cast_to_varying", "slice_rows", "split_rows", "take_rows", "varying_axes"]


def varying_axes(tree: PyTree) -> frozenset[str]:
    """The mesh axes of an enclosing ``shard_map`` over which a leaf varies."""
    return frozenset().union(*(_axes_of(leaf) for leaf in jax.tree.leaves(tree)))


def cast_to_varying(tree: PyTree, axes: frozenset[str]) -> PyTree:
    """The same values, with types that vary over ``axes``, since a loop's carry must not change its type."""

    def cast(leaf: Array) -> Array:
        missing = tuple(sorted(axes - _axes_of(leaf)))
        if not missing:
            return leaf
        if hasattr(lax, "pcast"):
            return lax.pcast(leaf, missing, to="varying")
        return getattr(lax, "pvary")(leaf, missing)  # noqa: B009, before JAX 0.9; newer versions do not have it

    return jax.tree.map(cast, tree)


def take_rows(leaf: Array, rows: Array) -> Array:
    """``leaf[rows]``, sharded as the rows of ``leaf``."""
    if not _is_explicit(leaf):
        return leaf[rows]
    return leaf.at[rows].get(out_sharding=_sharding(leaf, (rows.shape[0],)))


def slice_rows(leaf: Array, start: Array, size: int) -> Array:
    """``leaf[start : start + size]``, sharded as the rows of ``leaf``."""
    if not _is_explicit(leaf):
        return lax.dynamic_slice_in_dim(leaf, start, size)
    return take_rows(leaf, start + jnp.arange(size))


def split_rows(leaf: Array, count: int, size: int) -> Array:
    """``[count · size, ...]`` as ``[count, size, ...]``; missing rows are filled up with the first ones."""
    explicit, sharding = _is_explicit(leaf), _sharding(leaf, (count, size))
    if explicit:  # rows move to other devices
        leaf = jax.sharding.reshard(leaf, NamedSharding(sharding.mesh, P(None, *sharding.spec[2:])))
    missing = count * size - leaf.shape[0]
    leaf = jnp.concatenate([leaf, leaf[:missing]]) if missing else leaf
    leaf = leaf.reshape(count, size, *leaf.shape[1:])
    return jax.sharding.reshard(leaf, sharding) if explicit else leaf


def _is_explicit(leaf: Array) -> bool:
    return AxisType.Explicit in jax.typeof(leaf).sharding.mesh.axis_types


def _sharding(leaf: Array, rows: tuple[int, ...]) -> NamedSharding:
    """The sharding of ``leaf`` with its first axis split into ``rows``; the last of them is sharded if it can be."""
    mesh, spec = jax.typeof(leaf).sharding.mesh, jax.typeof(leaf).sharding.spec
    first: Any = spec[0] if leaf.ndim else None
    names = first if isinstance(first, tuple) else (first,)
    parts = math.prod(mesh.shape[name] for name in names if name is not None)
    first = first if rows[-1] % parts == 0 else None
    return NamedSharding(mesh, P(*(None,) * (len(rows) - 1), first, *spec[1:]))


def _axes_of(leaf: Any) -> frozenset[str]:
    kind: Any = jax.typeof(leaf)
    return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma  # before JAX 0.10
