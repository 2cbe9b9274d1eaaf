"""The weights to evaluate a model with, if they are not those that are trained."""

from typing import Any

import jax
import optax

from jaxopt_nn.optimizers._algorithms.schedule_free import ScheduleFreeState
from jaxopt_nn.optimizers._wrappers.lookahead import LookaheadState
from jaxopt_nn.optimizers._wrappers.weight_average import WeightAverageState
from jaxopt_nn.optimizers._wrappers.weight_ema import WeightEmaState
from jaxopt_nn.types import Params, PyTree

__all__ = ["evaluation_params"]


def evaluation_params(opt_state: PyTree, params: Params) -> Params:
    """The weights to evaluate with, from an optimizer's state.

    BatchNorm's running statistics belong to the weights that are trained. They do not fit these weights, and with them
    a good average can look bad.

    Args:
        opt_state: the state of any optimizer; chains and wrappers are searched.
        params: the parameters that are trained.

    Returns:
        The average of :func:`weight_ema`, :func:`weight_average` or :func:`schedule_free`, or the slow weights of
        :func:`lookahead`, with the dtypes of ``params``. If there are several, the outermost, and the first of these. A
        leaf that has no such weights (as with :func:`freeze` or ``optax.partition``) is that of ``params``.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from jaxopt_nn import optimizers
        >>> optimizer = optax.chain(optax.clip(1.0), optimizers.lookahead(optimizers.sgd(0.5), sync_period=2))
        >>> params, state = jnp.ones(()), optimizer.init(jnp.ones(()))
        >>> updates, state = optimizer.update(jnp.ones(()), state, params)
        >>> params = optax.apply_updates(params, updates)
        >>> float(params), float(evaluation_params(state, params))
        (0.5, 1.0)
        >>> float(evaluation_params(optimizers.sgd(0.5).init(params), params))
        0.5
    """

    def holds_weights(node: Any) -> bool:
        return isinstance(node, (WeightEmaState, WeightAverageState, LookaheadState, ScheduleFreeState))

    def leaf(param: Any, weight: Any) -> Any:
        if weight is None or isinstance(weight, optax.MaskedNode):
            return param
        return weight.astype(jax.numpy.result_type(param))

    states = [node for node in jax.tree.leaves(opt_state, is_leaf=holds_weights) if holds_weights(node)]
    for node in reversed(states):
        params = jax.tree.map(leaf, params, node.slow if isinstance(node, LookaheadState) else node.average)
    return params
