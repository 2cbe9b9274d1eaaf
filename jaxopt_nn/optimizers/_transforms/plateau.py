"""Reduction of the learning rate when a metric stops improving.

This is no gradient transform. It is updated once an epoch, with the epoch's metric. Then
``scale_learning_rate(opt_state, state.scale)`` passes its scale to the optimizer; a training run does that by itself.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp

from jaxopt_nn._arguments import check_bool, check_number
from jaxopt_nn.optimizers._numerics.transform import Convention, check_convention
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["Plateau", "PlateauState", "reduce_on_plateau"]


class PlateauState(NamedTuple):
    """State of :func:`reduce_on_plateau`. Floats are float32, or float64 where x64 is on.

    Attributes:
        scale: float scalar, the factor of the learning rate; 1 at first.
        best: float scalar, the best value so far; inf (or -inf if more is better) before there is one.
        bad_epochs: int32 scalar, the epochs since the last improvement, reduction or cooldown.
        cooldown_left: int32 scalar, the remaining epochs of the cooldown.
    """

    scale: Array
    best: Array
    bad_epochs: Array
    cooldown_left: Array


class Plateau(NamedTuple):
    """A rule for when to reduce the learning rate, as a pair of pure functions.

    Attributes:
        init: ``init() -> PlateauState``.
        update: ``update(value, state, learning_rate=None) -> PlateauState``, called once an epoch with its metric,
            a scalar. The learning rate is that of the epoch's last update, with its scale, from
            :func:`current_learning_rate`; only ``min_lr`` and ``min_change`` need it.
        mode: which values are better, as given; None if it was not given, which means "min".
    """

    init: Callable[[], PlateauState]
    update: Callable[..., PlateauState]
    mode: Literal["min", "max"] | None = None


def reduce_on_plateau(
    factor: ArrayLike = 0.1,
    patience: ArrayLike = 10,
    *,
    mode: Literal["min", "max"] | None = None,
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    cooldown: ArrayLike = 0,
    min_scale: ArrayLike = 0.0,
    min_lr: ArrayLike | None = None,
    min_change: ArrayLike | None = None,
    convention: Convention = "torch",
    signed_threshold: bool = False,
) -> Plateau:
    """Multiplies the learning rate by ``factor`` after ``patience`` epochs without improvement.

    An epoch improves if ``value < best - (rtol·|best| + atol)`` (for "max": ``value > best + …``); NaN and infinite
    values never do. Before there is a best value, every other value does. An epoch that does not improve is bad. The
    scale is reduced, to not less than ``min_scale``, after so many bad epochs in a row:

    - "torch": ``patience + 1``. In the ``cooldown`` epochs after a reduction no epoch counts as bad.
    - "optax": ``patience`` (0 acts as 1), with the same cooldown.
    - "keras": ``patience`` (0 acts as 1), and the last epoch of a cooldown already counts, so a cooldown of 1 is none.

    Args:
        factor: in (0, 1); may be traced.
        patience: an integer >= 0; may be traced.
        mode: static; whether less of the metric is better ("min"), or more ("max"). None is "min"; a training run
            raises for it unless less of what it monitors is known to be better.
        rtol: in [0, 1], may be traced; None (static) for the convention's: 1e-4, and 0 for "keras".
        atol: >= 0, may be traced; None (static) for the convention's: 0, and 1e-4 for "keras".
        cooldown: an integer >= 0; may be traced.
        min_scale: the floor of the scale, in [0, 1]; may be traced.
        min_lr: the floor of the learning rate, >= 0, may be traced; None (static) for none. It does not raise a
            learning rate that is already below. ``update`` then needs the learning rate.
        min_change: >= 0, may be traced; a reduction of the learning rate by no more than this is not made. None
            (static) makes every reduction. ``update`` then needs the learning rate. It is torch's ``eps``, which is
            1e-8 there.
        convention: static; whose trigger, cooldown and thresholds it has, as above.
        signed_threshold: static; whether the threshold is ``rtol·best + atol``, as in torch and optax. If the metric is
            negative, a constant or even a slightly worse value then counts as an improvement, in every epoch.

    Returns:
        The pair.

    Raises:
        ValueError: an argument is out of its range; from ``update``, if a learning rate that it needs is missing.

    Example:
        >>> plateau = reduce_on_plateau(factor=0.5, patience=1)
        >>> state, scales = plateau.init(), []
        >>> for loss in [1.0, 0.9, 0.9, 0.9, 0.8]:
        ...     state = plateau.update(loss, state)
        ...     scales.append(float(state.scale))
        >>> scales
        [1.0, 1.0, 1.0, 0.5, 0.5]

    Under each convention it makes the same decisions as ``torch.optim.lr_scheduler.ReduceLROnPlateau`` (whose
    ``threshold`` is ``rtol``, or for "abs" ``atol`` with an ``rtol`` of 0), ``optax.contrib.reduce_on_plateau`` and
    Keras's ``ReduceLROnPlateau`` (``min_delta`` is ``atol``). Differs for negative metrics, see ``signed_threshold``,
    and for values that are not finite: to theirs -inf is an improvement, and to Keras a first NaN, after which nothing
    ever improves.
    """
    if mode not in (None, "min", "max"):
        raise ValueError(f'mode: expected "min" or "max", got {mode!r}')
    check_convention(convention)
    check_bool("signed_threshold", signed_threshold)
    rtol = (0.0 if convention == "keras" else 1e-4) if rtol is None else rtol
    atol = (1e-4 if convention == "keras" else 0.0) if atol is None else atol
    check_number("factor", factor, 0.0, 1.0, open_low=True, open_high=True)
    check_number("patience", patience, 0, whole=True)
    check_number("rtol", rtol, 0.0, 1.0)
    check_number("atol", atol, 0.0)
    check_number("cooldown", cooldown, 0, whole=True)
    check_number("min_scale", min_scale, 0.0, 1.0)
    for name, value in (("min_lr", min_lr), ("min_change", min_change)):
        if value is not None:
            check_number(name, value, 0.0)
    absolute = min_lr is not None or min_change is not None
    sign = -1.0 if mode == "max" else 1.0

    def improves(value: Array, best: Array) -> Array:
        has_best = jnp.isfinite(best)
        # Before there is a best value, any finite value is an improvement; inf - rtol·inf would be NaN.
        best = jnp.where(has_best, best, 0.0)
        threshold = _float(rtol) * (best if signed_threshold else jnp.abs(best)) + _float(atol)
        return jnp.isfinite(value) & (~has_best | (sign * (best - value) > threshold))

    def reduced_scale(scale: Array, learning_rate: ArrayLike | None) -> Array:
        lower = jnp.maximum(scale * _float(factor), _float(min_scale))
        if not absolute:
            return lower
        if learning_rate is None:
            raise ValueError("learning_rate: expected the current one, for min_lr and min_change, got None")
        rate = _float(learning_rate)
        positive = jnp.where(rate > 0, rate, 1.0)  # a learning rate of 0 cannot be reduced
        new_rate = positive * (lower / scale)
        if min_lr is not None:
            new_rate = jnp.maximum(new_rate, _float(min_lr))
        is_reduced = (rate > 0) & (positive - new_rate > _float(0.0 if min_change is None else min_change))
        return jnp.where(is_reduced, scale * (new_rate / positive), scale)

    def update(value: ArrayLike, state: PlateauState, learning_rate: ArrayLike | None = None) -> PlateauState:
        value = _float(value)
        improved, cooldown_left = improves(value, state.best), state.cooldown_left
        counts = cooldown_left <= (1 if convention == "keras" else 0)  # whether a bad epoch counts
        previous_bad_epochs = jnp.where(cooldown_left > 0, 0, state.bad_epochs)
        bad_epochs = jnp.where(improved | ~counts, 0, previous_bad_epochs + 1)
        # In Keras, too, a patience of 0 is one bad epoch; optax would then reduce at improvements.
        limit = jnp.asarray(patience) if convention == "torch" else jnp.maximum(jnp.asarray(patience), 1) - 1
        reduced = bad_epochs > limit
        return PlateauState(
            scale=jnp.where(reduced, reduced_scale(state.scale, learning_rate), state.scale),
            best=jnp.where(improved, value, state.best),
            bad_epochs=jnp.where(reduced, 0, bad_epochs),
            cooldown_left=jnp.where(reduced, jnp.asarray(cooldown, jnp.int32), jnp.maximum(cooldown_left - 1, 0)),
        )

    return Plateau(init=lambda: _initial(sign), update=update, mode=mode)


def _initial(sign: float) -> PlateauState:
    return PlateauState(_float(1.0), _float(sign * jnp.inf), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def _float(number: ArrayLike) -> Array:
    return jnp.asarray(number, dtype=jnp.result_type(float))
