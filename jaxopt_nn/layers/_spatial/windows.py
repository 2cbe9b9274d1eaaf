"""Windows that slide over the spatial axes of ``[batch, *spatial, channels]``: sizes and padding, checked.

Shared by convolution and pooling. Everything here is static.
"""

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from jaxopt_nn._ops.windows import Axis, Lowering
from jaxopt_nn.layers._inputs import check_floating

__all__ = [
    "Padding",
    "Sizes",
    "check_lowering",
    "check_padding",
    "check_sizes",
    "check_spatial_input",
    "per_axis",
    "window_axes",
]

Sizes = int | Sequence[int]
"""One size for every spatial axis, or one for each."""
Padding = str | Sequence[tuple[int, int]]
"""``"SAME"``, ``"VALID"``, or a pair (before, after) for each spatial axis."""


def check_sizes(name: str, sizes: Any) -> None:
    """Raises unless ``sizes`` is an int >= 1, or a sequence of them."""
    several = isinstance(sizes, Sequence) and not isinstance(sizes, str)
    for size in sizes if several else (sizes,):
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise TypeError(f"{name}: expected a positive int, or one for each spatial axis, got {sizes!r}")
        if size < 1:
            raise ValueError(f"{name}: expected an int >= 1, or one for each spatial axis, got {sizes!r}")
    if several and not sizes:
        raise ValueError(f"{name}: expected a positive int, or one for each spatial axis, got {sizes!r}")


def check_padding(padding: Any) -> None:
    """Raises unless ``padding`` is one."""
    message = f'padding: expected "SAME", "VALID" or a pair (before, after) for each spatial axis, got {padding!r}'
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(message)
        return
    if not isinstance(padding, Sequence) or not padding:
        raise ValueError(message)
    for pair in padding:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(n, (int, np.integer)) for n in pair):
            raise ValueError(message)


def check_lowering(lowering: Any) -> None:
    """Raises unless ``lowering`` is one."""
    if lowering not in get_args(Lowering):
        raise ValueError(f"lowering: expected one of {list(get_args(Lowering))}, got {lowering!r}")


def check_spatial_input(x: Any, *sizes: Any, channels: int | None = None) -> int:
    """The number of spatial axes of ``x``; sequences and pairs in ``sizes`` say how many there have to be.

    Raises:
        TypeError: ``x`` is not floating-point.
        ValueError: it has the wrong rank, an empty axis, or another number of channels.
    """
    check_floating(x)
    axes = len(x.shape) - 2
    wanted = {len(size) for size in sizes if not isinstance(size, (int, np.integer, str))}
    if axes < 1 or any(count != axes for count in wanted):
        names = " or ".join(f"{count} spatial" for count in sorted(wanted)) or "spatial"
        raise ValueError(f"expected input [batch, {names} axes ..., channels], got shape {list(x.shape)}")
    if min(x.shape[1:]) < 1:
        raise ValueError(f"expected spatial axes and channels of size >= 1, got shape {list(x.shape)}")
    if channels is not None and x.shape[-1] != channels:
        raise ValueError(f"expected {channels} channels on the last axis, got {x.shape[-1]} (shape {list(x.shape)})")
    return axes


def per_axis(sizes: Sizes, axes: int) -> tuple[int, ...]:
    """``sizes`` for each of the axes."""
    return (int(sizes),) * axes if isinstance(sizes, (int, np.integer)) else tuple(int(size) for size in sizes)


def window_axes(x: Any, window: Sizes, stride: Sizes, dilation: Sizes, padding: Padding) -> tuple[Axis, ...]:
    """How a window moves over ``x``.

    "SAME" gives ⌈size / stride⌉ windows. An odd padding has its larger half after the input, as in TensorFlow.

    Raises:
        ValueError: the window is larger than the padded input.
    """
    axes = len(x.shape) - 2
    result: list[Axis] = []
    rows = zip(x.shape[1:-1], per_axis(window, axes), per_axis(stride, axes), per_axis(dilation, axes), strict=True)
    for position, (size, entries, step, spacing) in enumerate(rows):
        span = (entries - 1) * spacing + 1
        before = after = 0
        if padding == "SAME":
            missing = max((math.ceil(size / step) - 1) * step + span - size, 0)
            before, after = missing // 2, missing - missing // 2
        elif not isinstance(padding, str):
            before, after = padding[position]
            if before < 0 or after < 0:
                raise ValueError(f"padding: expected numbers >= 0, got {padding!r}")
        if span > size + before + after:
            raise ValueError(
                f"window: expected at most the {size + before + after} entries of the padded spatial axis {position}, "
                f"got {span} (input of shape {list(x.shape)})"
            )
        result.append(Axis(entries, step, spacing, before, after, size, (size + before + after - span) // step + 1))
    return tuple(result)
