"""Float32 for optimizers of other libraries, whose state and arithmetic have the dtype of the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.optimizers._numerics.transform import transform_extra
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer, translate_extra
from jaxopt_nn.optimizers._wrappers.second_weights import copy_of_params
from jaxopt_nn.types import Array, Params, PyTree

__all__ = ["in_float32"]


def in_float32(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same optimizer, which sees parameters and gradients of low precision in float32, and so its state is float32.

    This is for optimizers of optax; those of this library do so by themselves. Float32 and float64 leaves are not
    changed.

    Args:
        optimizer: any optimizer of the optax protocol.

    Returns:
        The optimizer. Updates have the dtypes of the gradients.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> params = jnp.ones(2, jnp.bfloat16)
        >>> optax.adabelief(0.1).init(params)[0].nu.dtype.name
        'bfloat16'
        >>> optimizer = in_float32(optax.adabelief(0.1))
        >>> state = optimizer.init(params)
        >>> state[0].nu.dtype.name, optimizer.update(params, state, params)[0].dtype.name
        ('float32', 'bfloat16')
    """
    inner = as_optimizer("optimizer", optimizer)

    def to_float32(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, compute_dtype(leaf)), tree)

    def cast_like(exact: Any, other: Any) -> Array:
        return jnp.asarray(exact, jnp.result_type(other))

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        inner_params = None if params is None else to_float32(params)
        inner_extra = translate_extra(extra, to_float32, lambda exact: jax.tree.map(cast_like, exact, params))
        exact, state = inner.update(to_float32(updates), state, inner_params, **inner_extra)
        return jax.tree.map(cast_like, exact, updates), state

    return transform_extra(lambda params: inner.init(copy_of_params(params)), update)
