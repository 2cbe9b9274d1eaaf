"""Blur, sharpness and noise."""

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_number, check_positive_int
from jaxopt_nn.augment._batches import Augment, of_features
from jaxopt_nn.augment._images import as_floats, between, check_image, check_images, check_numbers, like
from jaxopt_nn.types import Array, ArrayLike, Key

__all__ = ["adjust_sharpness", "gaussian_blur", "random_blur", "random_noise"]


def gaussian_blur(image: Array, sigma: ArrayLike, *, radius: int = 3) -> Array:
    """A convolution with a Gaussian, along rows and columns; beyond its edges the image is mirrored.

    ``w_k ∝ exp(-k² / 2σ²)``, ``|k| <= radius``, with the sum 1.

    Args:
        image: ``[height, width, channels]``.
        sigma: σ >= 0, in pixels; 0 changes nothing; may be traced.
        radius: static; how far the Gaussian reaches, less than the image's height and width.

    Raises:
        ValueError: the image has another rank, or is too small for the radius.

    >>> bool(jnp.allclose(gaussian_blur(jnp.ones((5, 5, 1)), 0.8, radius=2), 1.0))
    True
    """
    check_image(image)
    check_positive_int("radius", radius)
    if radius >= min(image.shape[:2]):
        raise ValueError(f"radius: expected less than the image's height and width, {image.shape}, got {radius}")
    x, places = as_floats(image), jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    variance = jnp.maximum(jnp.square(jnp.asarray(sigma, jnp.float32)), 1e-6)
    weights = jax.nn.softmax(-jnp.square(places) / (2 * variance)).astype(x.dtype)
    for axis in (0, 1):
        # A sum of slices: a convolution whose kernel differs from example to example is slow.
        size = x.shape[axis]
        padded = jnp.pad(x, [(radius, radius) if index == axis else (0, 0) for index in range(3)], mode="reflect")
        x = sum(
            weights[k] * jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(1, 2 * radius + 1)
        ) + weights[0] * jax.lax.slice_in_dim(padded, 0, size, axis=axis)
    return like(image, x)


def adjust_sharpness(image: Array, factor: ArrayLike) -> Array:
    """A sharper or smoother image: ``y = smooth + factor·(x - smooth)``.

    ``smooth`` is the mean of the 3 x 3 pixels around each, itself with weight 5. The outermost pixels stay as they are.

    Args:
        image: ``[height, width, channels]``.
        factor: 1 changes nothing, 0 leaves the smooth image; may be traced.

    >>> image = jnp.zeros((3, 3, 1)).at[1, 1].set(1.0)
    >>> round(float(adjust_sharpness(image, 0.0)[1, 1, 0]), 4)  # 5/13
    0.3846
    """
    check_image(image)
    if min(image.shape[:2]) < 3:
        return image
    x = as_floats(image)
    height, width = x.shape[0] - 2, x.shape[1] - 2
    around = sum(x[i : i + height, j : j + width] for i in range(3) for j in range(3))
    centre = x[1:-1, 1:-1]
    smooth = (jnp.asarray(around) + 4 * centre) / 13
    return like(image, x.at[1:-1, 1:-1].set(smooth + jnp.asarray(factor, x.dtype) * (centre - smooth)))


def random_blur(max_sigma: ArrayLike, *, radius: int = 3) -> Augment:
    """:func:`gaussian_blur` with σ in [0, max_sigma).

    Args:
        max_sigma: in pixels, >= 0; may be traced.
        radius: static; how far the Gaussian reaches.
    """
    check_number("max_sigma", max_sigma, 0.0)
    check_positive_int("radius", radius)

    def augment(key: Key, image: Array) -> Array:
        return gaussian_blur(image, between(jax.random.uniform(key), 0.0, max_sigma), radius=radius)

    return of_features(check_images, augment)


def random_noise(stddev: ArrayLike) -> Augment:
    """Gaussian noise on every number of images, tables or sequences: ``y = x + stddev·n``, ``n ~ N(0, 1)``.

    Args:
        stddev: >= 0, in the unit of the features, where 255 of uint8 is 1; may be traced.

    Differs from ``layers.gaussian_noise`` in nothing but the place, and in that the noise of an example does not
    depend on the others in its batch.
    """
    check_number("stddev", stddev, 0.0)

    def augment(key: Key, x: Array) -> Array:
        floats = as_floats(x)
        return like(x, floats + jnp.asarray(stddev, floats.dtype) * jax.random.normal(key, x.shape, floats.dtype))

    return of_features(lambda x: check_numbers("x", x), augment)
