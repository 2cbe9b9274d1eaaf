"""A sweep as one HTML file that needs nothing else: what was found in words, plots, and tables that sort."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxopt_nn import plots
from jaxopt_nn.plots import _page as page
from jaxopt_nn.sweeps._configurations import Configuration, compare, count_folds
from jaxopt_nn.sweeps._isolation import edges_of

__all__ = ["write_report"]

_MOST = 8  # hyperparameters that are drawn one by one


def write_report(sweep: Any, path: Path, title: str) -> Path:
    """Writes the report of a :class:`~jaxopt_nn.sweeps.Sweep`."""
    configurations = sweep.configurations()
    parts = [
        page.section("What was found", _summary(sweep, configurations)),
        page.section("Plots", _pictures(sweep, configurations)),
        page.section("Configurations", _configuration_table(sweep, configurations)),
        page.section("Trials", _trial_table(sweep)),
    ]
    return page.write_page(path, title, parts)


def _summary(sweep: Any, configurations: Sequence[Configuration]) -> str:
    statuses: dict[str, int] = {}
    for record in sweep.records:
        statuses[record.status] = statuses.get(record.status, 0) + 1
    counted = ", ".join(f"{count} {status}" for status, count in statuses.items())
    better = "lower" if sweep.mode == "min" else "higher"
    folds = " and folds" if len(sweep.repeats) > 1 else ""
    lines = [
        f"{len(sweep.records)} trials ({counted}) of {len(configurations)} configurations; the objective is "
        f"<b>{html.escape(sweep.objective)}</b>, {better} is better. A configuration is judged by its mean over "
        f"seeds{folds}; intervals are 95 %."
    ]
    if sweep.interrupted:
        lines.append("<b>The sweep was interrupted:</b> trials are missing.")
    if not any(each.sound for each in configurations):
        lines.append("<b>No configuration ended well in all of its seeds, so there is no best one.</b>")
        return page.items(lines)
    best = sweep.best()
    hparams = ", ".join(f"{name} = {page.text_of(value)}" for name, value in best.hparams.items())
    value, low, high = map(page.text_of, (best.value, best.low, best.high))
    ends = f" ({low} to {high})" if best.seeds > 1 else " of a single seed, so nothing is sure"
    lines.append(f"<b>Best:</b> {html.escape(hparams)}: {value}{ends}, the best of {best.considered}.")
    drop = str(sweep.expected_drop())
    lines.append(f"{drop[0].upper()}{drop[1:]}.")
    if best.left_out:
        out = ", ".join(f"{count} {status}" for status, count in best.left_out.items())
        lines.append(f"Not compared, since a seed ended badly or is missing: {html.escape(out)}.")
    lines += [f"<b>Widen the space:</b> {html.escape(str(edge))}." for edge in edges_of(configurations)]
    return page.items(lines)


def _pictures(sweep: Any, configurations: Sequence[Configuration]) -> str:
    good = [each for each in configurations if each.sound]
    if not good:
        return "<p>There is nothing to draw.</p>"
    names = list(dict.fromkeys(name for each in good for name in each.hparams))
    varied = [name for name in names if len({repr(each.hparams.get(name)) for each in good}) > 1]
    try:
        shares = sweep.importance() if varied else {}
        varied.sort(key=lambda name: -shares.get(name, 0.0))
    except (ImportError, ValueError):  # not installed, or nothing differs
        shares = {}
    shown, pictures = varied[:_MOST], list[str]()
    if shares:
        text = (
            "How much of what differs between trials is due to each hyperparameter, by itself, in the space that was "
            "tried. What is no more than the seed's share is noise."
        )
        pictures.append(page.picture("Importance", text, lambda: plots.plot_importance(sweep)))
    if any(sweep.objective in record.history for record in sweep.records):
        text = "The best configurations by epoch: line the median, band minimum to maximum over seeds."
        pictures.append(page.picture("Curves", text, lambda: plots.plot_curves(sweep)))
    for name in shown:
        text = (
            f"For each value of {name}, the best that tuning the other hyperparameters reaches. Intervals that overlap "
            f"decide nothing."
        )
        pictures.append(page.picture(f"Isolation: {name}", text, lambda name=name: plots.plot_isolation(sweep, name)))
    complete = [name for name in shown if all(name in each.hparams for each in good)]
    if len(complete) > 1:
        x, y = complete[:2]
        text = f"Each cell: the best that the other hyperparameters reach at this {x} and {y}."
        pictures.append(page.picture("Heat map", text, lambda: plots.plot_heat_map(sweep, x, y)))
    if shown:
        text = "A line is a configuration. Follow the dark ones: where they meet, the hyperparameter matters."
        names = shown[::-1]
        pictures.append(
            page.picture("Parallel coordinates", text, lambda: plots.plot_parallel_coordinates(sweep, names), "wide")
        )
    for name in shown:
        text = f"A dot is a configuration. If the best lie at an end, try values of {name} beyond it."
        pictures.append(page.picture(f"Slice: {name}", text, lambda name=name: plots.plot_slice(sweep, name)))
    return f'<div class="plots">{"".join(pictures)}</div>'


def _configuration_table(sweep: Any, configurations: Sequence[Configuration]) -> str:
    names = list(dict.fromkeys(name for each in configurations for name in each.hparams))
    heads = ["rank", *names, f"mean {sweep.objective}", "low", "high", "seeds", "behind the best", "ended"]
    best = configurations[0] if configurations and configurations[0].sound else None
    luck = sweep.expected_drop().new_seeds
    luck = 0.0 if math.isnan(luck) else max(luck, 0.0)
    folds = count_folds(sweep.records, sweep.repeats)
    rows: list[list[Any]] = []
    for rank, each in enumerate(configurations, 1):
        if best is None or not each.sound:
            beside = "not compared"
        elif each is best:
            beside = "the best"
        elif len(each.values) < 2:
            beside = "unknown: one seed"
        else:
            beside = {"better": "yes", "worse": "no"}.get(
                compare(best, each, sweep.mode, folds, luck).verdict, "undecided"
            )
        ended = ", ".join(f"{count} {status}" for status, count in each.statuses.items())
        hparams = [each.hparams.get(name) for name in names]
        place = rank if each.sound else None
        rows.append([place, *hparams, each.value, each.low, each.high, len(each.values), beside, ended])
    note = (
        "<p>Behind the best: whether the best one is better seed by seed, after what it owes to being chosen is taken "
        "from it. Among undecided ones take the simplest, or run more seeds. Click on a heading to sort.</p>"
    )
    return note + page.table("configurations", heads, rows)


def _trial_table(sweep: Any) -> str:
    names = list(dict.fromkeys(name for record in sweep.records for name in record.trial))
    metrics = list(dict.fromkeys(name for record in sweep.records for name in record.metrics))
    metrics.sort(key=lambda name: name != sweep.objective)
    rows = [
        [
            *(record.trial.get(name) for name in names),
            record.status,
            *(record.metrics.get(name) for name in metrics),
            record.seconds,
            record.error,
        ]
        for record in sweep.records
    ]
    return page.table("trials", [*names, "status", *metrics, "seconds", "error"], rows)
