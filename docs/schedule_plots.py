"""Draws each schedule, as SVG; the documentation shows it below the schedule's docstring.

By hand: ``python docs/schedule_plots.py FOLDER``.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

from jaxopt_nn import plots, schedules

STEPS = 200

# name: schedules by label, and whether the axis is logarithmic
Pictures = dict[str, tuple[dict[str, Callable[[Any], Any]], bool]]


def pictures() -> Pictures:
    """What is drawn for each schedule of the public module."""
    s = schedules
    cosine = s.cosine_decay(1.0, 150)
    return {
        "constant": ({"constant(1)": s.constant(1.0)}, False),
        "step_decay": (
            {f"step_decay(1, 50, {factor})": s.step_decay(1.0, 50, factor) for factor in (0.1, 0.5)},
            True,
        ),
        "multi_step_decay": (
            {
                "multi_step_decay(1, [100, 150])": s.multi_step_decay(1.0, [100, 150]),
                "multi_step_decay(1, [50, 120], [0.5, 0.04])": s.multi_step_decay(1.0, [50, 120], [0.5, 0.04]),
            },
            True,
        ),
        "exponential_decay": (
            {
                "exponential_decay(1, 50, 0.5)": s.exponential_decay(1.0, 50, 0.5),
                "staircase=True": s.exponential_decay(1.0, 50, 0.5, staircase=True),
                "end_value=0.2": s.exponential_decay(1.0, 50, 0.5, end_value=0.2),
            },
            False,
        ),
        "polynomial_decay": (
            {f"polynomial_decay(1, 150, {power})": s.polynomial_decay(1.0, 150, power) for power in (0.5, 1.0, 2.0)},
            False,
        ),
        "linear": (
            {"linear(0.1, 1, 100)": s.linear(0.1, 1.0, 100), "linear(1, 0.2, 150)": s.linear(1.0, 0.2, 150)},
            False,
        ),
        "inverse_sqrt_decay": (
            {
                "inverse_sqrt_decay(1, 20)": s.inverse_sqrt_decay(1.0, 20),
                "warmup(inverse_sqrt_decay(1, 20), 20)": s.warmup(s.inverse_sqrt_decay(1.0, 20), 20),
            },
            False,
        ),
        "cosine_decay": ({"cosine_decay(1, 150)": cosine, "alpha=0.2": s.cosine_decay(1.0, 150, alpha=0.2)}, False),
        "cosine_restarts": (
            {
                "cosine_restarts(1, 50)": s.cosine_restarts(1.0, 50),
                "cosine_restarts(1, 25, t_mult=2, m_mult=0.7)": s.cosine_restarts(1.0, 25, t_mult=2, m_mult=0.7),
            },
            False,
        ),
        "one_cycle": (
            {
                "one_cycle(1, 200)": s.one_cycle(1.0, STEPS),
                'final_fraction=0.6, anneal="linear"': s.one_cycle(1.0, STEPS, final_fraction=0.6, anneal="linear"),
            },
            False,
        ),
        "warmup": (
            {"warmup(cosine_decay(1, 150), 40)": s.warmup(cosine, 40), "warmup(0.5, 40, 0.1)": s.warmup(0.5, 40, 0.1)},
            False,
        ),
        "join": (
            {
                "join([linear(0, 1, 30), 1, cosine_decay(1, 60)], [30, 120])": s.join(
                    [s.linear(0.0, 1.0, 30), 1.0, s.cosine_decay(1.0, 60)], [30, 120]
                )
            },
            False,
        ),
        "by_epoch": (
            {
                "by_epoch(cosine_decay(1, 8), 25)": s.by_epoch(s.cosine_decay(1.0, 8), 25),
                "staircase=False": s.by_epoch(s.cosine_decay(1.0, 8), 25, staircase=False),
            },
            False,
        ),
    }


def draw(folder: Path) -> None:
    """Writes NAME.svg for each schedule into a folder that is there."""
    # The same bytes each time: no date, and ids that do not hang on chance.
    with matplotlib.rc_context({"svg.hashsalt": "schedules"}):
        for name, (lines, log) in pictures().items():
            figure = plots.plot_schedules(lines, STEPS, log=log)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
