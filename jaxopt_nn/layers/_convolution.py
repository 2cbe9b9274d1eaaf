"""Convolution and its transpose as functions of arrays, each in two lowerings.

Kernels in lanes of ``vmap`` would make a native convolution one of as many groups, whose backward pass XLA computes
slowly. So "auto" makes matrix products of patches there, on every backend.
"""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax

from jaxopt_nn._cpu import one_cpu
from jaxopt_nn._lanes import in_lanes
from jaxopt_nn.layers._product import times_matrix
from jaxopt_nn.layers._windows import Axis, Lowering, pad_spatial, slices, uses_slices
from jaxopt_nn.types import Array

__all__ = ["convolve", "convolve_transposed"]

_MAKING = 90.0
"""What a number of a patch costs on a CPU, forward and backward, in multiplications of the product."""


def convolve(x: Array, kernel: Array, axes: Sequence[Axis], groups: int, lowering: Lowering) -> Array:
    """``y[n, o, f] = Σ_{w, c} x[n, o·stride + w·dilation − before, c] · kernel[w, c, f]``, for each group of channels.

    Args:
        x: ``[N, *spatial, C]``.
        kernel: ``[*window, C / groups, F]``; group g maps the g-th part of C to the g-th part of F.
        axes: the windows.
        groups: number of groups.
        lowering: how.

    Returns:
        ``[N, *out, F]``.
    """
    numbers = math.prod(axis.out * axis.window for axis in axes) * x.shape[0] * x.shape[-1]

    def native(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            [axis.stride for axis in axes],
            [(axis.before, axis.after) for axis in axes],
            rhs_dilation=[axis.dilation for axis in axes],
            dimension_numbers=_channels_last(len(axes)),
            feature_group_count=groups,
        )

    return _lower(lowering, numbers, native, lambda x, kernel: _by_patches(x, kernel, axes, groups), x, kernel)


def convolve_transposed(x: Array, kernel: Array, axes: Sequence[Axis], groups: int, lowering: Lowering) -> Array:
    """``y[n, o, f] = Σ_{i, w: i·stride + w·dilation − before = o} Σ_c x[n, i, c] · kernel[w, c, f]``.

    The adjoint of :func:`convolve` in its argument, with the kernel's last two axes exchanged. ``before`` and ``after``
    are cut off (or, if negative, added as zeros).

    Args:
        x: ``[N, *size, C]``.
        kernel: ``[*window, C / groups, F]``.
        axes: the windows.
        groups: number of groups.
        lowering: how.

    Returns:
        ``[N, *out, F]``.
    """
    spatial, features = len(axes), kernel.shape[-1]
    numbers = math.prod(x.shape[:-1]) * math.prod(axis.window for axis in axes) * features

    def native(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            jnp.flip(kernel, range(spatial)),
            [1] * spatial,
            [(axis.span - 1 - axis.before, axis.span - 1 - axis.after) for axis in axes],
            lhs_dilation=[axis.stride for axis in axes],
            rhs_dilation=[axis.dilation for axis in axes],
            dimension_numbers=_channels_last(spatial),
            feature_group_count=groups,
        )

    return _lower(lowering, numbers, native, lambda x, kernel: _by_parts(x, kernel, axes, groups), x, kernel)


def _lower(
    lowering: Lowering,
    numbers: int,
    native: Callable[[Array, Array], Array],
    sliced: Callable[[Array, Array], Array],
    x: Array,
    kernel: Array,
) -> Array:
    """One of the two ways, of which the second makes slices of ``numbers`` entries in all."""
    if uses_slices(lowering, numbers):
        return sliced(x, kernel)
    if lowering == "native":
        return native(x, kernel)
    return lax.cond(in_lanes(kernel), sliced, native, x, kernel)


