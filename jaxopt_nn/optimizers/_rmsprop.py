"""RMSProp: a gradient over the root of a moving average of its square, or of its variance (centered)."""

from typing import Any, NamedTuple

import optax

from jaxopt_nn.optimizers._learning_rate import scale_by_learning_rate
from jaxopt_nn.optimizers._numbers import as_decay, as_number, safe_rsqrt, to
from jaxopt_nn.optimizers._sgd import add_momentum
from jaxopt_nn.optimizers._transform import map_leaves, moments_like, transform
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["RmsState", "rmsprop", "scale_by_rms"]


class RmsState(NamedTuple):
    """State of :func:`scale_by_rms`.

    Attributes:
        square: like the parameters, at least float32: the moving average of the squared gradients, or of the gradients'
            variance if centered.
        mean: like the parameters, at least float32: the moving average of the gradients; None if not centered.
    """

    square: PyTree
    mean: PyTree | None


def rmsprop(
    learning_rate: ArrayLike | Schedule,
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    *,
    centered: bool = False,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """RMSProp, with ε inside of the root.

    ``v ← ρ·v + (1-ρ)·g²``, then ``θ ← θ - lr · g / √(v + ε)``. Centered, the root is ``√(v - m² + ε)`` with
    ``m ← ρ·m + (1-ρ)·g``. With momentum, steps are summed: ``s ← lr · g / √(…) + μ·s``, then ``θ ← θ - s``.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        decay: ρ, in [0, 1); may be traced.
        eps: ε >= 0; may be traced.
        centered: static; whether to divide by the standard deviation.
        momentum: μ, in [0, 1), may be traced; None (static) for none, and no state.
        nesterov: static; whether the momentum looks ahead.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range, or ``nesterov`` is asked for without momentum.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = rmsprop(1.0, decay=0.75, eps=0.0)
        >>> updates, _ = optimizer.update(jnp.array(3.0), optimizer.init(jnp.array(0.0)))
        >>> round(float(updates), 5)  # 3 / √(9/4)
        -2.0

    Equal to ``optax.rmsprop``; the centered variance is computed without the cancellation that makes ``v - m²``
    negative. Differs from ``torch.optim.RMSprop``, where ρ is 0.99, ε outside of the root and lr outside of the
    momentum.

    References:
        Hinton, Neural networks for machine learning, lecture 6e.
        Graves, Generating sequences with recurrent neural networks, 2013, equation 40 (centered).
    """
    if nesterov and momentum is None:
        raise ValueError("nesterov: expected False without momentum, got True")
    transforms = [scale_by_rms(decay, eps, centered=centered), scale_by_learning_rate(learning_rate)]
    if momentum is not None:
        transforms.append(add_momentum(momentum, nesterov=nesterov))
    return optax.chain(*transforms)


def scale_by_rms(
    decay: ArrayLike = 0.9, eps: ArrayLike = 1e-8, *, centered: bool = False
) -> optax.GradientTransformation:
    """Divides a gradient by the root of its moving mean square: :func:`rmsprop` without learning rate and momentum.

    Args:
        decay: ρ, in [0, 1); may be traced.
        eps: ε >= 0, inside of the root; may be traced.
        centered: static; whether to divide by the standard deviation.

    Returns:
        The transform.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_rms(decay=0.75, eps=0.0)
        >>> round(float(transform.update(jnp.array(3.0), transform.init(jnp.array(0.0)))[0]), 5)
        2.0
    """
    rho, epsilon = as_decay("decay", decay), as_number("eps", eps)

    def init(params: Params) -> RmsState:
        return RmsState(moments_like(params), moments_like(params) if centered else None)

    def scaled(g: Array, exact: Array, square: Array) -> Array:
        return (exact * safe_rsqrt(square + to(square.dtype, epsilon))).astype(g.dtype)

    def leaf(g: Array, square: Array) -> tuple[Any, ...]:
        exact, kept, new = g.astype(square.dtype), to(square.dtype, rho.rate), to(square.dtype, rho.complement)
        square = kept * square + new * (exact * exact)
        return scaled(g, exact, square), square

    def centered_leaf(g: Array, variance: Array, mean: Array) -> tuple[Any, ...]:
        exact, kept, new = g.astype(mean.dtype), to(mean.dtype, rho.rate), to(mean.dtype, rho.complement)
        # Equal to v - m², since m₀ = 0, but a sum of squares: it can neither cancel nor be negative.
        variance = kept * (variance + new * (exact - mean) ** 2)
        return scaled(g, exact, variance), variance, kept * mean + new * exact

    def update(updates: PyTree, state: RmsState, params: Params | None = None) -> tuple[PyTree, RmsState]:
        del params
        if centered:
            updates, square, mean = map_leaves(centered_leaf, 3, updates, state.square, state.mean)
            return updates, RmsState(square, mean)
        updates, square = map_leaves(leaf, 2, updates, state.square)
        return updates, RmsState(square, None)

    return transform(init, update)
