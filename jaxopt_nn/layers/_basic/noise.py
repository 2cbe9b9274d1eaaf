"""Noise in training."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_key, check_number
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.layers._inputs import check_floating
from jaxopt_nn.types import Array, ArrayLike, Key, Layer, Params, State

__all__ = ["gaussian_noise"]


def gaussian_noise(stddev: ArrayLike) -> Layer:
    """Adds normal noise in training: ``y = x + σ·n``, ``n ~ N(0, 1)`` for each entry; in evaluation ``y = x``.

    Args:
        stddev: σ, >= 0; may be traced.

    Returns:
        A layer without parameters; it needs a ``key`` in training.

    Raises:
        ValueError: if ``stddev`` is negative, or ``key`` None in training.
        TypeError: for an input that is not floating-point.

    References:
        Bishop, "Training with noise is equivalent to Tikhonov regularization", 1995.

    >>> import jax, jax.numpy as jnp
    >>> y, _ = gaussian_noise(0.5).apply({}, {}, jnp.ones((8, 512)), train=True, key=jax.random.key(0))
    >>> bool(abs(y.mean() - 1) < 0.05), bool(abs(y.std() - 0.5) < 0.05)
    (True, True)
    """
    check_number("stddev", stddev, 0)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key
        check_floating(x)
        return {}, {}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Array, State]:
        del params, weight
        check_floating(x)
        if not train:
            return x, state
        if key is None:
            raise ValueError("key: expected a PRNG key in training, got None")
        check_key("key", key)
        noise = jax.random.normal(key, x.shape, compute_dtype(x))
        return (x + jnp.asarray(stddev, noise.dtype) * noise).astype(x.dtype), state

    return Layer(init, apply, "gaussian_noise")
