"""Decoupled weight decay."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast, compute_dtype, promote
from jaxopt_nn.optimizers._numerics.numbers import as_number
from jaxopt_nn.optimizers._numerics.transform import check_match, check_real, transform
from jaxopt_nn.optimizers._wrappers.second_weights import require_params
from jaxopt_nn.trees import Mask, check_mask, kernels_only, select
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["add_decayed_weights"]


def add_decayed_weights(weight_decay: ArrayLike, *, mask: Mask = kernels_only) -> optax.GradientTransformation:
    """Adds a part of the parameters to their updates.

    ``u ← u + λ·θ`` for the leaves that the mask selects. Right before :func:`scale_by_learning_rate` in a chain this is
    decoupled weight decay (:func:`adamw`). Before a transform that rescales gradients it is an L2 penalty.

    Args:
        weight_decay: λ >= 0; may be traced.
        mask: static; the leaves that decay, see :mod:`jaxopt_nn.trees`.

    Returns:
        The transform. Its ``update`` needs ``params``.

    Raises:
        ValueError: λ is out of its range; at ``init``, the mask selects no leaf; at ``update``, no params came.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = add_decayed_weights(0.5)
        >>> params = {"kernel": jnp.ones(()), "bias": jnp.ones(())}
        >>> updates, _ = transform.update(params, transform.init(params), params)
        >>> float(updates["kernel"]), float(updates["bias"])
        (1.5, 1.0)

    Differs from ``optax.add_decayed_weights`` in the mask, which selects paths, by default kernels only.
    """
    decay = as_number("weight_decay", weight_decay)
    check_mask("mask", mask)

    def init(params: Params) -> optax.EmptyState:
        select("mask", mask, params)
        return optax.EmptyState()

    def update(
        updates: PyTree, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[PyTree, optax.EmptyState]:
        params = require_params("weight decay", params)
        check_match(updates, params)
        check_real("updates", updates, or_complex=True)
        leaves, treedef = jax.tree.flatten(updates)

        def decayed(u: Any, param: Any) -> Array:
            u, dtype = jnp.asarray(u), promote(compute_dtype(u), compute_dtype(param))
            return (u.astype(dtype) + cast(decay, dtype) * jnp.asarray(param, dtype)).astype(u.dtype)

        chosen = zip(leaves, jax.tree.leaves(params), select("mask", mask, params), strict=True)
        return treedef.unflatten([decayed(u, param) if decays else u for u, param, decays in chosen]), state

    return transform(init, update)
