"""Pooling as comparisons and sums of slices; where the windows tile the input, of a reshaped input."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._ops.cpu.materialize import materialize
from jaxopt_nn._ops.windows import Axis, pad_spatial, slices
from jaxopt_nn.types import Array

__all__ = ["max_pool", "slice_size", "sum_pool"]

_LARGEST_UNROLLED = 32
"""Entries of a window that are compared in pairs."""


@functools.partial(jax.jit, static_argnames="axes")
def max_pool(x: Array, axes: tuple[Axis, ...]) -> Array:
    """As :func:`jaxopt_nn._ops.plain.max_pool`."""
    return _batch_last(x, lambda x: _max_batch_last(pad_spatial(x, axes, -math.inf), axes))


@functools.partial(jax.jit, static_argnames="axes")
def sum_pool(x: Array, axes: tuple[Axis, ...]) -> Array:
    """As :func:`jaxopt_nn._ops.plain.sum_pool`."""
    return _batch_last(x, lambda x: _sum_batch_last(pad_spatial(x, axes, 0), axes))


def slice_size(x: Array, axes: Sequence[Axis]) -> int:
    """The numbers that are copied for each example."""
    return 0 if _tile(axes) else math.prod(x.shape[1:]) * max(axis.window for axis in axes)


def _batch_last(x: Array, pool: Any) -> Array:
    """Images with the batch for the last axis; sequences keep the order that other layers of sequences have."""
    return jnp.swapaxes(pool(jnp.swapaxes(x, 0, -1)), 0, -1) if x.ndim > 3 else pool(x)


def _max_batch_last(x: Array, axes: Sequence[Axis]) -> Array:
    if _tile(axes):
        return _max_over(_tiles(x, axes), tuple(range(2, 2 + 2 * len(axes), 2)))
    return slices(x, axes, lambda parts: functools.reduce(_first_of_two, parts))


def _sum_batch_last(x: Array, axes: Sequence[Axis]) -> Array:
    if _tile(axes):
        return jnp.sum(_tiles(x, axes), tuple(range(2, 2 + 2 * len(axes), 2)))
    return slices(x, axes, lambda parts: functools.reduce(jnp.add, parts))


def _tile(axes: Sequence[Axis]) -> bool:
    return all(axis.window == axis.stride for axis in axes)


def _tiles(x: Array, axes: Sequence[Axis]) -> Array:
    """``[N, out, window, out, window, ..., C]``, without the entries at the ends that fill no window."""
    shape = [size for axis in axes for size in (axis.out, axis.window)]
    for position, axis in enumerate(axes, start=1):
        x = lax.slice_in_dim(x, 0, axis.out * axis.window, axis=position)
    return x.reshape(x.shape[0], *shape, x.shape[-1])


def _max_over(x: Array, over: tuple[int, ...]) -> Array:
    """The maximum over some axes, with the derivative of the first of those equal to it."""
    # Apart: what transposes or compares the result, or makes x, would be computed anew with it, number by number.
    largest, place = materialize(lambda x: _largest(x, over), lax.stop_gradient(x))
    return _at_place(x, largest, place, over)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _at_place(x: Array, largest: Array, place: Array, over: tuple[int, ...]) -> Array:
    """``largest``, with the derivative of the entry of ``x`` at ``place``."""
    del x, place, over
    return largest


@_at_place.defjvp
def _(
    over: tuple[int, ...], primals: tuple[Array, Array, Array], tangents: tuple[Any, Any, Any]
) -> tuple[Array, Array]:
    x, largest, place = primals
    # By place, not by comparing x with its maximum: XLA may compute x anew for that, rounded otherwise.
    places = _places(x, over, place.dtype)

    def chosen(tangent: Array, place: Array) -> Array:
        return jnp.sum(jnp.where(places == jnp.expand_dims(place, over), tangent, 0), over)

    # The masks are made anew for the gradient: kept, they would be as large as x.
    tangent = materialize(jax.checkpoint(chosen, prevent_cse=False), tangents[0], place)
    return _at_place(x, largest, place, over), tangent


def _largest(x: Array, over: tuple[int, ...]) -> tuple[Array, Array]:
    """The maximum over some axes, and the place of the first entry that is it, counted along these axes."""
    count = math.prod(x.shape[axis] for axis in over)
    others = [axis for axis in range(x.ndim) if axis not in over]
    if count > _LARGEST_UNROLLED:
        rows = jnp.transpose(x, (*others, *over)).reshape(*(x.shape[axis] for axis in others), count)
        return jnp.max(rows, -1), lax.argmax(rows, rows.ndim - 1, jnp.int32)
    # A tournament: on a CPU a third of the time of a reduction, and a shorter chain of choices than one after another.
    candidates = [(entry, jnp.full(entry.shape, number, jnp.int8)) for number, entry in enumerate(_entries(x, over))]
    while len(candidates) > 1:
        last = candidates[len(candidates) // 2 * 2 :]
        candidates = [_winner(*pair) for pair in zip(candidates[::2], candidates[1::2], strict=False)] + last
    return candidates[0]


def _winner(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """The larger value with its place; of two equal ones the first. NaN is larger than any number."""
    (a, place), (b, other) = first, second
    first_wins = (a >= b) | (a != a)
    return jnp.maximum(a, b), jnp.where(first_wins, place, other)


def _entries(x: Array, over: tuple[int, ...]) -> list[Array]:
    """The parts of ``x`` with one place each along some axes, in order."""
    entries = [x]
    for axis in over:
        entries = [lax.slice_in_dim(part, i, i + 1, axis=axis) for part in entries for i in range(x.shape[axis])]
    return [lax.squeeze(entry, over) for entry in entries]


def _places(x: Array, over: tuple[int, ...], dtype: Any) -> Array:
    """Each entry's place along some axes; the others have size 1."""
    shape = [size if axis in over else 1 for axis, size in enumerate(x.shape)]
    return jnp.arange(math.prod(shape), dtype=dtype).reshape(shape)


def _first_of_two(a: Array, b: Array) -> Array:
    """The larger; of two equal ones, and in its derivative, ``a``. NaN is larger than any number."""
    return jnp.where((a >= b) | (a != a), a, b)
