"""The examples of the guides run as they stand, each page from its top to its end."""

import re
from pathlib import Path

import pytest

GUIDES = ["gradient_checking.md", "training.md"]


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES)
def test_the_examples_of_a_guide(page):
    text = (Path(__file__).parents[1] / "docs" / page).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
