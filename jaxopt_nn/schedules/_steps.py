"""Numbers of steps, and arithmetic with them that is exact at both ends.

Integers stay integers as long as they can: a float32 cannot tell 2^24 from 2^24 + 1. No boundary depends
on a quotient: a compiler may divide by multiplying with a rounded reciprocal, and then 49 · (1/49) is less than 1.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import jax
import jax.errors
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_number, concrete_number
from jaxopt_nn._dtypes import promote
from jaxopt_nn.trees import takes
from jaxopt_nn.types import Array, ArrayLike

__all__ = [
    "Schedule",
    "as_float",
    "as_list",
    "as_steps",
    "boundary_list",
    "check_schedule",
    "check_steps",
    "done_and_left",
    "rate_of",
    "same_dtype",
    "whole_periods",
]

Schedule = Callable[[Any], Any]
"""``count -> learning rate``. Ours return an array; optax's, which may return a Python number, are as good."""


def check_steps(name: str, value: Any, *, or_zero: bool = False) -> None:
    """Raises unless ``value`` is one number of steps: 1 or more (or 0, where that is told), or traced."""
    check_number(name, value, 0.0, open_low=not or_zero)
    number = concrete_number(value)
    if number is not None and 0 < number < 1:
        raise ValueError(
            f"{name}: expected a number of steps, {'0 or ' if or_zero else ''}1 or more, got {number:g}: multiply a "
            f"fraction of a training by its steps; a learning rate is another argument"
        )


def check_schedule(name: str, schedule: Callable[..., Any]) -> None:
    """Raises unless the function may be called with a count alone."""
    if isinstance(schedule, type) or not takes(schedule, 0):
        called = getattr(schedule, "__name__", repr(schedule))
        raise TypeError(
            f"{name}: expected a number or a schedule, a function of the count alone, got {called}: call it with its "
            f"own arguments, as in cosine_decay(1e-3, decay_steps=1000)"
        )


def rate_of(name: str, schedule: Schedule, count: Any) -> Any:
    """What a schedule returns at ``count``; where it fails, or returns no number, the error names the argument."""
    try:
        rate = schedule(count)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        raise TypeError(
            f"{name}: the schedule computes with the count in Python or NumPy (if, and, min, int, math, numpy), but in "
            f"a compiled program the count is traced: use jax.numpy, and jnp.where in the place of if"
        ) from error
    if not hasattr(rate, "dtype") and not isinstance(rate, (int, float)):
        raise TypeError(f"{name}: expected a schedule that returns a number, got {rate!r} from it")
    return rate


def as_float(number: ArrayLike) -> Array:
    """``number`` in JAX's default float, without a weak type, so that nothing that takes it is promoted by it."""
    value: Any = number
    if value is None or isinstance(value, str):
        raise TypeError(f"count: expected a number, got {value!r}")
    return jnp.asarray(value, dtype=jnp.result_type(float))


def as_steps(number: ArrayLike) -> Array:
    """A number of steps as an array: an integer if it is one, and fits."""
    if isinstance(number, int) and not -(2**31) <= number < 2**31:
        return as_float(number)
    return jnp.asarray(number) if jnp.issubdtype(jnp.result_type(number), jnp.integer) else as_float(number)


def same_dtype(count: ArrayLike, steps: ArrayLike) -> tuple[Array, Array]:
    """Two numbers of steps as arrays of one dtype, an integer if both are."""
    count, steps = as_steps(count), as_steps(steps)
    if not (jnp.issubdtype(count.dtype, jnp.integer) and jnp.issubdtype(steps.dtype, jnp.integer)):
        return as_float(count), as_float(steps)
    dtype = promote(count.dtype, steps.dtype)
    return count.astype(dtype), steps.astype(dtype)


def whole_periods(count: ArrayLike, period: ArrayLike) -> Array:
    """``⌊count / period⌋``, an integer if both are; its derivative is 0."""
    count, period = same_dtype(count, period)
    if jnp.issubdtype(count.dtype, jnp.integer):
        return count // period
    whole = jnp.floor(count / period)
    # The quotient may be off by its last digit, and so the floor by one; products of integers are not.
    return whole + as_float((whole + 1.0) * period <= count) - as_float(whole * period > count)


def done_and_left(count: ArrayLike, steps: ArrayLike) -> tuple[Array, Array]:
    """``count / steps`` and ``1 - count / steps``, each to its own last digit; 1 and 0 from ``steps`` on, or of 0."""
    count, steps = same_dtype(count, steps)
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
        check_steps(f"boundaries[{i}]", boundary, or_zero=True)
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
