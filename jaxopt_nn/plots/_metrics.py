"""Several metrics of a sweep side by side, and errors over the number of examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxopt_nn._arguments import shown
from jaxopt_nn.plots._means import plot_means
from jaxopt_nn.plots._panels import COLOURS, MARKERS, axes_or_new, check_names
from jaxopt_nn.plots._scales import format_value

__all__ = ["plot_learning_curve", "plot_metrics"]


def plot_metrics(
    sweep: Any,
    x: str,
    metrics: str | Sequence[str],
    *,
    by: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    log: bool = False,
    ax: Any = None,
) -> Any:
    """Metrics of a sweep over one hyperparameter: means over seeds with 95 % intervals.

    All other hyperparameters are tuned: a point is the configuration with the best objective there. So the test error
    can be shown of configurations that the validation error chose.

    Args:
        sweep: of :func:`jaxopt_nn.sweeps.sweep` or ``sweep_function``.
        x: the hyperparameter on the horizontal axis.
        metrics: a metric of the records, or several: a line each.
        by: a hyperparameter that has lines for each of its values; None for none.
        fixed: hyperparameters to hold at one value.
        log: whether the values' axis is logarithmic.
        ax: matplotlib ``Axes``; None for those of a new figure.

    Returns:
        The axes, as :func:`plot_means` draws them. A cross at the border: no configuration there ended well in all
        seeds.

    Raises:
        TypeError, ValueError: it is no sweep, or there is no such hyperparameter or metric.
    """
    if not all(hasattr(sweep, name) for name in ("configurations", "records", "repeats")):
        raise TypeError(f"sweep: expected what sweeps.sweep returns, got a {type(sweep).__name__}")
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    fixed = dict(fixed or {})
    known = list(dict.fromkeys(name for record in sweep.records for name in record.trial))
    for role, wanted in (("x", x), ("by", by), *(("fixed", name) for name in fixed)):
        if wanted is not None and wanted not in known:
            raise ValueError(f"{role}: expected a hyperparameter, one of {known}, got {wanted!r}")
    measured = sorted({name for record in sweep.records for name in record.metrics})
    for name in names:
        if name not in measured:
            raise ValueError(f"metrics: expected one of {measured}, got {name!r}")
    chosen: dict[tuple[Any, Any], Any] = {}
    needed = {x, *fixed, *([] if by is None else [by])}
    for each in sweep.configurations():  # the best first, those that are not sound last
        own = each.hparams
        if needed <= own.keys() and all(own[name] == value for name, value in fixed.items()):
            chosen.setdefault((None if by is None else own[by], own[x]), each)
    if not chosen:
        raise ValueError(f"fixed: expected values that a configuration with {x!r} has, got {fixed}")
    order = [record.trial.get(by) for record in sweep.records] if by is not None else [None]
    lines: dict[str, dict[Any, list[float]]] = {}
    for value in dict.fromkeys(order):
        for name in names:
            shown_name = [name.replace("_", " ")] if len(names) > 1 else []
            parts = [*([] if by is None else [format_value(value)]), *shown_name]
            points = {place: _seeds(sweep, each, name) for (of, place), each in chosen.items() if of == value}
            if points:
                lines[", ".join(parts) or name.replace("_", " ")] = points
    label = names[0].replace("_", " ") if len(names) == 1 else ""
    ax = plot_means(lines, xlabel=x.replace("_", " "), ylabel=label, log=log, ax=ax)
    if by is not None:
        ax.get_legend().set_title(by.replace("_", " "), prop={"size": "small"})
    return ax


def _seeds(sweep: Any, configuration: Any, metric: str) -> list[float]:
    """The metric of the trials of a configuration; none if one of them did not end well."""
    if not configuration.sound:
        return []
    return [
        record.metrics[metric]
        for record in sweep.records
        if {name: value for name, value in record.trial.items() if name not in sweep.repeats} == configuration.hparams
    ]


def plot_learning_curve(
    errors: Mapping[str, Mapping[int, Any]],
    *,
    laws: Mapping[str, tuple[float, float]] | None = None,
    ylabel: str = "error",
    ax: Any = None,
) -> Any:
    """Errors over the number of examples, on logarithmic axes, with a band over seeds.

    Args:
        errors: label to number of examples to the values of the seeds ``[n]``. A label that begins with ``"train"`` is
            drawn dashed.
        laws: label to ``(a, b)`` of a power law ``a · n^−b``, drawn as a dotted line up to twice the most examples.
        ylabel: what the values are.
        ax: matplotlib ``Axes``; None for those of a new figure, which is ``ax.figure``.

    Returns:
        The axes: means as lines, minimum to maximum over seeds as bands. A mean of 0 has no place on the axis, and is
        left out.

    Raises:
        TypeError, ValueError: it is no dictionary of dictionaries of numbers, or a law has no such label.

    >>> ax = plot_learning_curve({"test": {100: [0.2, 0.4], 200: [0.1, 0.2]}}, laws={"test": (30.0, 1.0)})
    >>> [round(float(y), 2) for y in ax.lines[0].get_ydata()]
    [0.3, 0.15]
    """
    check_names("errors", errors)
    ax = axes_or_new(ax)
    colours: dict[str, str] = {}
    for label, points in errors.items():
        if not isinstance(points, Mapping) or not points:
            raise TypeError(f"errors[{label!r}]: expected a dictionary from sizes to values, got {shown(points)}")
        sizes = np.array(sorted(points), np.float64)
        try:
            values = [np.asarray(points[size], np.float64).ravel() for size in sorted(points)]
        except (TypeError, ValueError) as error:
            raise ValueError(f"errors[{label!r}]: expected the values of seeds, got {shown(points)}") from error
        if any(not len(own) for own in values) or sizes[0] <= 0:
            raise ValueError(f"errors[{label!r}]: expected sizes above 0, each with values, got {shown(points)}")
        means = np.array([own.mean() for own in values])
        base = _model_of(label)
        colour = colours.setdefault(base, COLOURS[len(colours) % len(COLOURS)])
        is_train = label.startswith("train")
        marker = MARKERS[list(colours).index(base) % len(MARKERS)]
        shown_at = means > 0
        style = {"linestyle": "--", "markerfacecolor": "white"} if is_train else {"linestyle": "-"}
        ax.plot(sizes[shown_at], means[shown_at], color=colour, marker=marker, markersize=5, label=label, **style)
        low, high = (np.array([pick(own) for own in values]) for pick in (np.min, np.max))
        ax.fill_between(sizes, low, high, where=low > 0, color=colour, alpha=0.15, linewidth=0)
    for label, (a, b) in (laws or {}).items():
        if label not in errors:
            raise ValueError(f"laws: expected labels of the errors {list(errors)}, got {label!r}")
        base = _model_of(label)
        ends = np.array([min(errors[label]), 2 * max(errors[label])], np.float64)
        ax.plot(ends, a * ends**-b, ":", color=colours[base], label=f"law: {a:.2g} · $n^{{{-b:.2f}}}$")
    ax.set(xscale="log", yscale="log", xlabel="training examples", ylabel=ylabel)
    ticks = sorted({size for points in errors.values() for size in points})
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small")
    return ax


def _model_of(label: str) -> str:
    """What ``"train ..."`` and ``"test ..."`` have in common: they share a colour."""
    return label.removeprefix("train").removeprefix("test").strip(" ,:")
