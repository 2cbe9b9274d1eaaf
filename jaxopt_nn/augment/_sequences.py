"""Sequences ``[N, time, ...]``: time warps, and masks of times and features."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_number, shown
from jaxopt_nn.augment._batches import Augment, of_features
from jaxopt_nn.augment._images import as_floats, between, check_numbers, index_below, like
from jaxopt_nn.types import Array, ArrayLike, Key

__all__ = ["mask_span", "random_feature_mask", "random_time_mask", "random_time_warp", "warp_time"]


def warp_time(sequence: Array, start: ArrayLike, end: ArrayLike) -> Array:
    """The sequence with its time ``start`` moved to ``end``; what is before and after is stretched, linearly.

    Args:
        sequence: ``[T, ...]``, at least two steps.
        start, end: times in [0, T - 1], fractions too; may be traced.

    Returns:
        ``[T, ...]``: first and last step stay where they are, and numbers between two steps are interpolated.

    >>> warp_time(jnp.array([0.0, 1.0, 2.0, 3.0, 4.0]), 1.0, 2.0).round(3).tolist()
    [0.0, 0.5, 1.0, 2.5, 4.0]
    """
    check_numbers("sequence", sequence)
    if sequence.ndim < 1 or sequence.shape[0] < 2:
        raise ValueError(f"sequence: expected [T, ...] of at least 2 steps, got the shape {list(sequence.shape)}")
    x, last = as_floats(sequence), sequence.shape[0] - 1
    start, end = jnp.asarray(start, jnp.float32), jnp.asarray(end, jnp.float32)
    times = jnp.arange(last + 1, dtype=jnp.float32)
    tiny = jnp.finfo(jnp.float32).tiny
    before = times * start / jnp.maximum(end, tiny)
    after = last - (last - times) * (last - start) / jnp.maximum(last - end, tiny)
    sources = jnp.clip(jnp.where(times <= end, before, after), 0, last)
    below = jnp.clip(jnp.floor(sources).astype(jnp.int32), 0, last - 1)
    share = (sources - below.astype(jnp.float32)).astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return like(sequence, (1 - share) * x[below] + share * x[below + 1])


def mask_span(sequence: Array, start: ArrayLike, length: ArrayLike, *, axis: int = 0, value: ArrayLike = 0) -> Array:
    """The sequence with a span of one value.

    Args:
        sequence: ``[T, ...]``.
        start, length: in steps; may be traced.
        axis: static: 0 for times, -1 for features.
        value: in the sequence's unit; may be traced.

    >>> mask_span(jnp.array([1, 2, 3, 4]), 1, 2).tolist()
    [1, 0, 0, 4]
    """
    places = jax.lax.broadcasted_iota(jnp.int32, sequence.shape, axis % sequence.ndim)
    start, length = jnp.asarray(start).astype(jnp.int32), jnp.asarray(length).astype(jnp.int32)
    return jnp.where((places >= start) & (places < start + length), jnp.asarray(value, sequence.dtype), sequence)


def random_time_warp(max_shift: ArrayLike) -> Augment:
    """:func:`warp_time` of a random time by at most ``max_shift``.

    Args:
        max_shift: as a fraction of the sequence's length, in [0, 0.5]; may be traced. The time that is moved is at
            least as far from the ends.

    References:
        Park et al., "SpecAugment: a simple data augmentation method for automatic speech recognition", 2019, section 2.
    """
    check_number("max_shift", max_shift, 0.0, 0.5)

    def augment(key: Key, sequence: Array) -> Array:
        draws, last = jax.random.uniform(key, (2,)), sequence.shape[0] - 1
        limit = jnp.asarray(max_shift, jnp.float32)
        start = between(draws[0], limit, 1 - limit)
        return warp_time(sequence, start * last, (start + between(draws[1], -limit, limit)) * last)

    return of_features(_check_sequences, augment)


def random_time_mask(max_length: ArrayLike, value: ArrayLike = 0) -> Augment:
    """:func:`mask_span` of 0 to ``max_length`` consecutive steps, anywhere in the sequence.

    Args:
        max_length: an integer >= 0; may be traced.
        value: what they become: 0 for the mean of standardized features, or a token's id; may be traced.

    References:
        Park et al., 2019, section 2.
    """
    return _random_mask(max_length, value, 0)


def random_feature_mask(max_length: ArrayLike, value: ArrayLike = 0) -> Augment:
    """:func:`mask_span` of 0 to ``max_length`` neighbouring features, at all steps: a mask of frequencies.

    Args:
        max_length: an integer >= 0; may be traced.
        value: what they become; may be traced.

    References:
        Park et al., 2019, section 2.
    """
    return _random_mask(max_length, value, -1)


def _random_mask(max_length: ArrayLike, value: ArrayLike, axis: int) -> Augment:
    check_number("max_length", max_length, 0, whole=True)
    check_number("value", value)

    def augment(key: Key, sequence: Array) -> Array:
        draws, size = jax.random.uniform(key, (2,)), sequence.shape[axis]
        length = jnp.minimum(index_below(draws[0], jnp.asarray(max_length).astype(jnp.float32) + 1), size)
        return mask_span(sequence, index_below(draws[1], size - length + 1), length, axis=axis, value=value)

    return of_features(_check_tokens if axis == 0 else _check_features, augment)


def _check_sequences(x: Any) -> None:
    check_numbers("x", x)
    _check_rank(x, 2, "[N, time, ...]")


def _check_features(x: Any) -> None:
    check_numbers("x", x)
    _check_rank(x, 3, "[N, time, ..., features]")


def _check_tokens(x: Any) -> None:
    if not hasattr(x, "dtype"):
        raise TypeError(f"x: expected an array, got {shown(x)}")
    _check_rank(x, 2, "[N, time, ...]")


def _check_rank(x: Any, least: int, expected: str) -> None:
    if x.ndim < least:
        raise ValueError(f"x: expected sequences {expected}, got the shape {list(x.shape)}")
