"""Pooling: windows of ``[N, *spatial, C]`` become their maximum or their mean, channel by channel.

**Lowering.** "native" is ``lax.reduce_window``. "patches" reduces slices of the input, or a reshaped input if the
windows tile it (stride equal to the window). "auto" takes patches where they were measured to be faster
(:mod:`jaxopt_nn._ops` knows the machine), unless their slices would hold more than 2²⁷ numbers, and otherwise the
native operation. Values, derivatives and ties are the same. ``python -m benchmarks.layers`` measures both.

**Ties.** The gradient of a maximum goes to the first of the equal entries of a window, in the order of the array, as in
PyTorch. (``jnp.max`` would share it among them.)
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxopt_nn import _ops
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn._ops.windows import Axis, Lowering
from jaxopt_nn.layers._spatial.windows import (
    Padding,
    Sizes,
    check_lowering,
    check_padding,
    check_sizes,
    check_spatial_input,
    window_axes,
)
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["average_pool", "global_average_pool", "global_max_pool", "max_pool"]


def max_pool(
    window: Sizes, *, stride: Sizes | None = None, padding: Padding = "VALID", lowering: Lowering = "auto"
) -> Layer:
    """The maximum of each window: ``y[n, o, c] = max_w x[n, o·stride + w − before, c]``. Everything is static.

    Args:
        window: entries of the window; one int for every spatial axis, or a sequence with one for each.
        stride: distance of the windows, likewise; by default the window, so that they tile the input.
        padding: "VALID" (entries that fill no window are left out), "SAME" (⌈size / stride⌉ outputs) or one pair
            (before, after) for each spatial axis, each smaller than the window. Padding is never the maximum.
        lowering: "auto", "native" or "patches": see the module.

    Returns:
        A layer ``[N, *spatial, C] -> [N, *out, C]`` without parameters.

    Raises:
        ValueError: for an input of another rank than expected, a window larger than the padded input, a padding that
            is unknown or as large as the window.
        TypeError: for an input that is not floating-point.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> y, _ = max_pool(2).apply({}, {}, x)
    >>> y.ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """
    return _pool(_ops.max_pool, window, stride, padding, lowering, "max_pool")


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
        count_padding: whether the padding counts as zeros (``count_include_pad`` in torch, true by default there), or
            not at all (as in Keras).
        lowering: "auto", "native" or "patches": see the module.

    Returns:
        A layer ``[N, *spatial, C] -> [N, *out, C]`` without parameters. Sums are made in float32 at least.

    Raises:
        ValueError, TypeError: as :func:`max_pool`.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((1, 3, 1))
    >>> average_pool(2, padding="SAME").apply({}, {}, x)[0].ravel().tolist()
    [1.0, 1.0]
    >>> layer = average_pool(2, padding="SAME", count_padding=True)
    >>> layer.apply({}, {}, x)[0].ravel().tolist()
    [1.0, 0.5]
    """

    def mean(x: Array, axes: tuple[Axis, ...], lowering: Lowering) -> Array:
        exact = x.astype(compute_dtype(x))
        share = (1 / _counts(axes, count_padding))[None, ..., None]
        return (_ops.sum_pool(exact, axes, lowering) * jnp.asarray(share, exact.dtype)).astype(x.dtype)

    return _pool(mean, window, stride, padding, lowering, "average_pool")


def global_max_pool(x: Array) -> Array:
    """The maximum over all spatial axes: ``[N, *spatial, C] -> [N, C]``. A plain function, and so a layer.

    >>> import jax.numpy as jnp
    >>> global_max_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[6.0, 7.0]]
    """
    check_spatial_input(x)
    axes = tuple(Axis(size, size, 1, 0, 0, size, 1) for size in x.shape[1:-1])
    return _ops.max_pool(x, axes, "auto").reshape(x.shape[0], x.shape[-1])


def global_average_pool(x: Array) -> Array:
    """The mean over all spatial axes: ``[N, *spatial, C] -> [N, C]``. A plain function, and so a layer.

    >>> import jax.numpy as jnp
    >>> global_average_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[3.0, 4.0]]
    """
    check_spatial_input(x)
    return jnp.mean(x, tuple(range(1, x.ndim - 1)))


def _pool(pool: Any, window: Sizes, stride: Sizes | None, padding: Padding, lowering: Lowering, name: str) -> Layer:
    stride = window if stride is None else stride
    check_sizes("window", window)
    check_sizes("stride", stride)
    check_padding(padding)
    check_lowering(lowering)

    def axes_of(x: Any) -> tuple[Axis, ...]:
        check_spatial_input(x, window, stride, padding)
        axes = window_axes(x, window, stride, 1, padding)
        for axis in axes:  # or a window could lie wholly in the padding
            if padding != "SAME" and max(axis.before, axis.after) >= axis.window:
                raise ValueError(f"padding: expected less than the window, {axis.window}, got {padding!r}")
        return axes

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key
        axes_of(x)
        return {}, {}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Array, State]:
        del params, train, key, weight
        return pool(x, axes_of(x), lowering), state

    return Layer(init, apply, name)


def _counts(axes: tuple[Axis, ...], count_padding: bool) -> np.ndarray[Any, Any]:
    """How many entries each window's mean counts, ``[*out]``."""
    counts = np.ones(())
    for axis in axes:
        first = np.arange(axis.out) * axis.stride - axis.before
        entries = np.minimum(first + axis.window, axis.size) - np.maximum(first, 0)
        counts = np.multiply.outer(counts, np.full(axis.out, axis.window) if count_padding else entries)
    return counts
