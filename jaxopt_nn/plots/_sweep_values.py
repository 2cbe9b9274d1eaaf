"""Pictures of a sweep by the values of its hyperparameters: heat map, isolation, slice, importance."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxopt_nn.plots._panels import axes_or_new
from jaxopt_nn.plots._scales import LOG, format_value, scale_of, window
from jaxopt_nn.plots._sweep_axes import (
    BEST,
    configurations_of,
    label_axis,
    legend_above,
    mark_outside,
    objective_axis,
    objective_label,
)

__all__ = ["plot_heat_map", "plot_importance", "plot_isolation", "plot_slice"]


def plot_heat_map(sweep: Any, x: str, y: str, *, ax: Any = None) -> Any:
    """The objective over two hyperparameters: the best mean over seeds that the others reach at each pair.

    Args:
        sweep: of :func:`jaxopt_nn.sweeps.sweep`.
        x, y: two hyperparameters.
        ax: matplotlib ``Axes``; None for those of a new figure, which is ``ax.figure``.

    Returns:
        The axes; the darker, the better, on a logarithmic scale where the objective spans decades. A cell for each pair
        of values, or a dot for each configuration where there are many values. An empty cell: nothing ended well there,
        or nothing was tried. The best is framed.

    Raises:
        TypeError: it is no sweep.
        ValueError: there is no such hyperparameter.
    """
    found = configurations_of(sweep, x, y)
    ax = axes_or_new(ax, (6.4, 4.4))
    horizontal, vertical = (scale_of([each.hparams[name] for each in found]) for name in (x, y))
    ends = _norm(np.array([each.value for each in found]), sweep.mode)
    colours = "viridis" if sweep.mode == "min" else "viridis_r"  # the darker, the better
    best = found[0]
    if horizontal.ticks is None or vertical.ticks is None:
        places = [
            [scale.positions(each.hparams[name]) for each in found] for scale, name in ((horizontal, x), (vertical, y))
        ]
        drawn = ax.scatter(*places, c=[each.value for each in found], cmap=colours, norm=ends, edgecolors="0.3", s=36)
        _circle(ax, places[0][0], places[1][0])
        legend_above(ax)
    else:
        cells = np.full((len(vertical.ticks), len(horizontal.ticks)), np.nan)
        for each in reversed(found):  # the best last
            cells[int(vertical.positions(each.hparams[y])), int(horizontal.positions(each.hparams[x]))] = each.value
        drawn = ax.imshow(cells, cmap=colours, norm=ends, origin="lower", aspect="auto")
        if cells.size <= 80:
            for (row, column), value in np.ndenumerate(cells):
                if np.isfinite(value):
                    _write(ax, column, row, format_value(float(value)), drawn.cmap(drawn.norm(value)))
        _frame(ax, horizontal.positions(best.hparams[x]), vertical.positions(best.hparams[y]))
    label_axis(ax, "x", horizontal, x)
    label_axis(ax, "y", vertical, y)
    extend = "max" if sweep.mode == "min" else "min"
    ax.figure.colorbar(drawn, ax=ax, label=objective_label(sweep), extend=extend)
    return ax


def plot_isolation(sweep: Any, scientific: str, *, fixed: Mapping[str, Any] | None = None, ax: Any = None) -> Any:
    """The best that each value of one hyperparameter reaches when the others are tuned for it, with its interval.

    Args:
        sweep: of :func:`jaxopt_nn.sweeps.sweep`.
        scientific: the hyperparameter whose effect is asked for.
        fixed: hyperparameters to hold at one value.
        ax: matplotlib ``Axes``; None for those of a new figure.

    Returns:
        The axes: a dot for each value, with a 95 % interval over seeds, and small dots for all other configurations
        that have it. Values whose intervals overlap may still differ seed by seed: ``sweep.compare`` says.

    Raises:
        TypeError, ValueError: it is no sweep, or as its ``isolate``.
    """
    found = configurations_of(sweep)
    parts = [part for part in sweep.isolate(scientific, fixed) if part.best is not None]
    ax = axes_or_new(ax)
    places = np.arange(len(parts))
    for place, part in zip(places, parts, strict=True):
        others = [each.value for each in found if _has(each, scientific, part.value, fixed or {})]
        label = None if place else "other configurations"
        ax.scatter([place] * len(others), others, s=9, color="0.7", zorder=1, label=label)
    values = np.array([part.best.value for part in parts])
    outside, border = objective_axis(ax, sweep, np.array([each.value for each in found]), values)
    ends = np.array([[part.best.value - part.best.low, part.best.high - part.best.value] for part in parts])
    ends = np.maximum(np.nan_to_num(ends), 0)[~outside].T
    label = "best over the others, 95 % over seeds"
    ax.errorbar(places[~outside], values[~outside], ends, fmt="o", capsize=4, zorder=3, label=label)
    mark_outside(ax, sweep, places[outside], border)
    pick = np.argmin(values) if sweep.mode == "min" else np.argmax(values)
    _circle(ax, places[pick], values[pick])
    ax.set_xticks(places, [format_value(part.value) for part in parts])
    if len(places) > 5:
        ax.tick_params(axis="x", labelrotation=45)
    ax.margins(x=0.1)
    ax.set(xlabel=scientific)
    ax.grid(alpha=0.3, axis="y")
    legend_above(ax)
    return ax


def plot_slice(sweep: Any, name: str, *, ax: Any = None) -> Any:
    """Every configuration by the value of one hyperparameter: a dot each, its mean over seeds.

    Args:
        sweep: of :func:`jaxopt_nn.sweeps.sweep`.
        name: a hyperparameter.
        ax: matplotlib ``Axes``; None for those of a new figure.

    Returns:
        The axes; a configuration that is far worse than the median lies on the border, as a triangle.

    Raises:
        TypeError, ValueError: it is no sweep, or there is no such hyperparameter.
    """
    found = configurations_of(sweep, name)
    ax = axes_or_new(ax)
    scale = scale_of([each.hparams[name] for each in found])
    places = np.array([scale.positions(each.hparams[name]) for each in found])
    values = np.array([each.value for each in found])
    outside, border = objective_axis(ax, sweep, values, values)
    ax.scatter(places[~outside], values[~outside], s=22, alpha=0.7, label="a configuration, mean over seeds")
    mark_outside(ax, sweep, places[outside], border)
    _circle(ax, places[0], values[0])
    label_axis(ax, "x", scale, name)
    ax.grid(alpha=0.3)
    legend_above(ax)
    return ax


def plot_importance(sweep: Any, *, ax: Any = None) -> Any:
    """The share of each hyperparameter in the variance of the objective, and that of the seed.

    Args:
        sweep: of :func:`jaxopt_nn.sweeps.sweep`.
        ax: matplotlib ``Axes``; None for those of a new figure.

    Returns:
        The axes; the seed's bar is grey: what is no longer than it is no effect.

    Raises:
        TypeError, ImportError, ValueError: as ``sweep.importance``.
    """
    configurations_of(sweep)
    shares = sweep.importance()
    ax = axes_or_new(ax, (6.4, 0.45 * len(shares) + 1.2))
    names = list(shares)[::-1]
    colours = ["0.6" if name in sweep.repeats else "tab:blue" for name in names]
    ax.barh(names, [shares[name] for name in names], color=colours)
    for place, name in enumerate(names):
        ax.annotate(
            f"{shares[name]:.2f}",
            (shares[name], place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    ax.set(xlabel=f"share of the variance of {sweep.objective} (fANOVA)", xlim=(0, 1.1 * max(shares.values())))
    return ax


def _has(configuration: Any, name: str, value: Any, fixed: Mapping[str, Any]) -> bool:
    own = configuration.hparams
    if name not in own or any(key not in own or own[key] != fixed[key] for key in fixed):
        return False
    return (
        value[0] <= own[name] <= value[1]
        if isinstance(value, tuple) and not isinstance(own[name], tuple)
        else own[name] == value
    )


def _norm(values: Any, mode: str) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    low, high = window(values, mode)
    return LogNorm(low, high) if low > 0 and high / low >= LOG else Normalize(low, high)


def _circle(ax: Any, x: float, y: float) -> None:
    ax.scatter([x], [y], s=150, facecolors="none", edgecolors=BEST, linewidths=2, zorder=4, label="best")


def _write(ax: Any, x: float, y: float, text: str, colour: Any) -> None:
    dark = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] < 0.5
    ax.text(x, y, text, ha="center", va="center", fontsize="small", color="white" if dark else "black")


def _frame(ax: Any, x: float, y: float) -> None:
    from matplotlib.patches import Rectangle

    for colour, width in (("white", 5.0), (BEST, 2.0)):  # white: to be seen in grey, too
        ax.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=colour, linewidth=width))
