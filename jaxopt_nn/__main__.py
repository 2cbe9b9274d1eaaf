"""The command line: ``python -m jaxopt_nn`` runs the studies, explains a saved model, reports a sweep.

Mistakes are one line, and the exit code 2.
"""

import argparse
import ast
import runpy
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxopt_nn import sweeps
from jaxopt_nn.training._saved_text import describe_saved

__all__ = ["main"]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return 0
    try:
        chosen.command(chosen)
    except BrokenPipeError:  # of `... | head`
        return 0
    except (ValueError, TypeError, OSError, ImportError) as error:
        if getattr(chosen, "running", False):  # the mistake is one of a study's code
            raise
        _fail(str(error))
    return 0


def _fail(message: str) -> NoReturn:
    print(f"jaxopt_nn: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m jaxopt_nn", description="Studies, saved models, reports of sweeps.")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="")
    listed = commands.add_parser("studies", help="list the studies")
    listed.set_defaults(command=_list_studies)
    study = commands.add_parser("study", help="run a study: its pictures go to out/ in this folder")
    study.add_argument("name", help="one of those that `studies` lists")
    study.add_argument("arguments", nargs=argparse.REMAINDER, help="of the study: --quick for its quick form")
    study.set_defaults(command=_run_study)
    explain = commands.add_parser("explain", help="say what is in a saved model or a checkpoint")
    explain.add_argument("folder", help="that training.save wrote")
    explain.set_defaults(command=lambda chosen: print(describe_saved(chosen.folder)))
    report = commands.add_parser("report", help="write the report of a sweep, from its store, as an HTML file")
    report.add_argument("store", help="the file that sweeps.sweep(..., store=...) wrote")
    report.add_argument("--objective", help="the metric to compare (default: valid_loss, or the only one)")
    report.add_argument("--mode", choices=["min", "max"], help="which is better (default: by the name)")
    report.add_argument("--output", help="the file to write (default: beside the store, as .html)")
    report.add_argument("--open", action="store_true", help="open it in the browser")
    report.set_defaults(command=_report)
    for each in (parser, listed, study, explain, report):
        setattr(each, "error", _fail)  # noqa: B010, one line in place of two
    return parser


def _studies() -> dict[str, Path]:
    """The studies by name."""
    if not EXAMPLES.is_dir():
        raise FileNotFoundError("the studies are the folder examples/ of a clone of the repository: it is not here")
    return {path.stem: path for path in sorted(EXAMPLES.glob("*.py"))}


def _list_studies(chosen: Any) -> None:
    studies = _studies()
    width = max(map(len, studies), default=0)
    for name, path in studies.items():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        print(f"{name:<{width}}  {text.partition(chr(10))[0]}")


def _run_study(chosen: Any) -> None:
    studies = _studies()
    if chosen.name not in studies:
        raise ValueError(f"study: expected one of {', '.join(studies)}, got {chosen.name!r}")
    path, before = str(studies[chosen.name]), sys.argv
    sys.argv, chosen.running = [path, *chosen.arguments], True
    try:
        runpy.run_path(path, run_name="__main__")
    except ModuleNotFoundError as error:
        _fail(f"study {chosen.name}: needs {error.name}, which is not installed")
    finally:
        sys.argv = before


def _report(chosen: Any) -> None:
    sweep = sweeps.read_store(chosen.store, chosen.objective, chosen.mode)
    store = Path(chosen.store)
    path = sweep.report(Path(chosen.output) if chosen.output else store.with_suffix(".html"), title=store.stem)
    print(path)
    if chosen.open:
        webbrowser.open(path.resolve().as_uri())


if __name__ == "__main__":
    sys.exit(main())
