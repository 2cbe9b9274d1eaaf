"""Clipping of gradients: by value, by the norm of each leaf, by the norm of all of them.

A norm that is not finite (a gradient holds inf or NaN) clips nothing: the gradient passes as it came, so that a run's
status sees it; scaled, it would be a mixture of zeros and NaN. A norm is not lost to overflow where its gradient is
finite.
"""

from functools import reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn.optimizers._numbers import as_number, safe_sqrt, to
from jaxopt_nn.optimizers._transform import stateless, wide
from jaxopt_nn.types import Array, ArrayLike, PyTree

__all__ = ["clip_by_global_norm", "clip_by_norm", "clip_by_value"]


def clip_by_value(max_value: ArrayLike) -> optax.GradientTransformation:
    """Limits every element to ``[-max_value, max_value]``.

    Args:
        max_value: scalar >= 0; may be traced.

    Returns:
        The transform, stateless. An infinite element becomes ``±max_value``, NaN stays NaN.

    Raises:
        ValueError: ``max_value`` is negative or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = clip_by_value(1.0)
        >>> transform.update(jnp.array([-3.0, 0.5]), transform.init(None))[0].tolist()
        [-1.0, 0.5]
    """
    bound = as_number("max_value", max_value)

    def clip(updates: PyTree) -> PyTree:
        def leaf(g: Any) -> Array:
            g = jnp.asarray(g)
            limit = to(wide(g), bound)
            return jnp.clip(g.astype(wide(g)), -limit, limit).astype(g.dtype)

        return jax.tree.map(leaf, updates)

    return stateless(clip)


def clip_by_norm(max_norm: ArrayLike) -> optax.GradientTransformation:
    """Scales each leaf on its own so that its Euclidean norm is at most ``max_norm``.

    ``g ← g · min(1, max_norm / ‖g‖)``, leaf by leaf.

    Args:
        max_norm: scalar >= 0; may be traced.

    Returns:
        The transform, stateless. A leaf whose norm is not finite passes as it is.

    Raises:
        ValueError: ``max_norm`` is negative or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = clip_by_norm(1.0)
        >>> transform.update({"a": jnp.array([0.0, 4.0]), "b": jnp.array([0.5])}, transform.init(None))[0]["a"].tolist()
        [0.0, 1.0]

    The same as Keras's ``clipnorm``.
    """
    bound = as_number("max_norm", max_norm)
    return stateless(lambda updates: jax.tree.map(lambda g: _rescale([g], bound)[0], updates))


def clip_by_global_norm(max_norm: ArrayLike) -> optax.GradientTransformation:
    """Scales all leaves alike so that the Euclidean norm of the whole tree is at most ``max_norm``.

    ``g ← g · min(1, max_norm / ‖g‖)``, with ``‖g‖`` over all elements of all leaves. A gradient below the limit is not
    touched, not by a rounding.

    Args:
        max_norm: scalar >= 0; may be traced.

    Returns:
        The transform, stateless. A gradient whose norm is not finite passes as it is; one of norm 0 stays 0.

    Raises:
        ValueError: ``max_norm`` is negative or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = clip_by_global_norm(1.0)
        >>> updates, _ = transform.update({"a": jnp.array(3.0), "b": jnp.array(4.0)}, transform.init(None))
        >>> round(float(updates["a"]), 6), round(float(updates["b"]), 6)
        (0.6, 0.8)

    Equal to ``optax.clip_by_global_norm`` where that is finite. Differs from ``torch.nn.utils.clip_grad_norm_``, which
    divides by ``‖g‖ + 1e-6``.

    References:
        Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013, algorithm 1.
    """
    bound = as_number("max_norm", max_norm)

    def clip(updates: PyTree) -> PyTree:
        leaves, treedef = jax.tree.flatten(updates)
        return treedef.unflatten(_rescale(leaves, bound))

    return stateless(clip)


def _rescale(leaves: list[Any], bound: Any) -> list[Array]:
    """``leaves``, all scaled by the one factor that brings their common norm down to ``bound``."""
    if not leaves:
        return []
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    exact = [array.astype(wide(array)) for array in arrays]
    norm = _norm(exact)
    limit = to(norm.dtype, bound)
    clipped = norm > limit  # False for NaN, which is the norm if an element is inf
    factor = jnp.where(clipped, limit / jnp.where(clipped, norm, 1.0), 1.0)
    return [
        (factor.astype(wide_array.dtype) * wide_array).astype(array.dtype)
        for array, wide_array in zip(arrays, exact, strict=True)
    ]


def _norm(arrays: list[Array]) -> Array:
    """The Euclidean norm of all elements; right also where the squares overflow and the norm does not."""

    def root_of_squares(terms: list[Array]) -> Array:
        return safe_sqrt(reduce(add, [jnp.sum(term * term) for term in terms]))

    def rescaled(terms: list[Array]) -> Array:
        largest = reduce(jnp.maximum, [jnp.max(jnp.abs(term), initial=0.0) for term in terms])
        largest = jnp.where(largest > 0, largest, 1.0)  # under vmap this branch is computed for zeros too
        return largest * root_of_squares([term / largest for term in terms])

    norm = root_of_squares(arrays)
    return jax.lax.cond(jnp.isfinite(norm), lambda _: norm, rescaled, arrays)
