"""The README's first example runs as it stands, and tables say what the results say."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import check_tables, tables
from jaxopt_nn import training

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.slow
def test_the_first_example():
    example = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    names = {}
    exec(example, names)
    scores = training.evaluate(names["recipe"], names["hparams"], names["result"], names["test"])
    assert float(scores["accuracy"]) > 0.9
    np.testing.assert_array_equal(names["fitted"].history["valid_loss"], names["result"].history["valid_loss"])
    assert names["lanes"].history["valid_loss"].shape == (16, 30)


def test_the_table_of_benchmarks():
    text = README.read_text()
    assert tables.insert(text, tables.short_table(tables.results())) == text


def test_the_tables_of_gradient_checking():
    text = (README.parent / "docs" / "gradient_checking.md").read_text()
    assert tables.insert(text, check_tables.tables()) == text
