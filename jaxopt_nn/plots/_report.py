"""One page of a run: how it ended, its curves, what is wrong with it, and what it was made of."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import jax
import numpy as np

from jaxopt_nn import metrics, monitor
from jaxopt_nn.plots import _page as page
from jaxopt_nn.plots._confusion import plot_confusion_matrix
from jaxopt_nn.plots._history import Panel, draw_panel, panels_of, plot_history
from jaxopt_nn.training import RunResult
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Static

__all__ = ["report"]

_COLUMNS = 2
_WIDTH = 105  # letters in a line of the figure


def report(
    result: RunResult,
    path: str | Path | None = None,
    *,
    hparams: Any = None,
    evaluation: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    title: str = "Training run",
) -> Any:
    """One page of a run: how it ended, its curves, what :func:`monitor.diagnose` finds, hyperparameters, evaluation.

    Args:
        result: of one run, as ``run`` and ``fit`` return it.
        path: of an HTML file to write: the same page, and the run's inside where ``monitor.watch()`` recorded it. It
            opens anywhere, without a network.
        hparams: what it was trained with; any pytree of numbers and text.
        evaluation: name to number, as :func:`training.evaluate` returns it. A square matrix in it is drawn as a
            confusion matrix: ``evaluation={**scores, "confusion": metrics.confusion_matrix(...)}``.
        names: of the classes of that matrix.
        title: its heading.

    Returns:
        A matplotlib figure.

    Raises:
        TypeError: it is no result; ``evaluation`` is no dictionary.
        ValueError: it is of several lanes; an entry of ``evaluation`` is neither a number nor a square matrix.
        ImportError: matplotlib is missing (the ``plots`` extra).

    >>> import jax, pathlib, tempfile
    >>> from jaxopt_nn import data, layers, losses, optimizers, training
    >>> train = data.from_arrays(jax.numpy.eye(4), jax.numpy.arange(4))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.dense(4), loss=losses.softmax_cross_entropy, optimizer=optimizers.sgd(hp["rate"]),
    ...         batch_size=2, epochs=3)
    >>> result = training.make_run(recipe)(jax.random.key(0), {"rate": 0.1}, train)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     figure = report(result, folder + "/run.html", hparams={"rate": 0.1}, title="Four points")
    ...     "Completed 3 epochs" in pathlib.Path(folder, "run.html").read_text()
    True
    """
    if not isinstance(result, RunResult):
        raise TypeError(f"result: expected a RunResult, as run and fit return it, got a {type(result).__name__}")
    diagnosis = monitor.diagnose(result)  # refuses lanes
    ending = repr(result).removeprefix("<RunResult: ").removesuffix(">")
    ending = ending[:1].upper() + ending[1:] + "."
    scores, matrices = _parts_of(evaluation)
    plain = jax.tree.map(_plain, hparams, is_leaf=lambda value: isinstance(value, Static))
    values = [(name or "value", value) for name, value in named_leaves(plain)]
    if path is not None:
        sections = [
            page.section("How it ended", page.items([html.escape(ending)])),
            page.section("What it shows", _findings(diagnosis)),
            page.section("Curves", _curves(result)),
        ]
        if scores or matrices:
            sections.append(page.section("Evaluation", _evaluation(scores, matrices, names)))
        if values:
            table = page.table("hyperparameters", ["hyperparameter", "value"], values)
            sections.append(page.section("Hyperparameters", table))
        page.write_page(Path(path), title, sections)
    lines = [("What it shows", str(diagnosis))]
    if scores:
        lines.append(("Evaluation", _listed(scores)))
    if values:
        lines.append(("Hyperparameters", _listed(values)))
    return _figure(panels_of(result), matrices, names, lines, title, ending, int(result.best_epoch))


def _plain(value: Any) -> Any:
    """A hyperparameter as a Python value where it is one number, else as a short text."""
    value = value.value if isinstance(value, Static) else value
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        array = np.asarray(value)
        return array.item() if array.ndim == 0 else f"{array.dtype}{list(array.shape)}"
    return value if isinstance(value, (bool, int, float, str)) else getattr(value, "__name__", repr(value))


def _parts_of(evaluation: Any) -> tuple[list[tuple[str, float]], dict[str, Any]]:
    """The numbers and the matrices of an evaluation."""
    if evaluation is not None and not isinstance(evaluation, Mapping):
        raise TypeError(f"evaluation: expected name to number, got a {type(evaluation).__name__}")
    arrays = {str(name): np.asarray(value) for name, value in (evaluation or {}).items()}
    for name, array in arrays.items():
        square = array.ndim == 2 and array.shape[0] == array.shape[1]
        if not (square or array.ndim == 0) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"evaluation[{name!r}]: expected a number or a square matrix, got {array.dtype}{list(array.shape)}"
            )
    scores = [(name, float(array)) for name, array in arrays.items() if array.ndim == 0]
    return scores, {name: array for name, array in arrays.items() if array.ndim}


def _findings(diagnosis: monitor.Diagnosis) -> str:
    lines = [
        f"<b>{html.escape(each.name)}:</b> {html.escape(each.evidence)}. {html.escape(each.remedy)}"
        for each in diagnosis.findings
    ]
    lines = lines or ["Nothing found that the history shows."]
    return page.items([*lines, *(f"Not looked for: {html.escape(each)}." for each in diagnosis.unknown)])


def _curves(result: RunResult) -> str:
    best = int(result.best_epoch)
    text = "By epoch. The dotted line is the epoch that the parameters are of."
    pictures = [page.picture("History", text, lambda: plot_history(result, best_epoch=best), "wide")]
    if any("/" in name for name in result.history):
        text = "By layer, from dark (the first) to light. The grey band is where updates usually are."
        pictures.append(page.picture("Inside of the run", text, lambda: monitor.plot(result), "wide"))
    return f'<div class="plots">{"".join(pictures)}</div>'


def _evaluation(scores: Any, matrices: Mapping[str, Any], names: Any) -> str:
    body = page.table("evaluation", ["metric", "value"], scores) if scores else ""
    for name, matrix in matrices.items():
        text = "Rows are true classes, columns predictions; the colour is the share of the true class."
        picture = page.picture(name, text, lambda matrix=matrix: plot_confusion_matrix(matrix, names=names))
        listed = html.escape(metrics.classification_report(matrix, names))
        body += f'<div class="plots">{picture}<pre>{listed}</pre></div>'
    return body


def _listed(values: Any) -> str:
    return ", ".join(f"{name} = {page.text_of(value)}" for name, value in values)


def _figure(
    panels: list[Panel],
    matrices: Mapping[str, Any],
    names: Any,
    texts: list[tuple[str, str]],
    title: str,
    ending: str,
    best_epoch: int,
) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'jaxopt-nn[plots]'") from error
    blocks = [(head, "\n".join(fill(line, _WIDTH) for line in text.splitlines())) for head, text in texts]
    lines = sum(text.count("\n") + 3 for _, text in blocks)
    rows = -(-(len(panels) + len(matrices)) // _COLUMNS)
    drawn, written = 3.1 * rows, 0.16 * lines + 0.2
    figure: Any = Figure(figsize=(8.3, 1.0 + drawn + written), layout="constrained")
    figure.suptitle(title, fontsize=15)
    above, below = figure.subfigures(2, 1, height_ratios=[drawn + 0.4, written])
    above.suptitle(fill(ending, _WIDTH), fontsize=9)
    grid = list(above.subplots(rows, _COLUMNS, squeeze=False).ravel())
    for ax, panel in zip(grid, panels, strict=False):
        draw_panel(ax, panel, best_epoch)
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax, (name, matrix) in zip(grid[len(panels) :], matrices.items(), strict=False):
        plot_confusion_matrix(matrix, names=names, ax=ax).set_title(name)
    for ax in grid[len(panels) + len(matrices) :]:
        ax.set_axis_off()
    height = 1.0
    for head, text in blocks:
        below.text(0.02, height, head, fontsize=10, weight="bold", va="top")
        below.text(0.02, height - 1.3 / lines, text, fontsize=8.5, va="top", family="monospace")
        height -= (text.count("\n") + 3) / lines
    return figure
