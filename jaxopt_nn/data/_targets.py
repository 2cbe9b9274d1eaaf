"""Weights of single targets: 0 for those that are missing."""

import jax
import numpy as np

from jaxopt_nn.data._checks import check_concrete, is_integer, num_examples
from jaxopt_nn.types import Batch

__all__ = ["mask_missing"]


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
