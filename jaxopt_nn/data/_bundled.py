"""The small data sets that come with scikit-learn: no download, a few hundred real examples each.

Features are as they were measured, not scaled: fit a scaler on the training split. scikit-learn is needed only here.
"""

import importlib
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from jaxopt_nn.types import Batch

__all__ = ["load_breast_cancer", "load_diabetes", "load_digits", "load_iris", "load_wine"]


def load_digits() -> Batch:
    """Handwritten digits: ``x [1797, 64]`` float32, 8x8 images of whole numbers 0..16; ``y`` int32, 10 classes.

    Returns:
        Batch of NumPy arrays; ``x.reshape(-1, 8, 8, 1)`` are the images.

    Raises:
        ImportError: scikit-learn is not installed.

    Example:
        >>> digits = load_digits()
        >>> digits.x.shape, float(digits.x.max()), digits.y[:5].tolist()
        ((1797, 64), 16.0, [0, 1, 2, 3, 4])

    References:
        E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (test part), UCI Machine Learning Repository,
        1998.
    """
    return _load("load_digits", np.int32)


def load_iris() -> Batch:
    """Iris flowers: ``x [150, 4]`` float32, in cm; ``y`` int32, 3 species. Needs scikit-learn."""
    return _load("load_iris", np.int32)


def load_wine() -> Batch:
    """Wines: ``x [178, 13]`` float32, chemical analyses; ``y`` int32, 3 cultivars. Needs scikit-learn."""
    return _load("load_wine", np.int32)


def load_breast_cancer() -> Batch:
    """Tumours: ``x [569, 30]`` float32; ``y`` int32, 0 malignant and 1 benign. Needs scikit-learn."""
    return _load("load_breast_cancer", np.int32)


def load_diabetes() -> Batch:
    """Diabetes progression, a regression: ``x [442, 10]`` float32; ``y [442]`` float32, 25..346.

    Differs from scikit-learn's default in that the features are raw: its scaled ones are scaled with the whole data
    set's statistics, so that a test split has leaked into them. Needs scikit-learn.
    """
    return _load("load_diabetes", np.float32, scaled=False)


def _load(name: str, target_dtype: DTypeLike, **options: Any) -> Batch:
    try:
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ImportError(f"{name}: needs scikit-learn; install it with: pip install 'jaxopt-nn[data]'") from error
    x, y = getattr(datasets, name)(return_X_y=True, **options)
    return Batch(np.asarray(x, np.float32), np.asarray(y, target_dtype))
