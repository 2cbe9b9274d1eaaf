"""Schedules made of half cosines: one, one after the other, or up and down."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_choice, check_number, concrete_number
from jaxopt_nn.schedules._steps import Schedule, as_float, check_steps, done_and_left
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["cosine_decay", "cosine_restarts", "one_cycle"]


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

    Equal to ``optax.cosine_decay_schedule`` and Keras's ``CosineDecay``. Differs from
    ``torch.optim.lr_scheduler.CosineAnnealingLR``, which rises again after ``T_max``.

    References:
        Loshchilov and Hutter, SGDR, 2017, equation 5 (one period, without restarts).
    """
    check_number("learning_rate", learning_rate, 0.0)
    check_steps("decay_steps", decay_steps)
    check_number("alpha", alpha, 0.0, 1.0)

    def schedule(count: ArrayLike) -> Array:
        _, left = done_and_left(count, decay_steps)
        return as_float(learning_rate) * (as_float(alpha) + (1.0 - as_float(alpha)) * _half_cosine(left))

    return schedule


def cosine_restarts(
    learning_rate: ArrayLike,
    period: ArrayLike,
    *,
    t_mult: ArrayLike = 1.0,
    m_mult: ArrayLike = 1.0,
    alpha: ArrayLike = 0.0,
) -> Schedule:
    """Half cosines one after the other, each ``t_mult`` times as long as the one before (SGDR).

    In cycle ``n = 0, 1, …``, which begins at step ``T·(1 + t_mult + … + t_mult^(n-1))`` with ``T`` the ``period`` and
    lasts ``T·t_mult^n`` steps, at a fraction ``x`` in [0, 1) of it:
    ``lr · (alpha + (1 - alpha) · m_mult^n · (1 + cos(π·x)) / 2)``.

    Args:
        learning_rate: the first learning rate, scalar >= 0; may be traced.
        period: the number of steps of the first cycle, > 0; may be traced.
        t_mult: how many times longer each next cycle is, >= 1; may be traced.
        m_mult: how many times higher each next peak is, > 0; may be traced.
        alpha: the floor as a fraction of the learning rate, in [0, 1]; may be traced.

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> schedule = cosine_restarts(1.0, period=2, t_mult=2.0)
        >>> [round(float(schedule(count)), 6) for count in range(7)]
        [1.0, 0.5, 1.0, 0.853553, 0.5, 0.146447, 1.0]

    Equal to ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`` (``T_0``, ``T_mult``, and ``eta_min`` of
    ``alpha · lr``) and Keras's ``CosineDecayRestarts`` (``t_mul``, ``m_mul``). A restart falls exactly on its step as
    long as ``period`` and ``t_mult`` are integers and the cycle before is shorter than 2^18 times the ``period``.

    References:
        Loshchilov and Hutter, SGDR, 2017, equation 5.
    """
    check_number("learning_rate", learning_rate, 0.0)
    check_steps("period", period)
    check_number("t_mult", t_mult, 1.0)
    check_number("m_mult", m_mult, 0.0, open_low=True)
    check_number("alpha", alpha, 0.0, 1.0)

    def schedule(count: ArrayLike) -> Array:
        n, begin, length = _cycle(as_float(count), as_float(period), as_float(t_mult))
        height = as_float(m_mult) ** n * _half_cosine((begin + length - as_float(count)) / length)
        return as_float(learning_rate) * (as_float(alpha) + (1.0 - as_float(alpha)) * height)

    return schedule


