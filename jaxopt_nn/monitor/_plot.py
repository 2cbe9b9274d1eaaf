"""A run's inside on one page."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from jaxopt_nn._arguments import check_choice, check_number, shown
from jaxopt_nn.monitor._diagnose import diagnose
from jaxopt_nn.monitor._evidence import Evidence

__all__ = ["plot", "plot_layers"]

_LABELS = {
    "gradient": "gradient / parameter",
    "update": "update / parameter",
    "deviation": "deviation of outputs",
}
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")  # Okabe and Ito
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


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
    dead = {f"{path} dead": curve for path, curve in evidence.layers("dead").items() if _kills(path, curve)}
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


def plot_layers(
    results: Mapping[str, Any], entry: str = "gradient", *, match: str = "*", epoch: int = 0, ax: Any = None
) -> Any:
    """How large something is from the first layer to the last, with a line for each run.

    Args:
        results: label to the result of a run with ``record=monitor.watch()``, or to its history.
        entry: ``"gradient"`` or ``"update"``, the L2 norm of a kernel's gradient or update over that of the kernel,
            from :func:`gradient_flow`; or ``"deviation"``, of a layer's outputs, from :func:`activations`.
        match: which layers, by a pattern of their paths, such as ``"*dense_*"``.
        epoch: which one, from 0; -1 for the last that was run.
        ax: matplotlib ``Axes``; None for those of a new figure, which is ``ax.figure``.

    Returns:
        The axes, logarithmic in the size. Healthy runs are flat. A layer whose value is 0 or not finite has no point.

    Raises:
        TypeError, ValueError: there is no such result, entry or epoch.
        ImportError: without matplotlib.

    >>> history = {"train_loss": [1.0], **{f"flow/{kind}/dense_{i}/kernel": [10.0 ** i] for i in range(3)
    ...            for kind in ("gradient", "parameter")}}
    >>> plot_layers({"a run": history}).lines[0].get_ydata().tolist()
    [1.0, 1.0, 1.0]
    """
    check_choice("entry", entry, *_LABELS)
    check_number("epoch", epoch, -1, whole=True)
    if not isinstance(results, Mapping) or not results:
        raise TypeError(f"results: expected a dictionary from labels to results, got {shown(results)}")
    if ax is None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plots need matplotlib: pip install 'jaxopt-nn[plots]'") from error
        ax = Figure(figsize=(6.4, 4.0), layout="constrained").subplots()
    for index, (label, result) in enumerate(results.items()):
        history = getattr(result, "history", result)
        if not isinstance(history, Mapping) or "train_loss" not in history or np.ndim(history["train_loss"]) != 1:
            raise TypeError(f"results[{label!r}]: expected the result of one run, or its history, got {shown(result)}")
        evidence = Evidence(history)
        curves = {
            "gradient": evidence.relative_gradients,
            "update": lambda evidence=evidence: evidence.leaves("ratio"),
            "deviation": lambda evidence=evidence: evidence.layers("deviation"),
        }[entry]()
        if not curves:
            raise ValueError(f"results[{label!r}]: expected a history of monitor.watch(), got {sorted(history)}")
        if epoch >= max(evidence.epochs, 1):
            raise ValueError(f"epoch: expected one of the {evidence.epochs} of {label!r}, got {epoch}")
        curves = {path: curve for path, curve in curves.items() if fnmatchcase(path, match)}
        if not curves:
            raise ValueError(f"match: expected a pattern of the paths of layers of {label!r}, got {match!r}")
        sizes = np.array([curve[epoch] if len(curve) else np.nan for curve in curves.values()])
        sizes = np.where(np.isfinite(sizes) & (sizes > 0), sizes, np.nan)
        style = {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index % len(_MARKERS)]}
        ax.plot(np.arange(1, len(sizes) + 1), sizes, label=label, markersize=4, **style)
    ax.set(xlabel="layer, from input to output", ylabel=_LABELS[entry], yscale="log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    # Above the axes: a line may go anywhere in them.
    ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, ncols=2)
    return ax


def _kills(path: str, curve: Any) -> bool:
    """Whether a layer has dead units of its own: dropout makes zeros too."""
    return "dropout" not in path and bool((curve > 0).any())


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
