"""Schedules made of schedules: a warm-up, one after the other, by epoch."""

from collections.abc import Sequence

import jax.numpy as jnp

from jaxopt_nn._arguments import check_bool, check_number
from jaxopt_nn.schedules._decay import constant
from jaxopt_nn.schedules._steps import (
    Schedule,
    as_float,
    as_steps,
    boundary_list,
    check_schedule,
    check_steps,
    done_and_left,
    rate_of,
    same_dtype,
    whole_periods,
)
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["by_epoch", "join", "warmup"]


def warmup(learning_rate: ArrayLike | Schedule, warmup_steps: ArrayLike, init_value: ArrayLike = 0.0) -> Schedule:
    """Rises linearly to the first value of a schedule, then hands over to it.

    With ``s`` the schedule and ``W`` the ``warmup_steps``: ``init_value + (s(0) - init_value) · count / W`` while
    ``count < W``, then ``s(count - W)``: the schedule begins where the warm-up ends.

    Args:
        learning_rate: what comes after the warm-up: a schedule, or a scalar >= 0 to stay at; may be traced.
        warmup_steps: the length of the rise, >= 0; may be traced. 0 means none.
        init_value: the learning rate of the first step, scalar >= 0; may be traced. At the default, 0, the first step
            moves nothing.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> from jaxopt_nn.schedules import cosine_decay
        >>> schedule = warmup(cosine_decay(1.0, decay_steps=10), warmup_steps=4)
        >>> [float(schedule(count)) for count in (0, 1, 2, 4)]
        [0.0, 0.25, 0.5, 1.0]

    Equal to ``optax.warmup_cosine_decay_schedule`` and its like, where the steps of the decay include the warm-up.

    References:
        Goyal et al., Accurate, large minibatch SGD, 2017, section 2.2 (gradual warm-up).
    """
    after = _as_schedule(learning_rate)
    check_steps("warmup_steps", warmup_steps, or_zero=True)
    check_number("init_value", init_value, 0.0)

    def schedule(count: ArrayLike) -> Array:
        count, steps = same_dtype(count, warmup_steps)
        # One evaluation gives both the peak, s(0), and what follows it.
        value = as_float(rate_of("learning_rate", after, jnp.maximum(count - steps, 0)))
        done, left = done_and_left(count, steps)
        return jnp.where(count < steps, as_float(init_value) * left + value * done, value)

    return schedule


def join(schedules: Sequence[ArrayLike | Schedule], boundaries: Sequence[ArrayLike] | ArrayLike) -> Schedule:
    """One schedule after the other, each beginning anew at its boundary.

    ``s_0(count)`` while ``count < boundaries_0``, then ``s_1(count - boundaries_0)`` while ``count < boundaries_1``,
    and so on.

    Args:
        schedules: schedules, or scalars >= 0 to stay at for the while; numbers in them may be traced.
        boundaries: one less than schedules: a sequence of numbers of steps >= 0 that do not decrease, or an array; may
            be traced.

    Returns:
        The schedule.

    Raises:
        ValueError: there is no schedule, or not one boundary less than schedules, or boundaries are negative or
            decrease.

    Example:
        >>> from jaxopt_nn.schedules import linear
        >>> schedule = join([linear(0.0, 1.0, 2), 1.0, linear(1.0, 0.0, 4)], boundaries=[2, 5])
        >>> [float(schedule(count)) for count in range(10)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]

    Equal to ``optax.join_schedules`` and ``torch.optim.lr_scheduler.SequentialLR``.
    """
    if not isinstance(schedules, (list, tuple)):
        raise TypeError(f"schedules: expected a sequence of schedules, got {schedules!r}")
    parts, ends = [_as_schedule(part) for part in schedules], boundary_list(boundaries)
    if not parts or len(parts) != len(ends) + 1:
        raise ValueError(
            f"boundaries: expected one less than schedules, of which there are {len(parts)}, got {len(ends)}"
        )

    def schedule(count: ArrayLike) -> Array:
        count = as_steps(count)
        pairs = [same_dtype(count, end) for end in ends]
        turns = [now < bound for now, bound in pairs]
        own = [count, *(jnp.maximum(now - bound, 0) for now, bound in pairs)]
        # Whose turn is over is evaluated at its first step: nothing overflows out of sight.
        own = [*(jnp.where(turn, past, 0) for turn, past in zip(turns, own, strict=False)), own[-1]]
        values = [as_float(rate_of("schedules", part, past)) for part, past in zip(parts, own, strict=True)]
        value = values[0]
        for turn, following in zip(turns, values[1:], strict=True):
            value = jnp.where(turn, value, following)
        return value

    return schedule


def by_epoch(schedule: ArrayLike | Schedule, steps_per_epoch: ArrayLike, *, staircase: bool = True) -> Schedule:
    """A schedule that counts epochs, as one that counts steps.

    ``s(⌊count / steps_per_epoch⌋)``; without ``staircase`` the epoch is not rounded down.

    Args:
        schedule: ``epoch -> learning rate``; epochs count from 0, as an integer if ``staircase``.
        steps_per_epoch: the number of batches in an epoch, > 0; may be traced.
        staircase: static; whether the rate changes between epochs only.

    Returns:
        The schedule by step.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> from jaxopt_nn.schedules import step_decay
        >>> schedule = by_epoch(step_decay(1.0, step_size=30), steps_per_epoch=100)
        >>> float(schedule(2999)), round(float(schedule(3000)), 6)
        (1.0, 0.1)

    PyTorch's schedulers count what they are called for, which mostly are epochs.
    """
    part = _as_schedule(schedule)
    check_steps("steps_per_epoch", steps_per_epoch)
    check_bool("staircase", staircase)

    def by_step(count: ArrayLike) -> Array:
        if staircase:
            epoch = whole_periods(count, steps_per_epoch).astype(jnp.int32)
        else:
            epoch = as_float(count) / as_float(steps_per_epoch)
        return as_float(rate_of("schedule", part, epoch))

    return by_step


def _as_schedule(schedule: ArrayLike | Schedule) -> Schedule:
    if not callable(schedule):
        return constant(schedule)
    check_schedule("learning_rate", schedule)
    return schedule
