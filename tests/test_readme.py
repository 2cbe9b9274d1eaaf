"""The README's first example runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

from jaxopt_nn import training


@pytest.mark.slow
def test_the_first_example():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
    names = {}
    exec(example, names)
    scores = training.evaluate(names["recipe"], names["hparams"], names["result"], names["test"])
    assert float(scores["accuracy"]) > 0.9
    np.testing.assert_array_equal(names["fitted"].history["valid_loss"], names["result"].history["valid_loss"])
    assert names["lanes"].history["valid_loss"].shape == (16, 30)
