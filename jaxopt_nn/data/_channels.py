"""The mean and the deviation of each channel of images."""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._arguments import shown
from jaxopt_nn.data._checks import check_concrete, check_real
from jaxopt_nn.data._scaling import Scaler, fit_standard_scaler
from jaxopt_nn.types import Batch

__all__ = ["fit_channel_scaler"]

_ROWS = 256


def fit_channel_scaler(images: Any) -> Scaler:
    """To mean 0 and standard deviation 1 in each channel: ``shift`` and ``scale`` are those of all its pixels.

    Args:
        images: concrete images ``[N, ..., channels]``, or a Batch: of that ``.x``, without rows of weight 0. Of uint8
            also an iterable of these, such as an epoch of :func:`stream_images`. Give it the training images alone.

    Returns:
        Scaler of arrays ``[channels]``, for :func:`transform`, also of uint8 inside of a model:
        ``layers.serial(functools.partial(data.transform, scaler), ...)``. A constant channel is divided by 1. The
        statistics of uint8 are exact up to the last rounding.

    Raises:
        TypeError: no arrays of real numbers; an iterable of other numbers than uint8.
        ValueError: no images; images with different channels.

    >>> images = np.zeros((2, 4, 4, 3), np.uint8)
    >>> images[0, ..., 1] = 10
    >>> fit_channel_scaler(images).shift.tolist()
    [0.0, 5.0, 0.0]
    """
    if isinstance(images, Batch) or hasattr(images, "dtype"):
        values = _values(images)
        if values.dtype != np.uint8:
            return fit_standard_scaler(values.reshape(-1, values.shape[-1]))
        return _scaler(_counts(values))
    if not isinstance(images, Iterable):
        raise TypeError(f"images: expected an array, a Batch, or an iterable of these, got {shown(images)}")
    total: NDArray[np.int64] | None = None
    for each in cast("Iterable[Any]", images):
        values = _values(each)
        if values.dtype != np.uint8:
            raise TypeError(f"images: expected uint8 in an iterable, got {values.dtype}")
        counts = _counts(values)
        if total is not None and len(total) != len(counts):
            raise ValueError(f"images: expected {len(total)} channels as the first have, got {len(counts)}")
        total = counts if total is None else total + counts
    if total is None:
        raise ValueError("images: expected at least one batch, got none")
    return _scaler(total)


def _values(images: Any) -> NDArray[Any]:
    x = images.x if isinstance(images, Batch) else images
    check_real("images", x)
    check_concrete("images", x)
    values = np.asarray(x)
    if isinstance(images, Batch) and images.weight is not None:
        values = values[(np.asarray(images.weight).reshape(len(values), -1) > 0).any(1)]
    if values.ndim < 2 or values.size == 0:
        raise ValueError(f"images: expected [N, ..., channels], at least one, got the shape {list(values.shape)}")
    return values


def _counts(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each value is in each channel, ``[channels, 256]``: block by block, as a wider copy may not fit."""
    channels = values.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for first in range(0, len(values), _ROWS):
        block = values[first : first + _ROWS].reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(block[:, channel], minlength=256)
    return counts


def _scaler(counts: NDArray[np.int64]) -> Scaler:
    levels, total = np.arange(256.0), counts.sum(1)
    mean = counts @ levels / total
    deviation = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / total)
    constant = (counts > 0).sum(1) == 1
    scale = np.where(constant, 1.0, deviation)
    return Scaler(mean.astype(np.float32), scale.astype(np.float32), np.zeros(len(mean), np.float32))
