"""Random masks in bulk: as few instructions a unit as a good generator allows.

``jax.random.bernoulli`` spends a whole threefry hash on each unit (it throws half of its 64 bits away and keeps 23 of
the rest), and on a CPU computes it in several passes over memory. Here a hash makes four units, 16 bits each, in one
pass. The generator is the same: threefry-2x32 with all its 20 rounds. The figures are in ``benchmarks/NOTES.md``.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._cpu import in_a_branch
from jaxopt_nn._keys import threefry
from jaxopt_nn.types import Array, ArrayLike, Key

__all__ = ["drop", "random_uint16"]

_LEVELS = 2**16
_STREAM = 0x64726F70  # jax.random counts from 0: the same key gives other numbers there


def drop(x: Array, drop_rate: ArrayLike, key: Key, mask_shape: Sequence[int]) -> Array:
    """``x · m / P(m = 1)`` with m Bernoulli, 0 with probability ``drop_rate`` to the nearest multiple of 2⁻¹⁶.

    The scale is that of the multiple, so the expectation is exactly x; its derivative by ``drop_rate`` is that of
    1/(1 − drop_rate). No rate below 1 drops everything: the largest multiple is 1 − 2⁻¹⁶.

    Args:
        x: what is masked.
        drop_rate: may be traced.
        key: a PRNG key.
        mask_shape: of the rank of ``x``: an axis of size 1 shares its mask.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rate = jnp.asarray(drop_rate, wide)
    threshold = lax.stop_gradient(jnp.clip(jnp.round(rate * _LEVELS), 0, _LEVELS - 1))
    rate = rate + (threshold / _LEVELS - lax.stop_gradient(rate))
    keep = random_uint16(key, mask_shape) >= threshold.astype(jnp.uint16)
    kept = (x.astype(wide) / (1 - rate)).astype(x.dtype)
    return jnp.where(jnp.broadcast_to(keep, x.shape), kept, jnp.zeros_like(x))


def random_uint16(key: Key, shape: Sequence[int]) -> Array:
    """Uniform 16-bit integers: the lowest quarter of each hash threefry-2x32(key, (stream, j)), j >= 0, then the next.

    Args:
        key: of any generator.
        shape: of the result.
    """
    size = math.prod(shape)
    count = -(-size // 4)
    words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key

    def draw(words: Array) -> Array:
        # Keys of other generators have four words, the last two often a copy of the first two. Both words of a hash in
        # one number: of two results XLA for CPUs makes two kernels, each with a whole hash.
        numbers = lax.iota(jnp.uint32, count)
        low, high = threefry(words[0], words[1], jnp.full_like(numbers, _STREAM), numbers)
        with jax.enable_x64(True):
            return lax.shift_left(high.astype(jnp.uint64), jnp.uint64(32)) | low.astype(jnp.uint64)

    found = in_a_branch(draw, jax.ShapeDtypeStruct((count,), jnp.dtype("uint64")), words)
    # Units that follow each other share a quarter, not a hash, for XLA to shift and compare them as vectors. And by
    # shifts: a cast to four numbers of 16 bits becomes six instructions a unit, and a kernel that has more of them than
    # bytes is split over threads by XLA for CPUs, which takes longer than the few microseconds of its work.
    with jax.enable_x64(True):
        quarters = (found[None] >> jnp.arange(0, 64, 16, dtype=jnp.uint64)[:, None]).astype(jnp.uint16)
    return quarters.reshape(-1)[:size].reshape(tuple(shape))
