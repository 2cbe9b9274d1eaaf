"""``python -m benchmarks.plots FOLDER`` draws the scaling curves of the committed results, as ``make docs`` does."""

import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import PEERS, Results, results
from benchmarks.points import CURVES

__all__ = ["draw", "draw_all"]

# Told apart by shade and by mark, for those who print in grey or see other colours.
STYLES = {
    "ours": ("#0b5394", "o"),
    "torch": ("#cc4125", "s"),
    "keras-jax-16": ("#6aa84f", "^"),
    "equinox": ("#8e7cc3", "D"),
    "sklearn-2": ("#e69138", "v"),
}


def speeds(curve: str, measured: Results) -> dict[str, dict[int, tuple[float, ...]]]:
    """Side to value to steps a second."""
    found: dict[str, dict[int, tuple[float, ...]]] = {}
    for side in ("ours", *CURVES[curve].peers):
        for value in CURVES[curve].values:
            row = measured.get(f"{curve}-{value}", {}).get("sides", {}).get(side)
            if row is not None:
                found.setdefault(side, {})[value] = row["per_second"]
    return found


def draw(curve: str, measured: Results, path: Path) -> None:
    """Writes one picture: steps a second against the size, both logarithmic."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    lines = speeds(curve, measured)
    with rc_context({"svg.hashsalt": curve, "font.size": 11, "svg.fonttype": "path"}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained", facecolor="white")
        axes: Any = figure.subplots()
        for side, line in lines.items():
            colour, mark = STYLES[side]
            wide = {"linewidth": 2.4, "zorder": 3} if side == "ours" else {"linewidth": 1.4}
            axes.plot(list(line), list(line.values()), color=colour, marker=mark, label=PEERS[side], **wide)
        axes.set(xscale="log", yscale="log", xlabel=CURVES[curve].label, ylabel="steps a second")
        axes.set_xticks(sorted({value for line in lines.values() for value in line}))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.margins(x=0.07)
        axes.grid(which="major", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(0.0, -0.32), ncols=2)
        figure.savefig(path, metadata={"Date": None})


def draw_all(folder: Path) -> None:
    """Writes RESULTS-CURVE.svg for each curve of each file of results."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, measured in results("scaling").items():
        for curve in CURVES:
            if speeds(curve, measured):
                draw(curve, measured, folder / f"{stem}-{curve}.svg")


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]))
