"""Adam, and AdamW: Adam with decoupled weight decay."""

from functools import cache
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn._arguments import check_bool
from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_decay, as_number, bias_correction, next_count, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import Convention, check_convention, map_leaves, moments_like, transform
from jaxopt_nn.optimizers._transforms.decay import add_decayed_weights
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.trees import Mask, kernels_only
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["AdamState", "adam", "adamw", "scale_by_adam"]


class AdamState(NamedTuple):
    """State of :func:`scale_by_adam`.

    Attributes:
        count: int32 scalar, the number of updates done.
        mu: like the parameters, at least float32: the moving average of the gradients, m.
        nu: like the parameters, at least float32: the moving average of the squared gradients, v.
        nu_max: like the parameters, at least float32: the largest v so far, or v̂ with the convention "optax";
            None without AMSGrad.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: PyTree
    nu: PyTree
    nu_max: PyTree | None = None


def adam(
    learning_rate: ArrayLike | Schedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike | None = None,
    *,
    amsgrad: bool = False,
    convention: Convention = "optax",
) -> optax.GradientTransformationExtraArgs:
    """Adam, with bias correction and ε outside of the root, as in optax and PyTorch.

    ``m ← β₁·m + (1-β₁)·g``, ``v ← β₂·v + (1-β₂)·g²``, then with ``m̂ = m / (1-β₁ᵗ)`` and ``v̂ = v / (1-β₂ᵗ)``
    ``θ ← θ - lr · m̂ / (√v̂ + ε)``. With ``convention="keras"`` ε is added before the correction, as in the paper's
    section 2: ``θ ← θ - lr · √(1-β₂ᵗ) · m̂ / (√v + ε)``.

    With AMSGrad the denominator never falls: v̂ is replaced by the largest v̂ so far. In the conventions "torch" and
    "keras", v is replaced by the largest v so far, and then corrected.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        eps: ε > 0, may be traced; None for 1e-8 (keras: 1e-7).
        amsgrad: static; whether to keep the maximum.
        convention: static; whose formula. "optax" and "torch" differ only with AMSGrad.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range, or the convention is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adam(0.5)
        >>> updates, _ = optimizer.update(jnp.array([3.0, -1e-3, 0.0]), optimizer.init(jnp.zeros(3)))
        >>> [round(u, 4) + 0.0 for u in updates.tolist()]  # the first step is the sign of the gradient
        [-0.5, 0.5, 0.0]

    Equal to ``optax.adam``, ``optax.amsgrad``, ``torch.optim.Adam`` and ``keras.optimizers.Adam``, by convention.

    References:
        Kingma and Ba, Adam, ICLR 2015, algorithm 1 and section 2.
        Reddi, Kale and Kumar, On the convergence of Adam and beyond, ICLR 2018, algorithm 2 (AMSGrad, uncorrected).
    """
    return optax.chain(
        scale_by_adam(b1, b2, eps, amsgrad=amsgrad, convention=convention), scale_by_learning_rate(learning_rate)
    )


def adamw(
    learning_rate: ArrayLike | Schedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike | None = None,
    weight_decay: ArrayLike | Literal["convention"] | None = "convention",
    *,
    mask: Mask = kernels_only,
    amsgrad: bool = False,
    convention: Convention = "optax",
) -> optax.GradientTransformationExtraArgs:
    """Adam with decoupled weight decay: the decay is no part of the gradient, so it is not rescaled.

    ``θ ← θ - lr · (m̂ / (√v̂ + ε) + λ·θ)``, the first part as in :func:`adam`. PyTorch and Keras compute
    ``θ ← (1 - lr·λ)·θ`` before the step, which is the same up to rounding.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        eps: ε > 0, may be traced; None for 1e-8 (keras: 1e-7).
        weight_decay: λ >= 0, may be traced; None (static) for none; "convention" for 1e-4 (torch: 1e-2, keras: 4e-3).
        mask: static; the leaves that decay, see :mod:`jaxopt_nn.trees`.
        amsgrad: static; whether to keep the maximum.
        convention: static; whose formula, as in :func:`adam`.

    Returns:
        The optimizer. Its ``update`` needs ``params`` if there is weight decay.

    Raises:
        ValueError: a number is out of its range, or the convention is unknown; at ``init``, the mask selects no leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adamw(0.5, weight_decay=0.1)
        >>> params = {"kernel": jnp.ones(()), "bias": jnp.ones(())}
        >>> zeros = {"kernel": jnp.zeros(()), "bias": jnp.zeros(())}
        >>> updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        >>> round(float(updates["kernel"]), 4), round(float(updates["bias"]), 4) + 0.0
        (-0.05, 0.0)

    Differs from ``optax.adamw``, ``torch.optim.AdamW`` and ``keras.optimizers.AdamW`` in the default mask, for every
    convention: kernels only, while they decay every leaf (``trees.every_leaf``).

    References:
        Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019, algorithm 2.
    """
    check_convention(convention)
    if isinstance(weight_decay, str) and weight_decay == "convention":
        weight_decay = {"optax": 1e-4, "torch": 1e-2, "keras": 4e-3}[convention]
    return optax.chain(
        scale_by_adam(b1, b2, eps, amsgrad=amsgrad, convention=convention),
        *([] if weight_decay is None else [add_decayed_weights(weight_decay, mask=mask)]),
        scale_by_learning_rate(learning_rate),
    )


def scale_by_adam(
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike | None = None,
    *,
    amsgrad: bool = False,
    convention: Convention = "optax",
) -> optax.GradientTransformation:
    """Replaces a gradient by ``m̂ / (√v̂ + ε)``: :func:`adam` without the learning rate.

    Args:
        b1, b2, eps, amsgrad, convention: as in :func:`adam`.

    Returns:
        The transform.

    Raises:
        ValueError: as :func:`adam` does.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_adam()
        >>> round(float(transform.update(jnp.array(-7.0), transform.init(jnp.array(0.0)))[0]), 5)
        -1.0
    """
    check_convention(convention)
    check_bool("amsgrad", amsgrad)
    first, second = as_decay("b1", b1), as_decay("b2", b2)
    epsilon = as_number("eps", (1e-7 if convention == "keras" else 1e-8) if eps is None else eps, open_low=True)

    def init(params: Params) -> AdamState:
        maximum = moments_like(params) if amsgrad else None
        return AdamState(jnp.zeros((), jnp.int32), moments_like(params), moments_like(params), maximum)

    def update(updates: PyTree, state: AdamState, params: Params | None = None) -> tuple[PyTree, AdamState]:
        del params
        count = next_count(state.count)

        @cache  # once for all leaves of a dtype
        def corrections(dtype: Any) -> tuple[Any, Any]:
            m_correction, v_correction = (bias_correction(beta, count, dtype) for beta in (first, second))
            if convention == "keras":
                return jnp.sqrt(v_correction) / m_correction, 1
            return 1 / m_correction, 1 / v_correction

        def leaf(g: Array, m: Array, v: Array, largest: Array | None = None) -> tuple[Any, ...]:
            dtype, exact = m.dtype, g.astype(m.dtype)
            m = cast(first.rate, dtype) * m + cast(first.complement, dtype) * exact
            v = cast(second.rate, dtype) * v + cast(second.complement, dtype) * (exact * exact)
            m_scale, v_scale = corrections(dtype)
            corrected = v * v_scale
            if largest is not None and convention == "optax":
                largest = corrected = jnp.maximum(largest, corrected)
            elif largest is not None:
                largest = jnp.maximum(largest, v)
                corrected = largest * v_scale
            update = (m * m_scale / (safe_sqrt(corrected) + cast(epsilon, dtype))).astype(g.dtype)
            return (update, m, v) if largest is None else (update, m, v, largest)

        moments = (state.mu, state.nu) if state.nu_max is None else state[1:]
        updates, *moments = map_leaves(leaf, 1 + len(moments), updates, *moments)
        return updates, AdamState(count, *moments)

    return transform(init, update)
