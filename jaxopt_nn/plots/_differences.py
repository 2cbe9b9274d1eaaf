"""Errors of difference quotients over their steps."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxopt_nn._arguments import shown
from jaxopt_nn.plots._panels import COLOURS, MARKERS, axes_or_new, check_names, plain_values

__all__ = ["plot_differences"]


def plot_differences(steps: Any, errors: Mapping[str, Any], *, ax: Any = None) -> Any:
    """Relative errors of derivatives over the step of their differences, on logarithmic axes.

    From left to right the step gets smaller: an error falls with it as long as it comes from the step, and rises again
    where rounding takes over.

    Args:
        steps: ``[n]``, above 0.
        errors: label to relative errors ``[n]``; an error of 0 is drawn as 1e-17.
        ax: matplotlib ``Axes``; None for those of a new figure, which is ``ax.figure``.

    Returns:
        The axes, with a line at 1e-7, below which a gradient is often called right.

    Raises:
        TypeError, ValueError: the steps or the errors are no numbers, or not equally many.

    >>> ax = plot_differences([1e-1, 1e-2], {"one-sided": [0.2, 0.02]})
    >>> [line.get_label() for line in ax.lines[:1]]
    ['one-sided']
    """
    check_names("errors", errors)
    at = plain_values("steps", steps)
    if at.ndim != 1 or not (at > 0).all():
        raise ValueError(f"steps: expected numbers above 0, [n], got {shown(steps)}")
    ax = axes_or_new(ax)
    for index, (label, values) in enumerate(errors.items()):
        own = plain_values(f"errors[{label!r}]", values)
        if own.shape != at.shape:
            raise ValueError(f"errors[{label!r}]: expected {list(at.shape)}, one for each step, got {list(own.shape)}")
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        ax.loglog(at, np.maximum(own, 1e-17), color=colour, marker=marker, markersize=4, linewidth=1.2, label=label)
    ax.axhline(1e-7, color="0.4", linestyle=":", linewidth=1.2)
    ax.annotate("1e-7", (at.min(), 1e-7), (0, 3), textcoords="offset points", ha="right", fontsize="small")
    ax.invert_xaxis()
    ax.set(xlabel="step (smaller to the right)", ylabel="relative error")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small")
    return ax
