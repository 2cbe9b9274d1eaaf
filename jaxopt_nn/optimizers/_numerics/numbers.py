"""Hyperparameters in full precision, and functions with finite derivatives at 0.

A hyperparameter that is a Python or NumPy number stays a double until it is cast, once, to the dtype of the arithmetic.
A traced one is at least float32. So no decay rate becomes a bfloat16 (0.999 would be 1), and no ε a float16 (1e-8 would
be 0).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_number
from jaxopt_nn._dtypes import cast, compute_dtype
from jaxopt_nn.types import Array, ArrayLike

__all__ = [
    "Decay",
    "Number",
    "as_decay",
    "as_number",
    "bias_correction",
    "next_count",
    "safe_divide",
    "safe_rsqrt",
    "safe_sqrt",
]

Number = Any
"""A prepared hyperparameter: a Python float (a double), or a scalar array of at least float32, not weakly typed."""


class Decay(NamedTuple):
    """A decay rate β, with 1 - β and log β, which are computed once, outside of the training loop.

    Attributes:
        rate: β.
        complement: 1 - β. A double if β is one, so no digits are lost; for an array it is exact if β >= 1/2 (Sterbenz).
        log: log β; for an array, a finite number where β is 0.
    """

    rate: Number
    complement: Number
    log: Number


def as_number(
    name: str,
    value: ArrayLike,
    low: float = 0.0,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    whole: bool = False,
) -> Number:
    """Checks that ``value`` is one number within the range, by default 0 or more, and prepares it."""
    check_number(name, value, low, high, open_low=open_low, open_high=open_high, whole=whole)
    if isinstance(value, jax.Array):
        return value.astype(compute_dtype(value))
    return float(np.asarray(value))


def as_decay(name: str, value: ArrayLike) -> Decay:
    """Checks that β lies in [0, 1) and prepares it."""
    rate = as_number(name, value, 0.0, 1.0, open_high=True)
    if isinstance(rate, float):
        return Decay(rate, 1.0 - rate, math.log(rate) if rate > 0.0 else -math.inf)
    # log 2β + log ½ for β up to ½, and log1p(β - 1) above, which loses no digits near 1 on any backend.
    low = jnp.log(2.0 * jnp.clip(rate, jnp.finfo(rate.dtype).tiny, 0.5))
    return Decay(rate, 1.0 - rate, low + jnp.log1p(jnp.maximum(rate, 0.5) - 1.0))


def bias_correction(decay: Decay, count: Array, dtype: Any) -> Any:
    """``1 - β^count`` for ``count >= 1``, without cancellation, and with the right derivative also at β = 0."""
    if isinstance(decay.rate, float) and decay.rate == 0.0:
        return cast(1.0, dtype)
    correction = -jnp.expm1(count.astype(dtype) * cast(decay.log, dtype))
    if isinstance(decay.rate, float):
        return correction
    return jnp.where(count == 1, cast(decay.complement, dtype), correction)


def next_count(count: Array) -> Array:
    """``count + 1``, but the largest int32 does not overflow."""
    return jnp.minimum(count, np.iinfo(np.int32).max - 1) + 1


@jax.custom_jvp
def safe_sqrt(x: Array) -> Array:
    """``√x``, with derivative 0 at 0, where the chain rule would give inf · 0. Costs nothing in the forward pass."""
    return jnp.sqrt(x)


@safe_sqrt.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    root = safe_sqrt(*primals)
    return root, tangents[0] * jnp.where(root == 0, 0.0, 0.5 / jnp.where(root == 0, 1.0, root))


def safe_rsqrt(x: Array) -> Array:
    """``1/√x``, and 0 with derivative 0 at 0; NaN stays NaN."""
    zero = x == 0
    return jnp.where(zero, 0.0, jax.lax.rsqrt(jnp.where(zero, 1.0, x)))


def safe_divide(x: Array, y: Array) -> Array:
    """``x / y``, and 0 with derivative 0 where ``y`` is 0; NaN stays NaN."""
    zero = y == 0
    return jnp.where(zero, 0.0, x / jnp.where(zero, 1.0, y))
