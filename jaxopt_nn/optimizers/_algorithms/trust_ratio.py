"""Learning rates for each layer, for large batches: the trust ratio, LARS (SGD) and LAMB (Adam).

A layer is a leaf here. Its trust ratio is the norm of its weights over the norm of its update. It makes every layer's
step equally large, relative to its weights.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast, compute_dtype, promote
from jaxopt_nn.optimizers._algorithms.adam import scale_by_adam
from jaxopt_nn.optimizers._algorithms.sgd import add_momentum
from jaxopt_nn.optimizers._numerics.numbers import Number, as_number, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import check_convention, check_match, check_real, transform
from jaxopt_nn.optimizers._transforms.decay import add_decayed_weights
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.optimizers._wrappers.second_weights import require_params
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.trees import Mask, check_mask, every_leaf, kernels_only, select
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["lamb", "lars", "scale_by_trust_ratio"]


def lamb(
    learning_rate: ArrayLike | Schedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-6,
    weight_decay: ArrayLike | None = None,
    *,
    mask: Mask = kernels_only,
    trust_ratio_mask: Mask = every_leaf,
) -> optax.GradientTransformationExtraArgs:
    """LAMB: Adam, with steps that are equally large in each layer, relative to its weights.

    ``u = m̂ / (√v̂ + ε) + λ·θ`` with m̂ and v̂ as in :func:`adam`, then ``θ ← θ - lr · (‖θ‖ / ‖u‖) · u``, leaf by leaf.
    The ratio is 1 where a norm is 0.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        eps: ε > 0; may be traced.
        weight_decay: λ >= 0, may be traced; None (static) for none.
        mask: static; the leaves that decay, see :mod:`jaxopt_nn.trees`.
        trust_ratio_mask: static; the leaves with a trust ratio. Biases and scales of normalizations, which are small
            at first, learn faster without it.

    Returns:
        The optimizer. Its ``update`` needs ``params``.

    Raises:
        ValueError: a number is out of its range; at ``init``, a mask selects no leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = lamb(0.1)
        >>> params, gradients = jnp.array([3.0, -4.0]), jnp.array([1e-3, 1e3])
        >>> updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        >>> round(float(jnp.linalg.norm(updates)), 4)  # 0.1 of ‖θ‖
        0.5

    Equal to ``optax.lamb``, where λ is 0 if not given and every leaf decays (``trees.every_leaf``). Differs from
    Keras's, where the decay is not in ``u``, and ε is 1e-7.

    References:
        You et al., Large batch optimization for deep learning: training BERT in 76 minutes, ICLR 2020, algorithm 2.
    """
    decays = [] if weight_decay is None else [add_decayed_weights(weight_decay, mask=mask)]
    ratio = _trust_ratio(1.0, 0.0, "trust_ratio_mask", trust_ratio_mask)
    return optax.chain(scale_by_adam(b1=b1, b2=b2, eps=eps), *decays, ratio, scale_by_learning_rate(learning_rate))


def lars(
    learning_rate: ArrayLike | Schedule,
    weight_decay: ArrayLike | None = None,
    trust_coefficient: ArrayLike = 1e-3,
    eps: ArrayLike = 0.0,
    momentum: ArrayLike = 0.9,
    *,
    nesterov: bool = False,
    mask: Mask = kernels_only,
    trust_ratio_mask: Mask = every_leaf,
    convention: Literal["optax", "paper"] = "optax",
) -> optax.GradientTransformationExtraArgs:
    """LARS: SGD with momentum, with a learning rate of its own for each layer.

    ``u = g + λ·θ``, ``v ← lr · η · ‖θ‖ / (‖u‖ + ε) · u + μ·v``, then ``θ ← θ - v``, leaf by leaf. In the paper the
    ratio is ``‖θ‖ / (‖g‖ + λ·‖θ‖ + ε)``. Where ‖θ‖ or ‖u‖ is 0, the ratio and η are 1.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        weight_decay: λ >= 0, may be traced; None (static) for none.
        trust_coefficient: η >= 0; may be traced.
        eps: ε >= 0; may be traced.
        momentum: μ, in [0, 1); may be traced.
        nesterov: static; whether the momentum looks ahead.
        mask: static; the leaves that decay, see :mod:`jaxopt_nn.trees`.
        trust_ratio_mask: static; the leaves with a trust ratio. It is usual to leave out biases and normalizations.
        convention: static; "optax" for the norm of the sum, "paper" for the sum of the norms.

    Returns:
        The optimizer. Its ``update`` needs ``params``.

    Raises:
        ValueError: a number is out of its range, the convention unknown; at ``init``, a mask selects no leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = lars(1.0, trust_coefficient=0.1)
        >>> params, gradients = jnp.array([3.0, -4.0]), jnp.array([60.0, 80.0])
        >>> updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        >>> [round(u, 4) for u in updates.tolist()]  # 0.1 · 5 / 100 · g
        [-0.3, -0.4]

    "optax" equals ``optax.lars`` except for the mask: there every leaf decays (``trees.every_leaf``).

    References:
        You, Gitman and Ginsburg, Large batch training of convolutional networks, 2017, algorithm 1 and equation 6.
    """
    check_convention(convention, "optax", "paper")
    after = (scale_by_learning_rate(learning_rate), add_momentum(momentum, nesterov=nesterov))
    if weight_decay is not None and convention == "paper":
        decay = as_number("weight_decay", weight_decay)
        ratio = _trust_ratio(trust_coefficient, eps, "trust_ratio_mask", trust_ratio_mask, decay, mask)
        return optax.chain(ratio, *after)
    decays = [] if weight_decay is None else [add_decayed_weights(weight_decay, mask=mask)]
    return optax.chain(*decays, _trust_ratio(trust_coefficient, eps, "trust_ratio_mask", trust_ratio_mask), *after)


def scale_by_trust_ratio(
    trust_coefficient: ArrayLike = 1.0, eps: ArrayLike = 0.0, *, mask: Mask = every_leaf
) -> optax.GradientTransformation:
    """Makes the norm of each leaf's update a fixed part of the norm of its parameters.

    ``u ← η · ‖θ‖ / (‖u‖ + ε) · u``, leaf by leaf; ``u`` is not changed where a norm is 0 or not finite.

    Args:
        trust_coefficient: η >= 0; may be traced.
        eps: ε >= 0; may be traced.
        mask: static; the leaves to scale, see :mod:`jaxopt_nn.trees`. The others are not changed.

    Returns:
        The transform, stateless. Its ``update`` needs ``params``.

    Raises:
        ValueError: a number is out of its range; at ``init``, the mask selects no leaf; at ``update``, no params came.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_trust_ratio(0.5)
        >>> params = jnp.array([6.0, 8.0])
        >>> transform.update(jnp.array([0.0, 0.1]), transform.init(params), params)[0].tolist()
        [0.0, 5.0]

    Equal to ``optax.scale_by_trust_ratio`` (``min_norm=0``); a leaf with an infinite norm is not changed, while
    optax makes it 0 or NaN.

    References:
        You, Gitman and Ginsburg, 2017, equation 6. You et al., ICLR 2020, algorithm 2 with φ(z) = z.
    """
    return _trust_ratio(trust_coefficient, eps, "mask", mask)


def _trust_ratio(
    trust_coefficient: ArrayLike,
    eps: ArrayLike,
    name: str,
    mask: Mask,
    decay: Number | None = None,
    decay_mask: Mask = every_leaf,
) -> optax.GradientTransformation:
    """The transform. With a decay it also adds the decayed weights, and their norm is a separate term."""
    coefficient, epsilon = as_number("trust_coefficient", trust_coefficient), as_number("eps", eps)
    check_mask(name, mask)
    check_mask("mask", decay_mask)

    def leaf(u: Any, param: Any, scales: bool, decays: bool) -> Array:
        u = jnp.asarray(u)
        dtype = promote(compute_dtype(u), compute_dtype(param))
        exact, weights = u.astype(dtype), jnp.asarray(param, dtype)
        weight_norm, norm = _norm(weights), _norm(exact)
        if decay is not None and decays:
            exact = exact + cast(decay, dtype) * weights
            norm = norm + cast(decay, dtype) * weight_norm
        if scales:
            fit = (weight_norm > 0) & (norm > 0) & jnp.isfinite(weight_norm) & jnp.isfinite(norm)
            ratio = cast(coefficient, dtype) * weight_norm / jnp.where(fit, norm + cast(epsilon, dtype), 1.0)
            exact = jnp.where(fit, ratio, 1.0) * exact
        return exact.astype(u.dtype)

    def init(params: Params) -> optax.EmptyState:
        select(name, mask, params)
        if decay is not None:
            select("mask", decay_mask, params)
        return optax.EmptyState()

    def update(
        updates: PyTree, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[PyTree, optax.EmptyState]:
        params = require_params("a trust ratio", params)
        check_match(updates, params)
        check_real("updates", updates)
        leaves, treedef = jax.tree.flatten(updates)
        masks = select(name, mask, params), select("mask", decay_mask, params)
        columns = zip(leaves, jax.tree.leaves(params), *masks, strict=True)
        return treedef.unflatten([leaf(*column) for column in columns]), state

    return transform(init, update)


def _norm(x: Array) -> Array:
    """The Euclidean norm, with derivative 0 at 0."""
    return safe_sqrt(jnp.sum(x * x))
