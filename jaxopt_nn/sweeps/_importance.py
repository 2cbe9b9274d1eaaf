"""Importance of hyperparameters: functional analysis of variance, by Optuna's evaluator."""

import math
from collections.abc import Sequence
from typing import Any

from jaxopt_nn.sweeps._configurations import ended_well
from jaxopt_nn.sweeps._isolation import is_number
from jaxopt_nn.sweeps._store import Record

__all__ = ["fanova"]

_LOG = 30.0  # the ratio of largest to smallest from which a positive number is taken on a logarithmic scale


def fanova(records: Sequence[Record], objective: str) -> dict[str, float]:
    """Name to share, largest first; the shares add up to 1."""
    try:
        import optuna
        import sklearn  # noqa: F401, Optuna grows the forest with it
    except ImportError as error:
        raise ImportError(
            "the importance of hyperparameters needs Optuna and scikit-learn: pip install 'jaxopt-nn[optuna]'"
        ) from error
    good = [record for record in records if ended_well(record, objective)]
    values = [record.metrics[objective] for record in good]
    if len(set(values)) < 2:
        raise ValueError(f"importance: expected trials with different values of {objective!r}, got {len(good)} trials")
    shared = [name for name in good[0].trial if all(name in record.trial for record in good)]
    varied = [name for name in shared if len({_plain(record.trial[name]) for record in good}) > 1]
    distributions = {name: _distribution(name, [record.trial[name] for record in good]) for name in varied}
    study = _quiet_study(optuna)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={
                    name: record.trial[name]
                    if is_number(record.trial[name]) and name != "seed"
                    else _plain(record.trial[name])
                    for name in varied
                },
                distributions=distributions,
                value=value,
            )
            for record, value in zip(good, values, strict=True)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied, normalize=True)
    return {name: float(share) for name, share in shares.items()}


def _distribution(name: str, values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if name in ("seed", "fold") or not all(map(is_number, values)):
        return CategoricalDistribution(tuple(dict.fromkeys(map(_plain, values))))
    low, high = min(values), max(values)
    log = low > 0 and high / low >= _LOG
    whole = all(isinstance(value, int) for value in values)
    return IntDistribution(low, high, log=log) if whole else FloatDistribution(float(low), float(high), log=log)


def _plain(value: Any) -> Any:
    """A value that Optuna takes for a category."""
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return getattr(value, "__name__", str(value))


def _quiet_study(optuna: Any) -> Any:
    """A study in memory; to make one prints a line."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="minimize")
    finally:
        optuna.logging.set_verbosity(before)
