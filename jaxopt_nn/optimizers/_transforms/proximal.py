"""Penalties and constraints that act on the weights after an update, and not through the gradient.

A gradient step on abs(w) jumps over 0 and back, while a proximal step stops at 0. So L1 by proximal steps gives weights
that are exactly 0. With an adaptive optimizer it is decoupled, as weight decay is in AdamW: it is not rescaled.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast, compute_dtype, promote
from jaxopt_nn.optimizers._numerics.numbers import as_number, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import check_match, check_real, transform, transform_extra
from jaxopt_nn.optimizers._transforms.learning_rate import current_learning_rate
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer
from jaxopt_nn.optimizers._wrappers.second_weights import require_params
from jaxopt_nn.trees import Mask, check_mask, kernels_only, select
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["constrain_max_norm", "proximal_elastic_net", "proximal_l1"]


def proximal_l1(
    optimizer: optax.GradientTransformation,
    strength: ArrayLike,
    *,
    mask: Mask = kernels_only,
    learning_rate: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """L1 by proximal steps: after each update, weights shrink towards 0 by lr·strength, and stop there.

    ``v = θ + u``, then ``θ ← sign(v)·max(abs(v) - lr·λ, 0)``. With :func:`sgd` and full batches this is ISTA for
    loss + λ·Σ abs(w), the objective of :func:`jaxopt_nn.penalties.l1`.

    Args:
        optimizer: any optimizer of the optax protocol; transforms that change its updates belong inside.
        strength: λ >= 0; may be traced.
        mask: static; the leaves that shrink, see :mod:`jaxopt_nn.trees`.
        learning_rate: lr, a scalar >= 0 that may be traced; None (static) for the one that the optimizer's
            state records, also if it comes from a schedule or a plateau. All optimizers of this library record it.

    Returns:
        The optimizer, with the state of the one inside. Its ``update`` needs ``params``.

    Raises:
        ValueError: a number is out of its range; at ``init``, the mask selects no leaf or there is no record of a
            learning rate; at ``update``, no params came.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = proximal_l1(optimizers.sgd(0.1), 1.0, mask="*")
        >>> params = {"w": jnp.array([0.05, -0.5])}
        >>> updates, _ = optimizer.update({"w": jnp.zeros(2)}, optimizer.init(params), params)
        >>> [round(w, 6) for w in optax.apply_updates(params, updates)["w"].tolist()]
        [0.0, -0.4]

    References:
        Daubechies, Defrise and De Mol, An iterative thresholding algorithm for linear inverse problems with a sparsity
        constraint, 2004; Parikh and Boyd, Proximal algorithms, 2014, section 6.5.2.
    """
    return proximal_elastic_net(optimizer, strength, None, mask=mask, learning_rate=learning_rate)


def proximal_elastic_net(
    optimizer: optax.GradientTransformation,
    l1_strength: ArrayLike,
    l2_strength: ArrayLike | None,
    *,
    mask: Mask = kernels_only,
    learning_rate: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The elastic net by proximal steps.

    ``v = θ + u``, then ``θ ← sign(v)·max(abs(v) - lr·λ₁, 0) / (1 + 2·lr·λ₂)``: the proximal step of
    :func:`jaxopt_nn.penalties.elastic_net`. With λ₁ = 0 it is L2, decoupled, and stable at any learning rate.

    Args:
        optimizer: as in :func:`proximal_l1`.
        l1_strength: λ₁ >= 0; may be traced.
        l2_strength: λ₂ >= 0, may be traced; None (static) for none.
        mask: static; the leaves that shrink, see :mod:`jaxopt_nn.trees`.
        learning_rate: as in :func:`proximal_l1`.

    Returns:
        The optimizer, with the state of the one inside. Its ``update`` needs ``params``.

    Raises:
        ValueError: as :func:`proximal_l1` does.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = proximal_elastic_net(optimizers.sgd(0.5), 1.0, 1.0, mask="*")
        >>> params = {"w": jnp.array([0.5, -2.5])}
        >>> updates, _ = optimizer.update({"w": jnp.zeros(2)}, optimizer.init(params), params)
        >>> optax.apply_updates(params, updates)["w"].tolist()
        [0.0, -1.0]

    References:
        Parikh and Boyd, Proximal algorithms, 2014, section 6.5.3.
    """
    inner = as_optimizer("optimizer", optimizer)
    l1 = as_number("strength" if l2_strength is None else "l1_strength", l1_strength)
    l2 = None if l2_strength is None else as_number("l2_strength", l2_strength)
    own_rate = None if learning_rate is None else as_number("learning_rate", learning_rate)
    check_mask("mask", mask)

    def rate_of(state: PyTree) -> Any:
        rate = current_learning_rate(state) if own_rate is None else own_rate
        if rate is None:
            raise ValueError(
                "learning_rate: expected the one of the optimizer inside, got None, and its state records none"
            )
        return rate

    def init(params: Params) -> PyTree:
        select("mask", mask, params)
        state = inner.init(params)
        rate_of(state)
        return state

    def update(updates: PyTree, state: PyTree, params: Params | None = None, **extra: Any) -> tuple[PyTree, PyTree]:
        params = require_params("a proximal step", params)
        updates, state = inner.update(updates, state, params, **extra)
        rate = rate_of(state)

        def shrink(v: Array) -> Array:
            step = cast(rate, v.dtype)
            limit = step * cast(l1, v.dtype)
            v = v - jnp.clip(v, -limit, limit)
            return v if l2 is None else v / (1 + 2 * step * cast(l2, v.dtype))

        return _updates_to(shrink, mask, updates, params), state

    return transform_extra(init, update)


