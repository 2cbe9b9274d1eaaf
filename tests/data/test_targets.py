"""Weights of targets that are missing."""

import numpy as np
import pytest

from jaxopt_nn import data
from jaxopt_nn.types import Batch


def test_missing_targets_are_masked_by_what_stands_for_them():
    x = np.ones((2, 3), np.float32)
    classes = data.mask_missing(Batch(x, np.array([[1, -1], [2, 0]]), np.array([2.0, 3.0])), ignore=-1)
    assert classes.y.tolist() == [[1, 0], [2, 0]] and classes.weight.tolist() == [[2.0, 0.0], [3.0, 3.0]]
    one = data.mask_missing(Batch(x, np.array([np.nan, 4.0], np.float32)))
    assert one.y.tolist() == [0.0, 4.0] and one.weight.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda: data.mask_missing(Batch(np.ones((1, 1)), np.array([1]))), TypeError, "ignore: expected the integer"),
        (lambda: data.mask_missing(Batch(np.ones((1, 1)), np.ones(1)), 0), TypeError, "ignore: expected None"),
    ],
)
def test_what_is_refused(call, kind, match):
    with pytest.raises(kind, match=match):
        call()
