"""Normalization layers."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_number
from jaxopt_nn.types import Array, ArrayLike, Key, Layer, Params, State

__all__ = ["batch_norm"]


def batch_norm(momentum: ArrayLike = 0.9, epsilon: ArrayLike = 1e-5) -> Layer:
    """Batch normalization over all axes but the last.

    In training ``y = γ (x − μ)/√(σ² + ε) + β`` with the batch's mean and (biased) variance, each example counting by
    its weight; the running statistics follow as ``running ← momentum · running + (1 − momentum) · batch``. In
    evaluation the running statistics take the batch's place. The variance is computed in two passes, in float32 at
    least.

    Args:
        momentum: weight of the *old* running statistic, in [0, 1]; may be traced.
        epsilon: ε, >= 0; may be traced.

    Returns:
        A layer with parameters ``scale`` (γ, ones) and ``bias`` (β, zeros) and state ``mean`` (zeros) and ``var``
        (ones), all ``[features]``.

    References:
        Ioffe & Szegedy, "Batch normalization", 2015, algorithm 1.

    Differs from torch.nn.BatchNorm: ``momentum`` is 1 − torch's, and torch's running variance is the unbiased one.
    Differs from keras.layers.BatchNormalization: momentum .99 and ε 1e-3 there. flax.linen.BatchNorm: momentum .99.

    >>> import jax, jax.numpy as jnp
    >>> layer = batch_norm()
    >>> x = jax.random.normal(jax.random.key(0), (64, 3)) * 5 + 2
    >>> params, state = layer.init(jax.random.key(1), x)
    >>> y, new_state = layer.apply(params, state, x, train=True, key=None, weight=None)
    >>> bool(jnp.all(jnp.abs(y.mean(0)) < 1e-5)), bool(jnp.all(jnp.abs(y.std(0) - 1) < 1e-3))
    (True, True)
    """
    check_number("momentum", momentum, 0, 1)
    check_number("epsilon", epsilon, 0)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key
        if not jnp.issubdtype(x.dtype, jnp.floating) or len(x.shape) < 2:
            raise ValueError(f"expected floating-point [batch, ..., features], got {x.dtype}{list(x.shape)}")
        shape = (x.shape[-1],)
        params = {"scale": jnp.ones(shape, x.dtype), "bias": jnp.zeros(shape, x.dtype)}
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return params, {"mean": jnp.zeros(shape, wide), "var": jnp.ones(shape, wide)}

    def apply(
        params: Params, state: State, x: Any, *, train: bool, key: Key | None, weight: Array | None
    ) -> tuple[Array, State]:
        del key
        if x.shape[-1] != params["scale"].shape[0]:
            raise ValueError(f"expected {params['scale'].shape[0]} features, got shape {list(x.shape)}")
        wide = jnp.promote_types(x.dtype, jnp.float32)
        values = x.astype(wide)
        if train:
            mean, var = _weighted_moments(values, weight)
            decay = jnp.asarray(momentum, wide)
            batch = {"mean": mean, "var": var}
            state = jax.tree.map(lambda old, new: (decay * old + (1 - decay) * new).astype(old.dtype), state, batch)
        else:
            mean, var = state["mean"].astype(wide), state["var"].astype(wide)
        scale = params["scale"].astype(wide) * lax.rsqrt(var + jnp.asarray(epsilon, wide))
        y = (values - _rows(mean, x)) * _rows(scale, x) + _rows(params["bias"].astype(wide), x)
        return y.astype(x.dtype), state

    return Layer(init, apply, "batch_norm")


def _weighted_moments(x: Array, weight: Array | None) -> tuple[Array, Array]:
    """Mean and biased variance over all axes but the last; rows of weight 0 do not exist."""
    axes = tuple(range(x.ndim - 1))
    if weight is None:
        mean = jnp.mean(x, axes)
        return mean, jnp.mean(jnp.square(x - _rows(mean, x)), axes)
    share = jnp.asarray(weight, x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))
    share = share / jnp.maximum(jnp.sum(share) * math.prod(x.shape[1:-1]), jnp.finfo(x.dtype).tiny)
    present = share > 0
    mean = jnp.sum(share * jnp.where(present, x, 0), axes)
    deviation = jnp.where(present, x - _rows(mean, x), 0)
    return mean, jnp.sum(share * jnp.square(deviation), axes)


def _rows(vector: Array, x: Array) -> Array:
    """``vector [features]`` in the rank of ``x``."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
