"""Augmentation beside dm-pix and torchvision, as they run."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import augment

IMAGE = np.random.default_rng(0).random((16, 12, 3)).astype(np.float32)


@pytest.mark.filterwarnings("ignore")
def test_dm_pix():
    pix = pytest.importorskip("dm_pix")
    matrix, offset = jnp.array([[0.9, 0.3], [-0.2, 1.1]]), jnp.array([1.5, -2.25])
    centre = (jnp.array(IMAGE.shape[:2]) - 1) / 2
    pix_matrix = jnp.eye(3).at[:2, :2].set(matrix)
    pix_offset = jnp.zeros(3).at[:2].set(centre - matrix @ centre + offset)
    pairs = [
        (augment.flip_left_right(IMAGE), pix.flip_left_right(jnp.asarray(IMAGE))),
        (augment.flip_up_down(IMAGE), pix.flip_up_down(jnp.asarray(IMAGE))),
        (augment.adjust_brightness(IMAGE, -0.3), pix.adjust_brightness(jnp.asarray(IMAGE), -0.3)),
        (augment.adjust_contrast(IMAGE, 1.7), pix.adjust_contrast(jnp.asarray(IMAGE), 1.7)),
        (augment.adjust_hue(IMAGE, 0.2), pix.adjust_hue(jnp.asarray(IMAGE), 0.2)),
        (augment.solarize(IMAGE, 0.4), pix.solarize(jnp.asarray(IMAGE), 0.4)),
        (
            augment.affine(IMAGE, matrix, offset, mode="edge"),
            pix.affine_transform(jnp.asarray(IMAGE), pix_matrix, offset=pix_offset, mode="nearest"),
        ),
        (
            augment.gaussian_blur(IMAGE, 0.8, radius=2)[2:-2, 2:-2],  # at the edges dm-pix pads with 0
            pix.gaussian_blur(jnp.asarray(IMAGE), 0.8, kernel_size=5)[2:-2, 2:-2],
        ),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_torchvision():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = torch.from_numpy(IMAGE.transpose(2, 0, 1))
    bytes_ = np.round(IMAGE * 255).astype(np.uint8)
    theirs_of_bytes = torch.from_numpy(bytes_.transpose(2, 0, 1))
    bilinear = functional.InterpolationMode.BILINEAR if hasattr(functional, "InterpolationMode") else "bilinear"

    def close(ours, theirs, tolerance):
        np.testing.assert_allclose(ours, theirs.numpy().transpose(1, 2, 0), atol=tolerance)

    for factor in (0.3, 1.2):
        saturated = np.clip(augment.adjust_saturation(IMAGE, factor), 0, 1)
        close(saturated, functional.adjust_saturation(image, factor), 2e-4)
        close(np.clip(augment.adjust_sharpness(IMAGE, factor), 0, 1), functional.adjust_sharpness(image, factor), 1e-5)
    close(augment.adjust_hue(IMAGE, 0.2), functional.adjust_hue(image, 0.2), 1e-5)
    close(augment.solarize(IMAGE, 0.4), functional.solarize(image, 0.4), 1e-6)
    close(augment.autocontrast(IMAGE), functional.autocontrast(image), 1e-5)
    close(augment.posterize(bytes_, 3), functional.posterize(theirs_of_bytes, 3), 0)
    close(augment.equalize(bytes_), functional.equalize(theirs_of_bytes), 0)
    close(augment.gaussian_blur(IMAGE, 0.8, radius=2), functional.gaussian_blur(image, [5, 5], [0.8, 0.8]), 1e-5)
    close(augment.rotate(IMAGE, 25.0), functional.rotate(image, 25.0, interpolation=bilinear), 1e-4)
    close(augment.erase(IMAGE, 2, 3, 5, 4), functional.erase(image, 2, 3, 5, 4, torch.zeros(1)), 0)
    enlarged = functional.resized_crop(image, 2, 1, 8, 6, [16, 12], interpolation=bilinear, antialias=False)
    close(augment.crop_and_resize(IMAGE, 2, 1, 8, 6), enlarged, 1e-5)
