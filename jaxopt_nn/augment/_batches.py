"""What an augmentation is, and how several become one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import shown
from jaxopt_nn.trees import takes
from jaxopt_nn.types import Array, Batch, Key

__all__ = ["Augment", "chain", "check_augment", "example_keys", "of_features", "per_example"]

Augment = Callable[[Batch, Key], Batch]
"""``(batch, keys) -> batch``; ``keys [N]`` are PRNG keys, one for each example."""

_TAG = 2**32 - 1  # no step has this number, so its key is that of no step


def chain(*augments: Augment) -> Augment:
    """One augmentation after another.

    Each has keys of its own, which depend on its place: what is added at the end changes nothing before it.

    Args:
        augments: functions ``(batch, keys) -> batch``.

    Returns:
        A function ``(batch, keys) -> batch``.

    Raises:
        TypeError: one of them is no such function.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.augment import chain, random_feature_dropout, random_noise
    >>> both = chain(random_noise(0.1), random_feature_dropout(0.5))
    >>> batch = both(Batch(jnp.ones((2, 100)), jnp.zeros(2)), jax.random.split(jax.random.key(0), 2))
    >>> 20 < int((batch.x[0] == 0).sum()) < 80
    True
    """
    for index, augment in enumerate(augments):
        check_augment(f"augments[{index}]", augment)

    def chained(batch: Batch, keys: Key) -> Batch:
        # One draw of all the keys.
        own = jax.vmap(lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(augments))))(keys)
        for index, augment in enumerate(augments):
            batch = augment(batch, own[:, index])
        return batch

    return chained


def per_example(function: Callable[[Batch, Key], Batch]) -> Augment:
    """An augmentation from a function of one example, features and targets.

    Args:
        function: ``(example, key) -> example``, of a ``Batch`` without the axis of examples, and one key.

    Returns:
        A function ``(batch, keys) -> batch``.

    Raises:
        TypeError: it is no function of two arguments.

    An image and its mask are flipped together:

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.augment import flip_left_right, per_example
    >>> def flip_both(example, key):
    ...     flip = jax.random.bernoulli(key)
    ...     return jax.tree.map(lambda image: jnp.where(flip, flip_left_right(image), image), example)
    >>> images = jnp.arange(8.0).reshape(2, 2, 2, 1)
    >>> batch = per_example(flip_both)(Batch(images, images), jax.random.split(jax.random.key(0), 2))
    >>> bool((batch.x == batch.y).all())
    True
    """
    if not callable(function) or not takes(function, None, None):
        raise TypeError(f"function: expected a function (example, key) -> example, got {shown(function)}")
    return lambda batch, keys: jax.vmap(function)(batch, keys)


def of_features(check: Callable[[Any], None], function: Callable[[Key, Array], Array]) -> Augment:
    """An augmentation that changes the features of each example alone, by ``(key, features) -> features``."""

    def augment(batch: Batch, keys: Key) -> Batch:
        check(batch.x)
        return batch._replace(x=jax.vmap(function)(keys, batch.x))

    return augment


def example_keys(key: Key, epoch: Array | int, rows: Array) -> Key:
    """The keys of examples: each depends on the key of the noise, the epoch and the number of the example alone.

    They are keys of Threefry, whatever generator ``key`` is of: under ``vmap`` another one may draw numbers that depend
    on the other examples.
    """
    words = jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, _TAG), epoch)).reshape(-1)[:2]
    key = jax.random.wrap_key_data(words, impl="threefry2x32")
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def check_augment(name: str, augment: Any) -> None:
    """Raises ``TypeError`` unless ``augment`` is a function of a batch and keys."""
    if not callable(augment) or not takes(augment, None, None):
        raise TypeError(
            f"{name}: expected a function (batch, keys) -> batch, as augment.random_crop(2), got {shown(augment)}"
        )
