"""A loss that is scaled before it is differentiated, so that small gradients do not vanish in float16."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_number
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.types import Array, ArrayLike, LossScale, TrainState

__all__ = [
    "DynamicLossScale",
    "check_loss_scale",
    "init_loss_scale",
    "scale_of",
    "scaled_value_and_grad",
    "update_scale",
]


class DynamicLossScale(NamedTuple):
    """A loss scale that is divided by ``factor`` where a gradient overflows, and multiplied where none does for long.

    A step whose gradient is not finite changes nothing but the scale. It does not count towards ``nonfinite_limit``
    unless its loss is not finite either, or the scale is 1 already, which is the least.

    Attributes:
        initial: the scale of the first step, >= 1; may be traced.
        factor: > 1; may be traced.
        growth_interval: finite steps in a row after which the scale grows, >= 1; may be traced.

    As ``torch.amp.GradScaler`` and ``flax.training.dynamic_scale.DynamicScale``, which begin with 2^16; there the
    gradient of a mean loss of one example may overflow at once.
    """

    initial: ArrayLike = 2.0**15
    factor: ArrayLike = 2.0
    growth_interval: ArrayLike = 2000


def check_loss_scale(loss_scale: Any) -> None:
    """Raises unless it is None, a positive number or a :class:`DynamicLossScale`."""
    if isinstance(loss_scale, DynamicLossScale):
        check_number("loss_scale.initial", loss_scale.initial, 1)
        check_number("loss_scale.factor", loss_scale.factor, 1, open_low=True)
        check_number("loss_scale.growth_interval", loss_scale.growth_interval, 1, whole=True)
    elif loss_scale is not None:
        if isinstance(loss_scale, (type, str)) or callable(loss_scale):
            raise TypeError(f"loss_scale: expected a number or training.DynamicLossScale(), got {loss_scale!r}")
        check_number("loss_scale", loss_scale, 0, open_low=True)


def init_loss_scale(loss_scale: ArrayLike | DynamicLossScale | None) -> LossScale | None:
    """The state of a dynamic scale; None for any other."""
    if not isinstance(loss_scale, DynamicLossScale):
        return None
    return LossScale(jnp.asarray(loss_scale.initial, jnp.float32), jnp.int32(0))


def scale_of(loss_scale: ArrayLike | DynamicLossScale | None, state: TrainState) -> Array | None:
    """The scale of this step."""
    if loss_scale is None:
        return None
    if not isinstance(loss_scale, DynamicLossScale):
        return jnp.asarray(loss_scale, jnp.float32)
    if state.loss_scale is None:
        raise ValueError("state.loss_scale: expected what init_state(..., loss_scale=) makes, got None")
    return state.loss_scale.scale


def update_scale(dynamic: DynamicLossScale, old: LossScale, finite: Array) -> LossScale:
    """After a step with a gradient that is finite or not."""
    steps = old.finite_steps + 1
    grows = steps >= jnp.asarray(dynamic.growth_interval)
    factor = jnp.asarray(dynamic.factor, old.scale.dtype)
    # Never larger than a loss of 1 allows in float32.
    grown = jnp.where(grows & (old.scale < 2.0**100), old.scale * factor, old.scale)
    scale = jnp.where(finite, grown, jnp.maximum(old.scale / factor, 1))
    return LossScale(scale, jnp.where(finite & ~grows, steps, 0))


def scaled_value_and_grad(loss_of: Callable[..., Any], scale: Array) -> Callable[..., Any]:
    """``jax.value_and_grad(loss_of, has_aux=True)``, computed from ``scale`` times the loss and divided again.

    The loss itself is not rounded by it. The gradient is in float32 at least.
    """

    def scaled(trained: Any, *rest: Any) -> Any:
        loss, aux = loss_of(trained, *rest)
        return loss.astype(compute_dtype(loss)) * scale.astype(compute_dtype(loss)), (loss, aux)

    def value_and_grad(trained: Any, *rest: Any) -> Any:
        (_, value), gradient = jax.value_and_grad(scaled, has_aux=True)(trained, *rest)

        def unscaled(leaf: Array) -> Array:
            dtype = compute_dtype(leaf)
            return leaf.astype(dtype) / scale.astype(dtype)

        return value, jax.tree.map(unscaled, gradient)

    return value_and_grad
