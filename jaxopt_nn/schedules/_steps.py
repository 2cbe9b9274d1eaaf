"""Numbers of steps, and arithmetic with them that is exact at both ends.

Integers stay integers as long as they can: a float32 cannot tell 2^24 from 2^24 + 1. And no boundary hangs on a
quotient: XLA may divide by multiplying with a rounded reciprocal, and then 49 · (1/49) is less than 1.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_one_number, concrete_number
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["Schedule", "as_float", "as_list", "as_steps", "boundary_list", "done_and_left", "whole_periods"]

Schedule = Callable[[Any], Any]
"""``count -> learning rate``. Ours return an array; optax's, which may return a Python number, are as good."""


def as_float(number: ArrayLike) -> Array:
    """``number`` in JAX's default float, without a weak type, so that nothing that takes it is promoted by it."""
    return jnp.asarray(number, dtype=jnp.result_type(float))


def as_steps(number: ArrayLike) -> Array:
    """A number of steps as an array: an integer if it is one, and fits."""
    if isinstance(number, int) and not -(2**31) <= number < 2**31:
        return as_float(number)
    return jnp.asarray(number) if jnp.issubdtype(jnp.result_type(number), jnp.integer) else as_float(number)


def whole_periods(count: ArrayLike, period: ArrayLike) -> Array:
    """``⌊count / period⌋``, an integer if both are; its derivative is 0."""
    count, period = as_steps(count), as_steps(period)
    if jnp.issubdtype(count.dtype, jnp.integer) and jnp.issubdtype(period.dtype, jnp.integer):
        return count // period
    count, period = as_float(count), as_float(period)
    whole = jnp.floor(count / period)
    # The quotient may be off by its last digit, and so the floor by one; products of integers are not.
    return whole + as_float((whole + 1.0) * period <= count) - as_float(whole * period > count)


def done_and_left(count: ArrayLike, steps: ArrayLike) -> tuple[Array, Array]:
    """``count / steps`` and ``1 - count / steps``, each to its own last digit; 1 and 0 from ``steps`` on, or of 0."""
    count, steps = as_steps(count), as_steps(steps)
    running = count < steps
    length = as_float(jnp.where(steps > 0, steps, 1))
    done = jnp.where(running, as_float(count) / length, 1.0)
    return done, jnp.where(running, as_float(steps - count) / length, 0.0)


def boundary_list(boundaries: Sequence[ArrayLike] | ArrayLike) -> list[Any]:
    """The boundaries one by one, checked as far as they are concrete."""
    each = as_list(boundaries)
    if each is None:
        raise ValueError(f"boundaries: expected a sequence of numbers of steps, got {boundaries!r}")
    for i, boundary in enumerate(each):
        check_one_number(f"boundaries[{i}]", boundary, 0.0)
    numbers = [concrete_number(boundary) for boundary in each]
    for i, (left, right) in enumerate(pairwise(numbers)):
        if left is not None and right is not None and left > right:
            raise ValueError(f"boundaries[{i + 1}]: expected no less than the one before, {left:g}, got {right:g}")
    return each


def as_list(numbers: Sequence[ArrayLike] | ArrayLike) -> list[Any] | None:
    """The numbers of a sequence, which may be traced one by one, or of an array ``[n]``; None of one number."""
    if isinstance(numbers, (list, tuple)):
        return list(cast(Sequence[Any], numbers))
    array: Any = numbers
    return list(array) if np.ndim(array) == 1 else None
