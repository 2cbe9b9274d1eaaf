"""The examples of the guides run as they stand, each page from top to bottom, and assert what the page claims."""

import re
from pathlib import Path

import jax
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
            names = run(DOCS / page)
            for row in table_rows(DOCS / page):
                exec(compile(row[-1], page, "exec"), names)


def run(path):
    text, names = path.read_text(), {}
    for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        above = "\n" * text.count("\n", 0, block.start(1))  # so that a failure names the line of the page
        with jax.numpy_rank_promotion("allow"):  # as JAX is where a reader runs them
            exec(compile(above + block[1], str(path), "exec"), names)
    return names


def table_rows(path, library="\\w+"):
    """The rows of the tables whose heading is ``library | here``: a line of the other library, and the same here."""
    table = rf"^\| [\w-]*{library} \| here \|\n\|[-|]+\n((?:\|.*\n)+)"
    if path.name != "coming_from.md":
        return []
    return [
        re.findall(r"`([^`]+)`", row) for body in re.findall(table, path.read_text(), re.M) for row in body.splitlines()
    ]


def test_the_tables_of_other_libraries_have_two_lines_in_a_row():
    page = DOCS / "coming_from.md"
    rows = table_rows(page)
    assert len(rows) > 50 and all(len(row) == 2 for row in rows)
    assert len(rows) == sum(len(table_rows(page, name)) for name in ("Keras", "PyTorch", "optax", "learn"))


@pytest.mark.slow
def test_the_lines_of_optax_and_scikit_learn_run():
    names = run(DOCS / "coming_from.md")
    exec("import sklearn.metrics, sklearn.model_selection, sklearn.neural_network, sklearn.preprocessing", names)
    exec("import sklearn.utils, warnings; warnings.simplefilter('ignore')", names)
    for theirs, _ in table_rows(DOCS / "coming_from.md", "optax") + table_rows(DOCS / "coming_from.md", "learn"):
        exec(theirs, names)


def test_links_lead_to_pages_that_are_there():
    for path in [*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]:
        if "api" in path.parts:
            continue
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            parts = Path(link).parts
            if parts[0] == "gallery":  # written by sphinx-gallery; a study that is not there is no link in the site
                assert Path(link).suffix == ".rst", link
            elif parts[0] == "api" or parts[:2] == ("..", "api"):  # written by docs/conf.py
                module = DOCS.parent / "jaxopt_nn" / Path(link).stem
                assert (
                    parts[-2] in ("augment", "benchmarks") or module.is_dir() or module.with_suffix(".py").is_file()
                ), link
            else:
                assert (path.parent / link).exists(), f"{path.name}: {link}"
