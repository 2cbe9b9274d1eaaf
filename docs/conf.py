"""Sphinx: the README, the guides, the studies as they run, and the reference, whose pages are written here."""

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
sphinx_gallery_conf = import_module("study_gallery").settings()
html_theme = "furo"
html_title = f"jaxopt_nn {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
# The README's links lead to files of the repository, which are no pages here; attributes of two classes share a name.
suppress_warnings = ["myst.xref_missing", "ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False


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


def unlink_missing_studies(app: Any, name: str, source: list[str]) -> None:
    """Leaves the names of studies that are not there, without links."""
    for stem in set(re.findall(r"\]\(gallery/(\w+)\.rst\)", source[0])) - {"index"}:
        if not (DOCS.parent / "examples" / f"{stem}.py").is_file():
            source[0] = re.sub(rf"\[([^]]*)\]\(gallery/{stem}\.rst\)", r"\1", source[0])


def setup(app: Any) -> None:
    import_module("api_pages").write()
    draw_pictures()
    app.connect("source-read", unlink_missing_studies)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", keep_bars)
    app.connect("autodoc-process-docstring", show_picture)
