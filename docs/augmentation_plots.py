"""Draws what each function of ``jaxopt_nn.augment`` does; the documentation shows it below the function's docstring.

By hand: ``python docs/augmentation_plots.py FOLDER``.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from jaxopt_nn import augment as a
from jaxopt_nn.types import Batch

Panels = list[tuple[str, Any]]
"""Label and array: an image, a table (two axes) or a curve (one axis)."""


def photo() -> np.ndarray:
    """A photo that comes with matplotlib, 96 x 96, in [0, 1]."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as file:
        face = file.convert("RGB").crop((120, 20, 420, 320)).resize((96, 96), Image.Resampling.BILINEAR)
    return np.asarray(face, np.float32) / 255


def sun() -> np.ndarray:
    """Another class of images, to mix with."""
    rows, columns = np.mgrid[-1:1:96j, -1:1:96j]
    disc = (np.hypot(rows, columns) < 0.6)[..., None]
    return np.where(disc, [1.0, 0.8, 0.2], [0.2, 0.5, 0.8]).astype(np.float32)


def spectrogram() -> np.ndarray:
    """A sequence of 80 steps with 40 features."""
    times, features = np.mgrid[:80, :40]
    return (np.exp(-(((features - 20 - 12 * np.sin(times / 9)) / 4) ** 2)) + 0.2 * np.cos(features)).astype(np.float32)


def curve() -> np.ndarray:
    """A sequence of 120 steps with one feature."""
    return np.sin(np.linspace(0, 12 * np.pi, 120)).astype(np.float32)


def table() -> np.ndarray:
    """An example with 24 features, as a row that is high enough to be seen."""
    return np.random.default_rng(0).normal(size=24).astype(np.float32)


def draws(augmentation: a.Augment, example: np.ndarray, count: int = 5) -> Panels:
    """The example, and what it becomes with different keys."""
    batch = Batch(jnp.stack([example] * count), jnp.zeros(count))
    new = jax.jit(augmentation)(batch, jax.random.split(jax.random.key(1), count))
    return [("before", example), *(("", each) for each in new.x)]


def mixed(augmentation: a.Augment) -> Panels:
    """Photos and suns, mixed in turn; the label says how much of each counts."""
    x = jnp.stack([photo(), sun()] * 3)
    batch = jax.jit(augmentation)(Batch(x, jnp.array([0, 1] * 3)), jax.random.split(jax.random.key(1), 6))
    return [(f"{y[0]:.2f}, {y[1]:.2f}", image) for image, y in zip(batch.x, np.asarray(batch.y), strict=True)]


def values(function: Callable[..., Any], example: np.ndarray, *arguments: tuple[Any, ...]) -> Panels:
    """The example, and the function of it with different numbers."""
    labels = [", ".join(f"{number:g}" for number in each) for each in arguments]
    return [("before", example)] + [
        (label, jax.jit(lambda x, each=each: function(x, *each))(example))
        for label, each in zip(labels, arguments, strict=True)
    ]


