"""RAdam: Adam that uses the adaptive rate only when its mean square is reliable."""

from functools import cache
from typing import Any

import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._algorithms.adam import AdamState
from jaxopt_nn.optimizers._numerics.numbers import Decay, as_decay, as_number, bias_correction, next_count, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import Convention, check_convention, map_leaves, moments_like, transform
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["radam", "scale_by_radam"]

# L(y)/y = (coth(y) - 1/y)/y as a power series in y², its last coefficient first; up to y = 1/4 it is all of a double.
_LANGEVIN = (4 / 18243225, -1382 / 638512875, 2 / 93555, -1 / 4725, 2 / 945, -1 / 45, 1 / 3)


def radam(
    learning_rate: ArrayLike | Schedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    *,
    threshold: ArrayLike = 5.0,
    convention: Convention = "optax",
) -> optax.GradientTransformationExtraArgs:
    """RAdam, rectified Adam.

    With m̂ and v̂ as in :func:`jaxopt_nn.optimizers.adam`, ``ρ∞ = 2/(1-β₂) - 1`` and ``ρₜ = ρ∞ - 2t·β₂ᵗ/(1-β₂ᵗ)``:
    ``θ ← θ - lr · r·m̂ / (√v̂ + ε)`` with ``r² = (ρₜ-4)·(ρₜ-2)·ρ∞ / ((ρ∞-4)·(ρ∞-2)·ρₜ)`` from ``ρₜ = 5`` on, and
    ``θ ← θ - lr · m̂`` before. With ``convention="torch"`` ε is added before the correction:
    ``θ ← θ - lr · r·√(1-β₂ᵗ)·m̂ / (√v + ε)``.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced. Up to 2/3, ρₜ never reaches 5.
        eps: ε > 0; may be traced.
        threshold: the ρₜ at which the adaptive rate begins, >= 4, may be traced; in PyTorch always 5.
        convention: static; whose formula, "optax" or "torch" (Keras has no RAdam).

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range, or the convention is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = radam(0.5)
        >>> updates, _ = optimizer.update(jnp.array([3.0, 0.0]), optimizer.init(jnp.zeros(2)))
        >>> [round(u, 4) + 0.0 for u in updates.tolist()]  # the first five steps have no denominator
        [-1.5, 0.0]

    Equal to ``optax.radam`` and ``torch.optim.RAdam``, by convention; ρₜ is computed without cancellation, which in
    float32 would start the adaptive rate too early or too late if β₂ is near 1.

    References:
        Liu et al., On the variance of the adaptive learning rate and beyond, ICLR 2020, algorithm 2 (threshold 4,
        without ε).
    """
    return optax.chain(
        scale_by_radam(b1, b2, eps, threshold=threshold, convention=convention), scale_by_learning_rate(learning_rate)
    )


def scale_by_radam(
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    *,
    threshold: ArrayLike = 5.0,
    convention: Convention = "optax",
) -> optax.GradientTransformation:
    """Replaces a gradient by ``r·m̂ / (√v̂ + ε)``, at first by m̂: :func:`radam` without the learning rate.

    Args:
        b1, b2, eps, threshold, convention: as in :func:`radam`.

    Returns:
        The transform. Its state is an :class:`AdamState`.

    Raises:
        ValueError: as :func:`radam` does.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_radam()
        >>> round(float(transform.update(jnp.array(-7.0), transform.init(jnp.array(0.0)))[0]), 4)
        -7.0
    """
    check_convention(convention, "optax", "torch")
    first, second = as_decay("b1", b1), as_decay("b2", b2)
    epsilon, start = as_number("eps", eps, open_low=True), as_number("threshold", threshold, 4.0)

    def init(params: Params) -> AdamState:
        return AdamState(jnp.zeros((), jnp.int32), moments_like(params), moments_like(params))

    def update(updates: PyTree, state: AdamState, params: Params | None = None) -> tuple[PyTree, AdamState]:
        del params
        count = next_count(state.count)

        @cache  # once for all leaves of a dtype
        def scales(dtype: Any) -> tuple[Any, Any, Any, Any]:
            m_scale, v_correction = 1 / bias_correction(first, count, dtype), bias_correction(second, count, dtype)
            rectifies, rectification = _rectification(second, count, cast(start, dtype), dtype)
            if convention == "torch":
                return rectifies, m_scale, m_scale * rectification * jnp.sqrt(v_correction), 1
            return rectifies, m_scale, m_scale * rectification, 1 / v_correction

        def leaf(g: Array, m: Array, v: Array) -> tuple[Any, ...]:
            dtype, exact = m.dtype, g.astype(m.dtype)
            m = cast(first.rate, dtype) * m + cast(first.complement, dtype) * exact
            v = cast(second.rate, dtype) * v + cast(second.complement, dtype) * (exact * exact)
            rectifies, plain, rectified, v_scale = scales(dtype)
            adaptive = m * rectified / (safe_sqrt(v * v_scale) + cast(epsilon, dtype))
            return jnp.where(rectifies, adaptive, m * plain).astype(g.dtype), m, v

        updates, mu, nu = map_leaves(leaf, 3, updates, state.mu, state.nu)
        return updates, AdamState(count, mu, nu)

    return transform(init, update)


def _rectification(decay: Decay, count: Array, start: Any, dtype: Any) -> tuple[Array, Array]:
    """Whether ``ρₜ`` has reached the threshold, and r, or 1 if it has not.

    With ``x = -log β₂``, ``2/(1-β) - 1 = coth(x/2)`` and ``2β/(1-β) = coth(x/2) - 1``. So ``ρₜ = coth(x/2) -
    t·(coth(tx/2) - 1)``: a small difference of large numbers, both near 2/x. With L(y) = coth(y) - 1/y, which lies
    between 0 and 1, it is ``L(x/2) + t·(1 - L(tx/2))``, a sum.
    """
    t, half = count.astype(dtype), jnp.asarray(-0.5 * cast(decay.log, dtype))
    length = 1 - _langevin_gap(half) + t * _langevin_gap(t * half)
    longest = 2 / cast(decay.complement, dtype) - 1
    rectifies = (length >= start) & (longest > 4)
    # The argument of the root needs a derivative also where it is not used.
    length, longest = jnp.where(rectifies, length, 5.0), jnp.where(rectifies, longest, 5.0)
    square = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return rectifies, safe_sqrt(square)


def _langevin_gap(y: Array) -> Array:
    """``1 - L(y)`` for ``y >= 0``, where ``L(y) = coth(y) - 1/y``."""
    small = y < 0.25
    low, high = jnp.where(small, y, 0.0), jnp.where(small, 1.0, y)
    square, series = low * low, jnp.zeros_like(low)
    for coefficient in _LANGEVIN:
        series = series * square + coefficient
    # Above 20 the exponential no longer matters, and further up its derivative would be inf / inf.
    return jnp.where(small, 1 - low * series, 1 / high - 2 / jnp.expm1(2 * jnp.minimum(high, 20.0)))
