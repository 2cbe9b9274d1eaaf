"""The examples of the guides run as they stand, each page from its top to its end: what a page claims, they assert."""

import re
from pathlib import Path

import pytest

GUIDES = ["gradient_checking.md", "resuming.md", "saving.md", "training.md"]


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES)
def test_the_examples_of_a_guide(page):
    path = Path(__file__).parents[1] / "docs" / page
    text = path.read_text()
    blocks = list(re.finditer(r"```python\n(.*?)```", text, re.DOTALL))
    assert blocks
    names = {}
    for block in blocks:
        above = "\n" * text.count("\n", 0, block.start(1))  # so that a failure names the line of the page
        exec(compile(above + block[1], str(path), "exec"), names)
