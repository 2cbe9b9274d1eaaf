"""Where the augmentation of a recipe is applied: to each batch of training, before the step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_nn._arguments import shown
from jaxopt_nn.augment import Augment
from jaxopt_nn.augment._batches import example_keys
from jaxopt_nn.training._batches import EpochOrder, count_examples, take_batch
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, Batch, Key

__all__ = ["augmented", "check_augmentation", "training_batch"]


def augmented(augment: Augment | None, batch: Batch, noise_key: Key, epoch: Array | int, rows: Array) -> Batch:
    """The batch of the examples with these numbers, augmented; an augmentation of None is not in the program."""
    return batch if augment is None else _checked(augment, batch, example_keys(noise_key, epoch, rows))


def training_batch(
    augment: Augment | None, train: Batch, order: EpochOrder, noise_key: Key, epoch: Array | int
) -> Batch:
    """The same, of rows of a data set."""
    return augmented(augment, take_batch(train, *order), noise_key, epoch, order[0])


def check_augmentation(augment: Augment | None, batch: Batch) -> None:
    """Raises the errors of an augmentation for targets that are not traced, as labels out of range.

    The features are traced, so nothing is computed.
    """
    if augment is None or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((batch.y, batch.weight))):
        return
    rows = jnp.arange(count_examples(batch))
    targets = jax.tree.map(np.asarray, (batch.y, batch.weight))

    def program(x: Any, key: Key) -> Batch:
        return _checked(augment, Batch(x, *targets), example_keys(key, 0, rows))

    jax.eval_shape(program, batch.x, jax.random.key(0))


def _checked(augment: Augment, batch: Batch, keys: Key) -> Batch:
    new: Any = augment(batch, keys)
    if not isinstance(new, Batch):
        raise TypeError(f"augment: expected it to return a Batch, got {shown(new)}")
    before, after = _types(batch.x), _types(new.x)
    if before != after:
        raise ValueError(f"augment: expected features like those of evaluation, x{before}, got x{after}")
    examples = count_examples(batch)
    for path, leaf in named_leaves((new.y, new.weight)):
        if jnp.shape(leaf)[:1] != (examples,):
            raise ValueError(
                f"augment: expected targets and weights of {examples} examples, got {shown(leaf)} at {path}"
            )
    if batch.weight is not None and new.weight is None:
        raise ValueError("augment: expected the batch's weight, which marks its padding, got None")
    return new


def _types(x: Any) -> dict[str, str]:
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in named_leaves(x)}
