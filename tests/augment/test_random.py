"""What is drawn: from which range, for which example, of which dtype; and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import augment
from jaxopt_nn.types import Batch

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 9, 8, 3)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 1], np.int32)
KEYS = jax.random.split(jax.random.key(0), 4)
MANY = jax.random.split(jax.random.key(1), 400)

OF_IMAGES = {
    "flip_left_right": augment.random_flip_left_right(),
    "flip_up_down": augment.random_flip_up_down(0.5),
    "crop": augment.random_crop(2),
    "reflected crop": augment.random_crop(2, mode="reflect"),
    "resized crop": augment.random_resized_crop(),
    "rotation": augment.random_rotation(30),
    "shift": augment.random_shift(0.2),
    "affine": augment.random_affine(max_degrees=10, max_shift=0.1, max_zoom=1.2, max_shear=0.2, mode="edge"),
    "brightness": augment.random_brightness(0.3),
    "contrast": augment.random_contrast(0.5),
    "saturation": augment.random_saturation(0.5),
    "hue": augment.random_hue(0.2),
    "blur": augment.random_blur(2.0),
    "noise": augment.random_noise(0.1),
    "cutout": augment.cutout(4),
    "erasing": augment.random_erasing(1.0),
    "feature dropout": augment.random_feature_dropout(0.3),
    "time warp": augment.random_time_warp(0.3),
    "time mask": augment.random_time_mask(5),
    "feature mask": augment.random_feature_mask(2),
    "rand_augment": augment.rand_augment(),
    "chain": augment.chain(augment.random_crop(1), augment.random_contrast(0.5)),
}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_each_example_by_its_key_and_in_its_dtype(name):
    program = jax.jit(OF_IMAGES[name])
    whole = program(Batch(IMAGES, LABELS), KEYS)
    assert whole.x.dtype == np.uint8 and whole.x.shape == IMAGES.shape and whole.y is not None
    assert (np.asarray(whole.x) != IMAGES).any()
    turned = program(Batch(IMAGES[::-1], LABELS), KEYS[::-1])
    assert np.array_equal(turned.x, whole.x[::-1])
    floats = program(Batch(IMAGES.astype(np.float32) / 255, LABELS), KEYS)
    assert floats.x.dtype == np.float32
    if name != "rand_augment":  # which rounds to levels
        np.testing.assert_allclose(np.clip(floats.x, 0, 1) * 255, np.asarray(whole.x, np.float32), atol=0.6)
    assert program(Batch(jnp.asarray(IMAGES, jnp.bfloat16) / 255, LABELS), KEYS).x.dtype == jnp.bfloat16


def drawn(augmentation, example):
    """What 400 keys make of one example."""
    example = np.asarray(example, np.float32)
    batch = Batch(np.broadcast_to(example, (len(MANY), *example.shape)), np.zeros(len(MANY)))
    return np.asarray(jax.jit(augmentation)(batch, MANY).x)


def test_crops_flips_and_boxes_are_where_they_may_be():
    dot = np.zeros((5, 5, 1))
    dot[2, 2] = 1
    places = {tuple(np.argwhere(image)[0][:2].tolist()) for image in drawn(augment.random_crop(1), dot)}
    assert places == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}
    corner = np.zeros((3, 4, 1))
    corner[0, 0] = 1
    flipped = drawn(augment.random_flip_left_right(0.25), corner)[:, 0, 3, 0].mean()
    assert abs(flipped - 0.25) < 0.08
    ones = np.ones((20, 10, 1))
    boxes = 1 - drawn(augment.random_erasing(0.5, min_area=0.1, max_area=0.2, max_aspect=2.0), ones)
    areas = boxes.mean((1, 2, 3))
    assert abs((areas > 0).mean() - 0.5) < 0.1
    assert areas[areas > 0].min() > 0.07 and areas.max() < 0.24  # sides are whole pixels
    squares = 1 - drawn(augment.cutout(4), ones)
    assert squares.sum((1, 2, 3)).max() == 16 and squares.max(0).min() == 1  # anywhere, and cut at the edges
    steps = (drawn(augment.random_time_mask(3), np.ones((6, 2))) == 0).all(2)
    assert set(steps.sum(1).tolist()) == {0, 1, 2, 3} and steps.any(0).all()


def test_numbers_are_from_their_range():
    flat = np.full((2, 2, 1), 0.5)
    shifts = drawn(augment.random_brightness(0.2), flat)[:, 0, 0, 0] - 0.5
    assert -0.2 <= shifts.min() < -0.18 and 0.18 < shifts.max() <= 0.2
    noise = drawn(augment.random_noise(0.5), np.zeros((10, 10)))
    assert abs(noise.std() - 0.5) < 0.01 and abs(noise.mean()) < 0.01
    rows, columns = np.meshgrid(np.arange(9.0), np.arange(9.0), indexing="ij")
    windows = drawn(augment.random_resized_crop(0.25, 1.5), np.stack([rows, columns], -1))
    heights, widths = (np.ptp(windows[..., axis], (1, 2)) + 1 for axis in (0, 1))
    assert windows.min() >= 0 and windows.max() <= 8
    assert (heights * widths / 81).min() > 0.22 and (heights / widths).max() < 1.55


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_mixup_is_beta_and_mixes_targets_alike(alpha):
    x = np.arange(len(MANY), dtype=np.float32)[:, None]
    mixed = jax.jit(lambda alpha: augment.mixup(alpha)(Batch(x, 2 * x), MANY))(alpha)
    np.testing.assert_allclose(mixed.y, 2 * mixed.x, rtol=1e-5)
    share = 1 - np.asarray(mixed.x - x)[:-1, 0]
    assert share.min() >= 0 and share.max() <= 1 + 1e-4 and abs(share.mean() - 0.5) < 0.06
    assert abs(share.var() * 4 * (2 * alpha + 1) - 1) < 0.25  # of Beta(α, α)


def test_cutmix_mixes_targets_by_area():
    x = np.broadcast_to(np.arange(4.0, dtype=np.float32)[:, None, None, None], (4, 7, 9, 2))
    mixed = jax.jit(augment.cutmix(num_classes=4))(Batch(x, np.arange(4)), KEYS)
    for row, y in zip(mixed.x, mixed.y, strict=True):
        np.testing.assert_allclose(y, [(np.asarray(row) == label).mean() for label in range(4)], atol=1e-6)


@pytest.mark.parametrize("mix", [augment.mixup(1.0, num_classes=3), augment.cutmix(num_classes=3)])
def test_an_example_of_no_weight_is_mixed_into_no_other(mix):
    x = IMAGES.astype(np.float32)
    x[2] = 1e30
    mixed = jax.jit(mix)(Batch(x, LABELS, np.array([1.0, 1.0, 0.0, 1.0], np.float32)), KEYS)
    assert np.array_equal(mixed.x[1], x[1]) and np.array_equal(mixed.y[1], [0, 1, 0])
    assert not np.array_equal(mixed.x[0], x[0]) and mixed.x[jnp.array([0, 1, 3])].max() <= 255


def test_strengths_may_be_traced_and_mapped():
    x = IMAGES.astype(np.float32) / 255

    def strong(strength):
        augmentation = augment.chain(augment.random_rotation(strength), augment.cutout(strength))
        return augmentation(Batch(x, LABELS), KEYS).x

    strengths = jnp.array([0, 3])
    lanes, program = jax.jit(jax.vmap(strong))(strengths), jax.jit(strong)
    for lane, strength in zip(lanes, strengths, strict=True):
        np.testing.assert_allclose(lane, program(strength), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: augment.random_crop(0), ValueError, r"^padding: expected an int in \[1, inf\), got 0"),
        (lambda: augment.random_crop(1.5), TypeError, "^padding: expected a positive int"),
        (lambda: augment.random_crop(1, mode="wrap"), ValueError, '^mode: expected "constant", "edge" or "reflect"'),
        (lambda: augment.pad_and_crop(IMAGES[0], 0, 0, 9, mode="reflect"), ValueError, "^padding: expected less than"),
        (
            lambda: augment.random_flip_left_right(1.5),
            ValueError,
            r"^probability: expected a finite number in \[0, 1\]",
        ),
        (lambda: augment.random_rotation("10"), TypeError, "^max_degrees: expected a number, got '10'"),
        (lambda: augment.random_affine(max_zoom=0.5), ValueError, r"^max_zoom: expected a finite number in \[1, inf\)"),
        (lambda: augment.random_resized_crop(0.0), ValueError, r"^min_area: expected a finite number in \(0, 1\]"),
        (
            lambda: augment.random_erasing(min_area=0.5),
            ValueError,
            "^min_area: expected at most max_area, 0.33, got 0.5",
        ),
        (lambda: augment.random_hue(0.7), ValueError, r"^max_delta: expected a finite number in \[0, 0.5\]"),
        (lambda: augment.mixup(0.0), ValueError, r"^alpha: expected a finite number in \(0, inf\)"),
        (lambda: augment.mixup(10), TypeError, r"^mixup: expected num_classes"),
        (lambda: augment.mixup(num_classes=2.5), TypeError, "^num_classes: expected a positive int"),
        (lambda: augment.random_time_warp(0.6), ValueError, r"^max_shift: expected a finite number in \[0, 0.5\]"),
        (lambda: augment.random_time_mask(2.5), ValueError, "^max_length: expected an integer, got 2.5"),
        (
            lambda: augment.gaussian_blur(IMAGES[0], 1.0, radius=8),
            ValueError,
            "^radius: expected less than the image's",
        ),
        (lambda: augment.adjust_hue(IMAGES[0, ..., :1], 0.1), ValueError, "^image: expected 3 channels"),
        (
            lambda: augment.rotate(IMAGES[0, ..., 0], 0.1),
            ValueError,
            r"^image: expected an image .*; add the axis of ch",
        ),
        (lambda: augment.chain(3), TypeError, r"^augments\[0\]: expected a function \(batch, keys\) -> batch"),
        (
            lambda: augment.per_example(augment.flip_left_right),
            TypeError,
            r"^function: expected a function \(example, k",
        ),
    ],
)
def test_bad_arguments(call, error, match):
    with pytest.raises(error, match=match):
        made = call()
        if callable(made):
            made(Batch(IMAGES, LABELS), KEYS)


@pytest.mark.parametrize(
    ("augmentation", "x", "error", "match"),
    [
        (augment.random_crop(1), np.zeros((4, 8, 8)), ValueError, r"^x: expected images .*; add the axis of channels"),
        (augment.random_crop(1), np.zeros((4, 8, 8, 3), int), TypeError, r"^x: expected floats or uint8, got int64"),
        (augment.random_crop(1), {"a": np.zeros((4, 8, 8, 3))}, TypeError, "^x: expected an array, got .*per_example"),
        (augment.random_noise(1.0), np.zeros((4, 8), np.int32), TypeError, "^x: expected floats or uint8, got int32"),
        (augment.random_time_warp(0.1), np.zeros(4), ValueError, r"^x: expected sequences \[N, time, ...\], got the"),
        (augment.random_feature_mask(1), np.zeros((4, 3)), ValueError, r"^x: expected sequences \[N, time, ..., feat"),
        (
            augment.mixup(),
            {"a": np.zeros((4, 8), np.int32)},
            TypeError,
            r"^x\[a\]: expected floats or uint8, got int32",
        ),
        (
            augment.cutmix(),
            np.zeros((1, 8, 8, 1)),
            ValueError,
            "^cutmix: expected batches of at least 2 examples, got 1",
        ),
        (augment.cutmix(), np.zeros((4, 8)), ValueError, r"^x: expected images \[N, height, width, channels\]"),
    ],
)
def test_bad_features(augmentation, x, error, match):
    with pytest.raises(error, match=match):
        rows = len(jax.tree.leaves(x)[0])
        augmentation(Batch(x, np.zeros(rows, np.float32)), KEYS[:rows])


def test_token_ids_can_be_masked():
    masked = augment.random_time_mask(4, value=99)(Batch(np.ones((4, 6), np.int32), LABELS), KEYS)
    assert masked.x.dtype == np.int32 and set(np.ravel(masked.x).tolist()) == {1, 99}
