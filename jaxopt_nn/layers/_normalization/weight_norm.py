"""Weight normalization: a layer's kernels as direction and magnitude."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn import trees
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.layers._combinators.wiring import as_layer
from jaxopt_nn.layers._normalization.moments import unit_of
from jaxopt_nn.trees import Mask
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["weight_norm"]


def weight_norm(layer: Layer, mask: Mask = trees.kernels_only) -> Layer:
    """A layer whose kernels are ``w = g · v/‖v‖``, with a magnitude g for each output (entry of the last axis).

    At ``init`` the layer's own initializer draws v, and g is its norm, so w = v. The gradient of v is orthogonal to v.

    Args:
        layer: any layer.
        mask: which of its parameters (static); ``kernel`` by default.

    Returns:
        A layer with the parameters of ``layer``, in which each selected parameter is replaced by a dictionary of
        ``direction`` (v, of the same shape) and ``magnitude`` (g, of the last axis's size). The default mask of
        penalties selects neither. To penalize ‖w‖², which is ‖g‖², pass the mask ``"*/magnitude"``.

    Raises:
        ValueError: if ``mask`` selects nothing.

    References:
        Salimans and Kingma, "Weight normalization", 2016, equation 2.

    Differs from torch.nn.utils.parametrizations.weight_norm for transposed convolutions, where the magnitudes here are
    those of the outputs too.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.layers import dense
    >>> params, _ = weight_norm(dense(3)).init(jax.random.key(0), jnp.ones((8, 5)))
    >>> params["kernel"]["direction"].shape, params["kernel"]["magnitude"].shape
    ((5, 3), (3,))
    """
    inner = as_layer(layer)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        params, state = inner.init(key, x)
        leaves, tree = jax.tree.flatten(params)
        chosen = trees.select("mask", mask, params)
        if not any(chosen):
            raise ValueError("mask: expected to select a parameter of the layer, which has none")
        return jax.tree.unflatten(
            tree, [_split(leaf) if is_chosen else leaf for leaf, is_chosen in zip(leaves, chosen, strict=True)]
        ), state

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Any, State]:
        params = jax.tree.map(lambda leaf: _recombined(leaf) if _is_split(leaf) else leaf, params, is_leaf=_is_split)
        return inner.apply(params, state, x, train=train, key=key, weight=weight)

    return Layer(init, apply, "weight_norm")


def _split(kernel: Array) -> dict[str, Array]:
    unit, _, square = _scaled_and_square_norm(kernel)
    return {"direction": kernel, "magnitude": (unit * jnp.sqrt(square)).astype(kernel.dtype).reshape(-1)}


def _is_split(node: Any) -> bool:
    return isinstance(node, dict) and node.keys() == {"direction", "magnitude"}


def _recombined(parts: dict[str, Array]) -> Array:
    direction, magnitude = parts["direction"], parts["magnitude"]
    _, scaled, square = _scaled_and_square_norm(direction)
    # A direction of zeros gives a kernel of zeros, and no NaN in the gradient.
    square = jnp.where(square == 0, 1, square)
    scale = magnitude.astype(square.dtype).reshape(square.shape) * lax.rsqrt(square)
    return (scaled * scale).astype(direction.dtype)


def _scaled_and_square_norm(kernel: Array) -> tuple[Array, Array, Array]:
    """A unit, the kernel in this unit, and the sum of its squares over all axes but the last, in float32 at least."""
    exact, axes = kernel.astype(compute_dtype(kernel)), tuple(range(kernel.ndim - 1))
    unit = unit_of(exact, axes)
    scaled = exact * (1 / unit)
    return unit, scaled, jnp.sum(jnp.square(scaled), axes, keepdims=True)
