"""What the optimizers that keep a second set of weights have in common."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn.optimizers._transform import check_match, wide
from jaxopt_nn.trees import map_with_path
from jaxopt_nn.types import Array, Params, PyTree

__all__ = ["copy_of", "moved", "require_params", "update_to"]


def require_params(what: str, params: Params | None) -> Params:
    """The parameters, which ``update`` may be called without."""
    if params is None:
        raise ValueError(f"params: expected the parameters, got None: {what} needs update(updates, state, params)")
    return params


def copy_of(params: Params) -> PyTree:
    """The parameters in the dtype of their arithmetic, in buffers of their own: both may be donated."""

    def leaf(path: str, param: Any) -> Array:
        if not jnp.issubdtype(jnp.result_type(param), jnp.floating):
            raise TypeError(f"params[{path}]: expected real floating-point numbers, got {jnp.result_type(param)}")
        return jnp.array(jax.lax.convert_element_type(param, wide(param)), copy=True)

    return map_with_path(leaf, params)


def moved(params: Params, updates: PyTree) -> PyTree:
    """The parameters that the updates lead to, rounded as they will be, in the dtype of their arithmetic."""
    check_match(updates, params)
    return jax.tree.map(lambda leaf: leaf.astype(wide(leaf)), optax.apply_updates(params, updates))


def update_to(new: PyTree, params: Params, updates: PyTree) -> PyTree:
    """The updates that lead from ``params`` to ``new``, in the dtypes of ``updates``."""

    def leaf(target: Array, param: Any, update: Any) -> Array:
        return (target - jnp.asarray(param, target.dtype)).astype(jnp.result_type(update))

    return jax.tree.map(leaf, new, params, updates)
