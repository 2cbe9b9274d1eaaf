"""An exponential moving average of the weights, beside any optimizer."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_decay, bias_correction, next_count
from jaxopt_nn.optimizers._numerics.transform import Convention, check_convention, map_leaves, transform_extra
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer
from jaxopt_nn.optimizers._wrappers.second_weights import apply_updates, copy_of_params, require_params
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["WeightEmaState", "weight_ema"]


class WeightEmaState(NamedTuple):
    """State of :func:`weight_ema`.

    Attributes:
        count: int32 scalar, the number of updates done.
        average: like the parameters, at least float32: their moving average; the initial parameters before an update.
        inner_state: the state of the optimizer inside.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    average: PyTree
    inner_state: PyTree


def weight_ema(
    optimizer: optax.GradientTransformation,
    decay: ArrayLike = 0.999,
    *,
    convention: Convention = "optax",
) -> optax.GradientTransformationExtraArgs:
    """Keeps a moving average of the weights, to evaluate with. The optimizer inside is not changed.

    ``a ← a + w·(θ - a)`` after each update of θ. "optax": ``w = (1-d) / (1-dᵗ)`` at update t, so that ``a`` is the
    debiased average, in which θ_i has a weight proportional to ``d^(t-i)``. "torch" and "keras": ``w = 1-d``, but 1 at
    the first update. In each of them the initial weights never count, and ``a`` is θ after the first update.

    BatchNorm's running statistics belong to the weights that are trained and do not fit the average. Before you
    evaluate, make new ones with :func:`jaxopt_nn.training.update_batch_statistics`.

    Args:
        optimizer: any optimizer of the optax protocol. Transforms that change its updates belong inside, because
            the average is of the parameters plus the updates that this wrapper returns.
        decay: d, in [0, 1); may be traced.
        convention: static; "optax" as ``optax.ema`` (with ``debias``) of the parameters, "torch" as
            ``torch.optim.swa_utils.get_ema_multi_avg_fn``, "keras" as ``use_ema``, which is the same.

    Returns:
        The optimizer. Its ``update`` needs ``params``; :func:`evaluation_params` gives the average.

    Raises:
        ValueError: the decay is out of its range, or the convention unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = weight_ema(optimizers.sgd(1.0), decay=0.5)
        >>> params, state = jnp.zeros(()), optimizer.init(jnp.zeros(()))
        >>> for gradient in (-3.0, -3.0):  # the weights are 3, then 6
        ...     updates, state = optimizer.update(jnp.array(gradient), state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> round(float(optimizers.evaluation_params(state, params)), 5)  # (0.5 · 3 + 6) / 1.5
        5.0

    References:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992 (averaging of iterates).
        Kingma and Ba, Adam, ICLR 2015, section 7.2 (the debiased moving average).
    """
    check_convention(convention)
    inner, rate = as_optimizer("optimizer", optimizer), as_decay("decay", decay)

    def init(params: Params) -> WeightEmaState:
        return WeightEmaState(jnp.zeros((), jnp.int32), copy_of_params(params), inner.init(params))

    def update(
        updates: PyTree, state: WeightEmaState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, WeightEmaState]:
        params = require_params("an average of the weights", params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)
        count = next_count(state.count)

        def leaf(new: Array, average: Array) -> tuple[Any, ...]:
            part = cast(rate.complement, average.dtype)
            if convention == "optax":
                part = part / bias_correction(rate, count, average.dtype)
            return (jnp.where(count == 1, new, average + part * (new - average)),)

        (average,) = map_leaves(leaf, 1, apply_updates(params, updates), state.average)
        return updates, WeightEmaState(count, average, inner_state)

    return transform_extra(init, update)
