"""Pooling: windows of ``[N, *spatial, C]`` become their maximum or their mean, channel by channel.

**Lowering.** "native" is XLA's ``reduce_window``; "patches" reduces slices of the input, and where the windows tile it
(stride equal to the window), a reshaped input. Where JAX's default backend is a CPU, "auto" takes patches, unless their
slices would hold more than 2²⁷ numbers; elsewhere the native operation. Values, derivatives and ties are the same.
``python -m benchmarks.layers`` measures it.

**Ties.** The gradient of a maximum goes to the first of the equal entries of a window, in the order of the array, as in
PyTorch. (``jnp.max`` would share it among them.)
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_nn._cpu import in_a_branch, turned
from jaxopt_nn.layers._windows import (
    Axis,
    Lowering,
    Padding,
    Sizes,
    check_lowering,
    check_padding,
    check_sizes,
    check_spatial_input,
    pad_spatial,
    slices,
    uses_slices,
    window_axes,
)
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["average_pool", "global_average_pool", "global_max_pool", "max_pool"]

_LARGEST_UNROLLED = 32
"""Entries of a window that are compared in pairs."""


def max_pool(
    window: Sizes, *, stride: Sizes | None = None, padding: Padding = "VALID", lowering: Lowering = "auto"
) -> Layer:
    """The maximum of each window: ``y[n, o, c] = max_w x[n, o·stride + w − before, c]``. Everything is static.

    Args:
        window: entries of the window; one int for every spatial axis, or a sequence with one for each.
        stride: distance of the windows, likewise; by default the window, so that they tile the input.
        padding: "VALID" (entries that fill no window are left out), "SAME" (⌈size / stride⌉ outputs) or one pair
            (before, after) for each spatial axis, each smaller than the window. Padding never is the maximum.
        lowering: "auto", "native" or "patches": see the module.

    Returns:
        A layer ``[N, *spatial, C] -> [N, *out, C]`` without parameters.

    Raises:
        ValueError: for an input of another rank than expected, a window larger than the padded input, a padding that
            is unknown or as large as the window.
        TypeError: for an input that is not floating-point.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> y, _ = max_pool(2).apply({}, {}, x, train=False, key=None, weight=None)
    >>> y.ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """

    def native(x: Array, axes: tuple[Axis, ...]) -> Array:
        return _reduce_window(x, axes, -math.inf, lax.max)

    def sliced(x: Array, axes: tuple[Axis, ...]) -> Array:
        x = pad_spatial(x, axes, -math.inf)
        if _tile(axes):
            return _max_first(_tiles(x, axes), tuple(range(2, 2 + 2 * len(axes), 2)))
        return slices(x, axes, lambda parts: functools.reduce(_first_of_two, parts))

    return _pool(native, sliced, window, stride, padding, lowering, "max_pool")


def average_pool(
    window: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    count_padding: bool = False,
    lowering: Lowering = "auto",
) -> Layer:
    """The mean of each window. Everything is static.

    Args:
        window: entries of the window; one int for every spatial axis, or a sequence with one for each.
        stride: distance of the windows, likewise; by default the window.
        padding: "VALID" (entries that fill no window are left out), "SAME" (⌈size / stride⌉ outputs) or one pair
            (before, after) for each spatial axis, each smaller than the window.
        count_padding: whether padding counts as zeros (torch's ``count_include_pad``, there true by default) or a mean
            is that of the entries in the input (as in Keras).
        lowering: "auto", "native" or "patches": see the module.

    Returns:
        A layer ``[N, *spatial, C] -> [N, *out, C]`` without parameters. Sums are made in float32 at least.

    Raises:
        ValueError, TypeError: as :func:`max_pool`.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((1, 3, 1))
    >>> average_pool(2, padding="SAME").apply({}, {}, x, train=False, key=None, weight=None)[0].ravel().tolist()
    [1.0, 1.0]
    >>> layer = average_pool(2, padding="SAME", count_padding=True)
    >>> layer.apply({}, {}, x, train=False, key=None, weight=None)[0].ravel().tolist()
    [1.0, 0.5]
    """

    def native(x: Array, axes: tuple[Axis, ...]) -> Array:
        return _reduce_window(x, axes, 0, lax.add)

    def sliced(x: Array, axes: tuple[Axis, ...]) -> Array:
        x = pad_spatial(x, axes, 0)
        if _tile(axes):
            return jnp.sum(_tiles(x, axes), tuple(range(2, 2 + 2 * len(axes), 2)))
        return slices(x, axes, lambda parts: functools.reduce(jnp.add, parts))

    def mean(total: Any) -> Any:
        def of(x: Array, axes: tuple[Axis, ...]) -> Array:
            wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            share = (1 / _counts(axes, count_padding))[None, ..., None]
            return (total(wide, axes) * jnp.asarray(share, wide.dtype)).astype(x.dtype)

        return of

    return _pool(mean(native), mean(sliced), window, stride, padding, lowering, "average_pool")


def global_max_pool(x: Array) -> Array:
    """The maximum over all spatial axes: ``[N, *spatial, C] -> [N, C]``. A plain function, and so a layer.

    >>> import jax.numpy as jnp
    >>> global_max_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[6.0, 7.0]]
    """
    check_spatial_input(x)
    return _max_first(x, tuple(range(1, x.ndim - 1)))


def global_average_pool(x: Array) -> Array:
    """The mean over all spatial axes: ``[N, *spatial, C] -> [N, C]``. A plain function, and so a layer.

    >>> import jax.numpy as jnp
    >>> global_average_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[3.0, 4.0]]
    """
    check_spatial_input(x)
    return jnp.mean(x, tuple(range(1, x.ndim - 1)))


def _pool(
    native: Any, sliced: Any, window: Sizes, stride: Sizes | None, padding: Padding, lowering: Lowering, name: str
) -> Layer:
    stride = window if stride is None else stride
    check_sizes("window", window)
    check_sizes("stride", stride)
    check_padding(padding)
    check_lowering(lowering)

    def axes_of(x: Any) -> tuple[Axis, ...]:
        check_spatial_input(x, window, stride, padding)
        axes = window_axes(x, window, stride, 1, padding)
        for axis in axes:  # else a window could lie in the padding altogether
            if padding != "SAME" and max(axis.before, axis.after) >= axis.window:
                raise ValueError(f"padding: expected less than the window, {axis.window}, got {padding!r}")
        return axes

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key
        axes_of(x)
        return {}, {}

    def apply(
        params: Params, state: State, x: Any, *, train: bool, key: Key | None, weight: Array | None
    ) -> tuple[Array, State]:
        del params, train, key, weight
        axes = axes_of(x)
        numbers = 0 if _tile(axes) else x.size * max(axis.window for axis in axes)
        if not uses_slices(lowering, numbers):
            return native(x, axes), state
        return turned(sliced(turned(x), axes)) if x.ndim > 3 else sliced(x, axes), state

    return Layer(init, apply, name)


def _reduce_window(x: Array, axes: tuple[Axis, ...], start: float, operator: Any) -> Array:
    pads = [(axis.before, axis.after) for axis in axes]
    window, stride = ((1, *(getattr(axis, name) for axis in axes), 1) for name in ("window", "stride"))
    # A NumPy scalar for a start: from a traced one JAX would not know that this is a maximum, which has a gradient.
    return lax.reduce_window(x, np.asarray(start, x.dtype), operator, window, stride, [(0, 0), *pads, (0, 0)])


def _tile(axes: tuple[Axis, ...]) -> bool:
    return all(axis.window == axis.stride for axis in axes)


def _tiles(x: Array, axes: tuple[Axis, ...]) -> Array:
    """``[N, out, window, out, window, ..., C]``, without the entries at the ends that fill no window."""
    shape = [size for axis in axes for size in (axis.out, axis.window)]
    for position, axis in enumerate(axes, start=1):
        x = lax.slice_in_dim(x, 0, axis.out * axis.window, axis=position)
    return x.reshape(x.shape[0], *shape, x.shape[-1])


def _max_first(x: Array, over: tuple[int, ...]) -> Array:
    """The maximum over some axes, with the derivative of the first of those equal to it; NaN is a maximum."""
    return _max_and_place(x, over)[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_and_place(x: Array, over: tuple[int, ...]) -> tuple[Array, Array]:
    found = jax.eval_shape(lambda x: _largest(x, over), x)
    # In a branch: what turns or compares the result, or makes x, would be computed anew with it, number by number.
    return in_a_branch(lambda x: _largest(x, over), found, x)


@_max_and_place.defjvp
def _(over: tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    (x,), (tangent,) = primals, tangents
    # By place, not by comparing x with its maximum: XLA may compute x anew for that, rounded otherwise.
    largest, place = _max_and_place(x, over)
    places = _places(x, over, place.dtype)

    def chosen(tangent: Array, place: Array) -> Array:
        return jnp.sum(jnp.where(places == jnp.expand_dims(place, over), tangent, 0), over)

    # The masks are made anew for the gradient: kept, they would be as large as x.
    found = jax.ShapeDtypeStruct(place.shape, tangent.dtype)
    largest_dot = in_a_branch(jax.checkpoint(chosen, prevent_cse=False), found, tangent, place)
    return (largest, place), (largest_dot, np.zeros(place.shape, jax.dtypes.float0))


def _largest(x: Array, over: tuple[int, ...]) -> tuple[Array, Array]:
    """The maximum over some axes, and the place of the first entry that is it, counted along these axes."""
    count = math.prod(x.shape[axis] for axis in over)
    kept = [axis for axis in range(x.ndim) if axis not in over]
    if count > _LARGEST_UNROLLED:
        rows = jnp.transpose(x, (*kept, *over)).reshape(*(x.shape[axis] for axis in kept), count)
        return jnp.max(rows, -1), lax.argmax(rows, rows.ndim - 1, jnp.int32)
    # A tournament: on a CPU a third of the time of a reduction, and a shorter chain of choices than one after another.
    players = [(entry, jnp.full(entry.shape, number, jnp.int8)) for number, entry in enumerate(_entries(x, over))]
    while len(players) > 1:
        last = players[len(players) // 2 * 2 :]
        players = [_winner(*pair) for pair in zip(players[::2], players[1::2], strict=False)] + last
    return players[0]


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


def _counts(axes: tuple[Axis, ...], count_padding: bool) -> np.ndarray[Any, Any]:
    """How many entries each window's mean counts, ``[*out]``."""
    counts = np.ones(())
    for axis in axes:
        first = np.arange(axis.out) * axis.stride - axis.before
        inside = np.minimum(first + axis.window, axis.size) - np.maximum(first, 0)
        counts = np.multiply.outer(counts, np.full(axis.out, axis.window) if count_padding else inside)
    return counts
