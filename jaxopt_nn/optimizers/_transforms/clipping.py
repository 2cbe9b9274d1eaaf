"""Clipping of gradients: by value, or by the norm of each leaf, of all leaves, or of each unit.

Clipping by a norm records the norm of the whole gradient, before clipping, in its state. If the norm is not finite (the
gradient holds inf or NaN) the gradient is returned unchanged, so that a run's status sees it; scaled, it would be a
mixture of zeros and NaN. The norm of a finite gradient does not overflow.
"""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast, compute_dtype, promote
from jaxopt_nn.optimizers._numerics.numbers import as_number, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import (
    Convention,
    check_convention,
    check_match,
    check_real,
    stateless,
    transform,
)
from jaxopt_nn.optimizers._wrappers.second_weights import require_params
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["ClipState", "clip_adaptively", "clip_by_global_norm", "clip_by_norm", "clip_by_value"]


class ClipState(NamedTuple):
    """State of clipping by a norm.

    Attributes:
        norm: float scalar (float32, or float64 where x64 is on), the Euclidean norm of the whole gradient of the last
            update, before it was clipped; 0 before the first.
    """

    norm: Array


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
        check_real("updates", updates)

        def leaf(g: Any) -> Array:
            g = jnp.asarray(g)
            limit = cast(bound, compute_dtype(g))
            return jnp.clip(g.astype(compute_dtype(g)), -limit, limit).astype(g.dtype)

        return jax.tree.map(leaf, updates)

    return stateless(clip)


