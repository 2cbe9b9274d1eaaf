"""A run's inside on one page."""

from typing import Any

import numpy as np

from jaxopt_nn.monitor._diagnose import diagnose
from jaxopt_nn.monitor._evidence import Evidence

__all__ = ["plot"]


def plot(result: Any, *, title: str = "") -> Any:
    """What a run's records show, by layer and epoch, and what :func:`diagnose` says about it.

    Args:
        result: of a run with ``record=monitor.watch()``, or its history.
        title: a title for the figure.

    Returns:
        A matplotlib figure: losses; gradients for the size of their parameters; updates for that of their parameters,
        with a band where they usually are; outputs' deviation; dead and saturated fractions; α, the length of steps.
        Layers go from dark (the first) to light. A panel without anything to show is left out.

    Raises:
        TypeError, ValueError: as :func:`diagnose`.
        ImportError: without matplotlib.

    >>> figure = plot({"train_loss": [2.0, 1.0, 0.5], "step_length": [-0.5, -0.2, 0.0]})
    >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
    ['loss', 'where steps end (α)']
    """
    diagnosis = diagnose(result)
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'jaxopt-nn[plots]'") from error
    evidence = Evidence(getattr(result, "history", result))
    losses = {name: evidence.curve(f"{name}_loss") for name in ("train", "valid")}
    dead = {f"{path} dead": curve for path, curve in evidence.layers("dead").items() if _kills(path)}
    units = dead | {f"{path} saturated": curve for path, curve in evidence.layers("saturated").items()}
    panels = {
        "loss": (losses, "log"),
        "gradient / parameter": (evidence.relative_gradients(), "log"),
        "update / parameter": (evidence.leaves("ratio"), "log"),
        "deviation of outputs": (evidence.layers("deviation"), "log"),
        "dead and saturated": (units, "linear"),
        "where steps end (α)": ({"α": evidence.curve("step_length")}, "linear"),
    }
    panels = {name: panel for name, panel in panels.items() if any(np.isfinite(c).any() for c in panel[0].values())}
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.4 * rows + 0.9), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (name, (curves, scale)) in zip(grid, panels.items(), strict=False):
        for index, (label, curve) in enumerate(curves.items()):
            place = index / max(len(curves) - 1, 1)
            color = ("C0", "C1")[index] if name == "loss" else colormaps["viridis"](0.9 * place)
            epochs = np.arange(1, len(curve) + 1)
            shown = np.where(np.isfinite(curve) & ((curve > 0) | (scale == "linear")), curve, np.nan)
            ax.plot(epochs, shown, color=color, label=label, marker="." if len(curve) < 2 else None)
        values = np.concatenate([curve[np.isfinite(curve)] for curve in curves.values()])
        if not (values > 0).any() and scale == "log":
            ax.text(0.5, 0.5, "all are 0", ha="center", va="center", transform=ax.transAxes)
        elif scale == "log" and values.max() < 3 * values.min():  # there the ticks of a logarithmic axis say nothing
            scale = "linear"
        ax.set(title=name, xlabel="epoch", yscale=scale)
        ax.set_xlim(1, max(evidence.epochs, 2))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        _decorate(ax, name)
        _legend(ax)
    for ax in grid[len(panels) :]:
        ax.set_axis_off()
    figure.supxlabel("\n".join(_lines(diagnosis)), fontsize=9, ha="left", x=0.01)
    return figure


def _kills(path: str) -> bool:
    """Whether zeros of a layer are its own: dropout makes some too."""
    return "dropout" not in path


def _decorate(ax: Any, name: str) -> None:
    if name == "update / parameter":
        ax.axhspan(1e-4, 1e-2, color="0.5", alpha=0.15, linewidth=0)
    elif name == "dead and saturated":
        ax.set_ylim(-0.02, 1.02)
    elif name == "where steps end (α)":
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, -1.05), max(high, 1.05))
        for value in (-1, 0, 1):
            ax.axhline(value, color="0.6", linewidth=1, linestyle=":")
        ax.set_yticks([-1, 0, 1], ["−1 hardly moved", "0 minimum", "1 too long"])


def _legend(ax: Any) -> None:
    """All names if there are few, else the first, the middle and the last."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 6:
        some = (0, len(labels) // 2, len(labels) - 1)
        handles, labels = [handles[i] for i in some], [labels[i] for i in some]
    if len(labels) > 1 or labels != ["α"]:
        ax.legend(handles, labels, frameon=False, fontsize=8)


def _lines(diagnosis: Any) -> list[str]:
    if not diagnosis.findings:
        return ["nothing found that the history shows"]
    text = [f"{finding.name}: {finding.evidence}" for finding in diagnosis.findings[:3]]
    return [line if len(line) < 150 else line[:147] + "…" for line in text]
