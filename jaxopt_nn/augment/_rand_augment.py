"""RandAugment: some operations out of a fixed list, with one number for how strong they are."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_number, check_positive_int
from jaxopt_nn.augment._batches import Augment, of_features
from jaxopt_nn.augment._colour import adjust_contrast, adjust_saturation, autocontrast, equalize, posterize, solarize
from jaxopt_nn.augment._filters import adjust_sharpness
from jaxopt_nn.augment._geometry import rotate, shear, shift
from jaxopt_nn.augment._images import as_floats, check_images, clipped, index_below, like
from jaxopt_nn.types import Array, ArrayLike, Key

__all__ = ["rand_augment"]

Operation = Callable[[Array, Array, Array], Array]
"""``(image, magnitude in [0, 1], the same with a random sign) -> image``."""


def rand_augment(operations: int = 2, magnitude: ArrayLike = 0.3) -> Augment:
    """For each image some operations, one after another, out of 14 (grey images: 13).

    The identity, shear along both axes (by up to 0.3), shift along both axes (by up to 0.45 of the image), rotation (by
    up to 30 degrees), brightness, saturation, contrast and sharpness (by factors up to 1 ± 0.9), posterize (down to 4
    bits), solarize, autocontrast, equalize. Results are clipped to [0, 1].

    Args:
        operations: static; how many for an image.
        magnitude: how strong, in [0, 1]; may be traced. Torchvision's magnitude 9 of 30 is 0.3.

    The compiled program computes all of the operations for each image and chooses one, so it costs as much as all.

    References:
        Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space", 2019.
    """
    check_positive_int("operations", operations)
    check_number("magnitude", magnitude, 0.0, 1.0)

    def augment(key: Key, image: Array) -> Array:
        draws, strength = jax.random.uniform(key, (operations, 2)), jnp.asarray(magnitude, jnp.float32)
        branches = _OPERATIONS if image.shape[-1] == 3 else [one for one in _OPERATIONS if one is not _saturation]

        def operate(x: Array, draw: Array) -> tuple[Array, None]:
            signed = jnp.where(draw[1] < 0.5, -strength, strength)
            return clipped(lax.switch(index_below(draw[0], len(branches)), branches, x, strength, signed)), None

        return like(image, lax.scan(operate, clipped(as_floats(image)), draws)[0])

    return of_features(check_images, augment)


def _saturation(x: Array, m: Array, signed: Array) -> Array:
    return adjust_saturation(x, 1 + 0.9 * signed)


_OPERATIONS: list[Operation] = [
    lambda x, m, signed: x,
    lambda x, m, signed: shear(x, 0.3 * signed),
    lambda x, m, signed: shear(x, 0.0, 0.3 * signed),
    lambda x, m, signed: shift(x, 0.0, 150 / 331 * signed * x.shape[1]),
    lambda x, m, signed: shift(x, 150 / 331 * signed * x.shape[0], 0.0),
    lambda x, m, signed: rotate(x, 30 * signed),
    lambda x, m, signed: x * (1 + 0.9 * signed).astype(x.dtype),
    _saturation,
    lambda x, m, signed: adjust_contrast(x, 1 + 0.9 * signed),
    lambda x, m, signed: adjust_sharpness(x, 1 + 0.9 * signed),
    lambda x, m, signed: posterize(x, 8 - jnp.round(4 * m)),
    lambda x, m, signed: solarize(x, 1 - m),
    lambda x, m, signed: autocontrast(x),
    lambda x, m, signed: equalize(x),
]
