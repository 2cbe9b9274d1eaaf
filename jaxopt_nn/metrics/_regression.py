"""How much of the targets a regression explains."""

import jax.numpy as jnp

from jaxopt_nn._arguments import (
    check_weight,
    plain_array,
)
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn._scale import power_of_two
from jaxopt_nn.metrics._arrays import pair, scaled
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["r2_score"]


def r2_score(targets: ArrayLike, outputs: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Coefficient of determination R² = 1 - Σ w·(t - o)² / Σ w·(t - t̄)², averaged over outputs. 1 is best.

    Where targets are constant it is 1 for exact outputs and 0 for all others.

    Args:
        targets: ``[N, ...]``, the truth.
        outputs: ``[N, ...]``, the predictions.
        weight: ``[N]`` non-negative, or None. Rows of weight 0 count nowhere, even if they hold NaN.

    Returns:
        A scalar, float32 (float64 if ``outputs`` are); NaN if all weights are 0.

    Raises:
        ValueError: no examples; shapes differ; a concrete weight is negative or not finite.

    >>> float(r2_score(jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 2.0, 2.0])))
    0.0
    """
    o, t = pair("outputs", outputs, targets)
    if o.shape[0] == 0:
        raise ValueError(f"outputs: expected at least one example, got {list(o.shape)}")
    o, t = o.reshape((o.shape[0], -1)), t.reshape((o.shape[0], -1))
    if weight is None:
        w = jnp.ones((o.shape[0], 1), o.dtype)
    else:
        weight = plain_array("weight", weight)
        check_weight("weight", weight, o.shape[0])
        w = jnp.asarray(weight)
        w = w.astype(compute_dtype(w))
        w = (w / power_of_two(jnp.max(w))).astype(o.dtype)[:, None]
        o, t = jnp.where(w > 0, o, 0), jnp.where(w > 0, t, 0)
    both = jnp.maximum(scaled(o)[1], scaled(t)[1])
    error = t / both - o / both
    # Squares can overflow although their quotient does not, so numbers are first scaled to at most 2.
    t, t_scale = scaled(t)
    t_off = jnp.where(w > 0, t - t[jnp.argmax(w[:, 0] > 0)][None], 0)  # exactly 0 if all targets are equal
    spread, spread_scale = scaled(t_off - (jnp.sum(w * t_off, axis=0) / jnp.sum(w))[None])
    error, error_scale = scaled(error)
    scale = (both / t_scale * (error_scale / spread_scale))[0]
    error, spread = jnp.sum(w * jnp.square(error), axis=0), jnp.sum(w * jnp.square(spread), axis=0)
    constant = spread == 0
    score = 1 - error * scale / jnp.where(constant, 1, spread) * scale  # the square of scale alone might overflow
    return jnp.mean(jnp.where(constant & (error > 0), 0, score))
