"""Weights from the targets: for classes that are rare, and for targets that are missing."""

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.data._checks import check_concrete, check_labels, is_integer, num_examples
from jaxopt_nn.types import Batch

__all__ = ["class_weights", "mask_missing"]


def class_weights(labels: Any, num_classes: int | None = None) -> NDArray[np.float32]:
    """Weights of classes with which all classes count the same in sum: N / (C·n_c), with n_c examples of class c.

    Args:
        labels: integer classes ``[N, ...]``.
        num_classes: C; None for the largest label and one.

    Returns:
        ``[C]`` float32, 0 for a class without examples. For :func:`jaxopt_nn.losses.softmax_cross_entropy` as
        ``class_weight``; ``class_weights(y)[y]`` are weights of examples, which metrics take too.

    Raises:
        TypeError: labels are not integers.
        ValueError: a label is negative, or not below ``num_classes``; there are none.

    As ``sklearn.utils.class_weight.compute_class_weight("balanced")``.

    >>> class_weights(np.array([0, 0, 1, 1, 1, 1])).tolist()
    [1.5, 0.75]
    """
    check_concrete("labels", labels)
    classes = np.asarray(labels).reshape(-1)
    if not is_integer(classes.dtype):
        raise TypeError(f"labels: expected integer classes, got dtype {classes.dtype}")
    if classes.size == 0:
        raise ValueError("labels: expected at least one, got none")
    classes = classes.astype(np.int64)
    if num_classes is not None:
        check_positive_int("num_classes", num_classes)
    check_labels("labels", classes, max(int(classes.max()) + 1, 1) if num_classes is None else num_classes)
    counts = np.bincount(classes, minlength=num_classes or 0)
    weights = np.zeros(len(counts))
    np.divide(len(classes), np.count_nonzero(counts) * counts, out=weights, where=counts > 0)
    return weights.astype(np.float32)


def mask_missing(batch: Batch, ignore: int | None = None) -> Batch:
    """The same examples with a weight of 0 for each target that is missing.

    Args:
        batch: an array of targets ``[N, ...]``: of a regression, where NaN is missing, or of integer classes.
        ignore: the integer that stands for a missing class, such as −100, or the id of a padding token. Of floats None.

    Returns:
        The batch with 0 in place of missing targets, and the weights ``[N, ...]`` of the targets: what they were, and 0
        of those that are missing. A loss is then the mean over the targets that are there, whatever examples they
        belong to.

    Raises:
        TypeError: ``y`` is no array; classes without ``ignore``, or floats with it.
        ValueError: as :func:`check_batch` has it for lengths.

    >>> import numpy as np
    >>> batch = mask_missing(Batch(np.ones((2, 3)), np.array([[1.0, np.nan], [2.0, 3.0]])))
    >>> batch.y.tolist(), batch.weight.tolist()
    ([[1.0, 0.0], [2.0, 3.0]], [[1.0, 0.0], [1.0, 1.0]])
    """
    num_examples("batch", batch)
    check_concrete("batch", batch)
    if not isinstance(batch.y, (np.ndarray, jax.Array)):
        raise TypeError(f"batch.y: expected an array of targets, got a {type(batch.y).__name__}")
    targets = np.asarray(batch.y)
    if is_integer(targets.dtype) == (ignore is None):
        kind = "the integer of a missing class" if ignore is None else "None, since NaN is missing in floats"
        raise TypeError(f"ignore: expected {kind}, got {ignore!r}")
    missing = np.isnan(targets) if ignore is None else targets == ignore
    weight = (~missing).astype(np.float32)
    if batch.weight is not None:
        given = np.asarray(batch.weight)
        weight = weight * given.reshape(*given.shape, *(1,) * (weight.ndim - given.ndim))
    return batch._replace(y=np.where(missing, np.zeros((), targets.dtype), targets), weight=weight)
