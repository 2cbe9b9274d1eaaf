"""What each operation is, in ``jnp`` and ``lax``. This is the specification of the fast forms."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from jaxopt_nn._ops.windows import Axis
from jaxopt_nn.types import Array, Key

__all__ = [
    "any_over_vmapped_axis",
    "convolve",
    "convolve_transposed",
    "max_pool",
    "random_uint16",
    "record",
    "sum_pool",
]

_STREAM = 0x64726F70  # jax.random counts from 0: the same key gives other numbers there


def convolve(x: Array, kernel: Array, bias: Array | None, axes: Sequence[Axis], groups: int) -> Array:
    """``y[n, o, f] = bias[f] + Σ_{w, c} x[n, o·stride + w·dilation − before, c] · kernel[w, c, f]``, in groups.

    Args:
        x: ``[N, *spatial, C]``.
        kernel: ``[*window, C / groups, F]``; group g maps the g-th part of C to the g-th part of F.
        bias: ``[F]``, or None for zeros.
        axes: the windows.
        groups: number of groups.

    Returns:
        ``[N, *out, F]``.
    """
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


def convolve_transposed(x: Array, kernel: Array, bias: Array | None, axes: Sequence[Axis], groups: int) -> Array:
    """``y[n, o, f] = bias[f] + Σ_{i, w: i·stride + w·dilation − before = o} Σ_c x[n, i, c] · kernel[w, c, f]``.

    The adjoint of :func:`convolve` in its argument, with the kernel's last two axes exchanged. ``before`` and ``after``
    are cut off (or, if negative, added as zeros).

    Args:
        x: ``[N, *size, C]``.
        kernel: ``[*window, C / groups, F]``.
        bias: ``[F]``, or None for zeros.
        axes: the windows.
        groups: number of groups.

    Returns:
        ``[N, *out, F]``.
    """
    spatial = len(axes)
    y = lax.conv_general_dilated(
        x,
        jnp.flip(kernel, range(spatial)),
        [1] * spatial,
        [(axis.span - 1 - axis.before, axis.span - 1 - axis.after) for axis in axes],
        lhs_dilation=[axis.stride for axis in axes],
        rhs_dilation=[axis.dilation for axis in axes],
        dimension_numbers=_channels_last(spatial),
        feature_group_count=groups,
    )
    return y if bias is None else y + jnp.broadcast_to(bias, y.shape)


def max_pool(x: Array, axes: Sequence[Axis]) -> Array:
    """``y[n, o, c] = max_w x[n, o·stride + w − before, c]``; of equal entries the first has the derivative.

    Args:
        x: ``[N, *spatial, C]``. NaN is larger than any number; which entry of its window has the derivative is open.
        axes: the windows, without dilation; each holds an entry of the input.

    Returns:
        ``[N, *out, C]``.
    """
    return _reduce_window(x, axes, -math.inf, lax.max)


def sum_pool(x: Array, axes: Sequence[Axis]) -> Array:
    """``y[n, o, c] = Σ_w x[n, o·stride + w − before, c]``, likewise; what is padded counts 0."""
    return _reduce_window(x, axes, 0, lax.add)


def random_uint16(key: Key, shape: Sequence[int]) -> Array:
    """Uniform 16-bit integers, four from each hash threefry-2x32(key, (stream, j)), j = 0, 1, ...

    ``jax.random.bits`` spends a whole hash on each. First come the lower halves of all hashes' first words, then the
    higher halves, then those of the second words.

    Args:
        key: of any generator; of one with more than two words the first two count.
        shape: of the result.
    """
    size = math.prod(shape)
    words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    numbers = lax.iota(jnp.uint32, -(-size // 4))
    hashes = jax.extend.random.threefry_2x32(words[:2], jnp.concatenate([jnp.full_like(numbers, _STREAM), numbers]))
    first, second = jnp.split(hashes, 2)
    units = jnp.concatenate([first, first >> 16, second, second >> 16]).astype(jnp.uint16)
    return units[:size].reshape(tuple(shape))


def record(value: Array, previous: Array, *, never: Array) -> Array:
    """``value``, which a state carries beside its other uses in a step.

    Args:
        value: a scalar.
        previous: what the state carried before.
        never: a condition that is always False, though the program does not say so.
    """
    del previous, never
    return value


@custom_vmap
def any_over_vmapped_axis(flag: Array) -> Array:
    """Whether ``flag`` (a bool scalar) holds for any element of the enclosing ``vmap``; outside of one, ``flag``.

    The answer is not batched. So ``lax.cond(any_over_vmapped_axis(active), work, skip)`` stays a real branch under
    ``vmap``, where a batched predicate would make it a select that always does the work.
    """
    return flag


@any_over_vmapped_axis.def_vmap
def _(axis_size: int, in_batched: list[bool], flag: Array) -> tuple[Array, bool]:
    del axis_size
    return any_over_vmapped_axis(jnp.any(flag) if in_batched[0] else flag), False


def _reduce_window(x: Array, axes: Sequence[Axis], start: float, operator: Any) -> Array:
    pads = [(axis.before, axis.after) for axis in axes]
    window, stride = ((1, *(getattr(axis, name) for axis in axes), 1) for name in ("window", "stride"))
    # A NumPy scalar for a start: from a traced one JAX would not know that this is a maximum, which has a gradient.
    return lax.reduce_window(x, np.asarray(start, x.dtype), operator, window, stride, [(0, 0), *pads, (0, 0)])


def _channels_last(spatial: int) -> lax.ConvDimensionNumbers:
    inner = tuple(range(1, spatial + 1))
    window = tuple(range(spatial))
    return lax.ConvDimensionNumbers((0, spatial + 1, *inner), (spatial + 1, spatial, *window), (0, spatial + 1, *inner))
