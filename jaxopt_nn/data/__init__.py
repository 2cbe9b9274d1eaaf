"""Data sets, splits and scalers: from files and a person's own arrays to a :class:`~jaxopt_nn.types.Batch`.

A data set is ``Batch(x, y, weight=None)`` of NumPy arrays on the host: float32 features ``[N, ...]``, int32 class
labels or float32 targets. Everything here runs on the host and wants concrete arrays, except :func:`transform` and
:func:`inverse_transform`, which are plain arithmetic and may be traced, vmapped and differentiated, and
:func:`check_batch`, which lets traced values pass.

Import from ``jaxopt_nn.data``, not from the modules within it.
"""

from jaxopt_nn.data._arrays import class_weights, from_arrays
from jaxopt_nn.data._bundled import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from jaxopt_nn.data._channels import fit_channel_scaler
from jaxopt_nn.data._checks import check_batch
from jaxopt_nn.data._fashion_mnist import load_fashion_mnist
from jaxopt_nn.data._fitted import FittedTable, fit_table, inverse_table, inverse_target, transform_table
from jaxopt_nn.data._idx import read_idx
from jaxopt_nn.data._images import ImageData, ImageFiles, find_images, load_images, stream_images
from jaxopt_nn.data._scaling import (
    Scaler,
    fit_minmax_scaler,
    fit_robust_scaler,
    fit_standard_scaler,
    inverse_transform,
    transform,
)
from jaxopt_nn.data._splitting import kfold, split
from jaxopt_nn.data._streams import Stream, stream, stream_blocks
from jaxopt_nn.data._targets import mask_missing

__all__ = [
    "FittedTable",
    "ImageData",
    "ImageFiles",
    "Scaler",
    "Stream",
    "check_batch",
    "class_weights",
    "find_images",
    "fit_channel_scaler",
    "fit_minmax_scaler",
    "fit_robust_scaler",
    "fit_standard_scaler",
    "fit_table",
    "from_arrays",
    "inverse_table",
    "inverse_target",
    "inverse_transform",
    "kfold",
    "load_breast_cancer",
    "load_diabetes",
    "load_digits",
    "load_fashion_mnist",
    "load_images",
    "load_iris",
    "load_wine",
    "mask_missing",
    "read_idx",
    "split",
    "stream",
    "stream_blocks",
    "stream_images",
    "transform",
    "transform_table",
]
