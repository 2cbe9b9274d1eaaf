"""Schedule-free learning: an average of the weights replaces momentum and a decaying learning rate."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_decay, as_number, next_count
from jaxopt_nn.optimizers._numerics.transform import map_leaves, transform_extra
from jaxopt_nn.optimizers._transforms.learning_rate import current_learning_rate
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer
from jaxopt_nn.optimizers._wrappers.second_weights import copy_of_params, require_params, updates_to
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.schedules._steps import check_schedule, rate_of
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["ScheduleFreeState", "schedule_free"]


class ScheduleFreeState(NamedTuple):
    """State of :func:`schedule_free`.

    Attributes:
        count: int32 scalar, the number of updates done.
        largest_rate: float scalar (float32, or float64 where x64 is on), the largest learning rate so far.
        steps: float scalar, the sum of the averaging weights so far, in units of the last one: at a constant learning
            rate, the number of updates.
        iterate: like the parameters, at least float32: z, the weights that the optimizer inside moves.
        average: like the parameters, at least float32: x, the average of z.
        inner_state: the state of the optimizer inside.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    largest_rate: Array
    steps: Array
    iterate: PyTree
    average: PyTree
    inner_state: PyTree


def schedule_free(
    optimizer: optax.GradientTransformation,
    b1: ArrayLike = 0.9,
    *,
    weight_power: ArrayLike = 2.0,
    learning_rate: ArrayLike | Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Schedule-Free: gradients are taken between the weights that the optimizer moves and their average.

    With the parameters y: ``z ← z + u(∇f(y))``, ``x ← (1-c)·x + c·z``, ``y ← (1-β)·z + β·x``, where u is the update of
    the optimizer inside and c is the last of the weights ``γ_max^r`` over their sum, γ_max the largest learning rate
    so far (``1/t`` if it is constant). All begin at the initial parameters.

    BatchNorm's running statistics belong to y and do not fit x. Before you evaluate, make new ones with
    :func:`jaxopt_nn.training.update_batch_statistics`.

    Args:
        optimizer: any optimizer of the optax protocol, without momentum and without a decaying learning rate:
            ``sgd(lr)``, ``adam(lr, b1=0.0)``. A warm-up helps. Its weight decay acts on y. Transforms that change its
            updates belong inside.
        b1: β, in [0, 1), takes the place of momentum; may be traced.
        weight_power: r >= 0; may be traced.
        learning_rate: γ, a scalar >= 0 that may be traced, or a schedule; None (static) for the one that the state of
            the optimizer inside records, as those of this library do.

    Returns:
        The optimizer. Its ``update`` needs ``params``; :func:`evaluation_params` gives x.

    Raises:
        ValueError: a number is out of its range; at ``init``, there is no record of a learning rate.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = schedule_free(optimizers.sgd(1.0), b1=0.5)
        >>> params, state, path = jnp.zeros(()), optimizer.init(jnp.zeros(())), []
        >>> for _ in range(2):  # z: 1, 2; x: 1, 1.5
        ...     updates, state = optimizer.update(jnp.array(-1.0), state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     path.append((float(params), float(optimizers.evaluation_params(state, params))))
        >>> path
        [(1.0, 1.0), (1.75, 1.5)]

    The trajectory is that of ``optax.contrib.schedule_free`` at a constant learning rate. Here x is stored
    and not computed from y and z, so β may be 0 and parameters of low precision lose nothing, for one more copy of the
    parameters. The weight of a step comes from the learning rate of that step, and not of the next one.

    References:
        Defazio et al., The road less scheduled, NeurIPS 2024, equations 1 to 3 and algorithm 1.
    """
    inner = as_optimizer("optimizer", optimizer)
    beta, power = as_decay("b1", b1).rate, as_number("weight_power", weight_power)
    own_rate = learning_rate
    if callable(learning_rate):
        check_schedule("learning_rate", learning_rate)
    elif learning_rate is not None:
        own_rate = as_number("learning_rate", learning_rate)

    def current_rate(count: Array, inner_state: PyTree, dtype: Any) -> Array:
        if own_rate is None:
            rate = current_learning_rate(inner_state)
            if rate is None:
                raise ValueError(
                    "learning_rate: expected the one of the optimizer inside, got None, and its state records none"
                )
            return rate.astype(dtype)
        return jnp.asarray(rate_of("learning_rate", own_rate, count) if callable(own_rate) else own_rate, dtype)

    def init(params: Params) -> ScheduleFreeState:
        inner_state, dtype = inner.init(params), jnp.result_type(float)
        count = jnp.zeros((), jnp.int32)
        current_rate(count, inner_state, dtype)
        zeros = (jnp.zeros((), dtype), jnp.zeros((), dtype))
        return ScheduleFreeState(count, *zeros, copy_of_params(params), copy_of_params(params), inner_state)

    def update(
        updates: PyTree, state: ScheduleFreeState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, ScheduleFreeState]:
        params = require_params("schedule-free learning", params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)
        dtype = state.steps.dtype
        largest = jnp.maximum(state.largest_rate, current_rate(state.count, inner_state, dtype))
        has_rate = state.largest_rate > 0  # then the new largest rate is positive too
        log_ratio = jnp.log(jnp.where(has_rate, state.largest_rate / jnp.where(has_rate, largest, 1.0), 1.0))
        # The sum of weights in units of the last one: a float32 sum of numbers like 1e-6 would soon stop growing.
        steps = jnp.where(has_rate, state.steps * jnp.exp(cast(power, dtype) * log_ratio), 0.0) + 1.0
        weight = 1.0 / steps

        def leaf(u: Array, z: Array, x: Array) -> tuple[Any, ...]:
            z = z + u.astype(z.dtype)
            x = x + weight.astype(x.dtype) * (z - x)
            return z + cast(beta, x.dtype) * (x - z), z, x

        new, iterate, average = map_leaves(leaf, 3, updates, state.iterate, state.average)
        count = next_count(state.count)
        return updates_to(new, params, updates), ScheduleFreeState(count, largest, steps, iterate, average, inner_state)

    return transform_extra(init, update)
