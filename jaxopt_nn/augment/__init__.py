"""Data augmentation inside of the compiled run: ``training.Recipe(augment=...)``.

An augmentation is a pure function ``(batch, keys) -> batch``. ``keys [N]`` holds a PRNG key for each example, which
depends on the seed of the run, the epoch and the example alone. So batch size, order, resuming, lanes and devices do
not change what an example gets. It is applied to the batches of training, and never in evaluation.

``random_...``, ``cutout``, ``mixup``, ``cutmix`` and ``rand_augment`` make such functions, and :func:`chain` puts them
one after another. Most draw the numbers for a function of one example that is deterministic, as ``adjust_...``: use
these with :func:`per_example` for augmentations of your own.

One image is ``[height, width, channels]``: floats, where most functions expect black to be 0 and white 1, or uint8.
What comes out has the shape and the dtype of what went in. Numbers that say how strong an augmentation is may be traced
and swept.
"""

from jaxopt_nn.augment._batches import Augment, chain, per_example
from jaxopt_nn.augment._colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    autocontrast,
    equalize,
    posterize,
    random_brightness,
    random_contrast,
    random_hue,
    random_saturation,
    solarize,
)
from jaxopt_nn.augment._erasing import cutout, erase, random_erasing, random_feature_dropout
from jaxopt_nn.augment._filters import adjust_sharpness, gaussian_blur, random_blur, random_noise
from jaxopt_nn.augment._geometry import (
    affine,
    crop_and_resize,
    flip_left_right,
    flip_up_down,
    pad_and_crop,
    random_affine,
    random_crop,
    random_flip_left_right,
    random_flip_up_down,
    random_resized_crop,
    random_rotation,
    random_shift,
    rotate,
    shear,
    shift,
)
from jaxopt_nn.augment._mixing import cutmix, mixup
from jaxopt_nn.augment._rand_augment import rand_augment
from jaxopt_nn.augment._sequences import (
    mask_span,
    random_feature_mask,
    random_time_mask,
    random_time_warp,
    warp_time,
)

__all__ = [
    "Augment",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "adjust_sharpness",
    "affine",
    "autocontrast",
    "chain",
    "crop_and_resize",
    "cutmix",
    "cutout",
    "equalize",
    "erase",
    "flip_left_right",
    "flip_up_down",
    "gaussian_blur",
    "mask_span",
    "mixup",
    "pad_and_crop",
    "per_example",
    "posterize",
    "rand_augment",
    "random_affine",
    "random_blur",
    "random_brightness",
    "random_contrast",
    "random_crop",
    "random_erasing",
    "random_feature_dropout",
    "random_feature_mask",
    "random_flip_left_right",
    "random_flip_up_down",
    "random_hue",
    "random_noise",
    "random_resized_crop",
    "random_rotation",
    "random_saturation",
    "random_shift",
    "random_time_mask",
    "random_time_warp",
    "rotate",
    "shear",
    "shift",
    "solarize",
    "warp_time",
]
