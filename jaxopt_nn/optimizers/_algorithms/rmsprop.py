"""RMSProp: a gradient over the root of a moving average of its square, or of its variance (centered)."""

from typing import Any, NamedTuple

import optax

from jaxopt_nn._arguments import check_bool
from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._algorithms.sgd import add_momentum
from jaxopt_nn.optimizers._numerics.numbers import as_decay, as_number, safe_divide, safe_rsqrt, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import Convention, check_convention, map_leaves, moments_like, transform
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["RmsState", "rmsprop", "scale_by_rms"]


class RmsState(NamedTuple):
    """State of :func:`scale_by_rms`.

    Attributes:
        nu: like the parameters, at least float32: the moving average of the squared gradients, or of the gradients'
            variance if centered.
        mu: like the parameters, at least float32: the moving average of the gradients; None if not centered.
    """

    nu: PyTree
    mu: PyTree | None


def rmsprop(
    learning_rate: ArrayLike | Schedule,
    decay: ArrayLike | None = None,
    eps: ArrayLike | None = None,
    *,
    centered: bool = False,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    convention: Convention = "optax",
) -> optax.GradientTransformationExtraArgs:
    """RMSProp, with ε inside of the root, as in optax and Keras.

    ``v ← ρ·v + (1-ρ)·g²``, then ``θ ← θ - lr · g / √(v + ε)``. Centered, the root is ``√(v - m² + ε)`` with
    ``m ← ρ·m + (1-ρ)·g``. With momentum, steps are summed: ``s ← μ·s + lr · g / √(…)``, then ``θ ← θ - s``.

    With ``convention="torch"`` ε is outside of the root, ``√v + ε`` or ``√(v - m²) + ε``, and the learning rate outside
    of the sum: ``s ← μ·s + g / (…)``, then ``θ ← θ - lr · s``.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        decay: ρ, in [0, 1), may be traced; None for 0.9 (torch, where it is called α: 0.99).
        eps: ε >= 0, may be traced; None for 1e-8 (keras: 1e-7).
        centered: static; whether to divide by the standard deviation.
        momentum: μ, in [0, 1), may be traced; None (static) for none, and no state.
        nesterov: static; whether the momentum looks ahead, which only optax has.
        convention: static; whose formula.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range, ``nesterov`` is asked for without momentum or in a convention that has
            none, or the convention is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = rmsprop(1.0, decay=0.75, eps=0.0)
        >>> updates, _ = optimizer.update(jnp.array(3.0), optimizer.init(jnp.array(0.0)))
        >>> round(float(updates), 5)  # 3 / √(9/4)
        -2.0

    Equal to ``optax.rmsprop``, ``torch.optim.RMSprop`` and ``keras.optimizers.RMSprop``, by convention; the centered
    variance is computed without the cancellation that makes ``v - m²`` negative.

    References:
        Hinton, Neural networks for machine learning, lecture 6e.
        Graves, Generating sequences with recurrent neural networks, 2013, equation 40 (centered).
    """
    scaled = scale_by_rms(decay, eps, centered=centered, convention=convention)
    check_bool("nesterov", nesterov)
    if nesterov and momentum is None:
        raise ValueError("nesterov: expected False without momentum, got True")
    if nesterov and convention != "optax":
        raise ValueError(f'nesterov: expected False with convention="{convention}", which has none, got True')
    if momentum is None:
        return optax.chain(scaled, scale_by_learning_rate(learning_rate))
    links = [scale_by_learning_rate(learning_rate), add_momentum(momentum, nesterov=nesterov)]
    return optax.chain(scaled, *(reversed(links) if convention == "torch" else links))


def scale_by_rms(
    decay: ArrayLike | None = None,
    eps: ArrayLike | None = None,
    *,
    centered: bool = False,
    convention: Convention = "optax",
) -> optax.GradientTransformation:
    """Divides a gradient by the root of its moving mean square: :func:`rmsprop` without learning rate and momentum.

    Args:
        decay: ρ, in [0, 1), may be traced; None for 0.9 (torch: 0.99).
        eps: ε >= 0, inside of the root (torch: outside), may be traced; None for 1e-8 (keras: 1e-7).
        centered: static; whether to divide by the standard deviation.
        convention: static; whose formula.

    Returns:
        The transform.

    Raises:
        ValueError: a number is out of its range, or the convention is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_rms(decay=0.75, eps=0.0)
        >>> round(float(transform.update(jnp.array(3.0), transform.init(jnp.array(0.0)))[0]), 5)
        2.0
    """
    check_convention(convention)
    check_bool("centered", centered)
    rho = as_decay("decay", (0.99 if convention == "torch" else 0.9) if decay is None else decay)
    epsilon = as_number("eps", (1e-7 if convention == "keras" else 1e-8) if eps is None else eps)

    def init(params: Params) -> RmsState:
        return RmsState(moments_like(params), moments_like(params) if centered else None)

    def scaled(g: Array, exact: Array, nu: Array) -> Array:
        small = cast(epsilon, nu.dtype)
        if convention == "torch":
            return safe_divide(exact, safe_sqrt(nu) + small).astype(g.dtype)
        return (exact * safe_rsqrt(nu + small)).astype(g.dtype)

    def leaf(g: Array, nu: Array) -> tuple[Any, ...]:
        exact, beta, share = g.astype(nu.dtype), cast(rho.rate, nu.dtype), cast(rho.complement, nu.dtype)
        nu = beta * nu + share * (exact * exact)
        return scaled(g, exact, nu), nu

    def centered_leaf(g: Array, variance: Array, mu: Array) -> tuple[Any, ...]:
        exact, beta, share = g.astype(mu.dtype), cast(rho.rate, mu.dtype), cast(rho.complement, mu.dtype)
        # Equal to v - m², since m₀ = 0, but a sum of squares: it can neither cancel nor be negative.
        variance = beta * (variance + share * (exact - mu) ** 2)
        return scaled(g, exact, variance), variance, beta * mu + share * exact

    def update(updates: PyTree, state: RmsState, params: Params | None = None) -> tuple[PyTree, RmsState]:
        del params
        if centered:
            updates, nu, mu = map_leaves(centered_leaf, 3, updates, state.nu, state.mu)
            return updates, RmsState(nu, mu)
        updates, nu = map_leaves(leaf, 2, updates, state.nu)
        return updates, RmsState(nu, None)

    return transform(init, update)
