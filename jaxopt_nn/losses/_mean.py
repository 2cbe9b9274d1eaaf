"""The weighted mean over examples."""

import jax.numpy as jnp

from jaxopt_nn._arguments import check_weight, plain_array
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn._scale import power_of_two
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["weighted_mean"]


def weighted_mean(per_example: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Mean of losses or metrics of examples: Σ w·ℓ / Σ w, and 0 where Σ w = 0. Only the ratios of weights matter.

    Where a weight is 0, an infinite or NaN ℓ counts as 0, and the gradient with respect to ℓ is exactly 0. (If an
    *output* of the model is NaN, the loss's own gradient still makes 0·NaN of it, so padded rows must hold finite
    numbers.)

    Args:
        per_example: ``[N]``.
        weight: ``[N]``, non-negative and finite, or None if all examples count the same.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: not ``[N]``, or a concrete weight is negative or not finite.

    >>> float(weighted_mean(jnp.array([1.0, 4.0, jnp.nan]), jnp.array([2.0, 1.0, 0.0])))
    2.0
    """
    values = jnp.asarray(plain_array("per_example", per_example))
    if values.ndim != 1:
        raise ValueError(f"per_example: expected one number an example, [N], got {list(values.shape)}")
    values = values.astype(compute_dtype(values))
    if weight is None:
        return jnp.sum(values) / max(values.size, 1)
    weight = plain_array("weight", weight)
    check_weight("weight", weight, values.size)
    w = jnp.asarray(weight)
    w = w.astype(compute_dtype(w))
    w = (w / power_of_two(jnp.max(w, initial=0.0))).astype(values.dtype)
    # Finite values of weight 0 are kept, so that the derivative with respect to such a weight is right.
    values = jnp.where((w == 0) & ~jnp.isfinite(values), 0, values)
    total = jnp.sum(w)
    empty = total == 0
    return jnp.where(empty, 0, jnp.sum(w * values) / jnp.where(empty, 1, total))