def constrain_max_norm(max_norm: ArrayLike, *, mask: Mask = kernels_only) -> optax.GradientTransformation:
    """Keeps the norm of each unit's weights at ``max_norm`` or below: a projection, for the end of a chain.

    ``v = θ + u``, then ``θ_i ← v_i · min(1, max_norm / ‖v_i‖)``, where a unit i is the slice of the weights of one
    output (last axis): ``optax.chain(optimizers.sgd(0.1), optimizers.constrain_max_norm(3.0))``.

    Args:
        max_norm: scalar > 0; may be traced.
        mask: static; the leaves that are constrained, see :mod:`jaxopt_nn.trees`; those of two axes or more.

    Returns:
        The transform, without state. Its ``update`` needs ``params``. A unit whose norm is not finite is not changed.

    Raises:
        ValueError: the number is out of its range; at ``init``, the mask selects no leaf, or one of fewer than two
            axes; at ``update``, no params came.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = constrain_max_norm(1.0)
        >>> params = {"kernel": jnp.array([[3.0, 0.1], [4.0, 0.0]])}
        >>> updates, _ = transform.update({"kernel": jnp.zeros((2, 2))}, transform.init(params), params)
        >>> [round(w, 4) for w in (params["kernel"] + updates["kernel"]).ravel().tolist()]
        [0.6, 0.1, 0.8, 0.0]

    Differs from ``keras.constraints.MaxNorm(max_value, axis=0)``, which adds 1e-7 to the norm, and needs the axes of a
    convolution.

    References:
        Srivastava et al., Dropout, 2014, section 5.1; Srebro and Shraibman, Rank, trace-norm and max-norm, 2005.
    """
    bound = as_number("max_norm", max_norm, open_low=True)
    check_mask("mask", mask)

    def init(params: Params) -> optax.EmptyState:
        leaves = zip(jax.tree.leaves(params), select("mask", mask, params), strict=True)
        for shape in (jnp.shape(leaf) for leaf, chosen in leaves if chosen):
            if len(shape) < 2:
                raise ValueError(f"mask: expected leaves of two axes or more, whose last counts units, got {shape}")
        return optax.EmptyState()

    def update(
        updates: PyTree, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[PyTree, optax.EmptyState]:
        params = require_params("a constraint", params)

        def project(v: Array) -> Array:
            squares = jnp.sum(v * v, axis=tuple(range(v.ndim - 1)), keepdims=True)
            norm = safe_sqrt(squares)
            exceeds = jnp.isfinite(norm) & (norm > cast(bound, v.dtype))
            return v * jnp.where(exceeds, cast(bound, v.dtype) / jnp.where(exceeds, norm, 1), jnp.ones_like(norm))

        return _updates_to(project, mask, updates, params), state

    return transform(init, update)


def _updates_to(fn: Any, mask: Mask, updates: PyTree, params: Params) -> PyTree:
    """Updates that lead to ``fn(params + updates)``, at the leaves that the mask selects."""
    check_match(updates, params)
    check_real("updates", updates)
    leaves, treedef = jax.tree.flatten(updates)

    def leaf(u: Any, param: Any) -> Array:
        u, dtype = jnp.asarray(u), promote(compute_dtype(u), compute_dtype(param))
        start = jnp.asarray(param, dtype)
        return (fn(start + u.astype(dtype)) - start).astype(u.dtype)

    chosen = zip(leaves, jax.tree.leaves(params), select("mask", mask, params), strict=True)
    return treedef.unflatten([leaf(u, param) if moves else u for u, param, moves in chosen])
