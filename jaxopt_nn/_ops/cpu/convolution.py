"""Convolution and its transpose as matrix products of patches.

Of images, patches are copied in pieces as long as a row of the input times the batch, and the product of the kernel's
matrix and the patches, ``[F, window · C]`` by ``[window · C, out · N]``, goes to all cores. Sequences keep the order
that other layers of sequences have.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_nn._ops.cpu.materialize import materialize
from jaxopt_nn._ops.windows import Axis, pad_spatial, slices
from jaxopt_nn.types import Array

__all__ = ["convolve", "convolve_transposed"]

_COPY_COST = 30.0
"""What a number of a patch costs, forward and backward, in multiplications of the product."""


@functools.partial(jax.jit, static_argnames=("axes", "groups"))
def convolve(x: Array, kernel: Array, bias: Array | None, axes: tuple[Axis, ...], groups: int) -> Array:
    """As :func:`jaxopt_nn._ops.plain.convolve`."""
    if x.ndim > 3 or groups > 1:
        return jnp.swapaxes(_convolve_batch_last(jnp.swapaxes(x, 0, -1), kernel, bias, axes, groups), 0, -1)
    patches = slices(pad_spatial(x, axes, 0), axes, lambda parts: jnp.concatenate(parts, -1))
    y = patches @ kernel.reshape(math.prod(kernel.shape[:-1]), kernel.shape[-1])
    return y if bias is None else y + jnp.broadcast_to(bias, y.shape)


@functools.partial(jax.jit, static_argnames=("axes", "groups"))
def convolve_transposed(x: Array, kernel: Array, bias: Array | None, axes: tuple[Axis, ...], groups: int) -> Array:
    """As :func:`jaxopt_nn._ops.plain.convolve_transposed`: a product, whose parts are added where the window is."""
    spatial, features = len(axes), kernel.shape[-1]
    window = math.prod(kernel.shape[:spatial])
    if groups == 1:
        y = x @ jnp.moveaxis(kernel, -2, 0).reshape(x.shape[-1], window * features)
    else:
        inputs = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
        grouped = kernel.reshape(window, kernel.shape[-2], groups, features // groups)
        y = jnp.einsum("n...gc,kcgf->n...kgf", inputs, grouped)
    y = y.reshape(*x.shape[:-1], *kernel.shape[:spatial], features)
    for position, axis in enumerate(axes, start=1):  # the window's axes follow the spatial ones: this one is first
        total = (axis.size - 1) * axis.stride + axis.span - axis.before - axis.after
        parts: list[Array] = []
        for entry in range(axis.window):
            part = lax.index_in_dim(y, entry, 1 + spatial, keepdims=False)
            low = entry * axis.dilation - axis.before
            high = total - low - ((axis.size - 1) * axis.stride + 1)
            amounts = [(0, 0, 0)] * part.ndim
            amounts[position] = (low, high, axis.stride - 1)
            parts.append(lax.pad(part, jnp.zeros((), y.dtype), amounts))
        y = sum(parts[1:], parts[0])
    return y if bias is None else y + jnp.broadcast_to(bias, y.shape)


def _convolve_batch_last(x: Array, kernel: Array, bias: Array | None, axes: Sequence[Axis], groups: int) -> Array:
    """The convolution of ``[C, *spatial, N]`` to ``[F, *out, N]``."""
    x = pad_spatial(x, axes, 0)
    if groups == 1:
        y = _product(x, kernel, axes)
    elif groups == x.shape[0]:  # products of single numbers: nothing for a matrix product to do
        y = _depthwise(x, kernel, axes)
    else:
        y = _grouped(x, kernel, axes, groups)
    if bias is None:
        return y
    # Behind a barrier: else XLA would sum the bias's gradient before the cotangent is turned.
    return lax.optimization_barrier(y + lax.broadcast_in_dim(bias, y.shape, (0,)))


def _product(x: Array, kernel: Array, axes: Sequence[Axis]) -> Array:
    *others, axis = axes
    per_column = _outputs_per_column(axis, kernel.shape[-1])
    if per_column == 1:
        return _times(kernel.reshape(math.prod(kernel.shape[:-1]), kernel.shape[-1]), _patches(x, axes))
    blocks, rows = -(-(axis.window + per_column - 1) // per_column), -(-axis.out // per_column)
    missing = (rows + blocks - 1) * per_column - x.shape[-2]  # negative: what no output reads is cut off
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 2) + [(0, missing, 0), (0, 0, 0)])
    x = x.reshape(*x.shape[:-2], rows + blocks - 1, per_column, x.shape[-1])
    x = jnp.moveaxis(x, -2, 0)
    x = x.reshape(per_column * x.shape[1], *x.shape[2:])
    patches = _patches(x, (*others, axis._replace(window=blocks, out=rows)))
    y = _interleave(_times(_shifted_kernels(kernel, blocks, per_column), patches), per_column)
    return y.reshape(*y.shape[:-3], rows * per_column, y.shape[-1])[..., : axis.out, :]


def _times(matrix: Array, patches: Array) -> Array:
    """``[K, F]`` and ``[K, *out, N]`` to ``[F, *out, N]``."""
    return jnp.tensordot(matrix, _as_matrix(patches), (0, 0)).reshape(matrix.shape[1], *patches.shape[1:])


def _as_matrix(patches: Array) -> Array:
    """``[K, *out, N]`` as ``[K, out · N]``: a product with more axes has a gradient that copies them."""
    return patches.reshape(len(patches), math.prod(patches.shape[1:]))


def _outputs_per_column(axis: Axis, features: int) -> int:
    """How many neighbouring outputs along an axis one column of the product should make.

    t of them need b = ⌈(window + t − 1) / t⌉ blocks of t inputs, which count as channels of one place. There are fewer
    patches, and the product has more rows, some of them multiplied by zeros. (So an input that is not finite makes NaN
    of a few more neighbours.) A block costs t·F multiplications for each input, and the copying of its patch, whose
    cost is a fit to measurements (``benchmarks/decisions.md``). A gain below a quarter is not worth a larger program.
    """
    if axis.stride > 1 or axis.dilation > 1:
        return 1

    def cost(per_column: int) -> float:
        blocks, rows = -(-(axis.window + per_column - 1) // per_column), -(-axis.out // per_column)
        return blocks * (per_column * features + _COPY_COST) * rows * per_column / axis.out

    best = min(range(1, 2 * axis.window), key=cost)
    return best if cost(best) < 0.75 * cost(1) else 1


def _shifted_kernels(kernel: Array, blocks: int, per_column: int) -> Array:
    """The matrix that makes ``per_column`` neighbours, ``[others · blocks · together · C, together · F]``."""
    *window, channels, features = kernel.shape
    # Output j of a column reads the inputs from j on: the kernel, shifted by j.
    shifts = [(j, blocks * per_column - window[-1] - j, 0) for j in range(per_column)]
    no_padding = [(0, 0, 0)]
    zero = jnp.zeros((), kernel.dtype)
    shifted = [lax.pad(kernel, zero, no_padding * (len(window) - 1) + [shift] + no_padding * 2) for shift in shifts]
    return jnp.stack(shifted, -2).reshape(
        math.prod(window[:-1]) * blocks * per_column * channels, per_column * features
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _interleave(y: Array, per_column: int) -> Array:
    """``[together · F, *out, N]`` as ``[F, *out, together, N]``."""
    return jnp.moveaxis(y.reshape(per_column, len(y) // per_column, *y.shape[1:]), 0, -2)


@_interleave.defjvp
def _(per_column: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The gradient is a copy by itself: fused with others it would be made number by number.
    return _interleave(*primals, per_column), materialize(lambda tangent: _interleave(tangent, per_column), *tangents)


def _patches(x: Array, axes: Sequence[Axis]) -> Array:
    """``[window · C, *out, N]``, in the order of the kernel's entries: one axis after the other, the last first."""
    for position, axis in reversed(list(enumerate(axes, start=1))):
        if axis.window > 1 or axis.stride > 1:
            x = _stacked(x, position, axis)
    return x


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _stacked(x: Array, position: int, axis: Axis) -> Array:
    """What each entry of a window along one axis reads, one after another along the first axis."""
    if axis.stride > 1:
        return _slices(x, position, axis)
    before, (size, *after) = x.shape[1:position], x.shape[position:]
    # In rows as long as can be: copied in two to three times less time.
    step = math.prod(after)
    rows = x.reshape(len(x) * math.prod(before), 1, size * step)
    row_axis = axis._replace(dilation=axis.dilation * step, out=axis.out * step)
    return _slices(rows, 2, row_axis).reshape(axis.window * len(x), *before, axis.out, *after)


