"""What a sweep has found, read by its seeds and not by the luckiest of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxopt_nn.sweeps._configurations import (
    Best,
    Comparison,
    Configuration,
    Drop,
    best_of,
    compare,
    count_folds,
    drop_of,
    gather,
)
from jaxopt_nn.sweeps._importance import fanova
from jaxopt_nn.sweeps._isolation import Edge, Isolated, edges_of, isolate
from jaxopt_nn.sweeps._report import write_report
from jaxopt_nn.sweeps._store import Record, trial_id
from jaxopt_nn.training import RunResult

__all__ = ["Sweep"]


class Sweep(NamedTuple):
    """What :func:`jaxopt_nn.sweeps.sweep` returns.

    Attributes:
        records: the finished trials, in the order of the space: :class:`~jaxopt_nn.sweeps.Record`.
        objective: the metric that is compared.
        mode: ``"min"`` or ``"max"``.
        interrupted: whether Ctrl-C ended it.
        repeats: what tells the trials of one configuration apart: the seed, and of a cross-validation the fold.
        results: the results of the trials whose parameters were kept; :meth:`result` finds them.
    """

    records: tuple[Record, ...]
    objective: str
    mode: str
    interrupted: bool
    repeats: tuple[str, ...] = ("seed",)
    results: Mapping[str, RunResult] = {}

    def table(self) -> Any:
        """A pandas data frame: a row a trial, its hyperparameters, ``status``, metrics, ``seconds`` and ``error``.

        A metric with the name of a hyperparameter, as ``learning_rate``, is ``recorded_learning_rate``.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("the table of a sweep needs pandas: pip install 'jaxopt-nn[sweep]'") from error
        taken = {name for record in self.records for name in record.trial}
        rows = [
            {
                **record.trial,
                "status": record.status,
                **{f"recorded_{name}" if name in taken else name: value for name, value in record.metrics.items()},
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

    def configurations(self) -> tuple[Configuration, ...]:
        """Every configuration with its mean over seeds, the best first.

        One with a seed that diverged or failed, or with fewer seeds than others, comes last, and is not ``sound``: it
        is no safe choice, or was not compared on equal terms.
        """
        return gather(self.records, self.objective, self.mode, self.repeats)

    def best(self) -> Best:
        """The configuration whose mean objective over its seeds is best, of those that are ``sound``.

        Raises:
            ValueError: no configuration is left.
        """
        best = best_of(self.configurations())
        if best is None:
            statuses: dict[str, int] = {}
            for record in self.records:
                statuses[record.status] = statuses.get(record.status, 0) + 1
            raise ValueError(f"best: no configuration ended well in all of its seeds: {statuses or 'there is none'}")
        return best

    def compare(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
        """Whether one configuration is better than another, over the seeds that both have.

        They are compared seed by seed: a seed's initial weights and batches are the same for both. It is for two that
        were chosen beforehand. The best of a hundred beats most others by luck alone: see :meth:`expected_drop`.

        Args:
            first, second: hyperparameters without a seed.

        Raises:
            KeyError: a configuration is not in the sweep.
            ValueError: they have no seed in common that ended well in both.
        """
        known = {trial_id(each.hparams): each for each in self.configurations()}
        pair: list[Configuration] = []
        for name, hparams in (("first", first), ("second", second)):
            own = {key: value for key, value in hparams.items() if key not in self.repeats}
            if (found := known.get(trial_id(own))) is None:
                raise KeyError(f"{name}: expected a configuration of the sweep, got {dict(hparams)}")
            pair.append(found)
        return compare(pair[0], pair[1], self.mode, count_folds(self.records, self.repeats))

    def expected_drop(self) -> Drop:
        """By how much the best configuration is expected to be worse than it looks, because it was chosen.

        Each seed in turn is left out: the other seeds choose, and the chosen one is judged by the seed that had no
        part in it. Of a cross-validation the same with each fold: that is the drop on test data.
        """
        return drop_of(self.configurations(), self.mode, self.repeats)

    def isolate(self, scientific: str, fixed: Mapping[str, Any] | None = None) -> tuple[Isolated, ...]:
        """For each value of one hyperparameter the best over the others, which are its nuisance hyperparameters.

        Whether Adam or SGD is better can be asked only where each has its own best learning rate. Compare the two with
        :meth:`compare`, and look at ``considered``: the more that were tried, the luckier the best of them.

        Args:
            scientific: the hyperparameter whose effect is asked for. A number with more than twelve values is taken in
                eight ranges with equally many values.
            fixed: hyperparameters to hold at one value.

        Returns:
            One :class:`Isolated` a value: numbers in order, anything else the best first.

        Raises:
            ValueError: there is no such hyperparameter, or no configuration with these values.

        References:
            Godbole, Dahl, Gilmer, Shallue and Nado, "Deep Learning Tuning Playbook", 2023.
        """
        return isolate(self.configurations(), scientific, fixed or {})

    def edges(self) -> tuple[Edge, ...]:
        """The numbers of the best configuration that are the outermost of those tried. Printed, each is an advice."""
        return edges_of(self.configurations())

    def importance(self) -> dict[str, float]:
        """The share of each hyperparameter in the variance of the objective over the space (fANOVA), largest first.

        Of several seeds, ``seed`` has a share too: what is no larger than that is no effect. Shares are of the space
        that was tried: a range that is too wide makes its hyperparameter important. By Optuna's evaluator, with a
        random forest. Trials that did not end well, and hyperparameters that not all trials have, are left out; a value
        far behind the best counts as no further than three times as far as the median.

        Raises:
            ImportError: Optuna or scikit-learn is missing (the ``optuna`` extra).
            ValueError: there are fewer than two trials that ended well, or they all have the same objective.

        References:
            Hutter, Hoos and Leyton-Brown, "An efficient approach for assessing hyperparameter importance", 2014.
        """
        return fanova(self.records, self.objective, self.mode, self.repeats)

    def report(self, path: str | Path, *, title: str = "Sweep") -> Path:
        """Writes one HTML file that opens anywhere, without a network: what was found, plots, and tables that sort.

        Args:
            path: of the file.
            title: its heading.

        Returns:
            The path.

        Raises:
            ImportError: matplotlib is missing (the ``plots`` extra). Without Optuna the importance is left out.
        """
        return write_report(self, Path(path), title)
