"""Mini-batches inside of a compiled program. An epoch is a table of row numbers; a batch is one row of it."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn.training._devices import take_rows
from jaxopt_nn.types import Array, Batch, Key

__all__ = ["EpochOrder", "count_examples", "count_steps", "epoch_order", "order_of_steps", "take_batch"]

EpochOrder = tuple[Array, Array | None]
"""Row numbers ``[steps, batch_size]``; if the last batch is padded, also weights ``[steps, batch_size]``, 1 or 0."""


def count_examples(batch: Batch) -> int:
    """The length of a batch or data set."""
    return jax.tree.leaves(batch.x)[0].shape[0]


def count_steps(examples: int, batch_size: int, last_batch: str) -> int:
    """Steps in an epoch: rounded up if the last batch is padded, down if it is dropped."""
    if batch_size > examples:
        raise ValueError(f"batch_size: expected at most the number of training examples, {examples}, got {batch_size}")
    return examples // batch_size if last_batch == "drop" else -(-examples // batch_size)


def epoch_order(key: Key, examples: int, batch_size: int, last_batch: str, shuffle: bool) -> EpochOrder:
    """The rows of each batch of one epoch: every row at most once, in an order that the key determines."""
    steps = count_steps(examples, batch_size, last_batch)
    rows = jax.random.permutation(key, examples) if shuffle else jnp.arange(examples)
    missing = steps * batch_size - examples
    if missing <= 0:
        return rows[: steps * batch_size].reshape(steps, batch_size), None
    rows = jnp.concatenate([rows, jnp.zeros(missing, rows.dtype)])
    weights = (jnp.arange(steps * batch_size) < examples).astype(jnp.float32)
    return rows.reshape(steps, batch_size), weights.reshape(steps, batch_size)


def take_batch(data: Batch, rows: Array, padding: Array | None) -> Batch:
    """The given rows of a data set; padding gets the weight 0."""
    batch: Batch = jax.tree.map(lambda leaf: take_rows(jnp.asarray(leaf), rows), data)
    if padding is None:
        return batch
    return batch._replace(weight=pad_weight(batch.weight, padding))


def pad_weight(weight: Array | None, padding: Array) -> Array:
    """Weights ``[N, ...]`` times those of padding, ``[N]`` of 1 and 0."""
    return padding if weight is None else weight * padding.reshape(-1, *(1,) * (weight.ndim - 1))


def order_of_steps(key: Key, examples: int, batch_size: int, last_batch: str, shuffle: bool, steps: int) -> EpochOrder:
    """The rows of the first ``steps`` batches of a run, epoch after epoch."""
    epochs = -(-steps // count_steps(examples, batch_size, last_batch))

    def order(epoch: Array) -> EpochOrder:
        return epoch_order(jax.random.fold_in(key, epoch), examples, batch_size, last_batch, shuffle)

    orders = lax.map(order, jnp.arange(epochs))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1])[:steps], orders)
