"""NAdam: Adam that looks ahead, as Nesterov's momentum does."""

import math
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_decay, as_number, bias_correction, next_count, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import Convention, check_convention, map_leaves, moments_like, transform
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["NadamState", "nadam", "scale_by_nadam"]

_LOG_BASE = math.log(0.96)


class NadamState(NamedTuple):
    """State of :func:`scale_by_nadam`.

    Attributes:
        count: int32 scalar, the number of updates done.
        mu: like the parameters, at least float32: the moving average of the gradients, m.
        nu: like the parameters, at least float32: the moving average of the squared gradients, v.
        weight: float scalar (float32, or float64 where x64 is on), what the momenta of all updates have summed up to,
            1 - μ₁·…·μₜ; None in optax's convention, which follows from the count.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: PyTree
    nu: PyTree
    weight: Array | None = None


def nadam(
    learning_rate: ArrayLike | Schedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike | None = None,
    *,
    momentum_decay: ArrayLike | None = None,
    convention: Convention = "optax",
) -> optax.GradientTransformationExtraArgs:
    """NAdam.

    With m and v̂ as in :func:`jaxopt_nn.optimizers.adam`,
    ``θ ← θ - lr · (β₁·m / (1-β₁ᵗ⁺¹) + (1-β₁)·g / (1-β₁ᵗ)) / (√v̂ + ε)``.

    PyTorch and Keras let the momentum grow, ``μₜ = β₁ · (1 - ½ · 0.96^(t·ψ))``, and have
    ``θ ← θ - lr · (μₜ₊₁·m / (1-μ₁·…·μₜ₊₁) + (1-μₜ)·g / (1-μ₁·…·μₜ)) / (√v̂ + ε)``.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        eps: ε > 0, may be traced; None for 1e-8 (keras: 1e-7).
        momentum_decay: ψ >= 0, may be traced; None for 4e-3 (keras: 1). There is none in optax.
        convention: static; whose formula.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range, the convention is unknown, or has no ``momentum_decay``.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = nadam(0.5)
        >>> updates, _ = optimizer.update(jnp.array([3.0, 0.0]), optimizer.init(jnp.zeros(2)))
        >>> [round(u, 4) + 0.0 for u in updates.tolist()]  # -0.5 · (0.9 · 0.1 / 0.19 + 1)
        [-0.7368, 0.0]

    Equal to ``optax.nadam``, ``torch.optim.NAdam`` and ``keras.optimizers.Nadam``, by convention.

    References:
        Dozat, Incorporating Nesterov momentum into Adam, 2016, algorithm 2 (without its β₂ before v̂).
    """
    return optax.chain(
        scale_by_nadam(b1, b2, eps, momentum_decay=momentum_decay, convention=convention),
        scale_by_learning_rate(learning_rate),
    )


def scale_by_nadam(
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike | None = None,
    *,
    momentum_decay: ArrayLike | None = None,
    convention: Convention = "optax",
) -> optax.GradientTransformation:
    """Adam's direction, one momentum step ahead: :func:`nadam` without the learning rate.

    Args:
        b1, b2, eps, momentum_decay, convention: as in :func:`nadam`.

    Returns:
        The transform.

    Raises:
        ValueError: as :func:`nadam` does.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_nadam()
        >>> round(float(transform.update(jnp.array(-7.0), transform.init(jnp.array(0.0)))[0]), 4)
        -1.4737
    """
    check_convention(convention)
    if momentum_decay is not None and convention == "optax":
        raise ValueError(f'momentum_decay: expected None with convention="optax", which has none, got {momentum_decay}')
    first, second = as_decay("b1", b1), as_decay("b2", b2)
    epsilon = as_number("eps", (1e-7 if convention == "keras" else 1e-8) if eps is None else eps, open_low=True)
    growth = as_number(
        "momentum_decay", (1.0 if convention == "keras" else 4e-3) if momentum_decay is None else momentum_decay
    )

    def missing_momentum(count: Array, dtype: Any) -> Any:
        """``1 - μₜ``, which does not cancel."""
        halved = 0.5 * jnp.exp(_LOG_BASE * (count.astype(dtype) * cast(growth, dtype)))
        return cast(first.complement, dtype) + cast(first.rate, dtype) * halved

    def init(params: Params) -> NadamState:
        weight = None if convention == "optax" else jnp.zeros((), jnp.result_type(float))
        return NadamState(jnp.zeros((), jnp.int32), moments_like(params), moments_like(params), weight)

    def update(updates: PyTree, state: NadamState, params: Params | None = None) -> tuple[PyTree, NadamState]:
        del params
        count, weight = next_count(state.count), state.weight
        if weight is not None:
            weight = weight + (1 - weight) * missing_momentum(count, weight.dtype)

        @cache  # once for all leaves of a dtype
        def scales(dtype: Any) -> tuple[Any, Any, Any]:
            v_scale = 1 / bias_correction(second, count, dtype)
            if weight is None:
                m_scale = cast(first.rate, dtype) / bias_correction(first, next_count(count), dtype)
                return m_scale, cast(first.complement, dtype) / bias_correction(first, count, dtype), v_scale
            now, ahead = (missing_momentum(t, weight.dtype) for t in (count, next_count(count)))
            m_scale = (1 - ahead) / (weight + (1 - weight) * ahead)
            return m_scale.astype(dtype), (now / weight).astype(dtype), v_scale

        def leaf(g: Array, m: Array, v: Array) -> tuple[Any, ...]:
            dtype, exact = m.dtype, g.astype(m.dtype)
            m = cast(first.rate, dtype) * m + cast(first.complement, dtype) * exact
            v = cast(second.rate, dtype) * v + cast(second.complement, dtype) * (exact * exact)
            m_scale, g_scale, v_scale = scales(dtype)
            ahead = m_scale * m + g_scale * exact
            return (ahead / (safe_sqrt(v * v_scale) + cast(epsilon, dtype))).astype(g.dtype), m, v

        updates, mu, nu = map_leaves(leaf, 3, updates, state.mu, state.nu)
        return updates, NadamState(count, mu, nu, weight)

    return transform(init, update)
