"""Means over seeds with their intervals: of a sweep, or of any numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxopt_nn._arguments import shown
from jaxopt_nn.plots._panels import COLOURS, MARKERS, axes_or_new, check_names
from jaxopt_nn.plots._scales import format_value, scale_of
from jaxopt_nn.plots._sweep_axes import label_axis, legend_above

__all__ = ["plot_means", "plot_response"]


def plot_means(
    lines: Mapping[str, Mapping[Any, Any]], *, xlabel: str = "", ylabel: str = "", log: bool = False, ax: Any = None
) -> Any:
    """A line for each label: means over seeds with 95 % intervals of Student's t, ``m ± t · s / √n``.

    Args:
        lines: label to what lies on the horizontal axis, to the values of the seeds ``[n]``. A list without values, or
            with one that is not finite, is a cross at the border: there a run did not end well.
        xlabel, ylabel: what lies on the axes, with units.
        log: whether the values' axis is logarithmic.
        ax: matplotlib ``Axes``; None for those of a new figure, which is ``ax.figure``.

    Returns:
        The axes. Lines differ in colour and in marker. A single value has no interval.

    Raises:
        TypeError, ValueError: it is no dictionary of dictionaries of numbers.

    >>> ax = plot_means({"adam": {10: [0.5, 0.7], 100: [0.8, 0.9]}, "sgd": {10: [0.4], 100: []}}, ylabel="accuracy")
    >>> [round(float(y), 2) for y in ax.lines[0].get_ydata()]
    [0.6, 0.85]
    """
    check_names("lines", lines)
    for label, points in lines.items():
        if not isinstance(points, Mapping) or not points:
            raise TypeError(f"lines[{label!r}]: expected a dictionary from places to values, got {shown(points)}")
    values = {
        label: {x: _numbers(f"lines[{label!r}][{x!r}]", own) for x, own in lines[label].items()} for label in lines
    }
    ax = axes_or_new(ax)
    scale = scale_of([x for points in values.values() for x in points])
    crosses: list[tuple[float, str]] = []
    for index, (label, points) in enumerate(values.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        # Beside one another: intervals of several lines at one place can be told apart.
        aside = 0.06 * (index - (len(values) - 1) / 2) if scale.ticks is not None else 0.0
        places = np.array([scale.positions(x) for x in points]) + aside
        sound = np.array([len(own) > 0 and bool(np.isfinite(own).all()) for own in points.values()])
        means = np.array([own.mean() if good else np.nan for own, good in zip(points.values(), sound, strict=True)])
        halves = np.array([_half(own) if good else 0.0 for own, good in zip(points.values(), sound, strict=True)])
        order = np.argsort(places)
        numbers = all(isinstance(x, (int, float, np.number)) for x in points)  # between names there is nothing
        ax.errorbar(
            places[order],
            means[order],
            halves[order],
            color=colour,
            marker=marker,
            linestyle="-" if numbers else "none",
            markersize=5,
            capsize=3,
            label=label,
        )
        crosses += [(place, colour) for place in places[~sound]]
    if log:
        ax.set_yscale("log")
    for index, (place, colour) in enumerate(crosses):
        ax.plot(
            [place], [0.0], marker="x", markersize=8, color=colour, linestyle="none", clip_on=False,
            transform=ax.get_xaxis_transform(), label=None if index else "× a run did not end well",
        )  # fmt: skip
    label_axis(ax, "x", scale, xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(alpha=0.3)
    legend_above(ax)
    return ax


def plot_response(
    sweep: Any,
    x: str,
    by: str | None = None,
    *,
    labels: Mapping[Any, str] | None = None,
    log: bool = False,
    ax: Any = None,
) -> Any:
    """The objective of a sweep over one hyperparameter, with a line for each value of another.

    All other hyperparameters are tuned: a point is the best configuration with its two values.

    Args:
        sweep: of :func:`jaxopt_nn.sweeps.sweep`.
        x: the hyperparameter on the horizontal axis.
        by: the one that has a line for each of its values; None for a single line.
        labels: of values of ``by``, where their own text says too little.
        log: whether the objective's axis is logarithmic.
        ax: matplotlib ``Axes``; None for those of a new figure.

    Returns:
        The axes, as :func:`plot_means` draws them. A cross at the border: no configuration there ended well in all
        seeds.

    Raises:
        TypeError, ValueError: it is no sweep, or there is no such hyperparameter.
    """
    if not all(hasattr(sweep, name) for name in ("configurations", "objective", "mode")):
        raise TypeError(f"sweep: expected what sweeps.sweep returns, got a {type(sweep).__name__}")
    every = sweep.configurations()  # the best first, those that are not sound last
    known = list(dict.fromkeys(name for each in every for name in each.hparams))
    for name in (x, by):
        if name is not None and name not in known:
            raise ValueError(f"sweep: expected a hyperparameter, one of {known}, got {name!r}")

    def label_of(hparams: Mapping[str, Any]) -> str:
        return str(sweep.objective) if by is None else (labels or {}).get(hparams[by]) or format_value(hparams[by])

    lines: dict[str, dict[Any, Any]] = {}
    found = [each for each in every if x in each.hparams and (by is None or by in each.hparams)]
    for each in found:
        values = list(each.values.values()) if each.sound else []
        lines.setdefault(label_of(each.hparams), {}).setdefault(each.hparams[x], values)
    order = dict.fromkeys(label_of(record.trial) for record in sweep.records if by is None or by in record.trial)
    lines = {label: lines[label] for label in order if label in lines}
    better = "lower" if sweep.mode == "min" else "higher"
    ylabel = f"{sweep.objective.replace('_', ' ')} ({better} is better)"
    ax = plot_means(lines, xlabel=x.replace("_", " "), ylabel=ylabel, log=log, ax=ax)
    if by is not None:
        ax.get_legend().set_title(by.replace("_", " "), prop={"size": "small"})
    return ax


def _numbers(name: str, values: Any) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(values, np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected the values of seeds, got {shown(values)}") from error


def _half(values: np.ndarray[Any, Any]) -> float:
    """Half of the interval."""
    if len(values) < 2:
        return 0.0
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
