"""The configurations of a sweep: means over seeds, the best of them, two beside each other, and what is luck."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxopt_nn.sweeps._intervals import expected_drop, interval
from jaxopt_nn.sweeps._space import Trial
from jaxopt_nn.sweeps._store import Record, trial_id

__all__ = [
    "Best",
    "Comparison",
    "Configuration",
    "Drop",
    "best_of",
    "compare",
    "count_folds",
    "drop_of",
    "ended_well",
    "gather",
    "sound",
]

_COMPLETE = ("COMPLETED", "STOPPED_EARLY")

Repeat = tuple[int, ...]
"""What tells the trials of one configuration apart: the seed, and of a cross-validation the fold."""


class Configuration(NamedTuple):
    """The trials of one configuration.

    Attributes:
        hparams: its hyperparameters, without the seed.
        value: the mean of the objective over its seeds; NaN if none ended well.
        low, high: a 95 % bootstrap interval of that mean, widened for few seeds; NaN of less than two.
        values: from the seed, or seed and fold, to the objective, of the trials that ended well.
        statuses: how many trials ended how.
        sound: whether all of them ended well, and there are as many as of any other configuration.
    """

    hparams: Trial
    value: float
    low: float
    high: float
    values: dict[Repeat, float]
    statuses: dict[str, int]
    sound: bool


class Best(NamedTuple):
    """The best configuration of several.

    Attributes:
        hparams: its hyperparameters, without the seed.
        value: the mean of the objective over its seeds.
        low, high: a 95 % bootstrap interval of that mean over seeds, widened for few of them; NaN with a single seed.
        seeds: how many; of a cross-validation, seeds times folds.
        considered: how many configurations were compared.
        left_out: trials of the configurations that were not compared, by why: the status of those that did not end
            well, and ``"FEWER_SEEDS"`` for those of a configuration that has fewer than others.
    """

    hparams: Trial
    value: float
    low: float
    high: float
    seeds: int
    considered: int
    left_out: dict[str, int]

    def __str__(self) -> str:
        ends = f" ({self.low:.4g} to {self.high:.4g})" if self.seeds > 1 else ""
        out = ", ".join(f"{number} {status}" for status, number in self.left_out.items())
        return (
            f"{self.hparams}: {self.value:.4g}{ends} over {self.seeds} seed{'s' * (self.seeds != 1)}, "
            f"the best of {self.considered}" + (f"; left out: {out}" if out else "")
        )


class Comparison(NamedTuple):
    """One configuration beside another, seed by seed.

    Attributes:
        difference: the mean over common seeds of the first one's objective minus the second one's.
        low, high: a 95 % bootstrap interval of it over seeds, widened for few of them; NaN with a single common seed.
        seeds: how many seeds both have.
        verdict: ``"better"`` or ``"worse"`` (the first one) where the interval leaves 0 out, else ``"undecided"``.
    """

    difference: float
    low: float
    high: float
    seeds: int
    verdict: str

    def __str__(self) -> str:
        ends = f" ({self.low:+.3g} to {self.high:+.3g})" if self.seeds > 1 else ""
        return f"{self.difference:+.3g}{ends} over {self.seeds} seed{'s' * (self.seeds != 1)}: {self.verdict}"


class Drop(NamedTuple):
    """How much of the best configuration's value is luck: it was chosen because it looked best.

    Attributes:
        new_seeds: by how much its mean is expected to be worse with new seeds; NaN with a single one.
        new_data: by how much on data that had no part in the choice, as test data; NaN unless there are folds.
        considered: of how many configurations it is the best.
    """

    new_seeds: float
    new_data: float
    considered: int

    def __str__(self) -> str:
        parts: list[str] = []
        for value, what, need in ((self.new_seeds, "seeds", "several seeds"), (self.new_data, "data", "folds")):
            if math.isnan(value):
                parts.append(f"on new {what} unknown (it takes {need})")
            else:
                parts.append(f"on new {what} worse by {max(value, 0.0):.2g}")
        return f"the best of {self.considered} is expected to be {', and '.join(parts)}"


def gather(records: Sequence[Record], objective: str, mode: str, repeats: Sequence[str]) -> tuple[Configuration, ...]:
    """The configurations of a sweep, the best first, those that cannot be compared last."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(trial_id(_without(record.trial, repeats)), []).append(record)
    most = max(map(len, groups.values()), default=0)
    folds = count_folds(records, repeats)
    found: list[Configuration] = []
    for group in groups.values():
        values = {
            tuple(record.trial.get(name, 0) for name in repeats): record.metrics[objective]
            for record in group
            if ended_well(record, objective)
        }
        statuses: dict[str, int] = {}
        for record in group:
            status = record.status
            if status in _COMPLETE and not ended_well(record, objective):
                status = "NO_OBJECTIVE"
            statuses[status] = statuses.get(status, 0) + 1
        array = np.array(list(values.values()))
        mean = float(array.mean()) if values else math.nan
        is_sound = len(values) == len(group) == most
        hparams = _without(group[0].trial, repeats)
        found.append(Configuration(hparams, mean, *interval(array, folds), values, statuses, is_sound))
    sign = 1 if mode == "min" else -1
    return tuple(sorted(found, key=lambda each: (not each.sound, math.isnan(each.value), sign * each.value)))


