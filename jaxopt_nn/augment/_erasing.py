"""Parts of an example that are taken away."""

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_number, concrete_number
from jaxopt_nn.augment._batches import Augment, of_features
from jaxopt_nn.augment._images import (
    between,
    check_image,
    check_images,
    check_numbers,
    check_probability,
    happens,
    index_below,
)
from jaxopt_nn.types import Array, ArrayLike, Key

__all__ = ["cutout", "erase", "is_in_box", "random_erasing", "random_feature_dropout"]


def erase(
    image: Array, top: ArrayLike, left: ArrayLike, height: ArrayLike, width: ArrayLike, value: ArrayLike = 0
) -> Array:
    """The image with a box of one value.

    Args:
        image: ``[H, W, channels]``.
        top, left, height, width: the box, in pixels, which may be traced; what is outside of the image is left out.
        value: in the image's unit; may be traced.

    >>> erase(jnp.ones((2, 3, 1)), 0, 1, 1, 5)[..., 0].tolist()
    [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """
    check_image(image)
    inside = is_in_box(image.shape, top, left, height, width)
    return jnp.where(inside, jnp.asarray(value, image.dtype), image)


def cutout(size: ArrayLike, value: ArrayLike = 0) -> Augment:
    """:func:`erase` of a square whose centre is anywhere in the image, so that it may reach over the edge.

    Args:
        size: of the square, in pixels, >= 0; may be traced.
        value: what it is filled with, in the images' unit; may be traced.

    References:
        DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
    """
    check_number("size", size, 0, whole=True)
    check_number("value", value)

    def augment(key: Key, image: Array) -> Array:
        centre = index_below(jax.random.uniform(key, (2,)), jnp.asarray(image.shape[:2]))
        length = jnp.asarray(size).astype(jnp.int32)
        top, left = centre - length // 2
        return erase(image, top, left, length, length, value)

    return of_features(check_images, augment)


def random_erasing(
    probability: ArrayLike = 0.5,
    *,
    min_area: ArrayLike = 0.02,
    max_area: ArrayLike = 0.33,
    max_aspect: ArrayLike = 3.3,
    value: ArrayLike = 0,
) -> Augment:
    """:func:`erase` of a random box, in some images.

    Args:
        probability: in [0, 1].
        min_area, max_area: the box's area, as a fraction of the image's.
        max_aspect: the box's aspect ratio is between this, >= 1, and its inverse, uniform in the logarithm.
        value: what it is filled with, in the images' unit.

    All numbers may be traced. A box that is larger than the image is cut.

    References:
        Zhong et al., "Random erasing data augmentation", 2017, algorithm 1.
    """
    check_probability(probability)
    check_number("min_area", min_area, 0.0, 1.0)
    check_number("max_area", max_area, 0.0, 1.0)
    least, most = concrete_number(min_area), concrete_number(max_area)
    if least is not None and most is not None and least > most:
        raise ValueError(f"min_area: expected at most max_area, {most:g}, got {least:g}")
    check_number("max_aspect", max_aspect, 1.0)
    check_number("value", value)

    def augment(key: Key, image: Array) -> Array:
        draws, limit = jax.random.uniform(key, (5,)), jnp.log(jnp.asarray(max_aspect, jnp.float32))
        sizes = image.shape[:2]
        area = between(draws[0], min_area, max_area) * (sizes[0] * sizes[1])
        stretch = jnp.exp(between(draws[1], -limit, limit) / 2)
        height = jnp.minimum(jnp.round(jnp.sqrt(area) / stretch), sizes[0])
        width = jnp.minimum(jnp.round(jnp.sqrt(area) * stretch), sizes[1])
        top, left = index_below(draws[2], sizes[0] - height + 1), index_below(draws[3], sizes[1] - width + 1)
        return jnp.where(happens(draws[4], probability), erase(image, top, left, height, width, value), image)

    return of_features(check_images, augment)


def random_feature_dropout(drop_rate: ArrayLike, value: ArrayLike = 0) -> Augment:
    """Each number of an example is replaced with probability ``drop_rate``; the others stay as they are.

    For tables: a model that is trained like this can do without some of the features.

    Args:
        drop_rate: in [0, 1]; may be traced.
        value: the replacement, 0 for the mean of standardized features; may be traced.
    """
    check_number("drop_rate", drop_rate, 0.0, 1.0)
    check_number("value", value)

    def augment(key: Key, x: Array) -> Array:
        return jnp.where(happens(jax.random.uniform(key, x.shape), drop_rate), jnp.asarray(value, x.dtype), x)

    return of_features(lambda x: check_numbers("x", x), augment)


def is_in_box(shape: tuple[int, ...], top: ArrayLike, left: ArrayLike, height: ArrayLike, width: ArrayLike) -> Array:
    """Which numbers of an image of this shape are in the box."""

    def inside(axis: int, start: ArrayLike, length: ArrayLike) -> Array:
        places = jax.lax.broadcasted_iota(jnp.float32, shape, axis)
        start = jnp.asarray(start).astype(jnp.float32)
        return (places >= start) & (places < start + jnp.asarray(length).astype(jnp.float32))

    return inside(0, top, height) & inside(1, left, width)
