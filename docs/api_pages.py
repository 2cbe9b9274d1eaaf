"""The pages of the reference: one for each public module, and for a large one a page for each topic."""

import inspect
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).resolve().parent

# Of a large module: the topics, each with the files (or folders) of the package whose names are on its page.
TOPICS = {
    "layers": {
        "dense, dropout, embedding": ["_basic"],
        "convolution and pooling": ["_spatial"],
        "normalization": ["_normalization"],
        "sequences": ["_sequence"],
        "combinators": ["_combinators"],
        "initialization": ["_initialization"],
        "summaries and drawings": ["_inspection"],
        "other libraries and precision": ["_keras", "_other_libraries", "_precision"],
    },
    "optimizers": {"algorithms": ["_algorithms"], "transforms": ["_transforms"], "wrappers": ["_wrappers"]},
    "training": {
        "recipe and run": ["_recipe", "_run", "_run_state", "_fit", "_fit_model", "_stopping", "_status"],
        "evaluate and predict": ["_evaluation", "_statistics", "_snapshots"],
        "one step": ["_step", "_loss_scale"],
        "save and resume": ["_save", "_checkpoint"],
        "watch": ["_records", "_loggers"],
        "before and after a run": ["_sanity", "_sanity_data", "_range_test", "_explain", "_replay"],
    },
}


def module_names() -> list[str]:
    """The public modules: those right below the package."""
    found = [path.stem for path in (DOCS.parent / "jaxopt_nn").iterdir() if path.suffix == ".py" or path.is_dir()]
    return sorted(name for name in found if not name.startswith("_"))


def topics_of(name: str) -> dict[str, list[str]]:
    """Topic to the public names of a large module, each of them once; raises for one that no topic holds."""
    module = import_module(f"jaxopt_nn.{name}")
    files = {file: topic for topic, listed in TOPICS[name].items() for file in listed}
    found: dict[str, list[str]] = {topic: [] for topic in TOPICS[name]}
    for public in module.__all__:
        file = getattr(module, public).__module__.removeprefix(f"{module.__name__}.").partition(".")[0]
        if file not in files:
            raise ValueError(f"docs/api_pages.py: {module.__name__}.{public}, of {file}.py, has no topic")
        found[files[file]].append(public)
    return found


def pages() -> dict[str, str]:
    """The text of each page by its path below ``api``."""
    found: dict[str, str] = {}
    for name in module_names():
        if name not in TOPICS:
            body = f".. automodule:: jaxopt_nn.{name}\n   :members:\n"
            found[f"{name}.md"] = f"# {name}\n\n```{{eval-rst}}\n{body}```\n"
            continue
        rows, links = "| topic | what is in it |\n|---|---|\n", ""
        for topic, publics in topics_of(name).items():
            stem = topic.replace(",", "").replace(" ", "_")
            rows += f"| [{topic}]({name}/{stem}.md) | {', '.join(f'`{public}`' for public in publics)} |\n"
            links += f"{name}/{stem}\n"
            body = f".. currentmodule:: jaxopt_nn.{name}\n" + "".join(directive(name, public) for public in publics)
            found[f"{name}/{stem}.md"] = f"# {name}: {topic}\n\n```{{eval-rst}}\n{body}```\n"
        about = f"```{{eval-rst}}\n.. automodule:: jaxopt_nn.{name}\n   :no-members:\n```\n"
        found[f"{name}.md"] = f"# {name}\n\n{about}\n{rows}\n```{{toctree}}\n:hidden:\n\n{links}```\n"
    return found


def directive(module: str, public: str) -> str:
    """The directive that documents one name."""
    value = getattr(import_module(f"jaxopt_nn.{module}"), public)
    if inspect.isclass(value):
        return f"\n.. autoclass:: {public}\n   :members:\n"
    return f"\n.. auto{'function' if callable(value) else 'data'}:: {public}\n"


def write() -> None:
    """Writes the pages below ``docs/api``, those that are not there yet or not the same, and removes old ones."""
    folder, found = DOCS / "api", pages()
    for path in folder.rglob("*.md"):
        if str(path.relative_to(folder)) not in found:
            path.unlink()
    for name, text in found.items():
        page = folder / name
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.is_file() or page.read_text() != text:
            page.write_text(text)
