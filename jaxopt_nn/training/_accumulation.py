"""The gradient of a batch, computed from one part after another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.training._batches import count_examples
from jaxopt_nn.training._devices import cast_to_varying, split_rows, varying_axes
from jaxopt_nn.training._programs import is_traced_any
from jaxopt_nn.trees import check_same_structure
from jaxopt_nn.types import Array, Batch, Key, PyTree, State

__all__ = ["accumulate", "split_batch"]

GradientFn = Callable[..., tuple[tuple[Array, tuple[State, dict[str, Array]]], PyTree]]
"""``(params, model_state, batch, key) -> ((loss, (model_state, metrics)), gradient)``."""


def accumulate(gradient_fn: GradientFn, micro_batches: int) -> GradientFn:
    """The same function of a batch, computed in ``micro_batches`` parts with the memory of one part.

    Loss, metrics and gradient are Σ W_i·part_i / Σ W_i, summed in float32 at least. W_i is the sum of the example
    weights of part i, or its length if there are no weights. If the batch cannot be split evenly, the last part is
    filled up with rows of weight 0. A part without weight changes nothing, not even the model state. If no part has any
    weight, all parts count alike: the loss is 0, and a penalty that is added to it keeps its gradient. Part i uses
    ``fold_in(key, i)``.
    """
    if micro_batches == 1:
        return gradient_fn

    def accumulated(params: PyTree, model_state: State, batch: Batch, key: Key) -> Any:
        parts, weights = split_batch(batch, micro_batches)
        total = jnp.sum(weights)
        shares = jnp.where(total == 0, 1 / micro_batches, weights / jnp.where(total == 0, 1.0, total))

        def part(carry: tuple[PyTree, State], inputs: tuple[Array, Batch, Array]) -> tuple[Any, Any]:
            (gradient, model_state), (index, batch, share) = carry, inputs
            value, new = gradient_fn(params, model_state, batch, jax.random.fold_in(key, index))
            loss, (new_state, metrics) = value
            check_same_structure("model_state", model_state, new_state)
            model_state = jax.tree.map(lambda old, new: jnp.where(share == 0, old, new), model_state, new_state)
            gradient = jax.tree.map(lambda sum_, g: sum_ + _weighted(share, g), gradient, new)
            return (gradient, model_state), (
                _weighted(share, loss),
                jax.tree.map(lambda m: _weighted(share, m), metrics),
            )

        zeros = jax.tree.map(_zeros_like, params)
        inputs = (jnp.arange(micro_batches), parts, shares)
        (gradient, model_state), (losses, metrics) = _scan(part, (zeros, model_state), inputs)
        gradient = jax.tree.map(lambda sum_, leaf: sum_.astype(leaf.dtype), gradient, params)
        return (jnp.sum(losses), (model_state, jax.tree.map(lambda m: jnp.sum(m, 0), metrics))), gradient

    return accumulated


def _scan(body: Callable[..., Any], carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
    """``lax.scan``, or a Python loop if nothing is traced: there each ``lax.scan`` would compile ``body`` anew."""
    if is_traced_any((carry, inputs)):
        return lax.scan(body, carry, inputs)
    outputs: list[PyTree] = []
    for index in range(len(jax.tree.leaves(inputs)[0])):
        carry, output = body(carry, jax.tree.map(lambda leaf, index=index: leaf[index], inputs))
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def split_batch(batch: Batch, count: int) -> tuple[Batch, Array]:
    """The parts as a batch of arrays ``[count, size, ...]``, and their weights ``[count]``."""
    examples = count_examples(batch)
    if count > examples:
        raise ValueError(f"micro_batches: expected at most the number of examples in a batch, {examples}, got {count}")
    size = -(-examples // count)
    missing = size * count - examples
    if missing and batch.weight is None:
        batch = batch._replace(weight=jnp.ones(examples, jnp.float32))
    # Filled up with rows of the batch, which give finite values if the batch does. They have weight 0.
    parts = jax.tree.map(lambda leaf: split_rows(jnp.asarray(leaf), count, size), batch)
    if missing:
        is_example = (jnp.arange(count * size) < examples).reshape(count, size)
        is_example = is_example.reshape(*is_example.shape, *(1,) * (parts.weight.ndim - 2))
        parts = parts._replace(weight=jnp.where(is_example, parts.weight, 0))
    if parts.weight is None:
        return parts, jnp.full(count, size, jnp.float32)
    return parts, jnp.sum(parts.weight, tuple(range(1, parts.weight.ndim)))


def _zeros_like(leaf: Array) -> Array:
    return cast_to_varying(jnp.zeros(leaf.shape, compute_dtype(leaf)), varying_axes(leaf))


def _weighted(share: Array, value: Array) -> Array:
    """``share · value``, and 0 where the share is 0, even if the value is NaN."""
    value = value.astype(compute_dtype(value))
    return jnp.where(share == 0, 0, share.astype(value.dtype) * value)