def one_cycle(
    peak: ArrayLike,
    total_steps: ArrayLike,
    *,
    warmup_fraction: ArrayLike = 0.3,
    final_fraction: ArrayLike | None = None,
    div_factor: ArrayLike = 25.0,
    final_div_factor: ArrayLike = 1e4,
    anneal: Literal["cosine", "linear"] = "cosine",
    convention: Literal["optax", "torch"] = "optax",
) -> Schedule:
    """Up to a peak and down again, to far below where it began (super-convergence).

    From ``peak / div_factor`` up to ``peak`` at step ``warmup_fraction · T``, then down to
    ``peak / (div_factor · final_div_factor)`` at step ``T``, the ``total_steps``; there it stays. With a
    ``final_fraction`` there are three phases: back at ``peak / div_factor`` at step ``final_fraction · T``, and from
    there down to the end.

    Args:
        peak: the highest learning rate, scalar >= 0; may be traced.
        total_steps: T > 0; may be traced.
        warmup_fraction: in [0, 1]; may be traced.
        final_fraction: in [0, 1], no less than ``warmup_fraction``, may be traced; None (static) for two phases.
        div_factor: > 0; may be traced.
        final_div_factor: > 0; may be traced.
        anneal: static; half cosines or straight lines.
        convention: static; "torch" has the last of ``T`` steps at the end, one step before that the phases end, too
            (with ``final_fraction`` the second phase by two).

    Returns:
        The schedule.

    Raises:
        ValueError: a number is out of its range, or ``anneal`` or ``convention`` is unknown.

    Example:
        >>> schedule = one_cycle(1.0, 10, warmup_fraction=0.5, div_factor=10.0, anneal="linear")
        >>> [round(float(schedule(count)), 2) for count in (0, 1, 5, 6, 10)]
        [0.1, 0.28, 1.0, 0.8, 0.0]

    Equal to ``optax.cosine_onecycle_schedule``, which rounds the step of the peak down to an integer, and
    ``optax.linear_onecycle_schedule`` (three phases). With ``convention="torch"`` equal to
    ``torch.optim.lr_scheduler.OneCycleLR``, whose ``three_phase`` is a ``final_fraction`` of
    ``2 · warmup_fraction``; the momentum is not touched.

    References:
        Smith and Topin, Super-convergence, 2018, section 3.
    """
    check_number("peak", peak, 0.0)
    check_steps("total_steps", total_steps)
    check_number("warmup_fraction", warmup_fraction, 0.0, 1.0)
    if final_fraction is not None:
        check_number("final_fraction", final_fraction, 0.0, 1.0)
        first, second = concrete_number(warmup_fraction), concrete_number(final_fraction)
        if first is not None and second is not None and second < first:
            raise ValueError(f"final_fraction: expected no less than warmup_fraction, {first:g}, got {second:g}")
    check_number("div_factor", div_factor, 0.0, open_low=True)
    check_number("final_div_factor", final_div_factor, 0.0, open_low=True)
    check_choice("anneal", anneal, "cosine", "linear")
    check_choice("convention", convention, "optax", "torch")
    early = 1.0 if convention == "torch" else 0.0

    def schedule(count: ArrayLike) -> Array:
        count, top, total = as_float(count), as_float(peak), as_float(total_steps)
        first = top / as_float(div_factor)
        last = first / as_float(final_div_factor)
        rise, end = as_float(warmup_fraction) * total - early, total - early
        if final_fraction is None:
            fall = _between(count, rise, end, top, last, anneal)
        else:
            low = as_float(final_fraction) * total - 2.0 * early
            fall = _between(count, low, end, first, last, anneal)
            fall = jnp.where(count <= low, _between(count, rise, low, top, first, anneal), fall)
        return jnp.where(count <= rise, _between(count, as_float(0.0), rise, first, top, anneal), fall)

    return schedule


def _half_cosine(left: Array) -> Array:
    """``(1 + cos(π·(1 - left))) / 2``, without cancellation near 0: there the last steps of a decay are."""
    return jnp.sin(0.5 * math.pi * left) ** 2


def _between(count: Array, begin: Array, end: Array, a: Array, b: Array, anneal: str) -> Array:
    """From ``a`` at ``begin`` to ``b`` at ``end``, by a half cosine or a straight line."""
    done, left = done_and_left(jnp.maximum(count - begin, 0.0), end - begin)
    if anneal == "cosine":
        done, left = _half_cosine(done), _half_cosine(left)
    return a * left + b * done


def _cycle(count: Array, period: Array, growth: Array) -> tuple[Array, Array, Array]:
    """The number, the first step and the length of the cycle that ``count`` is in."""
    # With S(n) = 1 + g + … + g^(n-1), cycle n begins at T·S(n) and lasts T·g^n = T·(1 + (g - 1)·S(n)). Solved for n,
    # S(n) <= count / T leaves a rounding error that may cross a boundary, so n is what fits of three candidates.
    excess = growth - 1.0
    level = excess == 0.0
    log_growth = jnp.log1p(jnp.where(level, 1.0, excess))
    estimate = jnp.where(level, count / period, jnp.log1p(count / period * excess) / log_growth)
    n = jax.lax.stop_gradient(jnp.maximum(jnp.floor(estimate) - 1.0, 0.0))
    # At g = 1 the sum is n, with its slope in g.
    total = jnp.expm1(n * log_growth) / jnp.where(level, 1.0, excess)
    total = jnp.where(level, n + 0.5 * n * (n - 1.0) * excess, total)
    # Sums of integers are integers; the slope is that of the formula.
    exact = jnp.where(growth == jnp.floor(growth), jnp.round(total), total)
    total += jax.lax.stop_gradient(exact - total)
    for _ in range(2):
        following = 1.0 + growth * total
        reached = period * following <= count
        n, total = n + as_float(reached), jnp.where(reached, following, total)
    return n, period * total, period * (1.0 + excess * total)