def _by_patches(x: Array, kernel: Array, axes: Sequence[Axis], groups: int) -> Array:
    """:func:`convolve` as the product of ``[N, *out, window · C]`` and a matrix; XLA copies the slices."""
    channels, features = x.shape[-1], kernel.shape[-1]
    window = math.prod(axis.window for axis in axes)
    x = pad_spatial(x, axes, 0)
    if groups == channels and groups > 1:  # products of single numbers: nothing for a matrix product to do
        return _depthwise(x, kernel, axes)
    together = _columns_together(axes[-1], features) if groups == 1 else 1
    if together > 1:
        return _by_wide_patches(x, kernel, axes, together)
    patches = _patches(x, axes)
    if groups == 1:  # patches in the order of the kernel's entries
        return times_matrix(patches, kernel.reshape(-1, features))
    out = patches.shape[:-1]
    patches = patches.reshape(*out, window, groups, channels // groups)
    kernel = kernel.reshape(window, channels // groups, groups, features // groups)
    return jnp.einsum("...wgc,wcgf->...gf", patches, kernel).reshape(*out, features)


def _patches(x: Array, axes: Sequence[Axis]) -> Array:
    return slices(x, axes, lambda parts: parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1))


def _columns_together(axis: Axis, features: int) -> int:
    """How many neighbouring outputs along an axis one row of the matrix product should make, on a CPU.

    t of them need b = ⌈(window + t − 1) / t⌉ blocks of t inputs each. A block costs its share of the product, t·F for
    each input, and the making of the patch: a fit to measurements (``benchmarks/NOTES.md``). A gain below a quarter is
    left, for the sake of a smaller program.
    """
    if axis.stride > 1 or axis.dilation > 1 or not one_cpu():
        return 1

    def cost(together: int) -> float:
        blocks, rows = -(-(axis.window + together - 1) // together), -(-axis.out // together)
        return blocks * (together * features + _MAKING) * rows * together / axis.out

    best = min(range(1, 2 * axis.window), key=cost)
    return best if cost(best) < 0.75 * cost(1) else 1


def _by_wide_patches(x: Array, kernel: Array, axes: Sequence[Axis], together: int) -> Array:
    """The same with ``together`` neighbours along the last spatial axis as channels of one place.

    The patches are fewer and made of longer pieces, and the product has more columns: for few channels that is worth
    its multiplications with zeros. (So an input that is not finite makes NaN of a few more neighbours.)
    """
    *others, axis = axes
    *window, channels, features = kernel.shape
    blocks, rows = -(-(axis.window + together - 1) // together), -(-axis.out // together)
    wanted = (rows + blocks - 1) * together
    missing = wanted - x.shape[-2]  # negative: what no output reads is cut off
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 2) + [(0, missing, 0), (0, 0, 0)])
    x = x.reshape(*x.shape[:-2], wanted // together, together * channels)
    # Output j of a row reads the inputs from j on: the kernel, shifted by j.
    shifts = [(j, blocks * together - axis.window - j, 0) for j in range(together)]
    unmoved = [(0, 0, 0)]
    zero = jnp.zeros((), kernel.dtype)
    shifted = [lax.pad(kernel, zero, unmoved * len(others) + [shift] + unmoved * 2) for shift in shifts]
    matrix = jnp.stack(shifted, -2).reshape(math.prod(window[:-1]) * blocks * together * channels, together * features)
    y = times_matrix(_patches(x, (*others, axis._replace(window=blocks, out=rows))), matrix)
    return y.reshape(*y.shape[:-2], rows * together, features)[..., : axis.out, :]


def _by_parts(x: Array, kernel: Array, axes: Sequence[Axis], groups: int) -> Array:
    """:func:`convolve_transposed` as a matrix product, whose parts are added where the window puts them."""
    spatial, features = len(axes), kernel.shape[-1]
    if groups == 1:
        matrix = jnp.moveaxis(kernel, -2, 0).reshape(x.shape[-1], -1)  # [C, window · F]
        y = times_matrix(x, matrix).reshape(*x.shape[:-1], *kernel.shape[:spatial], features)
    else:
        inputs = x.reshape(*x.shape[:-1], groups, -1)
        kernel = kernel.reshape(*kernel.shape[:-1], groups, features // groups)
        window = math.prod(axis.window for axis in axes)
        y = jnp.einsum("n...gc,kcgf->n...kgf", inputs, kernel.reshape(window, *kernel.shape[spatial:]))
        y = y.reshape(*x.shape[:-1], *(axis.window for axis in axes), features)
    zero = jnp.zeros((), y.dtype)
    for position, axis in enumerate(axes, start=1):  # the window's axes follow the spatial ones: this one is first
        total = (axis.size - 1) * axis.stride + axis.span - axis.before - axis.after
        parts: list[Array] = []
        for entry in range(axis.window):
            part = lax.index_in_dim(y, entry, 1 + spatial, keepdims=False)
            low = entry * axis.dilation - axis.before
            high = total - low - ((axis.size - 1) * axis.stride + 1)
            amounts = [(0, 0, 0)] * part.ndim
            amounts[position] = (low, high, axis.stride - 1)
            parts.append(lax.pad(part, zero, amounts))
        y = sum(parts[1:], parts[0])
    return y


def _depthwise(x: Array, kernel: Array, axes: Sequence[Axis]) -> Array:
    """Each channel by itself: a sum of shifted, weighted inputs."""
    channels, features = x.shape[-1], kernel.shape[-1]
    weights = kernel.reshape(-1, channels, features // channels)
    total: Array | None = None
    for entry in range(weights.shape[0]):
        part, rest = x, entry
        for position, axis in reversed(list(enumerate(axes, start=1))):
            rest, offset = divmod(rest, axis.window)
            start = offset * axis.dilation
            part = lax.slice_in_dim(part, start, start + (axis.out - 1) * axis.stride + 1, axis.stride, position)
        shape = (*part.shape, features // channels)
        term = jnp.broadcast_to(part[..., None], shape) * jnp.broadcast_to(weights[entry], shape)
        total = term if total is None else total + term
    assert total is not None
    return total.reshape(*total.shape[:-2], features)


def _channels_last(spatial: int) -> lax.ConvDimensionNumbers:
    inner = tuple(range(1, spatial + 1))
    window = tuple(range(spatial))
    return lax.ConvDimensionNumbers((0, spatial + 1, *inner), (spatial + 1, spatial, *window), (0, spatial + 1, *inner))
