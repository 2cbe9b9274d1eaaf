"""Stochastic gradient descent, plain, with momentum, and with Nesterov's momentum."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn._arguments import check_bool
from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_decay, as_number, next_count
from jaxopt_nn.optimizers._numerics.transform import Convention, check_convention, map_leaves, moments_like, transform
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["MomentumState", "add_momentum", "sgd"]


class MomentumState(NamedTuple):
    """State of :func:`add_momentum`.

    Attributes:
        velocity: like the parameters, at least float32: the decayed sum of all updates.
        count: int32 scalar, the number of updates done; None without dampening.
    """

    velocity: PyTree
    count: Array | None = None  # pyright: ignore[reportIncompatibleMethodOverride]


def sgd(
    learning_rate: ArrayLike | Schedule,
    momentum: ArrayLike | None = None,
    *,
    nesterov: bool = False,
    dampening: ArrayLike | None = None,
    convention: Convention = "optax",
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent; with momentum, along a decayed sum of the gradients.

    ``θ ← θ - lr · g``; with momentum ``v ← μ·v + g``, then ``θ ← θ - lr · v``, or ``θ ← θ - lr · (g + μ·v)``
    (Nesterov). With ``convention="keras"`` the learning rate is inside the velocity: ``v ← μ·v - lr · g``, then
    ``θ ← θ + v``, or ``θ ← θ + μ·v - lr · g``. The trajectory differs when the learning rate changes.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        momentum: μ, in [0, 1), may be traced; None (static) for none, and no state.
        nesterov: static; whether to look ahead.
        dampening: PyTorch's τ, in [0, 1], may be traced: the second and all later gradients enter the velocity as
            ``(1-τ)·g``; None (static) for none.
        convention: static; whose formula. "optax" and "torch" are the same one.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range, ``nesterov`` or ``dampening`` is asked for without momentum, or both
            are; the convention is unknown.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> optimizer = sgd(0.5, momentum=0.5)
        >>> params, state = jnp.ones(()), optimizer.init(jnp.ones(()))
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(jnp.ones(()), state)
        ...     params = optax.apply_updates(params, updates)
        >>> float(params)  # 1 - 0.5 · 1 - 0.5 · 1.5
        -0.25

    Equal to ``optax.sgd``, ``torch.optim.SGD`` and ``keras.optimizers.SGD``, by convention.

    References:
        Sutskever et al., On the importance of initialization and momentum in deep learning, 2013, equations 1 to 4
        (with the learning rate inside).
    """
    check_convention(convention)
    check_bool("nesterov", nesterov)
    if momentum is None:
        if nesterov:
            raise ValueError("nesterov: expected False without momentum, got True")
        if dampening is not None:
            raise ValueError(f"dampening: expected None without momentum, got {dampening}")
        return optax.chain(scale_by_learning_rate(learning_rate))
    velocity = add_momentum(momentum, nesterov=nesterov, dampening=dampening)
    if convention == "keras":
        return optax.chain(scale_by_learning_rate(learning_rate), velocity)
    return optax.chain(velocity, scale_by_learning_rate(learning_rate))


def add_momentum(
    momentum: ArrayLike, *, nesterov: bool = False, dampening: ArrayLike | None = None
) -> optax.GradientTransformation:
    """Replaces an update by the decayed sum of all updates so far.

    ``v ← μ·v + u``, dampened ``v ← μ·v + (1-τ)·u`` from the second on; ``u ← v``, or ``u ← u + μ·v`` (Nesterov).

    Args:
        momentum: μ, in [0, 1); may be traced.
        nesterov: static; whether to look ahead.
        dampening: τ, in [0, 1], may be traced; None (static) for none.

    Returns:
        The transform, ``optax.trace`` with its sum kept in at least float32.

    Raises:
        ValueError: a number is out of its range, or ``nesterov`` is asked for with dampening.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = add_momentum(0.5)
        >>> state = transform.init(jnp.zeros(()))
        >>> _, state = transform.update(jnp.ones(()), state)
        >>> float(transform.update(jnp.ones(()), state)[0])
        1.5
    """
    check_bool("nesterov", nesterov)
    decay = as_decay("momentum", momentum)
    # Computed in double precision: for τ near 1, 1 - τ in float32 would lose digits.
    share = None if dampening is None else 1.0 - as_number("dampening", dampening, 0.0, 1.0)
    if nesterov and share is not None:
        raise ValueError("nesterov: expected False with dampening, got True")

    def init(params: Params) -> MomentumState:
        return MomentumState(moments_like(params), None if share is None else jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: MomentumState, params: Params | None = None) -> tuple[PyTree, MomentumState]:
        del params
        count = state.count

        def leaf(u: Array, v: Array) -> tuple[Any, ...]:
            exact, mu = u.astype(v.dtype), cast(decay.rate, v.dtype)
            if share is None or count is None:
                v = exact + mu * v
            else:
                v = jnp.where(count == 0, 1.0, cast(share, v.dtype)) * exact + mu * v
            return (exact + mu * v if nesterov else v).astype(u.dtype), v

        updates, velocity = map_leaves(leaf, 2, updates, state.velocity)
        return updates, MomentumState(velocity, None if count is None else next_count(count))

    return transform(init, update)
