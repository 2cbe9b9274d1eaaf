"""The last link of an optimizer: minus the learning rate, with a scale and a record of it in the state."""

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
        count: int32 scalar, the number of updates done; None where the learning rate is constant and needs no count.
        learning_rate: float32 scalar, the learning rate of the last update, scale included; before the first one, the
            one it will have.
        scale: float scalar (float32, or float64 where x64 is on), what the learning rate is multiplied by; 1 at first.
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
        TypeError: it is no number and no function of the count alone; while tracing, a schedule computes in Python.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_learning_rate(0.5)
        >>> updates, _ = transform.update(jnp.ones(2), transform.init(jnp.zeros(2)))
        >>> updates.tolist()
        [-0.5, -0.5]

    Differs from ``optax.scale_by_learning_rate`` in the scale and the record, and in that updates of low precision are
    multiplied in float32.
    """
    if callable(learning_rate):
        check_schedule("learning_rate", learning_rate)
        return _scale_by_schedule(learning_rate)
    rate = as_number("learning_rate", learning_rate)

    def init(params: Params) -> LearningRateState:
        del params
        # A copy: whoever donates a state must not lose the very array that he passed as the learning rate.
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
        opt_state: the state of an optimizer: one of ours, or of optax's if made by ``optax.inject_hyperparams``; inside
            chains and wrappers as well.

    Returns:
        The learning rate, scale included (the first in the tree if there are several, as with ``optax.partition``);
        None if none is recorded, as with a plain optax optimizer.

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
        # Both last keys count: a moment may well belong to a parameter of somebody's called learning_rate.
        if jax.tree_util.keystr(path[-2:], simple=True, separator="/") == "hyperparams/learning_rate":
            return jnp.asarray(leaf)
    return None


def scale_learning_rate(opt_state: PyTree, scale: ArrayLike) -> PyTree:
    """Sets what the learning rate is multiplied by from the next update on.

    The scale is set and not multiplied into the one that was there. It acts where the learning rate does: inside the
    velocity, if an optimizer has its learning rate there.

    Args:
        opt_state: the state of one of our optimizers; inside chains and wrappers as well. If it holds several learning
            rates, as with ``optax.partition``, all are scaled.
        scale: scalar >= 0, or one a lane for a state of many lanes; may be traced.

    Returns:
        The state with that scale.

    Raises:
        ValueError: the scale is negative or not finite, or there is no learning rate of ours in the state: optax's own
            optimizers keep none that could be scaled.

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
        # A copy each: two states, or a state and the plateau's, must not be one buffer when they are donated.
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
    """The learning rate that is used, rounded to ``dtype`` once."""
    exact = promote(dtype, scale.dtype)
    return (cast(rate, exact) * scale.astype(exact)).astype(dtype)


def _descend(updates: PyTree, rate: Any, scale: Array) -> PyTree:
    check_real("updates", updates, or_complex=True)

    def leaf(update: Any) -> Array:
        update = jnp.asarray(update)
        dtype = compute_dtype(update)
        return (-_effective(dtype, rate, scale) * update.astype(dtype)).astype(update.dtype)

    return jax.tree.map(leaf, updates)
