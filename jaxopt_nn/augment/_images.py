"""Images and numbers in them: what is refused, uint8 to floats and back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_number, shown
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.types import Array, ArrayLike, Key

__all__ = [
    "as_floats",
    "between",
    "check_fraction",
    "check_image",
    "check_images",
    "check_numbers",
    "check_probability",
    "check_rgb",
    "clipped",
    "happens",
    "index_below",
    "like",
    "symmetric",
]


def check_images(x: Any) -> None:
    """Raises unless ``x`` are images ``[N, height, width, channels]``."""
    _check(x, "x", 4, "images [N, height, width, channels]")


def check_image(image: Any) -> None:
    """Raises unless ``image`` is one image ``[height, width, channels]``."""
    _check(image, "image", 3, "an image [height, width, channels]")


def check_rgb(image: Any) -> None:
    """Raises unless ``image`` has the three channels red, green and blue."""
    check_image(image)
    if image.shape[-1] != 3:
        raise ValueError(f"image: expected 3 channels, red, green and blue, got {image.shape[-1]}")


def check_numbers(name: str, x: Any) -> None:
    """Raises unless ``x`` is an array of floats, or of uint8."""
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        several = f"a {type(x).__name__}; choose one array of it with augment.per_example"
        raise TypeError(f"{name}: expected an array, got {several if isinstance(x, (dict, list, tuple)) else shown(x)}")
    if not (jnp.issubdtype(x.dtype, jnp.floating) or x.dtype == np.uint8):
        raise TypeError(f"{name}: expected floats or uint8, got {x.dtype}{list(x.shape)}")


def _check(x: Any, name: str, rank: int, expected: str) -> None:
    check_numbers(name, x)
    if x.ndim != rank:
        hint = "; add the axis of channels with x[..., None]" if x.ndim == rank - 1 else ""
        raise ValueError(f"{name}: expected {expected}, got the shape {list(x.shape)}{hint}")


def check_probability(probability: Any) -> None:
    """Raises unless it is a number in [0, 1], or traced."""
    check_number("probability", probability, 0.0, 1.0)


def check_fraction(name: str, value: Any, low: float = 0.0) -> None:
    """Raises unless it is a number in [low, 1], or traced."""
    check_number(name, value, low, 1.0)


def as_floats(x: Array) -> Array:
    """Floats of at least 32 bits; uint8 becomes numbers in [0, 1]."""
    x = jnp.asarray(x)
    if x.dtype == np.uint8:
        return x.astype(jnp.float32) / 255
    return x.astype(compute_dtype(x))


def like(x: Array, result: Array) -> Array:
    """The result in the dtype of ``x``: for uint8 it is clipped to [0, 1] and rounded."""
    if x.dtype == np.uint8:
        return jnp.round(jnp.clip(result, 0, 1) * 255).astype(np.uint8)
    return result.astype(x.dtype)


def clipped(image: Array) -> Array:
    """The image in [0, 1]."""
    return jnp.clip(image, 0, 1)


def between(uniform: Array, low: ArrayLike, high: ArrayLike) -> Array:
    """A number in [low, high) from one in [0, 1)."""
    low, high = jnp.asarray(low, uniform.dtype), jnp.asarray(high, uniform.dtype)
    return low + uniform * (high - low)


def happens(uniform: Array, probability: ArrayLike) -> Array:
    """True with this probability, from a number in [0, 1)."""
    return uniform < jnp.asarray(probability, uniform.dtype)


def symmetric(key: Key, limit: ArrayLike, count: int) -> Array:
    """Numbers ``[count]`` in [-limit, limit)."""
    return between(jax.random.uniform(key, (count,)), -jnp.asarray(limit, jnp.float32), limit)


def index_below(uniform: Array, count: ArrayLike) -> Array:
    """An integer in [0, count) from a number in [0, 1)."""
    return jnp.floor(uniform * jnp.asarray(count, uniform.dtype)).astype(jnp.int32)
