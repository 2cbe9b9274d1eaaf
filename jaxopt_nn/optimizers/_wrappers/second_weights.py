"""What optimizers with a second set of weights, or a second gradient, share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.optimizers._numerics.transform import check_match, check_real
from jaxopt_nn.types import Array, Params, PyTree

__all__ = ["apply_updates", "copy_of_params", "gradient_fn", "require_params", "updates_to"]


def require_params(what: str, params: Params | None) -> Params:
    """The parameters; raises if ``update`` was called without them."""
    if params is None:
        raise ValueError(f"params: expected the parameters, got None: {what} needs update(updates, state, params)")
    return params


def gradient_fn(what: str, grad_fn: Any, params: Params) -> Callable[[Params], PyTree]:
    """``grad_fn``, checked."""
    if not callable(grad_fn):
        raise ValueError(
            f"grad_fn: expected a function params -> gradients of the loss on this step's batch, got {grad_fn!r}: "
            f"{what} needs update(updates, state, params, grad_fn=grad_fn)"
        )
    nodes = jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, optax.MaskedNode))
    if any(isinstance(node, optax.MaskedNode) for node in nodes):
        raise ValueError(
            f"params: expected all parameters, got a part of them: {what} takes gradients itself, and of optax.masked "
            "or optax.partition gets grad_fn of the whole: put it around them, or use freeze or parameter_groups"
        )
    return grad_fn


def copy_of_params(params: Params) -> PyTree:
    """A copy of the parameters in the dtype of their arithmetic, so that both can be donated."""
    check_real("params", params)
    return jax.tree.map(
        lambda leaf: jnp.array(jax.lax.convert_element_type(leaf, compute_dtype(leaf)), copy=True), params
    )


def apply_updates(params: Params, updates: PyTree) -> PyTree:
    """The parameters after the updates, rounded to their dtype, in the dtype of their arithmetic."""
    check_match(updates, params)
    return jax.tree.map(lambda leaf: leaf.astype(compute_dtype(leaf)), optax.apply_updates(params, updates))


def updates_to(new: PyTree, params: Params, updates: PyTree) -> PyTree:
    """The updates that lead from ``params`` to ``new``, in the dtypes of ``updates``."""

    def leaf(target: Array, param: Any, update: Any) -> Array:
        return (target - jnp.asarray(param, target.dtype)).astype(jnp.result_type(update))

    return jax.tree.map(leaf, new, params, updates)
