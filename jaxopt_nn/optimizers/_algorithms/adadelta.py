"""AdaDelta: steps in the units of the parameters, scaled by a running average of earlier steps."""

from typing import Any, NamedTuple

import optax

from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_decay, as_number, safe_rsqrt, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import map_leaves, moments_like, transform
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["AdadeltaState", "adadelta", "scale_by_adadelta"]


class AdadeltaState(NamedTuple):
    """State of :func:`scale_by_adadelta`.

    Attributes:
        e_g: like the parameters, at least float32: the moving average of the squared gradients, v.
        e_x: like the parameters, at least float32: the moving average of the squared steps, before the learning
            rate, x.
    """

    e_g: PyTree
    e_x: PyTree


def adadelta(
    learning_rate: ArrayLike | Schedule, decay: ArrayLike = 0.9, eps: ArrayLike = 1e-6
) -> optax.GradientTransformationExtraArgs:
    """AdaDelta.

    ``v ← ρ·v + (1-ρ)·g²``, ``Δ = √(x + ε) / √(v + ε) · g``, ``x ← ρ·x + (1-ρ)·Δ²``, then ``θ ← θ - lr · Δ``.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule. In the paper it is 1.
        decay: ρ, in [0, 1); may be traced.
        eps: ε >= 0, may be traced. With ε = 0 no step would ever be made.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adadelta(1.0, decay=0.75, eps=0.04)
        >>> updates, _ = optimizer.update(jnp.array(2.4), optimizer.init(jnp.array(0.0)))
        >>> round(float(updates), 5)  # 2.4 · √0.04 / √(1.44 + 0.04)
        -0.39456

    Equal to ``optax.adadelta`` and ``torch.optim.Adadelta``, and to ``keras.optimizers.Adadelta`` except for its
    defaults, ρ 0.95, ε 1e-7 and a learning rate of 1e-3.

    References:
        Zeiler, ADADELTA: an adaptive learning rate method, 2012, algorithm 1.
    """
    return optax.chain(scale_by_adadelta(decay, eps), scale_by_learning_rate(learning_rate))


def scale_by_adadelta(decay: ArrayLike = 0.9, eps: ArrayLike = 1e-6) -> optax.GradientTransformation:
    """Replaces a gradient by ``√(x + ε) / √(v + ε) · g``: :func:`adadelta` without the learning rate.

    Args:
        decay: ρ, in [0, 1); may be traced.
        eps: ε >= 0; may be traced.

    Returns:
        The transform.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_adadelta(decay=0.75, eps=0.04)
        >>> round(float(transform.update(jnp.array(2.4), transform.init(jnp.array(0.0)))[0]), 5)
        0.39456
    """
    rho, epsilon = as_decay("decay", decay), as_number("eps", eps)

    def init(params: Params) -> AdadeltaState:
        return AdadeltaState(moments_like(params), moments_like(params))

    def update(updates: PyTree, state: AdadeltaState, params: Params | None = None) -> tuple[PyTree, AdadeltaState]:
        del params

        def leaf(g: Array, v: Array, x: Array) -> tuple[Any, ...]:
            dtype, exact = v.dtype, g.astype(v.dtype)
            beta, share, small = cast(rho.rate, dtype), cast(rho.complement, dtype), cast(epsilon, dtype)
            v = beta * v + share * (exact * exact)
            step = safe_sqrt(x + small) * safe_rsqrt(v + small) * exact
            return step.astype(g.dtype), v, beta * x + share * (step * step)

        updates, e_g, e_x = map_leaves(leaf, 3, updates, state.e_g, state.e_x)
        return updates, AdadeltaState(e_g, e_x)

    return transform(init, update)
