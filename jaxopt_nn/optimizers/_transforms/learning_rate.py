"""The last transform of an optimizer: minus the learning rate, which it records, with a scale, in its state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_nn import _ops
from jaxopt_nn._arguments import check_each, check_number, concrete_array
from jaxopt_nn._dtypes import cast, compute_dtype, promote
from jaxopt_nn.optimizers._numerics.numbers import as_number, next_count
from jaxopt_nn.optimizers._numerics.transform import check_real, transform
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.schedules._steps import check_schedule, rate_of
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["LearningRateState", "current_learning_rate", "scale_by_learning_rate", "scale_learning_rate"]


class LearningRateState(NamedTuple):
    """State of :func:`scale_by_learning_rate`.

    Attributes:
        count: int32 scalar, the number of updates done; None if the learning rate is constant and needs no count.
        learning_rate: float32 scalar, the learning rate of the last update, with the scale; before the first update,
            that of the first.
        scale: float scalar (float32, or float64 where x64 is on), a factor of the learning rate; 1 at first.
            Set it with :func:`scale_learning_rate`.
    """

    count: Array | None  # pyright: ignore[reportIncompatibleMethodOverride]
    learning_rate: Array
    scale: Array


def scale_by_learning_rate(learning_rate: ArrayLike | Schedule) -> optax.GradientTransformation:
    """Multiplies updates by minus the learning rate.

    ``u ← -lr(t) · scale · u``, where ``t`` is the number of updates done before and ``scale`` a number in the state, 1
    until :func:`scale_learning_rate` sets it.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule ``count -> learning rate``, of ours
            (:mod:`jaxopt_nn.schedules`) or of optax's.

    Returns:
        The transform. Its state records the learning rate for :func:`current_learning_rate`.

    Raises:
        ValueError: the learning rate is negative or not finite.
        TypeError: it is neither a number nor a function of the count alone; or a schedule branches on its count in
            Python.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_learning_rate(0.5)
        >>> updates, _ = transform.update(jnp.ones(2), transform.init(jnp.zeros(2)))
        >>> updates.tolist()
        [-0.5, -0.5]

    Differs from ``optax.scale_by_learning_rate`` in the scale and the record, and multiplies updates of low precision
    in float32.
    """
    if callable(learning_rate):
        check_schedule("learning_rate", learning_rate)
        return _scale_by_schedule(learning_rate)
    rate = as_number("learning_rate", learning_rate)

    def init(params: Params) -> LearningRateState:
        del params
        # A copy, so that donating a state does not destroy the array that the caller passed as the learning rate.
        return LearningRateState(None, jnp.array(rate, jnp.float32, copy=True), _unit())

    def update(
        updates: PyTree, state: LearningRateState, params: Params | None = None
    ) -> tuple[PyTree, LearningRateState]:
        del params
        used = _effective(jnp.float32, rate, state.scale)
        record = _ops.record(used, state.learning_rate, never=state.scale < 0)
        return _descend(updates, rate, state.scale), state._replace(learning_rate=record)

    return transform(init, update)


def current_learning_rate(opt_state: PyTree) -> Array | None:
    """The learning rate of the last update, as an optimizer's state records it.

    Args:
        opt_state: the state of an optimizer of this library, or of optax made by ``optax.inject_hyperparams``, inside
            of chains and wrappers too.

    Returns:
        The learning rate, with the scale; if there are several, as with ``optax.partition``, the first in the tree.
        None if none is recorded, as by most optimizers of optax.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> state = optax.chain(optax.clip(1.0), scale_by_learning_rate(0.5)).init(jnp.zeros(2))
        >>> float(current_learning_rate(state))
        0.5
        >>> current_learning_rate(optax.sgd(0.5).init(jnp.zeros(2))) is None
        True
    """
    leaves = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=lambda node: isinstance(node, LearningRateState))
    for path, leaf in leaves:
        if isinstance(leaf, LearningRateState):
            return leaf.learning_rate
        # The last two keys are compared, because a parameter may be called learning_rate, and have moments.
        if jax.tree_util.keystr(path[-2:], simple=True, separator="/") == "hyperparams/learning_rate":
            return jnp.asarray(leaf)
    return None


def scale_learning_rate(opt_state: PyTree, scale: ArrayLike) -> PyTree:
    """Sets the factor of the learning rate from the next update on.

    It replaces the old factor, and is not multiplied by it. It acts where the learning rate acts, which may be inside
    of the velocity.

    Args:
        opt_state: the state of an optimizer of this library, inside of chains and wrappers too. If it holds several
            learning rates, as with ``optax.partition``, all are scaled.
        scale: scalar >= 0, or one for each lane if the state has lanes; may be traced.

    Returns:
        The state with that scale.

    Raises:
        ValueError: the scale is negative or not finite, or the state records no learning rate, as those of optax.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_learning_rate(0.5)
        >>> state = scale_learning_rate(transform.init(jnp.zeros(2)), 0.25)
        >>> updates, state = transform.update(jnp.ones(2), state)
        >>> updates.tolist(), float(current_learning_rate(state))
        ([-0.125, -0.125], 0.125)
    """
    values = concrete_array(scale) if np.ndim(scale) else None
    if values is not None:
        check_each("scale", values, np.isfinite(values) & (values >= 0), "a finite number >= 0")
    elif np.ndim(scale) == 0:
        check_number("scale", scale, 0.0)
    is_scaled = False

    def scaled(node: Any) -> Any:
        nonlocal is_scaled
        if not isinstance(node, LearningRateState):
            return node
        is_scaled = True
        # A copy for each, because two states that share a buffer could not both be donated.
        new = jnp.array(scale, node.scale.dtype, copy=True)
        if new.shape not in ((), node.scale.shape):
            raise ValueError(f"scale: expected one, or one a lane, {node.scale.shape}, got shape {new.shape}")
        return node._replace(scale=new if new.shape == node.scale.shape else jnp.broadcast_to(new, node.scale.shape))

    result = jax.tree.map(scaled, opt_state, is_leaf=lambda node: isinstance(node, LearningRateState))
    if not is_scaled:
        raise ValueError("opt_state: expected a LearningRateState in it, as our optimizers have one, found none")
    return result


def _scale_by_schedule(schedule: Schedule) -> optax.GradientTransformation:
    def rate_at(count: Array) -> Array:
        rate = jnp.asarray(rate_of("learning_rate", schedule, count))
        if rate.ndim != 0:
            raise ValueError(f"learning_rate: expected a schedule that returns a scalar, got shape {rate.shape}")
        return rate

    def init(params: Params) -> LearningRateState:
        del params
        count = jnp.zeros((), jnp.int32)
        return LearningRateState(count, jnp.array(rate_at(count), jnp.float32, copy=True), _unit())

    def update(
        updates: PyTree, state: LearningRateState, params: Params | None = None
    ) -> tuple[PyTree, LearningRateState]:
        del params
        if state.count is None:
            raise ValueError("state: expected that of a learning-rate schedule, got that of a constant learning rate")
        rate = rate_at(state.count)
        used = _effective(jnp.float32, rate, state.scale)
        record = _ops.record(used, state.learning_rate, never=state.count < 0)
        return _descend(updates, rate, state.scale), LearningRateState(next_count(state.count), record, state.scale)

    return transform(init, update)


def _unit() -> Array:
    return jnp.ones((), jnp.result_type(float))


def _effective(dtype: Any, rate: Any, scale: Array) -> Any:
    """The learning rate with its scale, rounded to ``dtype`` once."""
    exact = promote(dtype, scale.dtype)
    return (cast(rate, exact) * scale.astype(exact)).astype(dtype)


def _descend(updates: PyTree, rate: Any, scale: Array) -> PyTree:
    check_real("updates", updates, or_complex=True)

    def leaf(update: Any) -> Array:
        update = jnp.asarray(update)
        dtype = compute_dtype(update)
        return (-_effective(dtype, rate, scale) * update.astype(dtype)).astype(update.dtype)

    return jax.tree.map(leaf, updates)
