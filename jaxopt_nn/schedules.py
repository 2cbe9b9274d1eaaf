"""Learning rates over time: a schedule is a pure function ``count -> learning rate``.

``count`` is the number of updates already done, an integer scalar (or an array of any shape, to plot a schedule at
once); it is exact in float32 up to 2^24. Every number of every schedule may be traced, swept and differentiated, step
sizes and boundaries too: there is arithmetic here and no branch. Wherever an optimizer takes a ``learning_rate`` it
takes a number or a schedule, ours or optax's.

The result is a float32 array, or float64 where x64 is on. Steps are steps of the optimizer: for a schedule in epochs,
multiply by the number of batches in an epoch.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxopt_nn._arguments import check_number
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["Schedule", "constant", "cosine_decay", "exponential_decay", "step_decay", "warmup"]

Schedule = Callable[[Any], Any]
"""``count -> learning rate``. Ours return an array; optax's, which may return a Python number, are as good."""


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
    return lambda count: jnp.broadcast_to(_float(learning_rate), jnp.shape(count))


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
    """
    check_number("step_size", step_size, 0.0, open_low=True)
    return exponential_decay(learning_rate, step_size, factor, staircase=True)


def exponential_decay(
    learning_rate: ArrayLike, decay_steps: ArrayLike, factor: ArrayLike, *, staircase: bool = False
) -> Schedule:
    """Decays the learning rate by ``factor`` over each ``decay_steps`` steps, smoothly or at once.

    ``lr · factor^(count / decay_steps)``; with ``staircase`` the exponent is rounded down.

    Args:
        learning_rate: the first learning rate, scalar >= 0; may be traced.
        decay_steps: the steps in which the rate falls by ``factor``, > 0; may be traced.
        factor: > 0; may be traced.
        staircase: static; whether to decay in steps.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> schedule = exponential_decay(1.0, decay_steps=10, factor=0.25)
        >>> [float(schedule(count)) for count in (0, 5, 10)]
        [1.0, 0.5, 0.25]

    Differs from ``optax.exponential_decay`` in that every number may be traced; the values are equal.
    """
    check_number("learning_rate", learning_rate, 0.0)
    check_number("decay_steps", decay_steps, 0.0, open_low=True)
    check_number("factor", factor, 0.0, open_low=True)

    def schedule(count: ArrayLike) -> Array:
        exponent = _float(count) / _float(decay_steps)
        return _float(learning_rate) * _float(factor) ** (jnp.floor(exponent) if staircase else exponent)

    return schedule


def cosine_decay(learning_rate: ArrayLike, decay_steps: ArrayLike, *, alpha: ArrayLike = 0.0) -> Schedule:
    """Half a cosine, from the learning rate down to ``alpha`` times it; then it stays there.

    ``lr · (alpha + (1 - alpha) · (1 + cos(π · min(count / decay_steps, 1))) / 2)``

    Args:
        learning_rate: the first learning rate, scalar >= 0; may be traced.
        decay_steps: the steps until the floor is reached, > 0; may be traced.
        alpha: the floor as a fraction of the learning rate, in [0, 1]; may be traced.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> schedule = cosine_decay(1.0, decay_steps=10)
        >>> [round(float(schedule(count)), 6) for count in (0, 5, 10, 99)]
        [1.0, 0.5, 0.0, 0.0]

    References:
        Loshchilov and Hutter, SGDR, 2017, equation 5 (one period, without restarts).
    """
    check_number("learning_rate", learning_rate, 0.0)
    check_number("decay_steps", decay_steps, 0.0, open_low=True)
    check_number("alpha", alpha, 0.0, 1.0)

    def schedule(count: ArrayLike) -> Array:
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(_float(count) / _float(decay_steps), 1.0)))
        return _float(learning_rate) * (_float(alpha) + (1.0 - _float(alpha)) * cosine)

    return schedule


def warmup(learning_rate: ArrayLike | Schedule, warmup_steps: ArrayLike, init_value: ArrayLike = 0.0) -> Schedule:
    """Rises linearly to the first value of a schedule, then hands over to it.

    With ``s`` the schedule and ``W`` the ``warmup_steps``: ``init_value + (s(0) - init_value) · count / W`` while
    ``count < W``, then ``s(count - W)``: the schedule begins where the warm-up ends.

    Args:
        learning_rate: what comes after the warm-up: a schedule, or a scalar >= 0 to stay at; may be traced.
        warmup_steps: the length of the rise, an integer >= 0; may be traced. 0 means none.
        init_value: the learning rate of the first step, scalar >= 0; may be traced. At the default, 0, the first step
            moves nothing.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> schedule = warmup(cosine_decay(1.0, decay_steps=10), warmup_steps=4)
        >>> [float(schedule(count)) for count in (0, 1, 2, 4)]
        [0.0, 0.25, 0.5, 1.0]

    References:
        Goyal et al., Accurate, large minibatch SGD, 2017, section 2.2 (gradual warm-up).
    """
    after = learning_rate if callable(learning_rate) else constant(learning_rate)
    check_number("warmup_steps", warmup_steps, 0.0)
    check_number("init_value", init_value, 0.0)

    def schedule(count: ArrayLike) -> Array:
        done, first = _float(count), _float(init_value)
        # One evaluation gives both the peak, s(0), and what follows it. A count below W <= 1 can only be 0.
        value = _float(after(jnp.maximum(jnp.asarray(count) - jnp.asarray(warmup_steps), 0)))
        rise = first + (value - first) * (done / jnp.maximum(_float(warmup_steps), 1.0))
        return jnp.where(done < _float(warmup_steps), rise, value)

    return schedule


def _float(number: ArrayLike) -> Array:
    """``number`` in JAX's default float, without a weak type, so that nothing that takes it is promoted by it."""
    return jnp.asarray(number, dtype=jnp.result_type(float))
