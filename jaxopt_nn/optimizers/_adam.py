"""Adam, and AdamW: Adam with decoupled weight decay."""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn.optimizers._decay import add_decayed_weights
from jaxopt_nn.optimizers._learning_rate import scale_by_learning_rate
from jaxopt_nn.optimizers._numbers import (
    as_decay,
    as_number,
    bias_correction,
    next_count,
    safe_sqrt,
    to,
)
from jaxopt_nn.optimizers._transform import map_leaves, moments_like, transform
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.trees import Mask, kernels_only
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["AdamState", "adam", "adamw", "scale_by_adam"]


class AdamState(NamedTuple):
    """State of :func:`scale_by_adam`.

    Attributes:
        count: int32 scalar, the number of updates done.
        mean: like the parameters, at least float32: the moving average of the gradients, m.
        square: like the parameters, at least float32: the moving average of the squared gradients, v.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: PyTree
    square: PyTree


def adam(
    learning_rate: ArrayLike | Schedule, b1: ArrayLike = 0.9, b2: ArrayLike = 0.999, eps: ArrayLike = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Adam, with bias correction and ε outside of the root.

    ``m ← β₁·m + (1-β₁)·g``, ``v ← β₂·v + (1-β₂)·g²``, then with ``m̂ = m / (1-β₁ᵗ)`` and ``v̂ = v / (1-β₂ᵗ)``
    ``θ ← θ - lr · m̂ / (√v̂ + ε)``.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        eps: ε > 0; may be traced.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adam(0.5)
        >>> updates, _ = optimizer.update(jnp.array([3.0, -1e-3, 0.0]), optimizer.init(jnp.zeros(3)))
        >>> [round(u, 4) + 0.0 for u in updates.tolist()]  # the first step is the sign of the gradient
        [-0.5, 0.5, 0.0]

    Equal to ``optax.adam`` and ``torch.optim.Adam``. Differs from Keras, whose ε, 1e-7, is added to √v before the
    correction.

    References:
        Kingma and Ba, Adam, ICLR 2015, algorithm 1.
    """
    return optax.chain(scale_by_adam(b1, b2, eps), scale_by_learning_rate(learning_rate))


def adamw(
    learning_rate: ArrayLike | Schedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 1e-4,
    *,
    mask: Mask = kernels_only,
) -> optax.GradientTransformationExtraArgs:
    """Adam with decoupled weight decay: the decay is no part of the gradient, so it is not rescaled.

    ``θ ← θ - lr · (m̂ / (√v̂ + ε) + λ·θ)``, with m̂ and v̂ as in :func:`adam`.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        eps: ε > 0; may be traced.
        weight_decay: λ >= 0; may be traced.
        mask: static; ``(path, leaf) -> bool``, the leaves that decay.

    Returns:
        The optimizer. Its ``update`` needs ``params``.

    Raises:
        ValueError: a number is out of its range; at ``init``, the mask selects no leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adamw(0.5, weight_decay=0.1)
        >>> params = {"kernel": jnp.ones(()), "bias": jnp.ones(())}
        >>> zeros = {"kernel": jnp.zeros(()), "bias": jnp.zeros(())}
        >>> updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        >>> round(float(updates["kernel"]), 4), round(float(updates["bias"]), 4) + 0.0
        (-0.05, 0.0)

    Differs from ``optax.adamw`` in the default mask: kernels only, where optax decays every leaf
    (``trees.every_leaf``); from ``torch.optim.AdamW`` and Keras in that and in λ, there 1e-2 and 4e-3.

    References:
        Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019, algorithm 2.
    """
    return optax.chain(
        scale_by_adam(b1, b2, eps), add_decayed_weights(weight_decay, mask=mask), scale_by_learning_rate(learning_rate)
    )


def scale_by_adam(b1: ArrayLike = 0.9, b2: ArrayLike = 0.999, eps: ArrayLike = 1e-8) -> optax.GradientTransformation:
    """Replaces a gradient by ``m̂ / (√v̂ + ε)``: :func:`adam` without the learning rate.

    Args:
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        eps: ε > 0; may be traced.

    Returns:
        The transform.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_adam()
        >>> round(float(transform.update(jnp.array(-7.0), transform.init(jnp.array(0.0)))[0]), 5)
        -1.0
    """
    first, second = as_decay("b1", b1), as_decay("b2", b2)
    epsilon = as_number("eps", eps, open_low=True)

    def init(params: Params) -> AdamState:
        return AdamState(jnp.zeros((), jnp.int32), moments_like(params), moments_like(params))

    def update(updates: PyTree, state: AdamState, params: Params | None = None) -> tuple[PyTree, AdamState]:
        del params
        count = next_count(state.count)

        @cache  # once for all leaves of a dtype
        def corrections(dtype: Any) -> tuple[Any, Any]:
            return 1 / bias_correction(first, count, dtype), 1 / bias_correction(second, count, dtype)

        def leaf(g: Array, m: Array, v: Array) -> tuple[Any, ...]:
            dtype, exact = m.dtype, g.astype(m.dtype)
            m = to(dtype, first.rate) * m + to(dtype, first.complement) * exact
            v = to(dtype, second.rate) * v + to(dtype, second.complement) * (exact * exact)
            m_scale, v_scale = corrections(dtype)
            return (m * m_scale / (safe_sqrt(v * v_scale) + to(dtype, epsilon))).astype(g.dtype), m, v

        updates, mean, square = map_leaves(leaf, 3, updates, state.mean, state.square)
        return updates, AdamState(count, mean, square)

    return transform(init, update)
