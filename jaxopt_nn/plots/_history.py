"""Curves of runs: one run's history, and candidates side by side."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._arguments import check_bool, check_number
from jaxopt_nn.plots._panels import check_names, draw_curve, make_figure, plain_values

__all__ = ["Panel", "draw_panel", "panels_of", "plot_comparison", "plot_history"]


def plot_history(history: Any, *, best_epoch: int | None = None, title: str = "") -> Any:
    """The curves of a run, or of several in lanes: losses, metrics, and below them what else the history holds.

    Args:
        history: name to values ``[epochs]``, as ``RunResult.history``, or the result itself; epochs that were not run
            (NaN) are left out. Of lanes ``[..., epochs]``, the median is drawn, and minimum to maximum as a band.
        best_epoch: an epoch (from 0) to mark.
        title: a title for the figure.

    Returns:
        A matplotlib figure: training and validation loss in the first panel, validation metrics in the second, gradient
        norm and learning rate in the third and fourth, as far as they are there.

    Raises:
        TypeError: it is no history.
        ValueError: there is nothing to draw in it, or a value is no array ``[..., epochs]`` of numbers.

    >>> figure = plot_history({"train_loss": [3.0, 2.0], "valid_loss": [3.1, 2.4], "learning_rate": [0.1, 0.1]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'learning rate']
    """
    if best_epoch is not None:
        check_number("best_epoch", best_epoch, -1, whole=True)
    panels = panels_of(history)
    figure, axes = make_figure(len(panels), title)
    for ax, panel in zip(axes, panels, strict=True):
        draw_panel(ax, panel, best_epoch)
    return figure


class Panel(NamedTuple):
    """Curves ``[..., epochs]`` by name that share axes, the label of these, and whether they may be logarithmic."""

    label: str
    curves: dict[str, NDArray[Any]]
    log: bool


def panels_of(history: Any) -> list[Panel]:
    """What :func:`plot_history` draws of a history, or of a result that has one; raises as it does."""
    named = getattr(history, "history", history)
    if not isinstance(named, Mapping):
        raise TypeError(f"history: expected a run's result, or its history, got a {type(history).__name__}")
    check_names("history", named)
    values = {name: plain_values(f"history[{name!r}]", value) for name, value in named.items()}
    losses = [name for name in ("train_loss", "valid_loss", "penalty") if name in values]
    curves = {values[name].shape for name in losses}  # a confusion matrix is none
    metrics = [name for name in values if name.startswith(("train_", "valid_")) and name not in losses]
    metrics = [name for name in metrics if not curves or values[name].shape in curves]
    panels = [("loss", losses, True), ("metric", metrics, False)]
    panels += [(name.replace("_", " "), [name], True) for name in ("gradient_norm", "learning_rate") if name in values]
    found = [Panel(label, {name: values[name] for name in names}, log) for label, names, log in panels if names]
    if not found:
        raise ValueError(f"history: expected a curve to draw, such as train_loss, got {list(values)}")
    return found


def draw_panel(ax: Any, panel: Panel, best_epoch: int | None) -> None:
    """Draws the curves of a panel, and marks the best epoch (from 0)."""
    for name, values in panel.curves.items():
        draw_curve(ax, values, name.replace("_", " "))
    if best_epoch is not None and best_epoch >= 0:
        ax.axvline(best_epoch + 1, color="0.6", linestyle=":", label="best epoch")
    if panel.log and all(np.nanmin(values, initial=np.inf) > 0 for values in panel.curves.values()):
        ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel=panel.label)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)


def plot_comparison(curves: Mapping[str, Any], *, ylabel: str, title: str = "", log: bool = False) -> Any:
    """One curve a candidate, with the range of its seeds as a band.

    Args:
        curves: label to values ``[epochs]`` or ``[..., epochs]``, such as ``[seeds, epochs]``.
        ylabel: what the values are.
        title: a title for the figure.
        log: whether the values' axis is logarithmic.

    Returns:
        A matplotlib figure: the median over seeds as a line, minimum to maximum as a band around it.

    >>> figure = plot_comparison({"adam": [[0.5, 0.9], [0.6, 0.8]], "sgd": [[0.4, 0.5]]}, ylabel="accuracy")
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['adam', 'sgd']
    """
    check_names("curves", curves)
    check_bool("log", log)
    figure, (ax,) = make_figure(1, title)
    for label, value in curves.items():
        draw_curve(ax, plain_values(f"curves[{label!r}]", value), label)
    if log:
        ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure
