"""The deterministic functions beside Pillow, SciPy, NumPy and the standard library."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import ndimage

from jaxopt_nn import augment

PHOTO = ndimage.gaussian_filter(np.random.default_rng(0).random((15, 12, 3)), (1.5, 1.5, 0))
PHOTO = ((PHOTO - PHOTO.min()) / np.ptp(PHOTO)).astype(np.float32)
BYTES = np.round(PHOTO * 200 + 20).astype(np.uint8)
"""Not all of the range, so that equalize and autocontrast have something to do."""


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pad_and_crop(mode):
    padded = np.pad(BYTES, ((3, 3), (3, 3), (0, 0)), mode=mode)
    got = augment.pad_and_crop(jnp.asarray(BYTES), 5, 1, 3, mode=mode)
    assert got.dtype == np.uint8 and np.array_equal(got, padded[5:20, 1:13])


def test_flips():
    assert np.array_equal(augment.flip_left_right(BYTES), BYTES[:, ::-1])
    assert np.array_equal(augment.flip_up_down(BYTES), BYTES[::-1])


def warped(image, matrix, offset, mode):
    """SciPy's affine map about the image's centre."""
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre + offset - matrix @ centre
    # What SciPy calls "constant" fades out beyond the edge only as "grid-constant".
    mode = {"constant": "grid-constant", "edge": "nearest", "reflect": "mirror"}[mode]
    channels = [ndimage.affine_transform(image[..., c], matrix, offset, order=1, mode=mode) for c in range(3)]
    return np.stack(channels, -1)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_affine(mode):
    matrix, offset = np.array([[0.9, 0.3], [-0.2, 1.1]]), np.array([1.5, -2.25])
    got = jax.jit(augment.affine, static_argnames="mode")(PHOTO, matrix, offset, mode=mode)
    np.testing.assert_allclose(got, warped(PHOTO, matrix, offset, mode), atol=1e-5)


def test_rotate_shift_and_shear_are_affine_maps():
    sine, cosine = np.sin(np.deg2rad(25)), np.cos(np.deg2rad(25))
    turn = np.array([[cosine, sine], [-sine, cosine]])
    np.testing.assert_allclose(augment.rotate(PHOTO, 25.0), warped(PHOTO, turn, 0, "constant"), atol=1e-5)
    np.testing.assert_allclose(
        augment.shift(PHOTO, 1.25, -2), warped(PHOTO, np.eye(2), np.array([-1.25, 2]), "constant"), atol=1e-5
    )
    slant = np.array([[1.0, 0.2], [0.4, 1.0]])
    np.testing.assert_allclose(augment.shear(PHOTO, 0.4, 0.2), warped(PHOTO, slant, 0, "constant"), atol=1e-5)


def test_rotate_turns_to_the_left_as_pillow_does():
    square, rotate = BYTES[:12], jax.jit(augment.rotate)
    assert np.array_equal(rotate(square, 90.0), np.asarray(Image.fromarray(square).rotate(90)))
    theirs = np.asarray(Image.fromarray(square).rotate(20, Image.Resampling.BILINEAR))
    inside = (slice(4, 8), slice(4, 8))
    ours = np.asarray(rotate(square, 20.0))
    assert np.abs(ours[inside].astype(int) - theirs[inside]).max() <= 1


def test_crop_and_resize_is_a_resized_window():
    resized = jax.image.resize(PHOTO[2:12, 1:7], PHOTO.shape, "linear", antialias=False)
    crop = jax.jit(augment.crop_and_resize)
    np.testing.assert_allclose(crop(PHOTO, 2, 1, 10, 6), resized, atol=1e-5)
    np.testing.assert_allclose(crop(PHOTO, 0, 0, 15, 12), PHOTO, atol=1e-6)


def test_colours_beside_pillow():
    picture = Image.fromarray(BYTES)
    program = jax.jit(
        lambda factor: (augment.adjust_saturation(BYTES, factor), augment.adjust_sharpness(BYTES, factor))
    )
    for factor in (0.0, 0.4, 1.7):
        for ours, theirs in zip(program(factor), (ImageEnhance.Color, ImageEnhance.Sharpness), strict=True):
            error = np.asarray(ours).astype(int) - theirs(picture).enhance(factor)
            assert np.abs(error).max() <= 2, theirs  # Pillow truncates, twice


@jax.jit
def levels(image):
    posterized = [augment.posterize(image, bits) for bits in (1, 4, 7)]
    return *posterized, augment.solarize(image, 128 / 255), augment.equalize(image), augment.autocontrast(image)


def test_levels_beside_pillow():
    picture = Image.fromarray(BYTES)
    *got, stretched = levels(BYTES)
    expected = [ImageOps.posterize(picture, bits) for bits in (1, 4, 7)]
    expected += [ImageOps.solarize(picture, 128), ImageOps.equalize(picture)]
    for ours, theirs in zip(got, expected, strict=True):
        assert np.array_equal(ours, np.asarray(theirs))
    assert np.abs(np.asarray(stretched).astype(int) - ImageOps.autocontrast(picture)).max() <= 1
    flat = np.full(BYTES.shape, 7, np.uint8)
    assert np.array_equal(levels(flat)[-2], flat) and np.array_equal(levels(flat)[-1], flat)


def test_equalize_many_pixels():
    image = np.random.default_rng(1).integers(30, 99, (64, 64, 3)).astype(np.uint8)
    assert np.array_equal(jax.jit(augment.equalize)(image), ImageOps.equalize(Image.fromarray(image)))


def test_adjust_hue_beside_colorsys():
    pixels = np.concatenate([PHOTO.reshape(-1, 3)[:20], [[0, 0, 0], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 1]]])
    program = jax.jit(lambda delta: augment.adjust_hue(np.float32(pixels)[None], delta)[0])
    for delta in (0.3, -0.45):
        hsv = [colorsys.rgb_to_hsv(*map(float, pixel)) for pixel in pixels]
        expected = [colorsys.hsv_to_rgb((h + delta) % 1, s, v) for h, s, v in hsv]
        np.testing.assert_allclose(program(delta), expected, atol=1e-6)


def test_blur_beside_scipy():
    blur = jax.jit(augment.gaussian_blur)
    for sigma in (0.5, 2.0):
        expected = ndimage.gaussian_filter(PHOTO, sigma, mode="mirror", radius=3, axes=(0, 1))
        np.testing.assert_allclose(blur(PHOTO, sigma), expected, atol=1e-5)
    np.testing.assert_allclose(blur(PHOTO, 0.0), PHOTO, atol=1e-6)
    smooth = np.asarray(Image.fromarray(BYTES).filter(ImageFilter.SMOOTH))
    assert np.abs(np.asarray(jax.jit(augment.adjust_sharpness)(BYTES, 0.0)).astype(int) - smooth).max() <= 1


def test_brightness_and_contrast():
    np.testing.assert_allclose(
        augment.adjust_brightness(PHOTO, -0.7), PHOTO - np.float32(0.7)
    )  # floats are not clipped
    assert augment.adjust_brightness(BYTES, 1.0).min() == 255 and augment.adjust_brightness(BYTES, -1.0).max() == 0
    mean = PHOTO.mean((0, 1), keepdims=True)
    np.testing.assert_allclose(augment.adjust_contrast(PHOTO, 3.0), mean + 3 * (PHOTO - mean), rtol=1e-4, atol=1e-6)


def test_warp_time_beside_numpy():
    times = np.arange(9.0)
    warp = jax.jit(augment.warp_time)
    for start, end in ((2.0, 5.5), (6.0, 1.0), (4.0, 4.0)):
        expected = np.interp(np.interp(times, (0, end, 8), (0, start, 8)), times, times**2)
        np.testing.assert_allclose(warp(np.float32(times**2), start, end), expected, atol=1e-4)
    for end in (0.0, 8.0):
        assert np.isfinite(warp(np.float32(times**2), 3.0, end)).all()
