"""Decoupled weight decay."""

from typing import Any

import jax.numpy as jnp
import optax

from jaxopt_nn.optimizers._numbers import as_number, to
from jaxopt_nn.optimizers._transform import check_match, transform, wide
from jaxopt_nn.trees import Mask, kernels_only, map_with_path, named_leaves
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["add_decayed_weights"]


def add_decayed_weights(weight_decay: ArrayLike, *, mask: Mask = kernels_only) -> optax.GradientTransformation:
    """Adds a part of the parameters to their updates.

    ``u ← u + λ·θ`` for the leaves that the mask selects. Before :func:`scale_by_learning_rate` in a chain this is
    decoupled weight decay (:func:`adamw`); before anything that rescales gradients, it is an L2 penalty.

    Args:
        weight_decay: λ >= 0; may be traced.
        mask: static; ``(path, leaf) -> bool``, the leaves that decay.

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

    Differs from ``optax.add_decayed_weights`` in the mask: a function of paths, by default kernels only.
    """
    decay = as_number("weight_decay", weight_decay)

    def init(params: Params) -> optax.EmptyState:
        leaves = named_leaves(params)
        if leaves and not any(mask(path, leaf) for path, leaf in leaves):
            raise ValueError(
                f"mask: expected to select some of the leaves {[path for path, _ in leaves]}, selects none, so that "
                "nothing would decay: pass another (path, leaf) -> bool, such as jaxopt_nn.trees.every_leaf"
            )
        return optax.EmptyState()

    def update(
        updates: PyTree, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[PyTree, optax.EmptyState]:
        if params is None:
            raise ValueError(
                "params: expected the parameters, got None: weight decay needs update(updates, state, params)"
            )
        check_match(updates, params)

        def leaf(path: str, u: Any, param: Any) -> Array:
            if not mask(path, param):
                return u
            u, dtype = jnp.asarray(u), jnp.promote_types(wide(u), wide(param))
            return (u.astype(dtype) + to(dtype, decay) * jnp.asarray(param, dtype)).astype(u.dtype)

        return map_with_path(leaf, updates, params), state

    return transform(init, update)
