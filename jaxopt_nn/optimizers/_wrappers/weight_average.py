"""The plain average of the weights at equal distances, beside any optimizer: stochastic weight averaging."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn._arguments import check_number
from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import next_count
from jaxopt_nn.optimizers._numerics.transform import map_leaves, transform_extra
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer
from jaxopt_nn.optimizers._wrappers.second_weights import apply_updates, copy_of_params, require_params
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["WeightAverageState", "weight_average"]


class WeightAverageState(NamedTuple):
    """State of :func:`weight_average`.

    Attributes:
        count: int32 scalar, the number of updates done.
        averaged: int32 scalar, how many weights are in the average.
        average: like the parameters, at least float32: their average; the parameters while there is none yet.
        inner_state: the state of the optimizer inside.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    averaged: Array
    average: PyTree
    inner_state: PyTree


def weight_average(
    optimizer: optax.GradientTransformation, *, start: ArrayLike = 0, every: ArrayLike = 1
) -> optax.GradientTransformationExtraArgs:
    """Lets an optimizer be, and keeps the plain average of the weights at equal distances, to evaluate with.

    At the updates t = start + 1, start + 1 + every, …: ``a ← a + (θ - a)/n``, with n weights in the average. Before the
    first of them ``a`` is θ. With a constant or cyclical learning rate this is stochastic weight averaging (SWA): let
    it start where the loss has stopped falling, and average once an epoch or at the end of each cycle.

    Args:
        optimizer: any optimizer of the optax protocol.
        start: the updates before the first weight counts, >= 0; may be traced.
        every: updates from one weight that counts to the next, >= 1; may be traced.

    Returns:
        The optimizer. Its ``update`` needs ``params``; :func:`evaluation_params` gives the average. Running statistics
        (BatchNorm) do not fit it until :func:`jaxopt_nn.training.update_batch_statistics` made them anew.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = weight_average(optimizers.sgd(1.0), start=1)
        >>> params, state = jnp.zeros(()), optimizer.init(jnp.zeros(()))
        >>> for _ in range(3):  # the weights are 1, 2, 3
        ...     updates, state = optimizer.update(jnp.array(-1.0), state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> float(optimizers.evaluation_params(state, params))
        2.5

    References:
        Izmailov et al., Averaging weights leads to wider optima and better generalization, UAI 2018.

    Equal to ``torch.optim.swa_utils.AveragedModel`` that is updated at these steps.
    """
    check_number("start", start, 0, whole=True)
    check_number("every", every, 1, whole=True)
    inner = as_optimizer("optimizer", optimizer)

    def init(params: Params) -> WeightAverageState:
        zero = jnp.zeros((), jnp.int32)
        return WeightAverageState(zero, zero, copy_of_params(params), inner.init(params))

    def update(
        updates: PyTree, state: WeightAverageState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, WeightAverageState]:
        params = require_params("an average of the weights", params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)
        count = next_count(state.count)
        first, period = jnp.asarray(start, jnp.int32), jnp.asarray(every, jnp.int32)
        is_counted = (count > first) & ((count - first - 1) % period == 0)
        averaged = jnp.where(is_counted, next_count(state.averaged), state.averaged)

        def leaf(new: Array, average: Array) -> tuple[Any, ...]:
            new_average = average + (new - average) / cast(jnp.maximum(averaged, 1), average.dtype)
            return (jnp.where(averaged == 0, new, jnp.where(is_counted, new_average, average)),)

        (average,) = map_leaves(leaf, 1, apply_updates(params, updates), state.average)
        return updates, WeightAverageState(count, averaged, average, inner_state)

    return transform_extra(init, update)
