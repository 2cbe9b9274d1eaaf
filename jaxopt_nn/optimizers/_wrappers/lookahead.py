"""Look-ahead: slow weights that follow those of any optimizer."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_number
from jaxopt_nn.optimizers._numerics.transform import map_leaves, transform_extra
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer
from jaxopt_nn.optimizers._wrappers.second_weights import apply_updates, copy_of_params, require_params, updates_to
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["LookaheadState", "lookahead"]


class LookaheadState(NamedTuple):
    """State of :func:`lookahead`.

    Attributes:
        steps_since_sync: int32 scalar, the updates since the fast weights were last set back to the slow ones.
        slow: like the parameters, at least float32: the slow weights.
        inner_state: the state of the fast optimizer.
    """

    steps_since_sync: Array
    slow: PyTree
    inner_state: PyTree


def lookahead(
    optimizer: optax.GradientTransformation, sync_period: ArrayLike = 5, slow_step_size: ArrayLike = 0.5
) -> optax.GradientTransformationExtraArgs:
    """K steps of an optimizer forward, then a part of the way back.

    The parameters are the fast weights θ. After every k-th update the slow weights φ follow, ``φ ← φ + α·(θ - φ)``, and
    the fast weights start again from there, ``θ ← φ``. Both begin at the initial parameters.

    BatchNorm's running statistics belong to the fast weights and do not fit the slow ones. Before you evaluate, make
    new ones with :func:`jaxopt_nn.training.update_batch_statistics`.

    Args:
        optimizer: the fast one, any of the optax protocol. A synchronization does not reset its state. Transforms
            that change its updates belong inside.
        sync_period: k, an integer >= 1; may be traced.
        slow_step_size: α, in [0, 1]; may be traced.

    Returns:
        The optimizer. Its ``update`` needs ``params``; :func:`evaluation_params` gives the slow weights.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = lookahead(optimizers.sgd(1.0), sync_period=2, slow_step_size=0.5)
        >>> params, state, path = jnp.zeros(()), optimizer.init(jnp.zeros(())), []
        >>> for _ in range(4):
        ...     updates, state = optimizer.update(jnp.array(-1.0), state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     path.append((float(params), float(optimizers.evaluation_params(state, params))))
        >>> path
        [(1.0, 0.0), (1.0, 1.0), (2.0, 1.0), (2.0, 2.0)]

    The trajectory is that of ``optax.lookahead``. There the parameters are a pair (``LookaheadParams``), while the slow
    weights are in the state here, and k has to be a Python number.

    References:
        Zhang, Lucas, Hinton and Ba, Lookahead optimizer: k steps forward, 1 step back, NeurIPS 2019, algorithm 1.
    """
    inner = as_optimizer("optimizer", optimizer)
    period = as_number("sync_period", sync_period, 1.0, whole=True)
    alpha = as_number("slow_step_size", slow_step_size, 0.0, 1.0)

    def init(params: Params) -> LookaheadState:
        return LookaheadState(jnp.zeros((), jnp.int32), copy_of_params(params), inner.init(params))

    def update(
        updates: PyTree, state: LookaheadState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, LookaheadState]:
        params = require_params("look-ahead", params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)
        fast = apply_updates(params, updates)
        steps = state.steps_since_sync + 1
        sync = steps.astype(jnp.float32) >= cast(period, jnp.float32)

        def leaf(theta: Array, phi: Array) -> tuple[Any, ...]:
            return (jnp.where(sync, phi + cast(alpha, phi.dtype) * (theta - phi), phi),)

        (slow,) = map_leaves(leaf, 1, fast, state.slow)
        # Without a synchronization the updates are returned unchanged, not as a sum minus a difference.
        (updates,) = map_leaves(
            lambda u, back: (jnp.where(sync, back, u),), 1, updates, updates_to(slow, params, updates)
        )
        return updates, LookaheadState(jnp.where(sync, 0, steps), slow, inner_state)

    return transform_extra(init, update)
