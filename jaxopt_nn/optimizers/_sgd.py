"""Stochastic gradient descent, plain, with momentum, and with Nesterov's momentum."""

from typing import Any, NamedTuple

import optax

from jaxopt_nn.optimizers._learning_rate import scale_by_learning_rate
from jaxopt_nn.optimizers._numbers import as_decay, to
from jaxopt_nn.optimizers._transform import map_leaves, moments_like, transform
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["MomentumState", "add_momentum", "sgd"]


class MomentumState(NamedTuple):
    """State of :func:`add_momentum`.

    Attributes:
        velocity: like the parameters, at least float32: the decayed sum of all updates.
    """

    velocity: PyTree


def sgd(
    learning_rate: ArrayLike | Schedule, momentum: ArrayLike | None = None, *, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent; with momentum, along a decayed sum of the gradients.

    ``θ ← θ - lr · g``; with momentum ``v ← g + μ·v``, then ``θ ← θ - lr · v``, or ``θ ← θ - lr · (g + μ·v)``
    (Nesterov).

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        momentum: μ, in [0, 1), may be traced; None (static) for none, and no state.
        nesterov: static; whether to look ahead.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range, or ``nesterov`` is asked for without momentum.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> optimizer = sgd(0.5, momentum=0.5)
        >>> params, state = jnp.ones(()), optimizer.init(jnp.ones(()))
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(jnp.ones(()), state)
        ...     params = optax.apply_updates(params, updates)
        >>> float(params)  # 1 - 0.5 · 1 - 0.5 · 1.5
        -0.25

    Equal to ``optax.sgd`` and ``torch.optim.SGD`` (no dampening). Differs from Keras, which has the learning rate
    inside the velocity: it is another trajectory as soon as the rate changes.

    References:
        Sutskever et al., On the importance of initialization and momentum in deep learning, 2013, equations 1 to 4.
    """
    if momentum is None:
        if nesterov:
            raise ValueError("nesterov: expected False without momentum, got True")
        return optax.chain(scale_by_learning_rate(learning_rate))
    return optax.chain(add_momentum(momentum, nesterov=nesterov), scale_by_learning_rate(learning_rate))


def add_momentum(momentum: ArrayLike, *, nesterov: bool = False) -> optax.GradientTransformation:
    """Replaces an update by the decayed sum of all updates so far.

    ``v ← u + μ·v``; ``u ← v``, or ``u ← u + μ·v`` (Nesterov).

    Args:
        momentum: μ, in [0, 1); may be traced.
        nesterov: static; whether to look ahead.

    Returns:
        The transform, ``optax.trace`` with its sum kept in at least float32.

    Raises:
        ValueError: μ is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = add_momentum(0.5)
        >>> state = transform.init(jnp.zeros(()))
        >>> _, state = transform.update(jnp.ones(()), state)
        >>> float(transform.update(jnp.ones(()), state)[0])
        1.5
    """
    decay = as_decay("momentum", momentum)

    def init(params: Params) -> MomentumState:
        return MomentumState(moments_like(params))

    def update(updates: PyTree, state: MomentumState, params: Params | None = None) -> tuple[PyTree, MomentumState]:
        del params

        def leaf(u: Array, v: Array) -> tuple[Any, ...]:
            exact, mu = u.astype(v.dtype), to(v.dtype, decay.rate)
            v = exact + mu * v
            return (exact + mu * v if nesterov else v).astype(u.dtype), v

        updates, velocity = map_leaves(leaf, 2, updates, state.velocity)
        return updates, MomentumState(velocity)

    return transform(init, update)
