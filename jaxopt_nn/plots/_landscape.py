"""A function of two variables as a map of contours, with paths on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxopt_nn._arguments import check_bool, check_positive_int, shown
from jaxopt_nn.plots._panels import COLOURS, MARKERS, axes_or_new

__all__ = ["plot_paths"]

_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))


def plot_paths(
    x: Any,
    y: Any,
    values: Any,
    paths: Mapping[str, Any] | None = None,
    *,
    minima: Any = (),
    log: bool = True,
    levels: int = 24,
    ax: Any = None,
) -> Any:
    """Contours of a function of two variables, and paths of optimizers on it.

    Args:
        x, y: ``[n]`` and ``[m]``: increasing coordinates of the grid.
        values: ``[m, n]``: the function there, as of :func:`jaxopt_nn.monitor.plane_losses`.
        paths: label to points ``[T, 2]``. One that leaves the grid is cut off at its border.
        minima: points ``[k, 2]`` to mark with a star.
        log: whether contours lie close to one another near the least value: equally spaced in the logarithm of the
            distance to it.
        levels: how many contours.
        ax: matplotlib ``Axes``; None for those of a new figure, which is ``ax.figure``.

    Returns:
        The axes; the darker, the lower. Each path ends in a marker. The lines of the paths are ``ax.lines``, in their
        order: an animation sets their data frame by frame, and the marker stays at the end of what is shown.

    Raises:
        TypeError, ValueError: an argument has another shape.

    >>> x, y = np.linspace(-1, 1, 20), np.linspace(-1, 1, 30)
    >>> ax = plot_paths(x, y, x[None] ** 2 + y[:, None] ** 2, {"a path": [[1, 1], [0.5, 0.2], [0, 0]]})
    >>> [line.get_label() for line in ax.lines]
    ['a path']
    """
    check_bool("log", log)
    check_positive_int("levels", levels)
    x, y, values = (_array(name, value) for name, value in (("x", x), ("y", y), ("values", values)))
    for name, value in (("x", x), ("y", y)):
        if value.ndim != 1 or len(value) < 2 or (np.diff(value) <= 0).any():
            raise ValueError(f"{name}: expected increasing coordinates [n], n >= 2, got {shown(value)}")
    if values.shape != (len(y), len(x)):
        raise ValueError(f"values: expected shape [{len(y)}, {len(x)}], got {list(values.shape)}")
    if not np.isfinite(values).any():
        raise ValueError("values: expected a finite number, got none")
    if not isinstance(paths or {}, Mapping):
        raise TypeError(f"paths: expected a dictionary from labels to points [T, 2], got {shown(paths)}")
    named = {label: _points(f"paths[{label!r}]", points) for label, points in (paths or {}).items()}
    marked = _points("minima", minima) if len(minima) else np.zeros((0, 2))
    ax = axes_or_new(ax, (5.6, 4.4))
    least = np.nanmin(np.where(np.isfinite(values), values, np.nan))
    height = values - least
    if log:
        span = np.nanmax(np.where(np.isfinite(height), height, np.nan)) or 1.0
        height = np.log10(np.maximum(height, 1e-4 * span))
    height = np.ma.masked_invalid(height)
    ax.contourf(x, y, height, levels=levels, cmap="Greys_r", alpha=0.55)
    ax.contour(x, y, height, levels=levels, colors="0.35", linewidths=0.4, linestyles="solid")
    for index, (label, points) in enumerate(named.items()):
        style = {"color": COLOURS[index % len(COLOURS)], "linestyle": _STYLES[index % len(_STYLES)], "linewidth": 1.5}
        marker = {"marker": MARKERS[index % len(MARKERS)], "markersize": 7, "markeredgecolor": "white"}
        ax.plot(*points.T, label=label, markevery=[-1], zorder=3, **style, **marker)
    if len(marked):
        ax.scatter(*marked.T, marker="*", s=140, color="white", edgecolors="black", zorder=4, label="minimum")
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    if named:
        ax.legend(fontsize="small", framealpha=0.85)
    return ax


def _array(name: str, value: Any) -> Any:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of numbers, got {shown(value)}") from error


def _points(name: str, value: Any) -> Any:
    points = _array(name, value)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"{name}: expected points [T, 2], got shape {list(points.shape)}")
    return points
