"""Importance of hyperparameters: functional analysis of variance, by Optuna's evaluator."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from jaxopt_nn.sweeps._configurations import ended_well
from jaxopt_nn.sweeps._isolation import is_number
from jaxopt_nn.sweeps._store import Record

__all__ = ["fanova"]

_FEW = 12  # distinct numbers
_LOG = 30.0  # the ratio of largest to smallest from which a positive number is taken on a logarithmic scale


def fanova(records: Sequence[Record], objective: str, mode: str, repeats: Sequence[str]) -> dict[str, float]:
    """Name to share, largest first; the shares add up to 1."""
    try:
        import optuna

        import_module("sklearn")  # Optuna grows the forest with it
    except ImportError as error:
        raise ImportError(
            "the importance of hyperparameters needs Optuna and scikit-learn: pip install 'jaxopt-nn[optuna]'"
        ) from error
    good = [record for record in records if ended_well(record, objective)]
    values = [record.metrics[objective] for record in good]
    if len(set(values)) < 2:
        raise ValueError(f"importance: expected trials with different values of {objective!r}, got {len(good)} trials")
    shared = [name for name in good[0].trial if all(name in record.trial for record in good)]
    varied = [name for name in shared if len({record.trial[name] for record in good}) > 1]
    columns = {name: _column([record.trial[name] for record in good], name in repeats) for name in varied}
    distributions = {name: distribution for name, (_, distribution) in columns.items()}
    study = _quiet_study(optuna)
    for index, value in enumerate(_clipped(values, mode)):
        params = {name: column[index] for name, (column, _) in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied, normalize=True)
    return {name: float(share) for name, share in shares.items()}


def _clipped(values: Sequence[float], mode: str) -> list[float]:
    """Values no further behind the best than three times the median is: one that explodes would be all the variance."""
    sign = 1.0 if mode == "min" else -1.0
    ranked = np.sort(sign * np.array(values))
    reach = ranked[0] + 3 * (ranked[len(ranked) // 2] - ranked[0])
    return [sign * min(sign * value, float(reach)) if reach > ranked[0] else value for value in values]


def _column(values: Sequence[Any], is_name: bool) -> tuple[list[float], Any]:
    """The values as the forest sees them, and their distribution.

    Optuna's evaluator weights an axis evenly, logarithmic or not. So names and few numbers each have a place of their
    own, with the same weight, and numbers spread over decades are replaced by their logarithms. Names are no categories
    there: its time is exponential in how many there are.
    """
    from optuna.distributions import FloatDistribution

    tried = list(dict.fromkeys(values))
    if all(map(is_number, tried)):
        tried.sort()
    if is_name or len(tried) <= _FEW or not all(map(is_number, tried)):
        return [float(tried.index(value)) for value in values], FloatDistribution(-0.5, len(tried) - 0.5)
    numbers = np.array(values, np.float64)
    if tried[0] > 0 and tried[-1] / tried[0] >= _LOG:
        numbers = np.log(numbers)
    return numbers.tolist(), FloatDistribution(float(numbers.min()), float(numbers.max()))


def _quiet_study(optuna: Any) -> Any:
    """A study in memory; to make one prints a line."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="minimize")
    finally:
        optuna.logging.set_verbosity(before)
