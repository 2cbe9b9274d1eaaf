"""Convolutions over any number of spatial axes: ``[N, L, C]``, ``[N, H, W, C]``, ...

**Lowering.** ``"native"`` is ``lax.conv_general_dilated``. ``"patches"`` copies the windows into a matrix and
multiplies it by the kernel. Under ``vmap`` over kernels that is still a matrix product, while the native convolution
becomes a grouped one with a slow backward pass. ``"auto"`` takes patches where they were measured to be faster
(:mod:`jaxopt_nn._ops` knows the machine), unless they would hold more than 2²⁷ numbers. Otherwise it takes the native
convolution. Values and derivatives of every order are the same up to rounding. Patches may spread an input that is not
finite to a few more outputs of the same example. ``python -m benchmarks.layers`` measures both.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn import _ops, initializers
from jaxopt_nn._arguments import check_key, check_positive_int
from jaxopt_nn._ops.windows import Axis, Lowering
from jaxopt_nn.initializers import Initializer
from jaxopt_nn.layers._spatial.windows import (
    Padding,
    Sizes,
    check_lowering,
    check_padding,
    check_sizes,
    check_spatial_input,
    per_axis,
    window_axes,
)
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["conv", "conv_transpose", "depthwise_conv"]


def conv(
    features: int,
    kernel_size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    groups: int = 1,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    use_bias: bool = True,
    lowering: Lowering = "auto",
) -> Layer:
    """A convolution (the kernel is not flipped, as in every library).

    ``y[n, o, f] = b[f] + Σ_{w, c} x[n, o·stride + w·dilation − before, c] · W[w, c, f]``. Everything is static.

    Args:
        features: number of output channels, a multiple of ``groups``.
        kernel_size: entries of the window; one int for every spatial axis, or a sequence with one for each.
        stride: distance of the windows, likewise.
        padding: zeros around the input: "SAME" for ⌈size / stride⌉ outputs (an odd number of zeros has the larger half
            after the input, as in Keras), "VALID" for none, or one pair (before, after) for each spatial axis.
        dilation: distance of the window's entries, likewise; 1 is dense.
        groups: input and output channels are split into so many groups, each with a convolution of its own.
        kernel_init: initializer of ``W``; He normal by default.
        bias_init: initializer of ``b``; zeros by default.
        use_bias: whether there is a ``b``.
        lowering: "auto", "native" or "patches": see the module.

    Returns:
        A layer ``[N, *spatial, channels] -> [N, *out, features]`` with parameters ``kernel``
        ``[*window, channels / groups, features]`` and ``bias`` ``[features]`` in the dtype of its input.

    Raises:
        ValueError: for an input of another rank or number of channels than expected, channels or features that
            ``groups`` does not divide, a window larger than the padded input, an unknown padding.
        TypeError: for an input that is not floating-point.

    Differs from torch.nn.Conv2d in the layouts (``NCHW`` and ``OIHW`` there), in the default initialization (U(±1/√
    fan_in) there) and in that "SAME" works with strides; from keras.layers.Conv2D in the default initialization
    (Glorot uniform there) and the default padding ("valid" there).

    >>> import jax, jax.numpy as jnp
    >>> layer = conv(8, 3, stride=2)
    >>> x = jnp.ones((4, 28, 28, 1))
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> y, _ = layer.apply(params, state, x)
    >>> params["kernel"].shape, y.shape
    ((3, 3, 1, 8), (4, 14, 14, 8))
    """
    window = _Window(kernel_size, stride, dilation, padding, lowering)
    return _grouped("conv", features, groups, window, window_axes, _ops.convolve, (kernel_init, bias_init, use_bias))


def depthwise_conv(
    kernel_size: Sizes,
    *,
    multiplier: int = 1,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    use_bias: bool = True,
    lowering: Lowering = "auto",
) -> Layer:
    """A convolution of each channel by itself: :func:`conv` with as many groups as channels. Everything is static.

    Args:
        kernel_size: entries of the window. All arguments are those of :func:`conv`, except for ``multiplier``.
        multiplier: output channels for each input channel; those of one input channel lie side by side.
        stride: distance of the windows.
        padding: "SAME", "VALID" or pairs.
        dilation: distance of the window's entries.
        kernel_init: initializer of the kernel; its fan_in is the number of entries of the window.
        bias_init: initializer of the bias.
        use_bias: whether there is a bias.
        lowering: "patches" is here a sum of shifted inputs, each times its weights.

    Returns:
        A layer ``[N, *spatial, channels] -> [N, *out, channels · multiplier]`` with parameters ``kernel``
        ``[*window, 1, channels · multiplier]`` and ``bias``.

    Raises:
        ValueError, TypeError: as :func:`conv`.

    Differs from keras.layers.DepthwiseConv2D in the kernel's layout (``[*window, channels, multiplier]`` there).

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.ones((4, 9, 6))
    >>> params, _ = depthwise_conv(3, multiplier=2).init(jax.random.key(0), x)
    >>> params["kernel"].shape
    (3, 1, 12)
    """
    check_positive_int("multiplier", multiplier)
    multiplier = int(multiplier)
    window = _Window(kernel_size, stride, dilation, padding, lowering)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        spatial = window.check(x)
        window_axes(x, *window.arguments)
        shape = (*per_axis(kernel_size, spatial), 1, x.shape[-1] * multiplier)
        return _init(key, x, shape, kernel_init, bias_init, use_bias), {}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Array, State]:
        del train, key, weight
        channels = params["kernel"].shape[-1] // multiplier
        window.check(x, channels)
        axes = window_axes(x, *window.arguments)
        return _ops.convolve(x, params["kernel"], params.get("bias"), axes, channels, lowering), state

    return Layer(init, apply, "depthwise_conv")


def conv_transpose(
    features: int,
    kernel_size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    groups: int = 1,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    use_bias: bool = True,
    lowering: Lowering = "auto",
) -> Layer:
    """A transposed convolution: the adjoint of a strided one, which makes its input larger. Everything is static.

    Entry i of the input adds the kernel, times its value, to the output from position i·stride on. That makes
    (size − 1)·stride + span entries, with span = (window − 1)·dilation + 1. ``padding`` says how many of them are cut
    off: it is the padding of the convolution whose adjoint this is.

    Args:
        features: number of output channels, a multiple of ``groups``.
        kernel_size: entries of the window; one int for every spatial axis, or a sequence with one for each.
        stride: distance at which entries of the input lie in the output, likewise.
        padding: "SAME" for size · stride outputs (cut off are span − stride, the larger half after, as in Keras; if
            that is negative, zeros come after), "VALID" for all of them, or one pair (before, after) for each spatial
            axis. ``after`` may be negative and then adds zeros: torch's ``padding=p, output_padding=q`` is
            ``(p, p - q)``.
        dilation: distance of the window's entries, likewise.
        groups: input and output channels are split into so many groups, each by itself.
        kernel_init: initializer of the kernel; He normal by default.
        bias_init: initializer of the bias; zeros by default.
        use_bias: whether there is a bias.
        lowering: "auto", "native" or "patches": see the module.

    Returns:
        A layer ``[N, *spatial, channels] -> [N, *out, features]`` with parameters ``kernel``
        ``[*window, channels / groups, features]`` and ``bias``.

    Raises:
        ValueError, TypeError: as :func:`conv`; and where the padding leaves nothing of the output.

    Differs from torch.nn.ConvTranspose2d in the kernel's layout (``[in, out / groups, *window]`` there); from
    keras.layers.Conv2DTranspose likewise (``[*window, out, in]``), and with "valid" and a stride beyond the window
    Keras's output ends with zeros. flax.linen.ConvTranspose has the window the other way round unless
    ``transpose_kernel`` is set.

    >>> import jax, jax.numpy as jnp
    >>> layer = conv_transpose(3, 4, stride=2)
    >>> x = jnp.ones((2, 7, 7, 8))
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> layer.apply(params, state, x)[0].shape
    (2, 14, 14, 3)
    """
    window = _Window(kernel_size, stride, dilation, padding, lowering)
    inits = (kernel_init, bias_init, use_bias)
    return _grouped("conv_transpose", features, groups, window, _transposed_axes, _ops.convolve_transposed, inits)


class _Window:
    """The arguments of a window, checked."""

    def __init__(self, size: Sizes, stride: Sizes, dilation: Sizes, padding: Padding, lowering: Lowering) -> None:
        for name, sizes in (("kernel_size", size), ("stride", stride), ("dilation", dilation)):
            check_sizes(name, sizes)
        check_padding(padding)
        check_lowering(lowering)
        self.size, self.lowering = size, lowering
        self.arguments = (size, stride, dilation, padding)

    def check(self, x: Any, channels: int | None = None) -> int:
        """The number of spatial axes of ``x``; raises unless it fits."""
        return check_spatial_input(x, *self.arguments, channels=channels)


def _grouped(
    name: str,
    features: int,
    groups: int,
    window: _Window,
    axes_of: Callable[..., tuple[Axis, ...]],
    compute: Callable[..., Array],
    inits: tuple[Initializer | None, Initializer | None, bool],
) -> Layer:
    """A convolution or a transposed one, which differ only in ``axes_of`` and ``compute``."""
    check_positive_int("features", features)
    check_positive_int("groups", groups)
    features, groups = int(features), int(groups)  # they may be integers of NumPy
    if features % groups:
        raise ValueError(f"groups: expected a divisor of the {features} features, got {groups}")

    def init(key: Key, x: Any) -> tuple[Params, State]:
        spatial = window.check(x)
        if x.shape[-1] % groups:
            raise ValueError(f"groups: expected a divisor of the {x.shape[-1]} channels of the input, got {groups}")
        axes_of(x, *window.arguments)
        return _init(key, x, (*per_axis(window.size, spatial), x.shape[-1] // groups, features), *inits), {}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Array, State]:
        del train, key, weight
        window.check(x, params["kernel"].shape[-2] * groups)
        axes = axes_of(x, *window.arguments)
        return compute(x, params["kernel"], params.get("bias"), axes, groups, window.lowering), state

    return Layer(init, apply, name)


def _transposed_axes(x: Any, window: Sizes, stride: Sizes, dilation: Sizes, padding: Padding) -> tuple[Axis, ...]:
    axes = len(x.shape) - 2
    result: list[Axis] = []
    rows = zip(x.shape[1:-1], per_axis(window, axes), per_axis(stride, axes), per_axis(dilation, axes), strict=True)
    for position, (size, entries, step, spacing) in enumerate(rows):
        span = (entries - 1) * spacing + 1
        before = after = 0
        if padding == "SAME":
            before = max(span - step, 0) // 2
            after = span - step - before
        elif not isinstance(padding, str):
            before, after = padding[position]
        out = (size - 1) * step + span - before - after
        if out < 1:
            raise ValueError(
                f"padding: expected to leave something of the {out + before + after} outputs on spatial axis "
                f"{position}, got {(before, after)} to cut off (input of shape {list(x.shape)})"
            )
        result.append(Axis(entries, step, spacing, before, after, size, out))
    return tuple(result)


def _init(
    key: Key,
    x: Any,
    shape: tuple[int, ...],
    kernel_init: Initializer | None,
    bias_init: Initializer | None,
    use_bias: bool,
) -> Params:
    check_key("key", key)
    kernel_init = initializers.he_normal() if kernel_init is None else kernel_init
    if not use_bias:
        return {"kernel": kernel_init(key, shape, x.dtype)}
    if bias_init is None:  # zeros need no key, and a split costs time to compile
        return {"kernel": kernel_init(key, shape, x.dtype), "bias": jnp.zeros(shape[-1], x.dtype)}
    kernel_key, bias_key = jax.random.split(key)
    return {"kernel": kernel_init(kernel_key, shape, x.dtype), "bias": bias_init(bias_key, shape[-1:], x.dtype)}