@_stacked.defjvp
def _(position: int, axis: Axis, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # Apart, the gradient is one sum of padded parts; among others XLA would make each padded part by itself. Of long
    # rows it would ask of each number which parts it has.
    tangent = materialize(lambda tangent: _slices(tangent, position, axis), *tangents)
    return _stacked(*primals, position, axis), tangent


def _slices(x: Array, position: int, axis: Axis) -> Array:
    starts = [entry * axis.dilation for entry in range(axis.window)]
    last = (axis.out - 1) * axis.stride + 1
    return jnp.concatenate([lax.slice_in_dim(x, start, start + last, axis.stride, position) for start in starts])


def _grouped(x: Array, kernel: Array, axes: Sequence[Axis], groups: int) -> Array:
    *window, channels, features = kernel.shape
    patches = _patches(x, axes)
    parts = _as_matrix(patches)
    parts = parts.reshape(math.prod(window), groups, channels, *parts.shape[1:])
    kernel = kernel.reshape(math.prod(window), channels, groups, features // groups)
    return jnp.einsum("wcgf,wgc...->gf...", kernel, parts).reshape(features, *patches.shape[1:])


def _depthwise(x: Array, kernel: Array, axes: Sequence[Axis]) -> Array:
    """Each channel by itself: a sum of shifted, weighted inputs."""
    features = kernel.shape[-1]
    weights = kernel.reshape(math.prod(kernel.shape[:-2]), len(x), features // len(x))
    total: Array | None = None
    for weight, offsets in zip(weights, np.ndindex(*(axis.window for axis in axes)), strict=True):
        part = x
        for position, (axis, offset) in enumerate(zip(axes, offsets, strict=True), start=1):
            start = offset * axis.dilation
            part = lax.slice_in_dim(part, start, start + (axis.out - 1) * axis.stride + 1, axis.stride, position)
        shape = (*weight.shape, *part.shape[1:])
        part = lax.broadcast_in_dim(part, shape, (0, *range(2, len(shape))))
        term = part * lax.broadcast_in_dim(weight, shape, (0, 1))
        total = term if total is None else total + term
    assert total is not None
    return total.reshape(features, *total.shape[2:])
