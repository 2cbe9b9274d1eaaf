"""The examples of the guides run as they stand, each page from top to bottom, and assert what the page claims."""

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
@pytest.mark.parametrize("pages", [GUIDES[::2], GUIDES[1::2]], ids=["even", "odd"])  # for two workers
def test_the_examples_of_the_guides(pages, subtests, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a reader's files would be written
    for page in pages:
        with subtests.test(page=page):
            for library in NEEDED.get(page, []):
                pytest.importorskip(library)
            run(DOCS / page)


def run(path):
    text, names = path.read_text(), {}
    for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        above = "\n" * text.count("\n", 0, block.start(1))  # so that a failure names the line of the page
        exec(compile(above + block[1], str(path), "exec"), names)


def test_links_lead_to_pages_that_are_there():
    for path in [*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]:
        if "api" in path.parts:
            continue
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            parts = Path(link).parts
            if parts[0] == "api" or parts[:2] == ("..", "api"):  # written by docs/conf.py
                module = DOCS.parent / "jaxopt_nn" / Path(link).stem
                assert (
                    parts[-2] in ("augment", "benchmarks") or module.is_dir() or module.with_suffix(".py").is_file()
                ), link
            else:
                assert (path.parent / link).exists(), f"{path.name}: {link}"