def sound(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Those that can be compared."""
    return [each for each in configurations if each.sound]


def _left_out(configurations: Sequence[Configuration]) -> dict[str, int]:
    """The trials of the configurations that cannot be compared, by why."""
    counts: dict[str, int] = {}
    for each in configurations:
        if not each.sound:
            bad = {status: count for status, count in each.statuses.items() if status not in _COMPLETE}
            for status, count in (bad or {"FEWER_SEEDS": sum(each.statuses.values())}).items():
                counts[status] = counts.get(status, 0) + count
    return counts


def best_of(configurations: Sequence[Configuration]) -> Best | None:
    """The first that is sound, of configurations in the order of :func:`gather`; None if there is none."""
    candidates = sound(configurations)
    if not candidates:
        return None
    best = candidates[0]
    return Best(
        best.hparams, best.value, best.low, best.high, len(best.values), len(candidates), _left_out(configurations)
    )


def compare(first: Configuration, second: Configuration, mode: str, folds: int = 1, luck: float = 0.0) -> Comparison:
    """The first beside the second; ``luck`` is what the first one owes to being chosen, and is taken from it."""
    common = sorted(first.values.keys() & second.values.keys())
    if not common:
        raise ValueError("compare: the two have no seed in common that ended well in both")
    sign = 1.0 if mode == "min" else -1.0
    differences = np.array([first.values[repeat] - second.values[repeat] for repeat in common]) + sign * luck
    low, high = interval(differences, folds)
    verdict = {1: "worse", -1: "better"}.get(int(sign * np.sign(low)) if low * high > 0 else 0, "undecided")
    return Comparison(float(differences.mean()), low, high, len(common), verdict)


def drop_of(configurations: Sequence[Configuration], mode: str, repeats: Sequence[str]) -> Drop:
    """The optimism of the best of several: over seeds, and over folds."""
    candidates = sound(configurations)
    common = sorted(set.intersection(*(set(each.values) for each in candidates))) if candidates else []

    def over(place: int) -> float:
        draws = sorted({repeat[place] for repeat in common})
        if len(draws) < 2:
            return math.nan
        means = [
            [np.mean([each.values[repeat] for repeat in common if repeat[place] == draw]) for draw in draws]
            for each in candidates
        ]
        return expected_drop(np.array(means), mode)

    return Drop(over(0), over(1) if len(repeats) > 1 else math.nan, len(candidates))


def _without(trial: Trial, names: Sequence[str]) -> Trial:
    return {name: value for name, value in trial.items() if name not in names}


def ended_well(record: Record, objective: str) -> bool:
    """Whether the trial ran to its end and its objective is a number."""
    return record.status in _COMPLETE and bool(np.isfinite(record.metrics.get(objective, np.nan)))


def count_folds(records: Sequence[Record], repeats: Sequence[str]) -> int:
    """The folds of a cross-validation; 1 if it is none."""
    return len({record.trial["fold"] for record in records}) if "fold" in repeats else 1
