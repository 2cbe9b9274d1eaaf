"""The examples of the guides run as they stand, each page from its top to its end: what a page claims, they assert."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = sorted(
    str(path.relative_to(DOCS))
    for path in DOCS.rglob("*.md")
    if "api" not in path.parts and "```python\n" in path.read_text()
)
NEEDED = {"other_libraries.md": ["equinox", "flax"]}


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES)
def test_the_examples_of_a_guide(page):
    for library in NEEDED.get(page, []):
        pytest.importorskip(library)
    path = DOCS / page
    text = path.read_text()
    names = {}
    for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        above = "\n" * text.count("\n", 0, block.start(1))  # so that a failure names the line of the page
        exec(compile(above + block[1], str(path), "exec"), names)


def test_links_lead_to_pages_that_are_there():
    for path in [*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]:
        if "api" in path.parts:
            continue
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            target = path.parent / link
            generated = target.parent.name == "api" and (DOCS.parent / "jaxopt_nn" / target.stem).exists()
            generated |= target.parent.name == "api" and (DOCS.parent / "jaxopt_nn" / f"{target.stem}.py").exists()
            assert generated or target.exists(), f"{path.name}: {link}"
