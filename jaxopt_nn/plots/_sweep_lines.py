"""Pictures of a sweep with a line for each configuration: curves over epochs, parallel coordinates."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.plots._panels import COLOURS, axes_or_new, draw_curve
from jaxopt_nn.plots._scales import format_value, height, marks, scale_of, window
from jaxopt_nn.plots._sweep_axes import BEST, configurations_of, legend_above

__all__ = ["plot_curves", "plot_parallel_coordinates"]

_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))  # curves can be told apart in grey, too
_BOX = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def plot_curves(sweep: Any, metric: str | None = None, *, best: int = 5, by: str | None = None, ax: Any = None) -> Any:
    """The histories of the best configurations: the median over seeds as a line, minimum to maximum as a band.

    Args:
        sweep: of :func:`jaxopt_nn.sweeps.sweep`.
        metric: a name of the histories; None for the objective.
        best: how many configurations.
        by: a hyperparameter: then it is the best configuration for each of its values, all other hyperparameters tuned
            for it, in the order of the space; None for the best of all.
        ax: matplotlib ``Axes``; None for those of a new figure.

    Returns:
        The axes. The labels say what the configurations differ in.

    Raises:
        TypeError, ValueError: it is no sweep, or its histories have no such metric.
    """
    check_positive_int("best", best)
    found = configurations_of(sweep)[:best] if by is None else _best_of_each(sweep, by)
    metric = metric or str(sweep.objective)
    ax = axes_or_new(ax)
    varied = [name for name in found[0].hparams if len({repr(each.hparams.get(name)) for each in found}) > 1]
    varied.sort(key=lambda name: name != by)  # it comes first
    ax.set_prop_cycle(color=COLOURS)
    lowest, highest = np.inf, -np.inf
    for index, each in enumerate(found):
        curves = [record.history.get(metric) for record in _records(sweep, each)]
        if any(curve is None for curve in curves):
            names = sorted({name for record in sweep.records for name in record.history})
            raise ValueError(f"metric: expected one of the histories' {names}, got {metric!r}")
        values = np.stack([np.asarray(curve, np.float64) for curve in curves])
        label = ", ".join(_named(each, name, by) for name in varied if name in each.hparams)
        draw_curve(ax, values, label or "best")
        ax.lines[-1].set_linestyle(_STYLES[index % len(_STYLES)])
        lowest, highest = min(lowest, np.nanmin(values)), max(highest, np.nanmax(values))
    if lowest > 0 and highest / lowest > 30:
        ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel=metric.replace("_", " "))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    title = f"the best {len(found)}, best first" if by is None else f"the best for each {by.replace('_', ' ')}"
    ax.legend(frameon=False, fontsize="small", title=title if len(found) > 1 else None)
    return ax


def plot_parallel_coordinates(sweep: Any, names: Sequence[str] | None = None, *, ax: Any = None) -> Any:
    """Every configuration as a line through its hyperparameters to its objective.

    Args:
        sweep: of :func:`jaxopt_nn.sweeps.sweep`.
        names: hyperparameters, from left to right; None for all that vary.
        ax: matplotlib ``Axes``; None for those of a new figure.

    Returns:
        The axes: the better, the darker, and the best in red. A line ends where a configuration lacks a hyperparameter.

    Raises:
        TypeError, ValueError: it is no sweep, or there is no such hyperparameter.
    """
    found = configurations_of(sweep, *(names or ()))
    every = list(dict.fromkeys(name for each in found for name in each.hparams))
    varied = [name for name in every if len({repr(each.hparams.get(name)) for each in found}) > 1]
    names = list(names or varied)
    ax = axes_or_new(ax, (1.6 * len(names) + 3.2, 4.2))
    scales = {name: scale_of([each.hparams[name] for each in found if name in each.hparams]) for name in names}
    values = np.array([each.value for each in found])
    low, high = window(values, sweep.mode)
    span = high - low or 1.0
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    for each in reversed(found):
        heights = [height(scales[name], each.hparams[name]) if name in each.hparams else np.nan for name in names]
        share = float(np.clip((each.value - low) / span, 0, 1))
        worse = share if sweep.mode == "min" else 1 - share
        style = {"color": colours(0.9 * worse), "alpha": 0.9 - 0.6 * worse, "linewidth": 1.0}
        if each is found[0]:
            style = {"color": BEST, "alpha": 1.0, "linewidth": 2.6, "marker": "o", "label": "best"}
        ax.plot(range(len(names) + 1), [*heights, share], **style)
    for place, name in enumerate(names):
        ax.axvline(place, color="0.3", linewidth=0.8)
        for place_of, label in marks(scales[name]):
            _mark(ax, place, place_of, label)
    ax.axvline(len(names), color="0.3", linewidth=0.8)
    beyond = {0.0: "≤ " if values.min() < low else "", 0.5: "", 1.0: "≥ " if values.max() > high else ""}
    for share, sign in beyond.items():
        _mark(ax, len(names), share, sign + format_value(float(low + share * span)))
    ax.set_xticks(range(len(names) + 1), [*names, sweep.objective])
    ax.set_yticks([])
    ax.set_xlim(-0.1, len(names) + 0.45)
    for side in ("left", "right", "top", "bottom"):
        ax.spines[side].set_visible(False)
    legend_above(ax)
    return ax


def _named(configuration: Any, name: str, by: str | None) -> str:
    """What the label says of a hyperparameter; the legend's title names ``by``."""
    value = format_value(configuration.hparams[name])
    return value if name == by else f"{name} {value}"


def _best_of_each(sweep: Any, by: str) -> list[Any]:
    """The best configuration for each value of a hyperparameter, in the order of the records."""
    found: dict[str, Any] = {}
    for each in configurations_of(sweep, by):
        found.setdefault(repr(each.hparams[by]), each)
    order = dict.fromkeys(repr(record.trial[by]) for record in sweep.records if by in record.trial)
    return [found[value] for value in order if value in found]


def _mark(ax: Any, x: float, y: float, text: str) -> None:
    ax.annotate(text, (x, y), (5, 0), textcoords="offset points", fontsize="small", va="center", bbox=_BOX)


def _records(sweep: Any, configuration: Any) -> list[Any]:
    def hparams(record: Any) -> dict[str, Any]:
        return {name: value for name, value in record.trial.items() if name not in sweep.repeats}

    return [record for record in sweep.records if hparams(record) == configuration.hparams]
