"""How a window moves along an axis: what convolution and pooling share. Everything here is static."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxopt_nn.types import Array

__all__ = ["Axis", "Lowering", "pad_spatial", "slices"]

Lowering = Literal["auto", "native", "patches"]
"""How a window is computed; the numbers are the same to rounding."""


class Axis(NamedTuple):
    """A window's way along one spatial axis.

    Attributes:
        window: entries of the window.
        stride: distance of one window from the next.
        dilation: distance of one entry of the window from the next.
        before: padding before the first entry.
        after: padding after the last.
        size: entries of the input.
        out: windows.
    """

    window: int
    stride: int
    dilation: int
    before: int
    after: int
    size: int
    out: int

    @property
    def span(self) -> int:
        """Entries from the first of a window to its last."""
        return (self.window - 1) * self.dilation + 1


def pad_spatial(x: Array, axes: Sequence[Axis], value: float) -> Array:
    """``x`` with the padding of each axis."""
    if not any(axis.before or axis.after for axis in axes):
        return x
    amounts = [(0, 0, 0), *((axis.before, axis.after, 0) for axis in axes), (0, 0, 0)]
    return lax.pad(x, jnp.asarray(value, x.dtype), amounts)


def slices(x: Array, axes: Sequence[Axis], combine: Callable[[list[Array]], Array]) -> Array:
    """Combines the entries of each window of the padded ``x``, axis by axis, the last first.

    A concatenation of channels makes patches, an operator reduces. One axis after another needs as
    many slices as the *sum* of the window's sizes, not their product.
    """
    for position, axis in reversed(list(enumerate(axes, start=1))):
        starts = [entry * axis.dilation for entry in range(axis.window)]
        last = (axis.out - 1) * axis.stride + 1
        x = combine([lax.slice_in_dim(x, start, start + last, axis.stride, position) for start in starts])
    return x
