"""Theory beside what is measured: how large signals and gradients are in a wide network at initialization."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_nn._arguments import check_number, check_positive_int, shown
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["MeanField", "mean_field"]

_NODES = 128  # an even number: none of them is 0, where ReLU has its kink


class MeanField(NamedTuple):
    """What :func:`mean_field` returns. Layers are those of a chain ``dense → activation → dense → activation → ...``.

    Attributes:
        variance: ``[depth]``, q: the mean square of what enters the activation of each layer, over units and draws.
        gradient: ``[depth]``: the mean square of the gradient of what enters the activation of each layer, in that of
            the last one.
    """

    variance: Array
    gradient: Array


def mean_field(
    activation: Callable[[Array], Array],
    depth: int,
    *,
    gain: ArrayLike,
    bias_variance: ArrayLike = 0.0,
    input_square: ArrayLike = 1.0,
) -> MeanField:
    """The sizes of signals and gradients by layer, in the limit of wide layers of equal width.

    ``q₁ = g² · E[x²] + b``, ``qₗ₊₁ = g² · E[f(√qₗ z)²] + b`` for a standard normal z, and for gradients
    ``sₗ = sₗ₊₁ · g² · E[f'(√qₗ z)²]``. Expectations are by Gauss-Hermite quadrature.

    Args:
        activation: f, elementwise, in JAX; static.
        depth: hidden layers (static, >= 1).
        gain: g >= 0: the standard deviation of a weight times the root of the fan-in. 1 is LeCun, and Xavier where
            widths are equal; the root of 2 is He. May be traced.
        bias_variance: b, >= 0; may be traced.
        input_square: E[x²], the mean square of the features, >= 0; may be traced.

    Returns:
        A :class:`MeanField`. A network that is n wide scatters around it by a factor of about ``√(depth / n)`` in the
        logarithm.

    Raises:
        ValueError, TypeError: a bad argument.

    References:
        Poole et al., "Exponential expressivity in deep neural networks through transient chaos", 2016, eq. 3.
        Schoenholz et al., "Deep information propagation", 2017, eq. 15.
        He et al., "Delving deep into rectifiers", 2015.

    >>> he = mean_field(jax.nn.relu, 50, gain=2**0.5)      # He's rule keeps both
    >>> bool(abs(he.variance - 2).max() < 1e-3), bool(abs(he.gradient - 1).max() < 1e-3)
    (True, True)
    """
    if not callable(activation):
        raise TypeError(f"activation: expected a function of an array, got {shown(activation)}")
    check_positive_int("depth", depth)
    for name, value in (("gain", gain), ("bias_variance", bias_variance), ("input_square", input_square)):
        check_number(name, value, 0.0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    z, share = jnp.asarray(nodes, jnp.float32), jnp.asarray(weights / weights.sum(), jnp.float32)
    slope = jax.vmap(jax.grad(lambda value: jnp.sum(activation(value))))
    power = jnp.square(jnp.asarray(gain, jnp.float32))

    def layer(q: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        at = jnp.sqrt(q) * z
        after = power * jnp.sum(share * jnp.square(activation(at))) + bias_variance
        return after, (q, power * jnp.sum(share * jnp.square(slope(at))))

    start = power * input_square + bias_variance
    _, (variance, factors) = lax.scan(layer, jnp.asarray(start, jnp.float32), length=depth)
    gradient = jnp.cumprod(jnp.append(1.0, factors[-2::-1]) if depth > 1 else jnp.ones(1))[::-1]
    return MeanField(variance, gradient)