def clip_by_norm(max_norm: ArrayLike) -> optax.GradientTransformation:
    """Scales each leaf on its own so that its Euclidean norm is at most ``max_norm``.

    ``g ← g · min(1, max_norm / ‖g‖)``, leaf by leaf.

    Args:
        max_norm: scalar >= 0; may be traced.

    Returns:
        The transform, with :class:`ClipState`. A leaf whose norm is not finite is returned unchanged.

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

    def clip(leaves: list[Array]) -> tuple[list[Array], Array]:
        pairs = [_rescale([leaf], bound) for leaf in leaves]
        return [clipped for (clipped,), _ in pairs], _norm([norm for _, norm in pairs])

    return _clip_by_norm(clip)


def clip_by_global_norm(max_norm: ArrayLike, *, convention: Convention = "optax") -> optax.GradientTransformation:
    """Scales all leaves alike so that the Euclidean norm of the whole tree is at most ``max_norm``.

    ``g ← g · min(1, max_norm / ‖g‖)``, with ``‖g‖`` over all elements of all leaves. A gradient below the limit keeps
    every bit.

    Args:
        max_norm: scalar >= 0; may be traced.
        convention: static; "torch" divides by ``‖g‖ + 1e-6``, as ``torch.nn.utils.clip_grad_norm_`` does; "optax" and
            "keras" (``global_clipnorm``) are the formula above.

    Returns:
        The transform, with :class:`ClipState`. A gradient whose norm is not finite is returned unchanged (Keras makes
        all of it NaN); one of norm 0 stays 0.

    Raises:
        ValueError: ``max_norm`` is negative or not finite, or the convention is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = clip_by_global_norm(1.0)
        >>> updates, _ = transform.update({"a": jnp.array(3.0), "b": jnp.array(4.0)}, transform.init(None))
        >>> round(float(updates["a"]), 6), round(float(updates["b"]), 6)
        (0.6, 0.8)

    Equal to ``optax.clip_by_global_norm`` if that is finite.

    References:
        Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013, algorithm 1.
    """
    check_convention(convention)
    bound = as_number("max_norm", max_norm)
    return _clip_by_norm(lambda leaves: _rescale(leaves, bound, 1e-6 if convention == "torch" else 0.0))


def clip_adaptively(clipping: ArrayLike, eps: ArrayLike = 1e-3) -> optax.GradientTransformation:
    """Adaptive gradient clipping (AGC): limits each unit's gradient to a part of the unit's parameters.

    ``g_i ← g_i · min(1, clipping · max(‖θ_i‖, ε) / ‖g_i‖)``, where a unit i is the slice of the weights of one output
    (last axis), or the whole leaf if it has fewer than two axes.

    Args:
        clipping: scalar >= 0, such as 0.01; may be traced.
        eps: ε > 0, for units whose parameters are 0; may be traced.

    Returns:
        The transform, with :class:`ClipState`. Its ``update`` needs ``params``. A unit whose norm is not finite is
        returned unchanged.

    Raises:
        ValueError: a number is out of its range; at ``update``, no params came.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = clip_adaptively(0.1)
        >>> params, gradient = jnp.ones((4, 2)), jnp.array([[0.0, 0.1]] * 4).at[0, 0].set(8.0)
        >>> updates, _ = transform.update(gradient, transform.init(params), params)
        >>> [round(u, 4) for u in updates[0].tolist()]  # the first unit had the norm 8, the second has 0.2
        [0.2, 0.1]

    Equal to ``optax.adaptive_grad_clip`` for kernels of two and four axes. optax takes a kernel of three axes for one
    of attention, with units along the last two.

    References:
        Brock et al., High-performance large-scale image recognition without normalization, 2021, equation 3.
    """
    ratio, floor = as_number("clipping", clipping), as_number("eps", eps, open_low=True)

    def clip(g: Any, param: Any) -> tuple[Array, Array]:
        g = jnp.asarray(g)
        exact = g.astype(compute_dtype(g))
        norms = _unit_norms(exact)
        limit = cast(ratio, exact.dtype) * jnp.maximum(
            _unit_norms(jnp.asarray(param, exact.dtype)), cast(floor, exact.dtype)
        )
        return (_factor(norms, limit, 0.0) * exact).astype(g.dtype), _norm([norms])

    def update(updates: PyTree, state: ClipState, params: Params | None = None) -> tuple[PyTree, ClipState]:
        params = require_params("adaptive clipping", params)
        check_match(updates, params)
        check_real("updates", updates)
        leaves, treedef = jax.tree.flatten(updates)
        pairs = [clip(leaf, param) for leaf, param in zip(leaves, jax.tree.leaves(params), strict=True)]
        return treedef.unflatten([clipped for clipped, _ in pairs]), _record([norm for _, norm in pairs])

    return transform(_unclipped, update)


def _clip_by_norm(clip: Callable[[list[Array]], tuple[list[Array], Array]]) -> optax.GradientTransformation:
    """The transform made from a function of leaves that returns the clipped leaves and their norm."""

    def update(updates: PyTree, state: ClipState, params: Params | None = None) -> tuple[PyTree, ClipState]:
        del params, state
        check_real("updates", updates)
        leaves, treedef = jax.tree.flatten(updates)
        if not leaves:
            return updates, _record([])
        clipped, norm = clip([jnp.asarray(leaf) for leaf in leaves])
        return treedef.unflatten(clipped), _record([norm])

    return transform(_unclipped, update)


def _unclipped(params: Params) -> ClipState:
    del params
    return _record([])


def _record(norms: list[Array]) -> ClipState:
    return ClipState(jnp.asarray(_norm(norms) if norms else 0.0, jnp.result_type(float)))


def _rescale(arrays: list[Array], bound: Any, eps: float = 0.0) -> tuple[list[Array], Array]:
    """The arrays, scaled by one factor so that their common norm is at most ``bound``, and the norm before."""
    exact = [array.astype(compute_dtype(array)) for array in arrays]
    norm = _norm(exact)
    factor = _factor(norm, cast(bound, norm.dtype), eps)
    pairs = zip(arrays, exact, strict=True)
    return [(factor.astype(wider.dtype) * wider).astype(array.dtype) for array, wider in pairs], norm


def _factor(norm: Array, limit: Any, eps: float) -> Array:
    """The factor that brings a norm down to a limit; exactly 1 below it."""
    clipped = jnp.isfinite(norm) & (norm + eps > limit)
    return jnp.where(clipped, limit / jnp.where(clipped, norm + eps, 1.0), 1.0)


def _unit_norms(array: Array) -> Array:
    """The norms along the last axis of arrays of two axes and more, with the other axes kept."""
    axes = tuple(range(array.ndim - 1)) if array.ndim > 1 else None
    # The norm of array / largest cannot overflow, and the norm is homogeneous. The scale is a constant for derivatives.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(array), axis=axes, keepdims=True, initial=0.0))
    largest = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)
    return largest * safe_sqrt(jnp.sum((array / largest) ** 2, axis=axes, keepdims=True))


def _norm(arrays: list[Array]) -> Array:
    """The Euclidean norm of all elements; right also if the squares overflow and the norm does not."""
    norm = _root_of_squares(arrays)
    # Functions of the module, because an eager call would compile new closures each time.
    return jax.lax.cond(jnp.isfinite(norm), _first, _rescaled_norm, norm, arrays)


def _root_of_squares(terms: list[Array]) -> Array:
    dtype = promote(*(term.dtype for term in terms))
    return safe_sqrt(reduce(add, [jnp.sum(term * term).astype(dtype) for term in terms]))


def _first(norm: Array, terms: list[Array]) -> Array:
    del terms
    return norm


def _rescaled_norm(norm: Array, terms: list[Array]) -> Array:
    del norm
    dtype = promote(*(term.dtype for term in terms))
    largest = reduce(jnp.maximum, [jnp.max(jnp.abs(term), initial=0.0).astype(dtype) for term in terms])
    return largest * _root_of_squares([term.astype(dtype) / largest for term in terms])
