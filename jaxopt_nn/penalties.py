"""Penalties on the size of parameters: factories of functions ``penalty(params) -> scalar``, added to the mean loss.

A strength may be traced. A mask (:mod:`jaxopt_nn.trees`) says which leaves count, by default kernels only: no biases,
no scales of normalizations. Sums are taken and returned in float32, or in float64 if a penalized leaf is float64.

The gradient of a penalty passes through the optimizer like that of the loss. What acts on the weights after the update
does not, and is not rescaled by an adaptive optimizer: :func:`jaxopt_nn.optimizers.proximal_l1` (weights that are
exactly 0) beside :func:`l1`, ``adamw`` or ``add_decayed_weights`` beside :func:`l2`, ``proximal_elastic_net`` beside
:func:`elastic_net`, and the constraint ``constrain_max_norm``. A penalty of activations, not of parameters, is a layer:
:func:`jaxopt_nn.layers.activity_penalty`.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxopt_nn._arguments import check_number
from jaxopt_nn.trees import Mask, check_mask, kernels_only, named_leaves, select
from jaxopt_nn.types import Array, ArrayLike, Params

__all__ = ["Penalty", "elastic_net", "l1", "l2", "orthogonality"]

Penalty = Callable[[Params], Array]
"""``penalty(params) -> scalar``."""


def l1(strength: ArrayLike, mask: Mask = kernels_only) -> Penalty:
    """L1 (lasso): strength·Σ abs(w). Its gradient is strength·sign(w), 0 at w = 0.

    Args:
        strength: >= 0; may be traced.
        mask: which leaves count; static.

    Returns:
        ``penalty(params) -> scalar``. It raises ``ValueError`` if the mask selects no leaf, and ``TypeError`` if it
        selects one that is not of a float dtype.

    Raises:
        ValueError: ``strength`` is negative or not finite.

    >>> penalty = l1(0.5)
    >>> float(penalty({"kernel": jnp.array([1.0, -3.0]), "bias": jnp.array([100.0])}))
    2.0
    """
    _check("strength", strength, mask)

    def penalty(params: Params) -> Array:
        return _sum(_abs, params, mask, strength)

    return penalty


def l2(strength: ArrayLike, mask: Mask = kernels_only) -> Penalty:
    """L2 (ridge): strength·Σ w². Its gradient is 2·strength·w.

    Args:
        strength: >= 0; may be traced.
        mask: which leaves count; static.

    Returns:
        ``penalty(params) -> scalar``. It raises ``ValueError`` if the mask selects no leaf, and ``TypeError`` if it
        selects one that is not of a float dtype.

    Raises:
        ValueError: ``strength`` is negative or not finite.

    Differs from PyTorch, whose ``weight_decay=λ`` of SGD or Adam adds λ·w to the gradient of every parameter: that is
    ``l2(λ / 2, every_leaf)``. The same as Keras's ``regularizers.L2(strength)`` on kernels.

    >>> penalty = l2(0.5)
    >>> float(penalty({"kernel": jnp.array([1.0, -3.0]), "bias": jnp.array([100.0])}))
    5.0
    """
    _check("strength", strength, mask)

    def penalty(params: Params) -> Array:
        return _sum(jnp.square, params, mask, strength)

    return penalty


def elastic_net(l1_strength: ArrayLike, l2_strength: ArrayLike, mask: Mask = kernels_only) -> Penalty:
    """Elastic net: l1_strength·Σ abs(w) + l2_strength·Σ w².

    Args:
        l1_strength: >= 0; may be traced.
        l2_strength: >= 0; may be traced.
        mask: which leaves count; static.

    Returns:
        ``penalty(params) -> scalar``, with the errors of :func:`l1`.

    Raises:
        ValueError: a strength is negative or not finite.

    References:
        Zou and Hastie, "Regularization and variable selection via the elastic net", 2005, eq. 3.

    Differs from scikit-learn's ``ElasticNet(alpha, l1_ratio)`` in the parametrization: there ``l1_strength`` is
    alpha·l1_ratio and ``l2_strength`` alpha·(1 - l1_ratio)/2, beside a loss that is *half* the mean squared error.

    >>> penalty = elastic_net(1.0, 0.5)
    >>> float(penalty({"kernel": jnp.array([1.0, -3.0])}))
    9.0
    """
    _check("l1_strength", l1_strength, mask)
    _check("l2_strength", l2_strength, mask)

    def penalty(params: Params) -> Array:
        return _sum(_abs, params, mask, l1_strength) + _sum(jnp.square, params, mask, l2_strength)

    return penalty


def orthogonality(strength: ArrayLike, mask: Mask = kernels_only) -> Penalty:
    """Soft orthogonality: strength·Σ ‖WᵀW - I‖²_F, or of WWᵀ where W has more columns than rows.

    Of a kernel of more axes, W is the matrix whose columns are the units: all axes but the last taken together. At 0
    the columns (or rows) are orthonormal, so the layer keeps norms.

    Args:
        strength: >= 0; may be traced.
        mask: which leaves count; static.

    Returns:
        ``penalty(params) -> scalar``, with the errors of :func:`l1`, and ``ValueError`` for a leaf of fewer than two
        axes.

    Raises:
        ValueError: ``strength`` is negative or not finite.

    References:
        Brock et al., "Neural photo editing with introspective adversarial networks", 2017, section 3.3; Bansal, Chen
        and Wang, "Can we gain more from orthogonality regularizations in training deep networks?", 2018, eq. 1.

    Differs from Keras's ``OrthogonalRegularizer``, which is of normalized rows and leaves their lengths free.

    >>> penalty = orthogonality(0.5)
    >>> float(penalty({"kernel": jnp.eye(2) * 2.0})), float(penalty({"kernel": jnp.eye(3, 2)}))
    (9.0, 0.0)
    """
    _check("strength", strength, mask)

    def distance(w: Array) -> Array:
        w = w.reshape((-1, w.shape[-1]))
        gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
        return jnp.square(gram - jnp.eye(gram.shape[0], dtype=w.dtype))

    def penalty(params: Params) -> Array:
        return _sum(distance, params, mask, strength, axes=2)

    return penalty


def _check(name: str, strength: ArrayLike, mask: Mask) -> None:
    check_number(name, strength, 0.0)
    check_mask("mask", mask)


def _sum(size: Callable[[Array], Array], params: Params, mask: Mask, strength: ArrayLike, *, axes: int = 0) -> Array:
    """``strength·Σ size(w)`` over the selected leaves, each of so many axes at least."""
    chosen = zip(named_leaves(params), select("mask", mask, params), strict=True)
    selected = [_leaf(path, leaf, axes) for (path, leaf), counts in chosen if counts]
    if not selected:
        raise ValueError("params: expected some to penalize, got a tree without leaves")
    dtype = jnp.float64 if any(leaf.dtype == jnp.float64 for leaf in selected) else jnp.float32
    return jnp.asarray(strength, dtype) * sum(jnp.sum(size(leaf)).astype(dtype) for leaf in selected)


def _abs(w: Array) -> Array:
    return w * jnp.sign(w)  # jnp.abs has the derivative 1 at 0 in JAX, which would push zero weights away from 0


def _leaf(path: str, leaf: Any, axes: int) -> Array:
    if not hasattr(leaf, "dtype") and not isinstance(leaf, (int, float)):
        raise TypeError(f"params[{path}]: expected a float dtype to penalize, got {leaf!r}")
    dtype = jnp.result_type(leaf)
    if jnp.ndim(leaf) < axes:
        raise ValueError(f"params[{path}]: expected two axes or more, got shape {list(jnp.shape(leaf))}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"params[{path}]: expected a float dtype to penalize, got {dtype}")
    return jnp.asarray(leaf).astype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)
