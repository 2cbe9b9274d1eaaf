"""Convolution and its transpose as functions of arrays, each in two lowerings.

Kernels in lanes of ``vmap`` would make a native convolution one of as many groups, whose backward pass XLA computes
slowly. So "auto" makes matrix products of patches there, on every backend.
"""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax

from jaxopt_nn._cpu import turned
from jaxopt_nn._lanes import in_lanes
from jaxopt_nn.layers._product import times_matrix
from jaxopt_nn.layers._turned import convolve_turned
from jaxopt_nn.layers._windows import Axis, Lowering, pad_spatial, slices, uses_slices
from jaxopt_nn.types import Array

__all__ = ["convolve", "convolve_transposed"]


def convolve(
    x: Array, kernel: Array, bias: Array | None, axes: Sequence[Axis], groups: int, lowering: Lowering
) -> Array:
    """``y[n, o, f] = bias[f] + Σ_{w, c} x[n, o·stride + w·dilation − before, c] · kernel[w, c, f]``, in groups.

    Patches of images and of groups are turned, others of sequences keep the order that other layers of sequences have.

    Args:
        x: ``[N, *spatial, C]``.
        kernel: ``[*window, C / groups, F]``; group g maps the g-th part of C to the g-th part of F.
        bias: ``[F]``, or None for zeros.
        axes: the windows.
        groups: number of groups.
        lowering: how.

    Returns:
        ``[N, *out, F]``.
    """
    numbers = math.prod(axis.out * axis.window for axis in axes) * x.shape[0] * x.shape[-1]

    def native(x: Array, kernel: Array) -> Array:
        y = lax.conv_general_dilated(
            x,
            kernel,
            [axis.stride for axis in axes],
            [(axis.before, axis.after) for axis in axes],
            rhs_dilation=[axis.dilation for axis in axes],
            dimension_numbers=_channels_last(len(axes)),
            feature_group_count=groups,
        )
        return y if bias is None else y + jnp.broadcast_to(bias, y.shape)

    def by_patches(x: Array, kernel: Array) -> Array:
        if x.ndim > 3 or groups > 1:
            return turned(convolve_turned(turned(x), kernel, bias, axes, groups))
        patches = slices(pad_spatial(x, axes, 0), axes, lambda parts: jnp.concatenate(parts, -1))
        y = times_matrix(patches, kernel.reshape(-1, kernel.shape[-1]))
        return y if bias is None else y + jnp.broadcast_to(bias, y.shape)

    return _lower(lowering, numbers, native, by_patches, x, kernel)


def convolve_transposed(
    x: Array, kernel: Array, bias: Array | None, axes: Sequence[Axis], groups: int, lowering: Lowering
) -> Array:
    """``y[n, o, f] = bias[f] + Σ_{i, w: i·stride + w·dilation − before = o} Σ_c x[n, i, c] · kernel[w, c, f]``.

    The adjoint of :func:`convolve` in its argument, with the kernel's last two axes exchanged. ``before`` and ``after``
    are cut off (or, if negative, added as zeros).

    Args:
        x: ``[N, *size, C]``.
        kernel: ``[*window, C / groups, F]``.
        bias: ``[F]``, or None for zeros.
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

    y = _lower(lowering, numbers, native, lambda x, kernel: _by_parts(x, kernel, axes, groups), x, kernel)
    return y if bias is None else y + jnp.broadcast_to(bias, y.shape)


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


def _channels_last(spatial: int) -> lax.ConvDimensionNumbers:
    inner = tuple(range(1, spatial + 1))
    window = tuple(range(spatial))
    return lax.ConvDimensionNumbers((0, spatial + 1, *inner), (spatial + 1, spatial, *window), (0, spatial + 1, *inner))
