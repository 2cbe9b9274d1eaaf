"""A number for each candidate, with what its seeds say about it; and sizes by layer beside theory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxopt_nn._arguments import check_bool, shown
from jaxopt_nn.plots._panels import COLOURS, MARKERS, axes_or_new, check_names

__all__ = ["plot_bars", "plot_by_layer"]


def plot_bars(
    values: Mapping[str, Any], *, xlabel: str = "", missing: str = "reached it", log: bool = False, ax: Any = None
) -> Any:
    """A bar for each candidate: the mean over its seeds, with a 95 % interval of Student's t; and a dot for each seed.

    Args:
        values: label to the values of the seeds ``[n]``. NaN is a seed that has none, such as the steps to a target
            that was not reached.
        xlabel: what the values are, with their unit.
        missing: of a candidate with NaN the bar says "2 of 5 " and this.
        log: whether the values' axis is logarithmic.
        ax: matplotlib ``Axes``; None for those of a new figure, which is ``ax.figure``.

    Returns:
        The axes, the first candidate on top. A mean is over the seeds that have a value. Of a single one there is no
        interval.

    Raises:
        TypeError, ValueError: it is no dictionary of numbers.

    >>> ax = plot_bars({"adam": [20, 30], "sgd": [60, float("nan")]}, xlabel="steps to 90 %")
    >>> [float(bar.get_width()) for bar in ax.patches], ax.texts[0].get_text()
    ([25.0, 60.0], '1 of 2 reached it')
    """
    check_names("values", values)
    check_bool("log", log)
    named = {label: _numbers(f"values[{label!r}]", own, 1) for label, own in values.items()}
    ax = axes_or_new(ax, (6.4, 0.36 * len(named) + 1.2))
    finite = {label: own[np.isfinite(own)] for label, own in named.items()}
    every = np.concatenate(list(finite.values()))
    if log:
        ax.set_xscale("log")
    start = every.min() / 2 if log and len(every) else 0.0
    for place, (label, own) in enumerate(finite.items()):
        mean = own.mean() if len(own) else start
        ax.barh(place, mean - start, left=start, color=COLOURS[4], height=0.7, zorder=1)
        if len(own) > 1:
            half = _half(own)
            low = min(half, (mean - start) * 0.999) if log else half
            ax.errorbar(mean, place, xerr=[[low], [half]], color="black", capsize=3, zorder=3)
        ax.scatter(own, np.full(len(own), place), s=10, color="0.25", zorder=2)
        if len(own) < len(named[label]):
            end = max(own.max(initial=start), mean + (_half(own) if len(own) > 1 else 0.0))
            ax.annotate(
                f"{len(own) or 'none'} of {len(named[label])} {missing}", (end, place), (6, 0),
                textcoords="offset points", va="center", fontsize="small",
            )  # fmt: skip
    ax.set_yticks(range(len(named)), list(named))
    ax.invert_yaxis()
    if not log and (not len(every) or every.min() >= 0):
        ax.set_xlim(left=0)
    ax.set(xlabel=xlabel)
    ax.grid(alpha=0.3, axis="x")
    return ax


def plot_by_layer(
    sizes: Mapping[str, Any],
    theory: Mapping[str, Any] | None = None,
    *,
    ylabel: str = "",
    xlabel: str = "layer, from input to output",
    ax: Any = None,
) -> Any:
    """How large something is from the first layer to the last, beside what theory says.

    Args:
        sizes: label to ``[layers]``, or ``[seeds, layers]``. What is not positive is left out.
        theory: label to ``[layers]``: a dashed line in the colour of the sizes with the same label.
        ylabel: what it is, with its unit.
        xlabel: what the layers are.
        ax: matplotlib ``Axes``; None for those of a new figure.

    Returns:
        The axes, logarithmic in the size: the geometric mean over seeds as a line with markers, minimum to maximum as
        a band.

    Raises:
        TypeError, ValueError: it is no dictionary of numbers; theory for a label that has no sizes, or of another
            length.

    >>> ax = plot_by_layer({"He": [[1.0, 0.5, 4.0], [1.0, 2.0, 1.0]]}, {"He": [1, 1, 1]}, ylabel="variance")
    >>> ax.lines[0].get_ydata().tolist()
    [1.0, 1.0, 2.0]
    """
    check_names("sizes", sizes)
    named = {label: np.atleast_2d(_numbers(f"sizes[{label!r}]", own, 2)) for label, own in sizes.items()}
    expected: dict[str, Any] = {}
    for label, own in (theory or {}).items():
        if label not in named:
            raise ValueError(f"theory: expected labels of {list(named)}, got {label!r}")
        expected[label] = _numbers(f"theory[{label!r}]", own, 1)
        if len(expected[label]) != named[label].shape[1]:
            raise ValueError(f"theory[{label!r}]: expected [{named[label].shape[1]}], got [{len(expected[label])}]")
    ax = axes_or_new(ax)
    ax.set_yscale("log")
    for index, (label, own) in enumerate(named.items()):
        layers = np.arange(1, own.shape[1] + 1)
        logs = np.log(np.where(np.isfinite(own) & (own > 0), own, np.nan))
        shown_at = np.isfinite(logs).any(0)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        logs, places = logs[:, shown_at], layers[shown_at]
        every = max(1, len(layers) // 10)
        style = {"color": colour, "marker": marker, "markersize": 5, "markevery": (index % every, every)}
        ax.plot(places, np.exp(np.nanmean(logs, 0)) if len(places) else [], label=label, linewidth=1.2, **style)
        if len(own) > 1 and len(places):
            low, high = np.exp(np.nanmin(logs, 0)), np.exp(np.nanmax(logs, 0))
            ax.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        if label in expected:
            line = np.where(expected[label] > 0, expected[label], np.nan)
            ax.plot(layers, line, color=colour, linestyle="--", linewidth=2.4, alpha=0.6)
    if expected:
        ax.plot([], [], color="0.4", linestyle="--", linewidth=2.4, label="theory")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small")
    return ax


def _numbers(name: str, values: Any, most: int) -> Any:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, got {shown(values)}") from error
    if not 1 <= array.ndim <= most or not array.size:
        kinds = "[n]" if most == 1 else "[layers] or [seeds, layers]"
        raise ValueError(f"{name}: expected numbers {kinds}, got shape {list(array.shape)}")
    return array


def _half(values: Any) -> float:
    """Half of the interval."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
