"""Layers that drop units at random while training."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_key, check_number
from jaxopt_nn.types import Array, ArrayLike, Key, Layer, Params, State

__all__ = ["dropout"]


def dropout(drop_rate: ArrayLike) -> Layer:
    """Inverted dropout: in training each unit is zeroed with probability p and the others scaled by 1/(1−p).

    ``y = x · m / (1 − p)``, ``m ~ Bernoulli(1 − p)``, so ``E[y] = x``; in evaluation ``y = x``.

    Args:
        drop_rate: p, the probability that a unit is *dropped*, in [0, 1); may be traced.

    Returns:
        A layer without parameters; it needs a ``key`` in training.

    Raises:
        ValueError: if ``drop_rate`` is a Python number outside [0, 1), or if ``key`` is None in training.

    References:
        Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014.

    >>> import jax, jax.numpy as jnp
    >>> layer = dropout(0.5)
    >>> y, _ = layer.apply({}, {}, jnp.ones((4, 1000)), train=True, key=jax.random.key(0), weight=None)
    >>> sorted(set(y.ravel().tolist())), abs(float(y.mean()) - 1) < 0.1
    ([0.0, 2.0], True)
    """
    check_number("drop_rate", drop_rate, 0, 1, open_high=True)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key, x
        return {}, {}

    def apply(
        params: Params, state: State, x: Any, *, train: bool, key: Key | None, weight: Array | None
    ) -> tuple[Array, State]:
        del params, weight
        if not train:
            return x, state
        if key is None:
            raise ValueError("key: expected a PRNG key in training, got None")
        check_key("key", key)
        keep_rate = 1 - jnp.asarray(drop_rate, x.dtype)
        # Drawn in a row, the same numbers: see initializers. What draws [32, 10] takes XLA much longer to compile.
        keep = jax.random.bernoulli(key, keep_rate, (x.size,)).reshape(x.shape)
        return jnp.where(keep, x / keep_rate, jnp.zeros_like(x)), state

    return Layer(init, apply, "dropout")
