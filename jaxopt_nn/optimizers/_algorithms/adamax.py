"""AdaMax: Adam with the largest recent gradient in place of the mean square."""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_decay, as_number, bias_correction, next_count
from jaxopt_nn.optimizers._numerics.transform import Convention, check_convention, map_leaves, moments_like, transform
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["AdamaxState", "adamax", "scale_by_adamax"]


class AdamaxState(NamedTuple):
    """State of :func:`scale_by_adamax`.

    Attributes:
        count: int32 scalar, the number of updates done.
        mu: like the parameters, at least float32: the moving average of the gradients, m.
        nu: like the parameters, at least float32: the decayed maximum of the gradients' sizes, u.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: PyTree
    nu: PyTree


def adamax(
    learning_rate: ArrayLike | Schedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike | None = None,
    *,
    convention: Convention = "optax",
) -> optax.GradientTransformationExtraArgs:
    """AdaMax.

    ``m ← β₁·m + (1-β₁)·g``, ``u ← max(β₂·u, |g| + ε)``, then ``θ ← θ - lr · m / ((1-β₁ᵗ) · u)``. With
    ``convention="keras"`` ε is added later: ``u ← max(β₂·u, |g|)``, then ``θ ← θ - lr · m / ((1-β₁ᵗ) · (u + ε))``.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        eps: ε > 0, may be traced; None for 1e-8 (keras: 1e-7).
        convention: static; whose formula. "optax" and "torch" are the same one.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range, or the convention is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adamax(0.5)
        >>> updates, _ = optimizer.update(jnp.array([3.0, -1e-3, 0.0]), optimizer.init(jnp.zeros(3)))
        >>> [round(u, 4) + 0.0 for u in updates.tolist()]
        [-0.5, 0.5, 0.0]

    Equal to ``optax.adamax``, ``torch.optim.Adamax`` and ``keras.optimizers.Adamax``, by convention.

    References:
        Kingma and Ba, Adam, ICLR 2015, algorithm 2 (without ε).
    """
    return optax.chain(scale_by_adamax(b1, b2, eps, convention=convention), scale_by_learning_rate(learning_rate))


def scale_by_adamax(
    b1: ArrayLike = 0.9, b2: ArrayLike = 0.999, eps: ArrayLike | None = None, *, convention: Convention = "optax"
) -> optax.GradientTransformation:
    """Replaces a gradient by ``m̂ / u``: :func:`adamax` without the learning rate.

    Args:
        b1, b2, eps, convention: as in :func:`adamax`.

    Returns:
        The transform.

    Raises:
        ValueError: as :func:`adamax` does.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_adamax()
        >>> round(float(transform.update(jnp.array(-7.0), transform.init(jnp.array(0.0)))[0]), 5)
        -1.0
    """
    check_convention(convention)
    first, second = as_decay("b1", b1), as_decay("b2", b2)
    epsilon = as_number("eps", (1e-7 if convention == "keras" else 1e-8) if eps is None else eps, open_low=True)

    def init(params: Params) -> AdamaxState:
        return AdamaxState(jnp.zeros((), jnp.int32), moments_like(params), moments_like(params))

    def update(updates: PyTree, state: AdamaxState, params: Params | None = None) -> tuple[PyTree, AdamaxState]:
        del params
        count = next_count(state.count)

        @cache  # once for all leaves of a dtype
        def m_scale(dtype: Any) -> Any:
            return 1 / bias_correction(first, count, dtype)

        def leaf(g: Array, m: Array, u: Array) -> tuple[Any, ...]:
            dtype, exact, small = m.dtype, g.astype(m.dtype), cast(epsilon, m.dtype)
            m = cast(first.rate, dtype) * m + cast(first.complement, dtype) * exact
            early, late = (0.0, small) if convention == "keras" else (small, 0.0)
            u = jnp.maximum(cast(second.rate, dtype) * u, jnp.abs(exact) + early)
            return (m * m_scale(dtype) / (u + late)).astype(g.dtype), m, u

        updates, mu, nu = map_leaves(leaf, 3, updates, state.mu, state.nu)
        return updates, AdamaxState(count, mu, nu)

    return transform(init, update)
