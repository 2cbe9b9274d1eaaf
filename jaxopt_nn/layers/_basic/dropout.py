"""Layers that drop something at random in training, and nothing in evaluation.

The probability is ``drop_rate``, rounded to a multiple of 2⁻¹⁶ (at most 1 − 2⁻¹⁶). What is kept is scaled by the
rounded rate, so expectations are exact. A mask depends only on the layer's key, so it differs from step to step and
from layer to layer, and a resumed run draws the same masks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn import _ops, trees
from jaxopt_nn._arguments import check_key, check_number
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.layers._combinators.wiring import as_layer
from jaxopt_nn.layers._inputs import check_floating
from jaxopt_nn.trees import Mask
from jaxopt_nn.types import Array, ArrayLike, Key, Layer, Params, State

__all__ = ["drop_connect", "dropout", "spatial_dropout", "stochastic_depth"]

_LEVELS = 2**16


def dropout(drop_rate: ArrayLike) -> Layer:
    """Inverted dropout: in training each unit is zeroed with probability p and the others scaled by 1/(1−p).

    ``y = x · m / (1 − p)``, ``m ~ Bernoulli(1 − p)``, so ``E[y] = x``; in evaluation ``y = x``.

    Args:
        drop_rate: p, the probability that a unit is *dropped*, in [0, 1); may be traced.

    Returns:
        A layer without parameters; it needs a ``key`` in training.

    Raises:
        ValueError: if ``drop_rate`` is a Python number outside [0, 1), or if ``key`` is None in training.
        TypeError: for an input that is not floating-point.

    References:
        Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014.

    >>> import jax, jax.numpy as jnp
    >>> layer = dropout(0.5)
    >>> y, _ = layer.apply({}, {}, jnp.ones((4, 1000)), train=True, key=jax.random.key(0))
    >>> sorted(set(y.ravel().tolist())), abs(float(y.mean()) - 1) < 0.1
    ([0.0, 2.0], True)
    """
    return _dropout(drop_rate, lambda x: x.shape, 1, "dropout")


def spatial_dropout(drop_rate: ArrayLike) -> Layer:
    """Dropout of whole channels: all positions of a channel of an example are dropped together.

    Args:
        drop_rate: probability that a channel is *dropped*, in [0, 1); may be traced.

    Returns:
        A layer ``[N, *spatial, C] -> [N, *spatial, C]`` without parameters; it needs a ``key`` in training.

    Raises:
        ValueError: as :func:`dropout`, and for an input without spatial axes.

    References:
        Tompson et al., "Efficient object localization using convolutional networks", 2015, section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.ones((2, 5, 5, 64))
    >>> y, _ = spatial_dropout(0.5).apply({}, {}, x, train=True, key=jax.random.key(0))
    >>> sorted(set(y.sum((1, 2)).ravel().tolist()))
    [0.0, 50.0]
    """
    return _dropout(drop_rate, lambda x: (x.shape[0], *[1] * (len(x.shape) - 2), x.shape[-1]), 3, "spatial_dropout")


def stochastic_depth(drop_rate: ArrayLike) -> Layer:
    """Dropout of whole examples. As the last layer of a residual branch, it drops the branch for some examples.

    Args:
        drop_rate: probability that an example is *dropped*, in [0, 1); may be traced. It commonly grows linearly with
            depth.

    Returns:
        A layer without parameters; it needs a ``key`` in training.

    Raises:
        ValueError: as :func:`dropout`.

    References:
        Huang et al., "Deep networks with stochastic depth", 2016, equation 2.

    Differs from the paper: what is kept is scaled by 1/(1−p) in training, and not in evaluation. So is torchvision's
    "row" mode.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.layers import dense, residual, serial
    >>> block = residual(serial(dense(5), jax.nn.relu, dense(5), stochastic_depth(0.2)))
    >>> x = jnp.ones((256, 5))
    >>> params, state = block.init(jax.random.key(0), x)
    >>> y, _ = block.apply(params, state, x, train=True, key=jax.random.key(1))
    >>> 0.1 < float((y == x).all(1).mean()) < 0.3
    True
    """
    return _dropout(drop_rate, lambda x: (x.shape[0], *[1] * (len(x.shape) - 1)), 1, "stochastic_depth")


def drop_connect(layer: Layer | Callable[[Any], Any], drop_rate: ArrayLike, mask: Mask = trees.kernels_only) -> Layer:
    """A layer whose kernels lose entries in training: each is zeroed with probability p, the others scaled by 1/(1−p).

    One mask serves all examples of a step. In evaluation the layer is unchanged.

    Args:
        layer: any layer, such as ``dense(64)``.
        drop_rate: p, the probability that an entry is *dropped*, in [0, 1); may be traced.
        mask: which of the layer's parameters (static); ``kernel`` by default.

    Returns:
        A layer with the parameters and state of ``layer``; it needs a ``key`` in training.

    Raises:
        ValueError: as :func:`dropout`; if ``mask`` selects nothing.

    References:
        Wan et al., "Regularization of neural networks using DropConnect", ICML 2013.

    Differs from the paper: all examples of a step share one mask, and evaluation uses the mean weights.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.layers import dense
    >>> layer = drop_connect(dense(1, kernel_init=jax.nn.initializers.ones), 0.5)
    >>> params, _ = layer.init(jax.random.key(0), jnp.ones((1, 1000)))
    >>> y, _ = layer.apply(params, {}, jnp.ones((1, 1000)), train=True, key=jax.random.key(1))
    >>> 0 < abs(float(y[0, 0]) - 1000) < 150
    True
    """
    check_number("drop_rate", drop_rate, 0, 1, open_high=True)
    inner = as_layer(layer)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        params, state = inner.init(key, x)
        if not any(trees.select("mask", mask, params)):
            raise ValueError("mask: expected to select a parameter of the layer, which has none")
        return params, state

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Any, State]:
        if not train:
            return inner.apply(params, state, x, train=train, key=key, weight=weight)
        key = _require_key(key)
        leaves, tree = jax.tree.flatten(params)
        chosen = trees.select("mask", mask, params)
        inner_key, *keys = jax.random.split(key, 1 + sum(chosen))
        dropped = [
            _drop(leaf, drop_rate, keys.pop(), leaf.shape) if is_chosen else leaf
            for leaf, is_chosen in zip(leaves, chosen, strict=True)
        ]
        return inner.apply(jax.tree.unflatten(tree, dropped), state, x, train=train, key=inner_key, weight=weight)

    return Layer(init, apply, "drop_connect")


def _dropout(drop_rate: ArrayLike, mask_shape: Callable[[Any], tuple[int, ...]], rank: int, name: str) -> Layer:
    check_number("drop_rate", drop_rate, 0, 1, open_high=True)

    def check(x: Any) -> None:
        check_floating(x)
        if len(x.shape) < rank:
            expected = "[batch, spatial axes ..., channels]" if rank > 1 else "[batch, ...]"
            raise ValueError(f"expected input {expected}, got shape {list(x.shape)}")

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key
        check(x)
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
        check(x)
        return (_drop(x, drop_rate, _require_key(key), mask_shape(x)) if train else x), state

    return Layer(init, apply, name)


def _require_key(key: Key | None) -> Key:
    if key is None:
        raise ValueError("key: expected a PRNG key in training, got None")
    check_key("key", key)
    return key


def _drop(x: Array, drop_rate: ArrayLike, key: Key, mask_shape: Sequence[int]) -> Array:
    """``x · m / P(m = 1)`` with m Bernoulli, 0 with probability ``drop_rate`` to the nearest multiple of 2⁻¹⁶.

    The scale belongs to the rounded rate, so the expectation is exactly x. Its derivative with respect to ``drop_rate``
    is that of 1/(1 − drop_rate). The largest rounded rate is 1 − 2⁻¹⁶, so no rate below 1 drops everything.

    Args:
        x: what is masked.
        drop_rate: may be traced.
        key: a PRNG key.
        mask_shape: has the rank of ``x``; along an axis of size 1 the mask is shared.
    """
    dtype = compute_dtype(x)
    rate = jnp.asarray(drop_rate, dtype)
    threshold = lax.stop_gradient(jnp.clip(jnp.round(rate * _LEVELS), 0, _LEVELS - 1))
    rate = rate + (threshold / _LEVELS - lax.stop_gradient(rate))
    keep = _ops.random_uint16(key, mask_shape) >= threshold.astype(jnp.uint16)
    scaled = (x.astype(dtype) / (1 - rate)).astype(x.dtype)
    keep = jnp.broadcast_to(keep, x.shape) | jnp.zeros_like(x, bool)  # sharded as x is
    return jnp.where(keep, scaled, jnp.zeros_like(x))
