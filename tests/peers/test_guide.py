"""The guide to models of other libraries, with these libraries."""

import re
from pathlib import Path

import pytest


def test_the_examples_of_the_guide():
    for library in ("equinox", "flax"):
        pytest.importorskip(library)
    text = (Path(__file__).parents[2] / "docs" / "other_libraries.md").read_text()
    names = {}
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(example, names)
