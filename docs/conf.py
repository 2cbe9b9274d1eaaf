"""Sphinx: the README, and one page for each public module, written here."""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

package = import_module("jaxopt_nn")

project = "jaxopt_nn"
author = "the jaxopt_nn authors"
version = release = package.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_gallery.gen_gallery"]
sphinx_gallery_conf = import_module("studies").settings()
html_theme = "furo"
html_title = f"jaxopt_nn {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
# The README's links lead to files of the repository, which are no pages here; attributes of two classes share a name.
suppress_warnings = ["myst.xref_missing", "ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False


def module_names() -> list[str]:
    """The public modules: those right below the package."""
    found = [path.stem for path in (DOCS.parent / "jaxopt_nn").iterdir() if path.suffix == ".py" or path.is_dir()]
    return sorted(name for name in found if not name.startswith("_"))


def write_pages() -> None:
    """Writes ``api/NAME.md`` for each module, where it is not there yet or not the same."""
    (DOCS / "api").mkdir(exist_ok=True)
    for name in module_names():
        page = DOCS / "api" / f"{name}.md"
        text = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: jaxopt_nn.{name}\n   :members:\n```\n"
        if not page.is_file() or page.read_text() != text:
            page.write_text(text)


def draw_pictures() -> None:
    """Draws each schedule, each function of ``augment`` and each scaling curve of the benchmarks, below ``api``."""
    for part, module in (("schedules", "schedule_plots"), ("augment", "augmentation_plots")):
        folder = DOCS / "api" / part
        folder.mkdir(parents=True, exist_ok=True)
        import_module(module).draw(folder)
    import_module("benchmarks.plots").draw_all(DOCS / "api" / "benchmarks")


def show_picture(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Puts the picture of a schedule or an augmentation below its first line."""
    module, _, function = name.rpartition(".")
    for part, kind, title in (("schedules", "svg", "over 200 steps"), ("augment", "png", "before and after")):
        path = f"api/{part}/{function}.{kind}"
        if module == f"jaxopt_nn.{part}" and (DOCS / path).is_file():
            lines[1:1] = ["", f".. image:: /{path}", f"   :alt: {function}, {title}", ""]


def skip_fields(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out the fields of a NamedTuple: its docstring lists them."""
    return True if (getattr(value, "__doc__", None) or "").startswith("Alias for field number") else None


def keep_bars(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Keeps the bars of |x|, which reStructuredText takes for substitutions."""
    lines[:] = [re.sub(r"(``.*?``)|(?<!\\)\|", lambda bar: bar[1] or r"\|", line) for line in lines]


def setup(app: Any) -> None:
    write_pages()
    draw_pictures()
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", keep_bars)
    app.connect("autodoc-process-docstring", show_picture)
