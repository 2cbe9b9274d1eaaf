"""The picture of a report: error of the differences against their step, a panel a leaf."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["draw"]

_MOST = 12  # panels


def draw(verdict: str, leaves: Sequence[Any]) -> Any:
    """A matplotlib figure; it belongs to no global state.

    Args:
        verdict: that of the whole report.
        leaves: a ``LeafReport`` each; the first are drawn, the wrong ones before the others.
    """
    from matplotlib.figure import Figure

    leaves = sorted(leaves, key=lambda leaf: leaf.verdict in ("PASS", "DEAD"))[:_MOST]
    columns = min(3, len(leaves))
    rows = math.ceil(len(leaves) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, leaf in zip(panels, leaves, strict=False):
        _panel(ax, leaf)
    for ax in panels[len(leaves) :]:
        ax.set_axis_off()
    figure.suptitle(f"gradient check: {verdict}")
    return figure


def _panel(ax: Any, leaf: Any) -> None:
    curve = leaf.curve
    ax.set_title(f"{leaf.path}: {leaf.verdict}", fontsize=10)
    ax.set(xlabel="step h", ylabel="relative error", xscale="log", yscale="log")
    if curve is None:
        return
    steps = np.array(curve.steps)
    factor = math.sqrt(steps[0] / steps[1])
    label = "reaches over a kink"
    for step, share in zip(steps, curve.crossed, strict=True):
        if share > 0:
            band = {"color": "tab:red", "alpha": 0.05 + 0.3 * share, "linewidth": 0}
            ax.axvspan(step / factor, step * factor, label=label, **band)
            label = None  # one line of the legend for all bands
    for values, label, marker in [(curve.one_sided, "one-sided", "s"), (curve.two_sided, "two-sided", "o")]:
        errors = np.maximum(np.array(values), 1e-17)  # an error of zero has a place on a logarithmic axis too
        ax.plot(steps, errors, marker=marker, markersize=4, label=label)
    if math.isfinite(leaf.relative_error) and leaf.relative_error > 0:
        ax.axhline(leaf.relative_error, color="0.4", linestyle=":", linewidth=1, label="extrapolated")
    ax.axvline(leaf.step, color="0.4", linestyle="--", linewidth=1, label="chosen step")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=7)
