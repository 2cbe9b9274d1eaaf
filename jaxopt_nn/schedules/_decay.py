"""Schedules that follow one formula: constant, in steps, exponential, polynomial, linear, inverse square root."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxopt_nn._arguments import check_bool, check_number
from jaxopt_nn.schedules._steps import (
    Schedule,
    as_float,
    as_list,
    as_steps,
    boundary_list,
    check_steps,
    done_and_left,
    same_dtype,
    whole_periods,
)
from jaxopt_nn.types import Array, ArrayLike

__all__ = [
    "constant",
    "exponential_decay",
    "inverse_sqrt_decay",
    "linear",
    "multi_step_decay",
    "polynomial_decay",
    "step_decay",
]


def constant(learning_rate: ArrayLike) -> Schedule:
    """The same learning rate for ever.

    Args:
        learning_rate: scalar >= 0; may be traced.

    Returns:
        The schedule ``count -> learning_rate``.

    Raises:
        ValueError: the learning rate is negative or not finite.

    Example:
        >>> float(constant(0.5)(1000))
        0.5
    """
    check_number("learning_rate", learning_rate, 0.0)
    return lambda count: jnp.broadcast_to(as_float(learning_rate), jnp.shape(count))


def step_decay(learning_rate: ArrayLike, step_size: ArrayLike, factor: ArrayLike = 0.1) -> Schedule:
    """Multiplies the learning rate by ``factor`` every ``step_size`` steps.

    ``lr · factor^⌊count / step_size⌋``

    Args:
        learning_rate: the first learning rate, scalar >= 0; may be traced.
        step_size: the number of steps between two drops, > 0; may be traced.
        factor: > 0; may be traced.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> schedule = step_decay(1.0, step_size=10, factor=0.5)
        >>> [float(schedule(count)) for count in (0, 9, 10, 20)]
        [1.0, 1.0, 0.5, 0.25]

    Equal to ``torch.optim.lr_scheduler.StepLR``, there usually by epoch: ``by_epoch(step_decay(...), ...)``.
    """
    check_steps("step_size", step_size)
    return exponential_decay(learning_rate, step_size, factor, staircase=True)


def multi_step_decay(
    learning_rate: ArrayLike, boundaries: Sequence[ArrayLike] | ArrayLike, factor: Sequence[ArrayLike] | ArrayLike = 0.1
) -> Schedule:
    """Multiplies the learning rate by ``factor`` at each of some steps.

    ``lr · Π factor_i`` over all ``i`` with ``boundaries_i <= count``.

    Args:
        learning_rate: the first learning rate, scalar >= 0; may be traced.
        boundaries: the counts of the first updates with the lower rate, a sequence of numbers >= 0 that do not
            decrease, or an array ``[n]``; may be traced, how many they are is static.
        factor: > 0, one or one a boundary, ``[n]``; may be traced.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range, boundaries decrease, or there are not as many factors.

    Example:
        >>> schedule = multi_step_decay(1.0, [10, 15], factor=0.5)
        >>> [float(schedule(count)) for count in (0, 9, 10, 14, 15)]
        [1.0, 1.0, 0.5, 0.5, 0.25]

    Equal to ``torch.optim.lr_scheduler.MultiStepLR`` and, with one factor a boundary, to
    ``optax.piecewise_constant_schedule``. Differs from Keras's ``PiecewiseConstantDecay``, where the rate is lower from
    one step later on.
    """
    check_number("learning_rate", learning_rate, 0.0)
    steps = boundary_list(boundaries)
    several = as_list(factor)
    factors: list[Any] = [factor] * len(steps) if several is None else several
    if len(factors) != len(steps):
        raise ValueError(f"factor: expected one, or one a boundary, {len(steps)}, got {len(factors)}")
    for i, each in enumerate(factors):
        check_number("factor" if several is None else f"factor[{i}]", each, 0.0, open_low=True)

    def schedule(count: ArrayLike) -> Array:
        count = as_steps(count)
        rate = jnp.broadcast_to(as_float(learning_rate), count.shape)
        for boundary, each in zip(steps, factors, strict=True):
            now, end = same_dtype(count, boundary)
            rate = jnp.where(now < end, rate, rate * as_float(each))
        return rate

    return schedule


def exponential_decay(
    learning_rate: ArrayLike,
    decay_steps: ArrayLike,
    factor: ArrayLike,
    *,
    staircase: bool = False,
    end_value: ArrayLike | None = None,
) -> Schedule:
    """Decays the learning rate by ``factor`` over each ``decay_steps`` steps, smoothly or at once.

    ``lr · factor^(count / decay_steps)``; with ``staircase`` the exponent is rounded down.

    Args:
        learning_rate: the first learning rate, scalar >= 0; may be traced.
        decay_steps: the steps in which the rate falls by ``factor``, > 0; may be traced.
        factor: > 0; may be traced.
        staircase: static; whether to decay in steps.
        end_value: where the decay ends (or, with a factor above 1, the growth), >= 0, may be traced; None (static) for
            nowhere.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> schedule = exponential_decay(1.0, decay_steps=10, factor=0.25)
        >>> [float(schedule(count)) for count in (0, 5, 10)]
        [1.0, 0.5, 0.25]

    Equal to ``optax.exponential_decay`` and Keras's ``ExponentialDecay``; with ``decay_steps`` of 1 to
    ``torch.optim.lr_scheduler.ExponentialLR``.
    """
    check_number("learning_rate", learning_rate, 0.0)
    check_steps("decay_steps", decay_steps)
    check_number("factor", factor, 0.0, open_low=True)
    check_bool("staircase", staircase)
    if end_value is not None:
        check_number("end_value", end_value, 0.0)

    def schedule(count: ArrayLike) -> Array:
        exponent = whole_periods(count, decay_steps) if staircase else as_float(count) / as_float(decay_steps)
        rate = as_float(learning_rate) * as_float(factor) ** as_float(exponent)
        if end_value is None:
            return rate
        end = as_float(end_value)
        return jnp.where(as_float(factor) < 1.0, jnp.maximum(rate, end), jnp.minimum(rate, end))

    return schedule


def polynomial_decay(
    learning_rate: ArrayLike, decay_steps: ArrayLike, power: ArrayLike = 1.0, *, end_value: ArrayLike = 0.0
) -> Schedule:
    """A power of the steps that are left, from the learning rate to ``end_value``; then it stays there.

    ``end_value + (lr - end_value) · (1 - min(count / decay_steps, 1))^power``

    Args:
        learning_rate: the first learning rate, scalar >= 0; may be traced.
        decay_steps: the steps until ``end_value`` is reached, > 0; may be traced.
        power: > 0; may be traced.
        end_value: >= 0; may be traced.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> schedule = polynomial_decay(1.0, decay_steps=4, power=2.0)
        >>> [float(schedule(count)) for count in (0, 2, 4, 9)]
        [1.0, 0.25, 0.0, 0.0]

    Equal to ``optax.polynomial_schedule``, Keras's ``PolynomialDecay`` and, with an ``end_value`` of 0, to
    ``torch.optim.lr_scheduler.PolynomialLR``.
    """
    check_number("learning_rate", learning_rate, 0.0)
    check_steps("decay_steps", decay_steps)
    check_number("power", power, 0.0, open_low=True)
    check_number("end_value", end_value, 0.0)

    def schedule(count: ArrayLike) -> Array:
        _, left = done_and_left(count, decay_steps)
        # A power below 1 has an infinite slope at 0, where nothing moves any more.
        share = jnp.where(left > 0, jnp.where(left > 0, left, 1.0) ** as_float(power), 0.0)
        return as_float(learning_rate) * share + as_float(end_value) * (1.0 - share)

    return schedule


def linear(init_value: ArrayLike, end_value: ArrayLike, steps: ArrayLike) -> Schedule:
    """A straight line from one learning rate to another, up or down; then it stays there.

    ``init_value + (end_value - init_value) · min(count / steps, 1)``

    Args:
        init_value: the first learning rate, scalar >= 0; may be traced.
        end_value: the last one, scalar >= 0; may be traced.
        steps: the number of steps from one to the other, >= 0; may be traced. 0 means at once.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> schedule = linear(0.0, 1.0, steps=4)
        >>> [float(schedule(count)) for count in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]

    Equal to ``optax.linear_schedule`` and ``torch.optim.lr_scheduler.LinearLR``, whose two ends are factors of the
    learning rate.
    """
    check_number("init_value", init_value, 0.0)
    check_number("end_value", end_value, 0.0)
    check_steps("steps", steps, or_zero=True)

    def schedule(count: ArrayLike) -> Array:
        done, left = done_and_left(count, steps)
        return as_float(init_value) * left + as_float(end_value) * done

    return schedule


def inverse_sqrt_decay(learning_rate: ArrayLike, timescale: ArrayLike) -> Schedule:
    """Decays with the root of the steps.

    ``lr / √(1 + count / timescale)``

    After a warm-up of ``timescale`` steps this is the schedule of the Transformer, ``lr · min(t / W, √(W / t))``:
    ``warmup(inverse_sqrt_decay(lr, W), W)``.

    Args:
        learning_rate: the first learning rate, scalar >= 0; may be traced.
        timescale: > 0, in steps; after three times as many the rate has halved; may be traced.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> schedule = inverse_sqrt_decay(1.0, timescale=10)
        >>> [float(schedule(count)) for count in (0, 30, 150)]
        [1.0, 0.5, 0.25]

    References:
        Vaswani et al., Attention is all you need, 2017, equation 3.
    """
    check_number("learning_rate", learning_rate, 0.0)
    check_steps("timescale", timescale)
    return lambda count: as_float(learning_rate) / jnp.sqrt(1.0 + as_float(count) / as_float(timescale))
