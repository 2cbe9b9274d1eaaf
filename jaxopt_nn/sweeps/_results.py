"""What a sweep has found, read by its seeds and not by the luckiest of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxopt_nn.sweeps._plan import without_seed
from jaxopt_nn.sweeps._space import Trial
from jaxopt_nn.sweeps._store import Record, trial_id
from jaxopt_nn.training import RunResult

__all__ = ["Best", "Comparison", "Sweep"]

_RESAMPLES = 2000
_COMPLETE = ("COMPLETED", "STOPPED_EARLY")


class Best(NamedTuple):
    """The best configuration of a sweep.

    Attributes:
        hparams: its hyperparameters, without the seed.
        value: the mean of the objective over its seeds.
        low, high: a 95 % bootstrap interval of that mean over seeds; NaN with a single seed.
        seeds: how many.
        considered: how many configurations were compared.
        left_out: trials that did not end well, by status; their configurations were not compared.
    """

    hparams: Trial
    value: float
    low: float
    high: float
    seeds: int
    considered: int
    left_out: dict[str, int]

    def __str__(self) -> str:
        interval = f" ({self.low:.4g} to {self.high:.4g})" if self.seeds > 1 else ""
        out = ", ".join(f"{number} {status}" for status, number in self.left_out.items())
        return (
            f"{self.hparams}: {self.value:.4g}{interval} over {self.seeds} seed{'s' * (self.seeds != 1)}, "
            f"the best of {self.considered}" + (f"; left out: {out}" if out else "")
        )


class Comparison(NamedTuple):
    """One configuration beside another, seed by seed.

    Attributes:
        difference: the mean over common seeds of the first one's objective minus the second one's.
        low, high: a 95 % bootstrap interval of it over seeds; NaN with a single common seed.
        seeds: how many seeds both have.
        verdict: ``"better"`` or ``"worse"`` (the first one) where the interval leaves 0 out, else ``"undecided"``.
    """

    difference: float
    low: float
    high: float
    seeds: int
    verdict: str


class Sweep(NamedTuple):
    """What :func:`jaxopt_nn.sweeps.sweep` returns.

    Attributes:
        records: the finished trials, in the order of the space: :class:`~jaxopt_nn.sweeps.Record`.
        objective: the metric that is compared.
        mode: ``"min"`` or ``"max"``.
        interrupted: whether Ctrl-C ended it.
        results: the results of the trials whose parameters were kept; :meth:`result` finds them.
    """

    records: tuple[Record, ...]
    objective: str
    mode: str
    interrupted: bool
    results: Mapping[str, RunResult] = {}

    def table(self) -> Any:
        """A pandas data frame: a row a trial, its hyperparameters, ``status``, metrics, ``seconds`` and ``error``."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError("the table of a sweep needs pandas: pip install 'jaxopt-nn[sweep]'") from error
        rows = [
            {
                **record.trial,
                "status": record.status,
                **record.metrics,
                "seconds": record.seconds,
                "error": record.error,
            }
            for record in self.records
        ]
        names = list(dict.fromkeys(name for row in rows for name in row if name not in ("seconds", "error")))
        return pandas.DataFrame(rows, columns=[*names, "seconds", "error"])

    def history(self, trial: Mapping[str, Any] | int) -> dict[str, Any]:
        """The history of a trial, by what it says or by its place: name to array ``[epochs]``."""
        if isinstance(trial, int):
            return self.records[trial].history
        wanted = trial_id(dict(trial))
        for record in self.records:
            if trial_id(record.trial) == wanted:
                return record.history
        raise KeyError(f"trial: expected one of the sweep's, got {dict(trial)}")

    def result(self, trial: Mapping[str, Any] | int) -> RunResult:
        """The result of a trial whose parameters were kept (``keep=``), by what it says or by its place.

        ``training.predict`` and ``training.save`` take it.
        """
        wanted = trial_id(self.records[trial].trial if isinstance(trial, int) else dict(trial))
        if wanted not in self.results:
            raise KeyError(f"trial: expected one of the {len(self.results)} that were kept, got {trial}; see keep=")
        return self.results[wanted]

    def best(self) -> Best:
        """The configuration whose mean objective over its seeds is best.

        A configuration with a seed that diverged or failed is left out: it is no safe choice.

        Raises:
            ValueError: no configuration is left.
        """
        left_out: dict[str, int] = {}
        for record in self.records:
            if not self._ended_well(record):
                left_out[record.status] = left_out.get(record.status, 0) + 1
        complete = {
            name: group for name, group in self._by_configuration().items() if all(map(self._ended_well, group))
        }
        if not complete:
            raise ValueError(f"best: no configuration ended well in all of its seeds: {left_out or 'there is none'}")
        values = {name: self._values(group) for name, group in complete.items()}
        pick = min if self.mode == "min" else max
        name = pick(values, key=lambda name: float(np.mean(list(values[name].values()))))
        own = np.array(list(values[name].values()))
        low, high = _interval(own)
        hparams = without_seed(complete[name][0].trial)
        return Best(hparams, float(own.mean()), low, high, len(own), len(complete), left_out)

    def compare(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
        """Whether one configuration is better than another, over the seeds that both have.

        They are compared seed by seed: a seed's initial weights and batches are the same for both.

        Args:
            first, second: hyperparameters without a seed.

        Raises:
            KeyError: a configuration is not in the sweep.
            ValueError: they have no seed in common that ended well in both.
        """
        groups = self._by_configuration()
        values: list[dict[int, float]] = []
        for name, hparams in (("first", first), ("second", second)):
            group = groups.get(trial_id(without_seed(dict(hparams))))
            if group is None:
                raise KeyError(f"{name}: expected a configuration of the sweep, got {dict(hparams)}")
            values.append(self._values([record for record in group if self._ended_well(record)]))
        common = sorted(values[0].keys() & values[1].keys())
        if not common:
            raise ValueError("compare: the two have no seed in common that ended well in both")
        differences = np.array([values[0][seed] - values[1][seed] for seed in common])
        low, high = _interval(differences)
        sign = np.sign(low) if low * high > 0 else 0
        less_is_better = -1 if self.mode == "min" else 1
        verdict = {1: "better", -1: "worse"}.get(int(sign * less_is_better), "undecided")
        return Comparison(float(differences.mean()), low, high, len(common), verdict)

    def _by_configuration(self) -> dict[str, list[Record]]:
        groups: dict[str, list[Record]] = {}
        for record in self.records:
            groups.setdefault(trial_id(without_seed(record.trial)), []).append(record)
        return groups

    def _ended_well(self, record: Record) -> bool:
        return record.status in _COMPLETE and bool(np.isfinite(record.metrics.get(self.objective, np.nan)))

    def _values(self, records: list[Record]) -> dict[int, float]:
        return {record.trial.get("seed", 0): record.metrics[self.objective] for record in records}


def _interval(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The percentiles 2.5 and 97.5 of the mean of resampled values."""
    if len(values) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (_RESAMPLES, len(values)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