def pictures() -> dict[str, Callable[[], Panels]]:
    """What is drawn for each function of the public module."""
    half = np.array([[0.8, 0.4], [-0.2, 0.9]])
    return {
        "adjust_brightness": lambda: values(a.adjust_brightness, photo(), (-0.4,), (-0.2,), (0.2,), (0.4,)),
        "adjust_contrast": lambda: values(a.adjust_contrast, photo(), (0.0,), (0.5,), (1.5,), (2.5,)),
        "adjust_saturation": lambda: values(a.adjust_saturation, photo(), (0.0,), (0.5,), (2.0,), (4.0,)),
        "adjust_hue": lambda: values(a.adjust_hue, photo(), (-0.3,), (-0.1,), (0.1,), (0.3,)),
        "adjust_sharpness": lambda: values(a.adjust_sharpness, photo(), (0.0,), (0.5,), (2.0,), (4.0,)),
        "affine": lambda: [("before", photo()), ("", a.affine(photo(), half))],
        "autocontrast": lambda: values(a.autocontrast, 0.3 + 0.4 * photo(), ()),
        "crop_and_resize": lambda: values(
            a.crop_and_resize, photo(), (0, 0, 48, 48), (20, 20, 60, 60), (0, 40, 96, 30)
        ),
        "cutmix": lambda: mixed(a.cutmix(num_classes=2)),
        "cutout": lambda: draws(a.cutout(40), photo()),
        "equalize": lambda: values(a.equalize, photo() ** 3, ()),
        "erase": lambda: values(a.erase, photo(), (10, 20, 30, 50), (60, 60, 50, 50, 0.5)),
        "flip_left_right": lambda: values(a.flip_left_right, photo(), ()),
        "flip_up_down": lambda: values(a.flip_up_down, photo(), ()),
        "gaussian_blur": lambda: values(a.gaussian_blur, photo(), (0.5,), (1.0,), (2.0,), (4.0,)),
        "mask_span": lambda: values(a.mask_span, spectrogram(), (10, 20), (60, 10)),
        "mixup": lambda: mixed(a.mixup(1.0, num_classes=2)),
        "pad_and_crop": lambda: (
            [("before", photo())]
            + [(mode, a.pad_and_crop(photo(), 40, 0, 20, mode=mode)) for mode in ("constant", "edge", "reflect")]
        ),
        "posterize": lambda: values(a.posterize, photo(), (1,), (2,), (3,), (4,)),
        "rand_augment": lambda: draws(a.rand_augment(2, 0.5), photo()),
        "random_affine": lambda: draws(
            a.random_affine(max_degrees=20, max_shift=0.1, max_zoom=1.3, max_shear=0.2), photo()
        ),
        "random_blur": lambda: draws(a.random_blur(3.0), photo()),
        "random_brightness": lambda: draws(a.random_brightness(0.4), photo()),
        "random_contrast": lambda: draws(a.random_contrast(0.8), photo()),
        "random_crop": lambda: draws(a.random_crop(20), photo()),
        "random_erasing": lambda: draws(a.random_erasing(1.0), photo()),
        "random_feature_dropout": lambda: draws(a.random_feature_dropout(0.3), table()),
        "random_feature_mask": lambda: draws(a.random_feature_mask(15), spectrogram()),
        "random_flip_left_right": lambda: draws(a.random_flip_left_right(), photo()),
        "random_flip_up_down": lambda: draws(a.random_flip_up_down(), photo()),
        "random_hue": lambda: draws(a.random_hue(0.3), photo()),
        "random_noise": lambda: draws(a.random_noise(0.1), photo()),
        "random_resized_crop": lambda: draws(a.random_resized_crop(0.2), photo()),
        "random_rotation": lambda: draws(a.random_rotation(30.0), photo()),
        "random_saturation": lambda: draws(a.random_saturation(1.0), photo()),
        "random_shift": lambda: draws(a.random_shift(0.2, mode="edge"), photo()),
        "random_time_mask": lambda: draws(a.random_time_mask(30), spectrogram()),
        "random_time_warp": lambda: draws(a.random_time_warp(0.3), curve()),
        "rotate": lambda: values(a.rotate, photo(), (-30,), (15,), (45,), (90,)),
        "shear": lambda: values(a.shear, photo(), (0.3,), (-0.3,), (0.0, 0.3)),
        "shift": lambda: values(a.shift, photo(), (20, 0), (0, 20), (-20.5, -20.5)),
        "solarize": lambda: values(a.solarize, photo(), (0.25,), (0.5,), (0.75,)),
        "warp_time": lambda: values(a.warp_time, curve(), (40, 70), (80, 30)),
    }


def draw(folder: Path) -> None:
    """Writes NAME.png for each function into a folder that is there."""
    for name, panels in pictures().items():
        made = panels()
        figure = Figure(figsize=(1.5 * len(made), 1.75), layout="constrained", facecolor="white")
        for axes, (label, array) in zip(np.ravel(figure.subplots(1, len(made))), made, strict=True):
            _show(axes, np.asarray(array))
            axes.set_title(label, fontsize=9)
        figure.savefig(folder / f"{name}.png", dpi=80, metadata={"Software": None})


def _show(axes: Any, array: np.ndarray) -> None:
    axes.set(xticks=[], yticks=[])
    if array.ndim == 3:
        axes.imshow(np.clip(array, 0, 1))
    elif array.ndim == 2:
        axes.imshow(array.T, origin="lower", aspect="auto", vmin=-0.2, vmax=1.2)
        axes.set(xlabel="time", ylabel="features")
    elif len(array) < 100:
        axes.bar(range(len(array)), array)
        axes.set(xlabel="features", ylim=(-2.5, 2.5))
    else:
        axes.plot(array, linewidth=1)
        axes.set(xlabel="time")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
