"""The gradient of a batch, from parts of it one after another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn.training.batches import count_examples
from jaxopt_nn.types import Array, Batch, Key, PyTree, State

__all__ = ["accumulate"]

GradientFn = Callable[..., tuple[tuple[Array, tuple[State, dict[str, Array]]], PyTree]]
"""``(params, model_state, batch, key) -> ((loss, (model_state, metrics)), gradient)``."""


def accumulate(gradient_fn: GradientFn, micro_batches: int) -> GradientFn:
    """The same function, of a batch in ``micro_batches`` parts: the memory is that of one part.

    With W_i the sum of the example weights of part i (its length, where there are none), loss, metrics and gradient are
    Σ W_i·part_i / Σ W_i, summed in float32 at least. Where the parts cannot be of one length, the last is filled up
    with rows of weight 0. A part without weight counts nothing. Part i uses ``fold_in(key, i)``.
    """
    if micro_batches == 1:
        return gradient_fn

    def accumulated(params: PyTree, model_state: State, batch: Batch, key: Key) -> Any:
        parts, weights = _split(batch, micro_batches)
        total = jnp.sum(weights)
        shares = weights / jnp.where(total == 0, 1.0, total)

        def part(carry: tuple[PyTree, State], inputs: tuple[Array, Batch, Array]) -> tuple[Any, Any]:
            (gradient, model_state), (index, batch, share) = carry, inputs
            value, new = gradient_fn(params, model_state, batch, jax.random.fold_in(key, index))
            loss, (model_state, metrics) = value
            gradient = jax.tree.map(lambda sum_, g: sum_ + _weighted(share, g), gradient, new)
            return (gradient, model_state), (
                _weighted(share, loss),
                jax.tree.map(lambda m: _weighted(share, m), metrics),
            )

        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, _wide(leaf)), params)
        inputs = (jnp.arange(micro_batches), parts, shares)
        (gradient, model_state), (losses, metrics) = lax.scan(part, (zeros, model_state), inputs)
        gradient = jax.tree.map(lambda sum_, leaf: sum_.astype(leaf.dtype), gradient, params)
        return (jnp.sum(losses), (model_state, jax.tree.map(lambda m: jnp.sum(m, 0), metrics))), gradient

    return accumulated


def _split(batch: Batch, count: int) -> tuple[Batch, Array]:
    """The parts as a batch of arrays ``[count, size, ...]``, and their weights ``[count]``."""
    examples = count_examples(batch)
    if count > examples:
        raise ValueError(f"micro_batches: expected at most the number of examples in a batch, {examples}, got {count}")
    size = -(-examples // count)
    missing = size * count - examples
    if missing:
        weight = jnp.ones(examples, jnp.float32) if batch.weight is None else batch.weight
        # Rows of the batch itself: whatever is computed of them is finite if the batch is, and counts nothing.
        batch = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:missing]]), batch)
        batch = batch._replace(weight=jnp.concatenate([weight, jnp.zeros(missing, weight.dtype)]))
    parts = jax.tree.map(lambda leaf: leaf.reshape(count, size, *leaf.shape[1:]), batch)
    return parts, jnp.full(count, size, jnp.float32) if parts.weight is None else jnp.sum(parts.weight, 1)


def _weighted(share: Array, value: Array) -> Array:
    """``share · value``, and 0 where the share is: a part that counts nothing may be NaN."""
    value = value.astype(_wide(value))
    return jnp.where(share == 0, 0, share.astype(value.dtype) * value)


def _wide(leaf: Array) -> Any:
    return jnp.promote_types(leaf.dtype, jnp.float32)
