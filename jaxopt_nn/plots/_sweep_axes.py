"""What the plots of a sweep share: which configurations they show, and the axes of values and of the objective."""

from typing import Any

import numpy as np

from jaxopt_nn.plots._scales import LOG, Scale, window

__all__ = [
    "BEST",
    "configurations_of",
    "label_axis",
    "legend_above",
    "mark_outside",
    "objective_axis",
    "objective_label",
]

BEST = "tab:red"


def configurations_of(sweep: Any, *names: str) -> list[Any]:
    """Those that can be compared and have the hyperparameters, the best first."""
    if not all(hasattr(sweep, name) for name in ("configurations", "records", "objective", "mode", "repeats")):
        raise TypeError(f"sweep: expected what sweeps.sweep returns, got a {type(sweep).__name__}")
    every = [each for each in sweep.configurations() if each.sound]
    if not every:
        raise ValueError("sweep: expected a configuration that ended well in all of its seeds, got none")
    known = list(dict.fromkeys(name for each in every for name in each.hparams))
    for name in names:
        if name not in known:
            raise ValueError(f"sweep: expected a hyperparameter, one of {known}, got {name!r}")
    return [each for each in every if all(name in each.hparams for name in names)]


def objective_label(sweep: Any) -> str:
    return f"{sweep.objective.replace('_', ' ')} ({'lower' if sweep.mode == 'min' else 'higher'} is better)"


def objective_axis(ax: Any, sweep: Any, every: Any, values: Any) -> tuple[Any, float]:
    """Labels the axis of the objective, to show ``every``; which ``values`` lie outside of it, and its border."""
    low, high = window(every, sweep.mode)
    outside = (values < low) | (values > high)
    ax.set_ylabel(objective_label(sweep))
    if low > 0 and high / low >= LOG:
        ax.set_yscale("log")
        margin = (high / low) ** 0.08
        low, high = low / margin, high * margin
    else:
        margin = 0.08 * (high - low or 1.0)
        low, high = low - margin, high + margin
    ax.set_ylim(low, high)
    return outside, high if sweep.mode == "min" else low


def mark_outside(ax: Any, sweep: Any, places: Any, border: float) -> None:
    """Triangles on the border for values that lie far outside."""
    if len(places):
        style = {"marker": "^" if sweep.mode == "min" else "v", "color": "0.5", "clip_on": False}
        ax.scatter(places, np.full(len(places), border), s=26, label="far worse", **style)


def legend_above(ax: Any) -> None:
    """A legend above the axes, where nothing is drawn."""
    style = {"frameon": False, "fontsize": "small", "borderaxespad": 0.2, "handletextpad": 0.3, "columnspacing": 1.0}
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, **style)


def label_axis(ax: Any, axis: str, scale: Scale, name: str) -> None:
    getattr(ax, f"set_{axis}label")(name)
    if scale.ticks is not None:
        getattr(ax, f"set_{axis}ticks")(scale.ticks, scale.labels)
        if axis == "x" and len(scale.ticks) > 6:
            ax.tick_params(axis="x", labelrotation=45)
        getattr(ax, f"set_{axis}lim")(-0.5, len(scale.ticks) - 0.5)
    elif scale.log:
        getattr(ax, f"set_{axis}scale")("log")
