"""Brightness, contrast and colour of an image.

The adjustments do not clip floats, so that several of them lose nothing, and uint8 saturates.
"""

from collections.abc import Callable

import jax.numpy as jnp

from jaxopt_nn._arguments import check_number
from jaxopt_nn.augment._batches import Augment, of_features
from jaxopt_nn.augment._images import (
    as_floats,
    check_image,
    check_images,
    check_rgb,
    clipped,
    like,
    symmetric,
)
from jaxopt_nn.types import Array, ArrayLike, Key

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "autocontrast",
    "equalize",
    "posterize",
    "random_brightness",
    "random_contrast",
    "random_hue",
    "random_saturation",
    "solarize",
]

_LUMINANCE = (0.2989, 0.587, 0.114)


def adjust_brightness(image: Array, delta: ArrayLike) -> Array:
    """A brighter or darker image: ``y = x + delta``.

    Args:
        image: ``[height, width, channels]``.
        delta: in the unit of floats, where white is 1; may be traced.

    >>> adjust_brightness(jnp.array([[[0.5]]]), 0.25).tolist()
    [[[0.75]]]
    """
    check_image(image)
    x = as_floats(image)
    return like(image, x + jnp.asarray(delta, x.dtype))


def adjust_contrast(image: Array, factor: ArrayLike) -> Array:
    """Larger or smaller differences from the mean: ``y = mean + factor·(x - mean)``, with a mean for each channel.

    Args:
        image: ``[height, width, channels]``.
        factor: 1 changes nothing, 0 leaves the mean; may be traced.

    Differs from torchvision's, whose mean is that of the grey image.

    >>> adjust_contrast(jnp.array([[[0.25], [0.75]]]), 2.0).ravel().tolist()
    [0.0, 1.0]
    """
    check_image(image)
    x = as_floats(image)
    return like(image, _blend(x, jnp.mean(x, (0, 1), keepdims=True), factor))


def adjust_saturation(image: Array, factor: ArrayLike) -> Array:
    """Stronger or paler colours: ``y = grey + factor·(x - grey)``, with grey = 0.2989·R + 0.587·G + 0.114·B.

    Args:
        image: ``[height, width, 3]``.
        factor: 1 changes nothing, 0 leaves the grey image; may be traced.

    Raises:
        ValueError: the image has no three channels.

    Differs from dm_pix, which multiplies the S of HSV; this is torchvision's.

    >>> bool(jnp.allclose(adjust_saturation(jnp.array([[[1.0, 0.0, 0.0]]]), 0.0), 0.2989))
    True
    """
    check_rgb(image)
    x = as_floats(image)
    grey = sum(weight * x[..., index : index + 1] for index, weight in enumerate(_LUMINANCE))
    return like(image, _blend(x, jnp.broadcast_to(jnp.asarray(grey), x.shape), factor))


def adjust_hue(image: Array, delta: ArrayLike) -> Array:
    """Other colours: the H of HSV is turned by ``delta``.

    Args:
        image: ``[height, width, 3]``.
        delta: 1 is the whole circle; may be traced.

    Raises:
        ValueError: the image has no three channels.

    >>> adjust_hue(jnp.array([[[1.0, 0.0, 0.0]]]), 1 / 3).round(3).tolist()  # red becomes green
    [[[0.0, 1.0, 0.0]]]
    """
    check_rgb(image)
    x = as_floats(image)
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    spread = value - jnp.minimum(jnp.minimum(red, green), blue)
    safe = jnp.where(spread == 0, 1, spread)
    sixths = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixths = sixths + 6 * jnp.asarray(delta, x.dtype)

    def channel(n: int) -> Array:
        k = jnp.mod(n + sixths, 6)
        return value - spread * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return like(image, jnp.stack([channel(5), channel(3), channel(1)], -1))


def posterize(image: Array, bits: ArrayLike) -> Array:
    """Fewer levels: of the 8 bits of each number the first ``bits`` are kept.

    Args:
        image: ``[height, width, channels]``, in [0, 1] or uint8.
        bits: an integer in [0, 8]; may be traced.

    >>> posterize(jnp.array([[[255, 100]]], jnp.uint8), 1).tolist()
    [[[128, 0]]]
    """
    check_image(image)
    step = 2.0 ** (8 - jnp.asarray(bits, jnp.float32))
    return like(image, jnp.floor(_levels(image) / step) * step / 255)


