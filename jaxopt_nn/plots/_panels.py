"""What the plots share: a figure of panels, curves with bands, and what is checked of values."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._arguments import shown

__all__ = ["COLOURS", "MARKERS", "axes_or_new", "check_names", "draw_curve", "make_figure", "plain_values"]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
"""Of Okabe and Ito, told apart by the colour-blind; neighbours differ in grey too."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def check_names(name: str, named: Any) -> None:
    """Raises ``TypeError`` unless it is a dictionary whose keys are strings."""
    if not isinstance(named, Mapping) or not all(isinstance(label, str) for label in named) or not named:
        raise TypeError(f"{name}: expected a dictionary with names, got {shown(named)}")


def plain_values(name: str, value: Any) -> NDArray[Any]:
    """The value as an array ``[..., epochs]``; raises ``ValueError`` if it is none."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected numbers [..., epochs], got {shown(value)}") from error
    if array.ndim == 0 or array.size == 0 or not jnp.issubdtype(array.dtype, np.number):
        raise ValueError(f"{name}: expected numbers [..., epochs], got {array.dtype}{list(array.shape)}")
    return array.astype(np.float64)


def draw_curve(ax: Any, values: NDArray[Any], label: str) -> None:
    """The median of lanes ``[..., epochs]`` as a line, the range as a band; epochs that no lane ran are left out."""
    lanes = np.where(np.isfinite(values), values, np.nan).reshape(-1, values.shape[-1])
    run = np.flatnonzero(np.isfinite(lanes).any(0))
    lanes = lanes[:, run]
    (line,) = ax.plot(run + 1, np.nanmedian(lanes, 0), label=label, marker="." if len(run) < 2 else None)
    if len(lanes) > 1:
        ax.fill_between(
            run + 1, np.nanmin(lanes, 0), np.nanmax(lanes, 0), color=line.get_color(), alpha=0.15, linewidth=0
        )


def make_figure(panels: int, title: str) -> tuple[Any, list[Any]]:
    """A figure with panels side by side; it belongs to no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'jaxopt-nn[plots]'") from error
    figure = Figure(figsize=(4.2 * panels if panels > 1 else 6.4, 3.6), layout="constrained")
    figure.suptitle(title)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)  # there is no epoch 2.5
    return figure, axes


def axes_or_new(ax: Any, size: tuple[float, float] = (6.4, 4.0)) -> Any:
    """The axes, or those of a new figure that belongs to no global state."""
    if ax is not None:
        if not hasattr(ax, "plot"):
            raise TypeError(f"ax: expected matplotlib Axes, got {shown(ax)}")
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'jaxopt-nn[plots]'") from error
    return Figure(figsize=size, layout="constrained").subplots()
