"""Where the pixels of an image go."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import ndimage

from jaxopt_nn._arguments import check_choice, check_number, check_positive_int
from jaxopt_nn.augment._batches import Augment, of_features
from jaxopt_nn.augment._images import (
    as_floats,
    between,
    check_fraction,
    check_image,
    check_images,
    check_probability,
    happens,
    index_below,
    like,
    symmetric,
)
from jaxopt_nn.types import Array, ArrayLike, Key

__all__ = [
    "affine",
    "crop_and_resize",
    "flip_left_right",
    "flip_up_down",
    "pad_and_crop",
    "random_affine",
    "random_crop",
    "random_flip_left_right",
    "random_flip_up_down",
    "random_resized_crop",
    "random_rotation",
    "random_shift",
    "rotate",
    "shear",
    "shift",
]

_MODES = {"constant": "constant", "edge": "nearest", "reflect": "mirror"}  # of jnp.pad: of map_coordinates


def flip_left_right(image: Array) -> Array:
    """The mirror image: ``y[i, j] = x[i, W - 1 - j]``.

    >>> flip_left_right(jnp.array([[[1.0], [2.0]]])).ravel().tolist()
    [2.0, 1.0]
    """
    check_image(image)
    return jnp.flip(image, 1)


def flip_up_down(image: Array) -> Array:
    """The image upside down: ``y[i, j] = x[H - 1 - i, j]``.

    >>> flip_up_down(jnp.array([[[1.0]], [[2.0]]])).ravel().tolist()
    [2.0, 1.0]
    """
    check_image(image)
    return jnp.flip(image, 0)


def pad_and_crop(image: Array, top: ArrayLike, left: ArrayLike, padding: int, *, mode: str = "constant") -> Array:
    """The window of the image's own size in the padded image: a shift by whole pixels.

    ``y[i, j] = padded[i + top, j + left]``; ``top = left = padding`` changes nothing.

    Args:
        image: ``[height, width, channels]``.
        top, left: integers in [0, 2·padding], which may be traced; others are taken for the nearest of these.
        padding: static; pixels that are added on each side.
        mode: what they are: ``"constant"`` (0), ``"edge"`` (the outermost pixels again) or ``"reflect"`` (the image
            mirrored at them).

    Raises:
        ValueError: the image has another rank; ``"reflect"`` by more than the image has; another mode.

    >>> image = jnp.array([[[1.0], [2.0], [3.0]]])
    >>> pad_and_crop(image, 1, 0, 1).ravel().tolist()
    [0.0, 1.0, 2.0]
    """
    check_image(image)
    _check_padding(padding, mode)
    height, width, channels = image.shape
    if mode == "reflect" and padding >= min(height, width):
        raise ValueError(f"padding: expected less than the image has pixels to reflect, {image.shape}, got {padding}")
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode=mode)
    start = (jnp.asarray(top, jnp.int32), jnp.asarray(left, jnp.int32), jnp.int32(0))
    return lax.dynamic_slice(padded, start, (height, width, channels))


def affine(image: Array, matrix: ArrayLike, offset: ArrayLike | None = None, *, mode: str = "constant") -> Array:
    """An affine map of positions, with bilinear interpolation: ``y[p] = x[A·(p - c) + c + b]``, c the image's centre.

    Args:
        image: ``[height, width, channels]``.
        matrix: A ``[2, 2]``, from positions (row, column) in the result to positions in the image; may be traced.
        offset: b ``[2]``, in pixels, which may be traced; None for 0.
        mode: what is outside of the image, as in :func:`pad_and_crop`.

    Raises:
        ValueError: the image has another rank; another mode.

    >>> image = jnp.arange(9.0).reshape(3, 3, 1)
    >>> affine(image, jnp.array([[0.0, 1.0], [-1.0, 0.0]]))[..., 0].tolist()  # a quarter turn to the left
    [[2.0, 5.0, 8.0], [1.0, 4.0, 7.0], [0.0, 3.0, 6.0]]
    """
    check_image(image)
    check_choice("mode", mode, *_MODES)
    height, width, _ = image.shape
    rows, columns = jnp.meshgrid(_centred(height), _centred(width), indexing="ij")
    a = jnp.asarray(matrix, rows.dtype)
    b = jnp.zeros(2, rows.dtype) if offset is None else jnp.asarray(offset, rows.dtype)
    if a.shape != (2, 2) or b.shape != (2,):
        raise ValueError(f"matrix, offset: expected the shapes [2, 2] and [2], got {list(a.shape)} and {list(b.shape)}")
    return _sample(
        image,
        a[0, 0] * rows + a[0, 1] * columns + (height - 1) / 2 + b[0],
        a[1, 0] * rows + a[1, 1] * columns + (width - 1) / 2 + b[1],
        mode,
    )


def rotate(image: Array, degrees: ArrayLike, *, mode: str = "constant") -> Array:
    """The image turned to the left about its centre, with bilinear interpolation.

    Args:
        image: ``[height, width, channels]``.
        degrees: the angle; may be traced.
        mode: what is outside of the image, as in :func:`pad_and_crop`.

    >>> image = jnp.arange(9.0).reshape(3, 3, 1)
    >>> bool(jnp.allclose(rotate(image, 90.0)[..., 0], jnp.rot90(image[..., 0]), atol=1e-5))
    True
    """
    return affine(image, _rotation(degrees), mode=mode)


def shear(image: Array, along_width: ArrayLike, along_height: ArrayLike = 0.0, *, mode: str = "constant") -> Array:
    """The image sheared about its centre: rows move sideways by ``along_width`` times their distance from it.

    Args:
        image: ``[height, width, channels]``.
        along_width, along_height: slopes, 0 for none; may be traced. Rows below the centre move to the left.
        mode: what is outside of the image, as in :func:`pad_and_crop`.

    >>> image = jnp.zeros((3, 3, 1)).at[:, 1].set(1.0)
    >>> shear(image, 1.0)[..., 0].tolist()
    [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    return affine(image, _matrix(1.0, along_height, along_width, 1.0), mode=mode)


def shift(image: Array, down: ArrayLike, right: ArrayLike, *, mode: str = "constant") -> Array:
    """The image moved, by fractions of a pixel too: ``y[i, j] = x[i - down, j - right]``.

    Args:
        image: ``[height, width, channels]``.
        down, right: in pixels; may be traced.
        mode: what is outside of the image, as in :func:`pad_and_crop`.

    >>> shift(jnp.array([[[1.0], [2.0], [4.0]]]), 0.0, 0.5).ravel().tolist()
    [0.5, 1.5, 3.0]
    """
    offset = -jnp.stack([jnp.asarray(down, jnp.float32), jnp.asarray(right, jnp.float32)])
    return affine(image, jnp.eye(2), offset, mode=mode)


def crop_and_resize(image: Array, top: ArrayLike, left: ArrayLike, height: ArrayLike, width: ArrayLike) -> Array:
    """A window of the image, enlarged to the image's size with bilinear interpolation.

    Args:
        image: ``[H, W, channels]``.
        top, left, height, width: the window, in pixels, fractions too; may be traced.

    Returns:
        ``[H, W, channels]``.

    >>> image = jnp.arange(16.0).reshape(4, 4, 1)
    >>> crop_and_resize(image, 1, 1, 2, 2)[..., 0].tolist()[0]
    [5.0, 5.25, 5.75, 6.0]
    """
    check_image(image)

    def positions(start: ArrayLike, length: ArrayLike, size: int) -> Array:
        start, length = jnp.asarray(start, jnp.float32), jnp.asarray(length, jnp.float32)
        inside = (jnp.arange(size, dtype=jnp.float32) + 0.5) * length / size - 0.5
        return start + jnp.clip(inside, 0, jnp.maximum(length - 1, 0))

    rows, columns = positions(top, height, image.shape[0]), positions(left, width, image.shape[1])
    rows, columns = jnp.meshgrid(rows, columns, indexing="ij")
    return _sample(image, rows, columns, "edge")


def random_flip_left_right(probability: ArrayLike = 0.5) -> Augment:
    """:func:`flip_left_right` of some images.

    Args:
        probability: in [0, 1]; may be traced.
    """
    check_probability(probability)

    def augment(key: Key, image: Array) -> Array:
        return jnp.where(happens(jax.random.uniform(key), probability), flip_left_right(image), image)

    return of_features(check_images, augment)


def random_flip_up_down(probability: ArrayLike = 0.5) -> Augment:
    """:func:`flip_up_down` of some images.

    Args:
        probability: in [0, 1]; may be traced.
    """
    check_probability(probability)

    def augment(key: Key, image: Array) -> Array:
        return jnp.where(happens(jax.random.uniform(key), probability), flip_up_down(image), image)

    return of_features(check_images, augment)


def random_crop(padding: int, *, mode: str = "constant") -> Augment:
    """:func:`pad_and_crop`: each image is padded, and a window of its own size is taken anywhere.

    Args:
        padding: static; pixels on each side.
        mode: ``"constant"``, ``"edge"`` or ``"reflect"``.
    """
    _check_padding(padding, mode)

    def augment(key: Key, image: Array) -> Array:
        top, left = index_below(jax.random.uniform(key, (2,)), 2 * padding + 1)
        return pad_and_crop(image, top, left, padding, mode=mode)

    return of_features(check_images, augment)


def random_resized_crop(min_area: ArrayLike = 0.08, max_aspect: ArrayLike = 4 / 3) -> Augment:
    """:func:`crop_and_resize` of a random window.

    Args:
        min_area: the least area of the window, as a fraction of the image's, in (0, 1]; the most is 1; may be traced.
        max_aspect: the window's aspect ratio, relative to the image's, is between this, >= 1, and its inverse, uniform
            in the logarithm; may be traced.

    Differs from torchvision's ``RandomResizedCrop`` in a window that is too wide or too high: that tries again, here
    it is cut to the image's size.
    """
    check_number("min_area", min_area, 0.0, 1.0, open_low=True)
    check_number("max_aspect", max_aspect, 1.0)

    def augment(key: Key, image: Array) -> Array:
        draws, limit = jax.random.uniform(key, (4,)), jnp.log(jnp.asarray(max_aspect, jnp.float32))
        side, stretch = jnp.sqrt(between(draws[0], min_area, 1.0)), jnp.exp(between(draws[1], -limit, limit) / 2)
        height = jnp.minimum(side / stretch, 1.0) * image.shape[0]
        width = jnp.minimum(side * stretch, 1.0) * image.shape[1]
        top, left = draws[2] * (image.shape[0] - height), draws[3] * (image.shape[1] - width)
        return crop_and_resize(image, top, left, height, width)

    return of_features(check_images, augment)


def random_rotation(max_degrees: ArrayLike, *, mode: str = "constant") -> Augment:
    """:func:`rotate` by an angle in [-max_degrees, max_degrees).

    Args:
        max_degrees: >= 0; may be traced.
        mode: what is outside of the image, as in :func:`pad_and_crop`.
    """
    check_number("max_degrees", max_degrees, 0.0)
    check_choice("mode", mode, *_MODES)
    return of_features(check_images, lambda key, image: rotate(image, symmetric(key, max_degrees, 1)[0], mode=mode))


def random_shift(max_shift: ArrayLike, *, mode: str = "constant") -> Augment:
    """:func:`shift` along both axes, by fractions of a pixel too.

    Args:
        max_shift: the most, as a fraction of the image's height and width, in [0, 1]; may be traced.
        mode: what is outside of the image, as in :func:`pad_and_crop`.
    """
    return random_affine(max_shift=max_shift, mode=mode)


def random_affine(
    *,
    max_degrees: ArrayLike = 0.0,
    max_shift: ArrayLike = 0.0,
    max_zoom: ArrayLike = 1.0,
    max_shear: ArrayLike = 0.0,
    mode: str = "constant",
) -> Augment:
    """:func:`affine` by a random rotation, shift, zoom and shear, with one interpolation.

    Args:
        max_degrees: the angle is in [-max_degrees, max_degrees).
        max_shift: the most that the image moves, as a fraction of its height and width, in [0, 1].
        max_zoom: the factor is between this, >= 1, and its inverse, uniform in the logarithm.
        max_shear: the slope of the shear along the width is in [-max_shear, max_shear).
        mode: what is outside of the image, as in :func:`pad_and_crop`.

    All numbers may be traced.
    """
    check_number("max_degrees", max_degrees, 0.0)
    check_fraction("max_shift", max_shift)
    check_number("max_zoom", max_zoom, 1.0)
    check_number("max_shear", max_shear, 0.0)
    check_choice("mode", mode, *_MODES)

    def augment(key: Key, image: Array) -> Array:
        draws = symmetric(key, 1.0, 5)
        degrees, log_zoom, slope = (
            draws[index] * jnp.asarray(limit, draws.dtype)
            for index, limit in enumerate((max_degrees, jnp.log(jnp.asarray(max_zoom, draws.dtype)), max_shear))
        )
        matrix = jnp.matmul(_rotation(degrees), _matrix(1.0, 0.0, slope, 1.0), precision="highest") * jnp.exp(-log_zoom)
        size = jnp.asarray(image.shape[:2], draws.dtype)
        return affine(image, matrix, draws[3:] * jnp.asarray(max_shift, draws.dtype) * size, mode=mode)

    return of_features(check_images, augment)


def _check_padding(padding: int, mode: str) -> None:
    check_positive_int("padding", padding)
    check_choice("mode", mode, *_MODES)


def _centred(size: int) -> Array:
    return jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2


def _matrix(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Array:
    return jnp.stack([jnp.asarray(entry, jnp.float32) for entry in (a, b, c, d)]).reshape(2, 2)


def _rotation(degrees: ArrayLike) -> Array:
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return _matrix(cosine, sine, -sine, cosine)


def _sample(image: Array, rows: Array, columns: Array, mode: str) -> Array:
    """The image at positions ``[H, W]``, with bilinear interpolation."""

    def of_channel(channel: Array) -> Array:
        return ndimage.map_coordinates(channel, [rows, columns], order=1, mode=_MODES[mode])

    return like(image, jax.vmap(of_channel, -1, -1)(as_floats(image)))
