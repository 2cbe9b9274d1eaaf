"""Reduction of the learning rate when a metric stops improving.

It is a pair of its own and no gradient transform: it is updated once an epoch, with the epoch's metric, and a training
run multiplies each step's updates by ``state.scale``.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from jaxopt_nn._arguments import check_number
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["Plateau", "PlateauState", "reduce_on_plateau"]


class PlateauState(NamedTuple):
    """State of :func:`reduce_on_plateau`. Floats are float32, or float64 where x64 is on.

    Attributes:
        scale: float scalar, what the learning rate is to be multiplied by; 1 at first.
        best: float scalar, the best value so far; inf (or -inf if more is better) before there is one.
        bad_epochs: int32 scalar, the epochs since the last improvement, reduction or cooldown.
        cooldown_left: int32 scalar, the epochs yet to come in which bad ones are not counted.
    """

    scale: Array
    best: Array
    bad_epochs: Array
    cooldown_left: Array


class Plateau(NamedTuple):
    """A rule of when to reduce the learning rate, as a pair of pure functions.

    Attributes:
        init: ``init() -> PlateauState``.
        update: ``update(value, state) -> PlateauState``, to be called once an epoch with its metric, a scalar.
    """

    init: Callable[[], PlateauState]
    update: Callable[[Any, PlateauState], PlateauState]


def reduce_on_plateau(
    factor: ArrayLike = 0.1,
    patience: ArrayLike = 10,
    *,
    mode: Literal["min", "max"] = "min",
    rtol: ArrayLike = 1e-4,
    atol: ArrayLike = 0.0,
    cooldown: ArrayLike = 0,
    min_scale: ArrayLike = 0.0,
) -> Plateau:
    """Multiplies the learning rate by ``factor`` after more than ``patience`` epochs without improvement.

    An epoch improves if ``value < best - (rtol·|best| + atol)`` (for "max": ``value > best + …``); NaN and infinite
    values never do. Otherwise it is bad, and on bad epoch ``patience + 1`` in a row the scale is reduced, to not less
    than ``min_scale``. In the ``cooldown`` epochs after that no epoch counts as bad.

    Args:
        factor: in (0, 1); may be traced.
        patience: an integer >= 0; may be traced.
        mode: static; whether less of the metric is better ("min"), or more.
        rtol: in [0, 1]; may be traced.
        atol: >= 0; may be traced.
        cooldown: an integer >= 0; may be traced.
        min_scale: the floor of the scale, in [0, 1]; may be traced.

    Returns:
        The pair.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> plateau = reduce_on_plateau(factor=0.5, patience=1)
        >>> state, scales = plateau.init(), []
        >>> for loss in [1.0, 0.9, 0.9, 0.9, 0.8]:
        ...     state = plateau.update(loss, state)
        ...     scales.append(float(state.scale))
        >>> scales
        [1.0, 1.0, 1.0, 0.5, 0.5]

    The trigger is that of ``torch.optim.lr_scheduler.ReduceLROnPlateau``; optax and Keras reduce one bad epoch earlier.
    Differs from both torch and optax in ``|best|``: with a negative metric, theirs take a constant for an improvement
    (optax) or relax the threshold (torch). The floor is relative, as in optax; torch's is absolute.
    """
    if mode not in ("min", "max"):
        raise ValueError(f'mode: expected "min" or "max", got {mode!r}')
    check_number("factor", factor, 0.0, 1.0, open_low=True, open_high=True)
    check_number("patience", patience, 0)
    check_number("rtol", rtol, 0.0, 1.0)
    check_number("atol", atol, 0.0)
    check_number("cooldown", cooldown, 0)
    check_number("min_scale", min_scale, 0.0, 1.0)
    sign = 1.0 if mode == "min" else -1.0

    def init() -> PlateauState:
        return PlateauState(_float(1.0), _float(sign * jnp.inf), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(value: ArrayLike, state: PlateauState) -> PlateauState:
        value, best = _float(value), state.best
        known = jnp.isfinite(best)
        finite_best = jnp.where(known, best, 0.0)
        threshold = _float(rtol) * jnp.abs(finite_best) + _float(atol)
        # Before there is a best value anything finite is an improvement: inf - rtol·inf would be NaN.
        improved = jnp.isfinite(value) & (~known | (sign * (finite_best - value) > threshold))
        cooling = state.cooldown_left > 0
        bad_epochs = jnp.where(improved | cooling, 0, state.bad_epochs + 1)
        reduced = bad_epochs > jnp.asarray(patience)
        return PlateauState(
            scale=jnp.where(reduced, jnp.maximum(state.scale * _float(factor), _float(min_scale)), state.scale),
            best=jnp.where(improved, value, best),
            bad_epochs=jnp.where(reduced, 0, bad_epochs),
            cooldown_left=jnp.where(
                reduced, jnp.asarray(cooldown, jnp.int32), state.cooldown_left - cooling.astype(jnp.int32)
            ),
        )

    return Plateau(init, update)


def _float(number: ArrayLike) -> Array:
    return jnp.asarray(number, dtype=jnp.result_type(float))
