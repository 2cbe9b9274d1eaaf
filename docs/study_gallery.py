"""The gallery: the studies of examples/, as sphinx-gallery runs them while the documentation is built.

They run in a copy, below ``out``, where their own ``out`` is. Names of functions here are given to sphinx-gallery as
text, since it compares settings between builds.
"""

import ast
import re
import shutil
from importlib.util import find_spec
from os import environ
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parent
COPY = DOCS.parent / "out" / "studies"
PAGES = DOCS / "gallery"
HEADER = """
Studies
=======

Each study asks one question of the field, answers it on real data with several seeds, and says at its end what was
found, in figures that it computed itself. It was run when this page was built, and can be downloaded as a script or as
a notebook. The :doc:`course </course>` leads through them in an order to learn from.
"""


def settings() -> dict[str, Any]:
    """What ``docs/conf.py`` gives to sphinx-gallery."""
    arguments = environ.get("STUDY_ARGS", "")
    copy_studies(arguments)
    runnable = [path.stem for path in COPY.glob("*.py") if not missing(path)]
    return {
        "examples_dirs": str(COPY),
        "gallery_dirs": "gallery",
        "filename_pattern": rf"/({'|'.join(map(re.escape, sorted(runnable)))})\.py$",
        "within_subsection_order": "study_gallery.CourseOrder",
        "image_scrapers": ("study_gallery.save_figures", "matplotlib"),
        "reset_argv": "study_gallery.arguments",
        "reset_modules": ("matplotlib", "study_gallery.reset_jax"),
        "reset_modules_order": "both",
        "parallel": 2,  # most of a study is compiled by a single thread
        "ignore_repr_types": r"matplotlib",
        "matplotlib_animations": True,
        "remove_config_comments": True,
        "min_reported_time": 1e9,
        "write_computation_times": False,
        "show_signature": False,
        "download_all_examples": False,
    }


def copy_studies(arguments: str) -> None:
    """Copies the studies to where they run. Pages that were made with other arguments are made anew."""
    COPY.mkdir(parents=True, exist_ok=True)
    told = COPY / "arguments.txt"
    if not told.is_file() or told.read_text() != arguments:
        shutil.rmtree(PAGES, ignore_errors=True)
        told.write_text(arguments)
    sources = {path.name: path for path in (DOCS.parent / "examples").glob("*.py")}
    for path in [*COPY.glob("*.py"), *PAGES.glob("*.py")]:
        if path.name not in sources:
            path.unlink()
    for name, path in sources.items():
        shutil.copy2(path, COPY / name)
    (COPY / "GALLERY_HEADER.rst").write_text(HEADER)


def missing(path: Path) -> list[str]:
    """The modules that a study imports at its top and that are not installed; such a study is shown, but not run."""
    lines = ast.parse(path.read_text()).body
    names = [alias.name for line in lines if isinstance(line, ast.Import) for alias in line.names]
    names += [line.module or "" for line in lines if isinstance(line, ast.ImportFrom)]
    return sorted({top for name in names if find_spec(top := name.partition(".")[0]) is None})


def arguments(conf: Any, variables: Any) -> list[str]:
    """The arguments of each study."""
    return environ.get("STUDY_ARGS", "").split()


class CourseOrder:
    """Sorts the studies as the course page names them; what it does not name comes last."""

    def __init__(self, folder: str) -> None:
        page = DOCS / "course.md"
        self.names = re.findall(r"gallery/(\w+)", page.read_text()) if page.is_file() else []

    def __call__(self, name: str) -> tuple[int, str]:
        stem = Path(name).stem
        return (self.names.index(stem) if stem in self.names else len(self.names), stem)


def save_figures(block: Any, variables: Any, conf: Any) -> str:
    """Saves each new figure of a block that pyplot does not know, as the functions of ``plots`` make them."""
    import matplotlib.pyplot as plt
    from sphinx_gallery.scrapers import figure_rst

    texts: list[str] = []
    for figure in list(variables["example_globals"].values()):
        if not isinstance(figure, Figure) or hasattr(figure, "_in_gallery"):
            continue
        figure._in_gallery = True
        if not any(plt.figure(number) is figure for number in plt.get_fignums()):  # those are saved after these
            path = next(variables["image_path_iterator"])
            figure.savefig(path, dpi=120)
            texts.append(figure_rst([path], conf["src_dir"], figure.get_suptitle()))
    return "".join(texts)


def reset_jax(conf: Any, name: str) -> None:
    """Before and after a study: JAX as it is at the start, with nothing compiled."""
    for setting, value in START.items():
        if jax.config.values[setting] != value:
            jax.config.update(setting, value)
    jax.clear_caches()


START = dict(jax.config.values)