def solarize(image: Array, threshold: ArrayLike) -> Array:
    """What is at least as bright as the threshold is inverted: ``y = x`` below it, else ``1 - x``.

    Args:
        image: ``[height, width, channels]``, in [0, 1] or uint8.
        threshold: 1 is white; may be traced.

    >>> solarize(jnp.array([[[0.25, 0.75]]]), 0.5).tolist()
    [[[0.25, 0.25]]]
    """
    check_image(image)
    x = as_floats(image)
    return like(image, jnp.where(x < jnp.asarray(threshold, x.dtype), x, 1 - x))


def autocontrast(image: Array) -> Array:
    """Each channel stretched to [0, 1]: ``y = (x - min) / (max - min)``; one without contrast stays as it is.

    >>> autocontrast(jnp.array([[[0.25], [0.5]]])).ravel().tolist()
    [0.0, 1.0]
    """
    check_image(image)
    x = as_floats(image)
    low, high = jnp.min(x, (0, 1), keepdims=True), jnp.max(x, (0, 1), keepdims=True)
    flat = low == high
    return like(image, jnp.where(flat, x, (x - low) / jnp.where(flat, 1, high - low)))


def equalize(image: Array) -> Array:
    """Each channel with levels that are used about equally often, as Pillow's ``ImageOps.equalize``.

    Args:
        image: ``[height, width, channels]``, in [0, 1] or uint8; it is rounded to 256 levels.

    >>> image = (100 + jnp.arange(1024) // 16).astype(jnp.uint8).reshape(32, 32, 1)
    >>> int(equalize(image).min()), int(equalize(image).max())
    (0, 255)
    """
    check_image(image)
    levels = _levels(image).astype(jnp.int32)
    pixels = image.shape[0] * image.shape[1]
    columns = levels.reshape(pixels, -1)
    counts = jnp.sum(columns[:, :, None] == jnp.arange(256)[None, None, :], 0)  # [channels, 256]
    brightest = jnp.take_along_axis(counts, jnp.max(columns, 0)[:, None], 1)
    step = (pixels - brightest) // 255
    below = jnp.cumsum(counts, 1) - counts
    table = jnp.minimum((below + step // 2) // jnp.maximum(step, 1), 255)
    table = jnp.where(step == 0, jnp.arange(256)[None, :], table)
    result = jnp.take_along_axis(table, columns.T, 1).T.reshape(image.shape)
    return like(image, result.astype(jnp.float32) / 255)


def random_brightness(max_delta: ArrayLike) -> Augment:
    """:func:`adjust_brightness` by a number in [-max_delta, max_delta).

    Args:
        max_delta: in [0, 1]; may be traced.
    """
    check_number("max_delta", max_delta, 0.0, 1.0)
    return _random(adjust_brightness, max_delta, 0.0)


def random_contrast(max_change: ArrayLike) -> Augment:
    """:func:`adjust_contrast` by a factor in [1 - max_change, 1 + max_change).

    Args:
        max_change: in [0, 1]; may be traced.
    """
    check_number("max_change", max_change, 0.0, 1.0)
    return _random(adjust_contrast, max_change, 1.0)


def random_saturation(max_change: ArrayLike) -> Augment:
    """:func:`adjust_saturation` by a factor in [1 - max_change, 1 + max_change).

    Args:
        max_change: in [0, 1]; may be traced.
    """
    check_number("max_change", max_change, 0.0, 1.0)
    return _random(adjust_saturation, max_change, 1.0)


def random_hue(max_delta: ArrayLike) -> Augment:
    """:func:`adjust_hue` by a number in [-max_delta, max_delta).

    Args:
        max_delta: in [0, 0.5]; may be traced.
    """
    check_number("max_delta", max_delta, 0.0, 0.5)
    return _random(adjust_hue, max_delta, 0.0)


def _random(adjust: Callable[[Array, ArrayLike], Array], limit: ArrayLike, centre: float) -> Augment:
    def augment(key: Key, image: Array) -> Array:
        return adjust(image, centre + symmetric(key, limit, 1)[0])

    return of_features(check_images, augment)


def _blend(x: Array, other: Array, factor: ArrayLike) -> Array:
    return other + jnp.asarray(factor, x.dtype) * (x - other)


def _levels(image: Array) -> Array:
    """The image as whole numbers in [0, 255]."""
    return jnp.round(clipped(as_floats(image)) * 255)
