"""Examples that are mixed with others of their batch, and their targets with them.

The partner of an example is the next one in the batch, so it depends on the order and the batch size; how much of it is
mixed in depends on the example alone. An example of weight 0, such as padding, is mixed into no other.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_class_labels, check_number, check_positive_int, shown
from jaxopt_nn.augment._batches import Augment
from jaxopt_nn.augment._erasing import is_in_box
from jaxopt_nn.augment._images import as_floats, check_images, check_numbers, index_below, like
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, ArrayLike, Batch, Key

__all__ = ["cutmix", "mixup"]


def mixup(alpha: ArrayLike = 0.2, *, num_classes: int | None = None) -> Augment:
    """Features and targets as means of two examples: ``λ·a + (1 - λ)·b``, with λ ~ Beta(α, α) for each example.

    Args:
        alpha: α > 0: small ones leave most examples nearly as they are, 1 is uniform; may be traced.
        num_classes: static; of integer labels, which become distributions ``[N, ..., num_classes]``, as
            ``losses.softmax_cross_entropy`` takes them. None if the targets are floats, which are mixed as they are.

    Returns:
        A function ``(batch, keys) -> batch``. An example keeps its weight.

    Raises:
        TypeError: from that function, if labels are integers without ``num_classes``, or no integers with it.
        ValueError: from that function, if a label is out of range, or the batch has one example.

    References:
        Zhang et al., "mixup: beyond empirical risk minimization", 2018, equation 1.

    >>> import jax, jax.numpy as jnp
    >>> batch = Batch(jnp.array([[0.0], [1.0]]), jnp.array([0, 1]))
    >>> mixed = mixup(1.0, num_classes=2)(batch, jax.random.split(jax.random.key(0), 2))
    >>> bool(jnp.allclose(mixed.y[:, 1], mixed.x[:, 0])), bool(jnp.allclose(mixed.y.sum(1), 1.0))
    (True, True)
    """
    _check(alpha, num_classes)

    def augment(batch: Batch, keys: Key) -> Batch:
        for path, leaf in named_leaves(batch.x):
            check_numbers(f"x[{path}]" if path else "x", leaf)
        share = jnp.where(_has_partner("mixup", batch), _shares(keys, alpha), 1)
        x = jax.tree.map(lambda leaf: like(leaf, _mixed(share, as_floats(leaf))), batch.x)
        return batch._replace(x=x, y=_targets("mixup", batch.y, num_classes, share))

    return augment


def cutmix(alpha: ArrayLike = 1.0, *, num_classes: int | None = None) -> Augment:
    """A box of each image is that of another one, and the targets are mixed by its area.

    The box has about the area 1 - λ, λ ~ Beta(α, α), and a centre anywhere in the image; what reaches over the edge is
    cut, and the targets are mixed by what is left.

    Args:
        alpha: α > 0; may be traced.
        num_classes: as in :func:`mixup`.

    Returns:
        A function ``(batch, keys) -> batch``. An example keeps its weight.

    Raises:
        TypeError: as :func:`mixup`; also if the features are no images.
        ValueError: as :func:`mixup`; also for images of another rank.

    References:
        Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", 2019.

    >>> import jax, jax.numpy as jnp
    >>> images = jnp.stack([jnp.zeros((8, 8, 1)), jnp.ones((8, 8, 1))])
    >>> mixed = cutmix(num_classes=2)(Batch(images, jnp.array([0, 1])), jax.random.split(jax.random.key(0), 2))
    >>> bool(jnp.allclose(mixed.y[:, 1], mixed.x.mean((1, 2, 3))))
    True
    """
    _check(alpha, num_classes)

    def augment(batch: Batch, keys: Key) -> Batch:
        check_images(batch.x)
        own = jax.vmap(lambda key: jax.random.split(key))(keys)
        share = _shares(own[:, 0], alpha)
        inside = jax.vmap(lambda key, share: _box(key, share, batch.x.shape[1:]))(own[:, 1], share)
        inside &= _has_partner("cutmix", batch)[:, None, None, None]
        share = 1 - jnp.mean(inside, (1, 2, 3), dtype=jnp.float32)
        x = jnp.where(inside, jnp.roll(batch.x, -1, 0), batch.x)
        return batch._replace(x=x, y=_targets("cutmix", batch.y, num_classes, share))

    return augment


def _check(alpha: ArrayLike, num_classes: int | None) -> None:
    check_number("alpha", alpha, 0.0, open_low=True)
    if num_classes is not None:
        check_positive_int("num_classes", num_classes)


def _shares(keys: Key, alpha: ArrayLike) -> Array:
    a = jnp.asarray(alpha, jnp.float32)
    return jax.vmap(lambda key: jax.random.beta(key, a, a))(keys)


def _has_partner(name: str, batch: Batch) -> Array:
    """Whether the next example counts, in all of its outputs if each has a weight."""
    examples = len(jax.tree.leaves(batch.x)[0])
    if examples < 2:
        raise ValueError(f"{name}: expected batches of at least 2 examples, got {examples}")
    if batch.weight is None:
        return jnp.ones(examples, bool)
    return jnp.roll(jnp.all(batch.weight.reshape(examples, -1) > 0, 1), -1)


def _box(key: Key, share: Array, shape: tuple[int, ...]) -> Array:
    centre = index_below(jax.random.uniform(key, (2,)), jnp.asarray(shape[:2]))
    size = jnp.floor(jnp.sqrt(1 - share) * jnp.asarray(shape[:2], jnp.float32)).astype(jnp.int32)
    top, left = centre - size // 2
    return is_in_box(shape, top, left, size[0], size[1])


def _mixed(share: Array, values: Array) -> Array:
    share = share.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * jnp.roll(values, -1, 0)


def _targets(name: str, y: Any, num_classes: int | None, share: Array) -> Array:
    """The mixed targets: of integer labels distributions."""
    if not hasattr(y, "dtype"):
        raise TypeError(f"{name}: expected targets y that are one array, got {shown(y)}")
    if jnp.issubdtype(y.dtype, jnp.integer):
        if num_classes is None:
            raise TypeError(f"{name}: expected num_classes, to mix integer labels y {y.dtype}{list(y.shape)}, got None")
        check_class_labels(f"{name}: y", y, num_classes)
        y = jax.nn.one_hot(y, num_classes)
    elif not jnp.issubdtype(y.dtype, jnp.floating) or (num_classes is not None and y.shape[-1:] != (num_classes,)):
        wanted = "floats" if num_classes is None else f"integer class labels, or distributions [N, {num_classes}]"
        raise TypeError(f"{name}: expected targets y that are {wanted}, got {y.dtype}{list(y.shape)}")
    return _mixed(share, jnp.asarray(y)).astype(y.dtype)
