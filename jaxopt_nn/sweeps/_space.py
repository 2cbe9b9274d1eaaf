"""Spaces: which hyperparameters to try. A space is a list of trials, dictionaries of plain values."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxopt_nn._arguments import check_positive_int

__all__ = [
    "Choice",
    "Conditional",
    "Integers",
    "LogUniform",
    "Space",
    "Trial",
    "Uniform",
    "as_trials",
    "choice",
    "grid",
    "halton",
    "integers",
    "log_uniform",
    "random",
    "sobol",
    "uniform",
    "zipped",
]

Trial = dict[str, Any]
Space = list[Trial]


class Uniform(NamedTuple):
    """See :func:`uniform`."""

    low: float
    high: float

    def at(self, u: float) -> float:
        return self.low + u * (self.high - self.low)


class LogUniform(NamedTuple):
    """See :func:`log_uniform`."""

    low: float
    high: float

    def at(self, u: float) -> float:
        return math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))


class Integers(NamedTuple):
    """See :func:`integers`."""

    low: int
    high: int
    log: bool

    def at(self, u: float) -> int:
        if self.log:
            return min(self.high, int(LogUniform(self.low, self.high + 1).at(u)))
        return min(self.high, self.low + int(u * (self.high + 1 - self.low)))


class Choice(NamedTuple):
    """See :func:`choice`."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        return self.values[min(len(self.values) - 1, int(u * len(self.values)))]


class Conditional(NamedTuple):
    """See :func:`choice` of a mapping."""

    options: tuple[tuple[Any, dict[str, Any]], ...]


Simple = Uniform | LogUniform | Integers | Choice
Distribution = Simple | Conditional


def uniform(low: float, high: float) -> Uniform:
    """A number between ``low`` and ``high``, all equally likely.

    >>> uniform(0.0, 2.0).at(0.25)
    0.5
    """
    _check_range(low, high)
    return Uniform(float(low), float(high))


def log_uniform(low: float, high: float) -> LogUniform:
    """A number between ``low`` > 0 and ``high`` whose logarithm is uniform: for learning rates and penalties.

    >>> round(log_uniform(1e-4, 1.0).at(0.5), 6)
    0.01
    """
    _check_range(low, high)
    if low <= 0:
        raise ValueError(f"low: expected a number > 0, got {low!r}")
    return LogUniform(float(low), float(high))


def integers(low: int, high: int, *, log: bool = False) -> Integers:
    """An integer from ``low`` to ``high``, both included; with ``log`` small ones are as likely as large ones.

    >>> [integers(1, 3).at(u) for u in (0.0, 0.5, 0.99)]
    [1, 2, 3]
    """
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name}: expected an int, got {value!r}")
    _check_range(low, high)
    if log and low < 1:
        raise ValueError(f"low: expected an int >= 1 on a logarithmic axis, got {low}")
    return Integers(int(low), int(high), log)


def choice(values: Sequence[Any] | Mapping[Any, Mapping[str, Any]]) -> Choice | Conditional:
    """One of some values, all equally likely.

    Of a mapping the keys are the values, and what each maps to are hyperparameters that exist for it alone: values, or
    distributions of their own.

    >>> choice(["adam", "sgd"]).at(0.7)
    'sgd'
    >>> conditional = choice({"adam": {}, "sgd": {"momentum": uniform(0.0, 0.99)}})
    """
    if not values:
        raise ValueError("values: expected at least one, got none")
    if isinstance(values, Mapping):
        return Conditional(tuple((key, dict(inner)) for key, inner in values.items()))
    return Choice(tuple(values))


def grid(**values: Any) -> Space:
    """Every combination of the values.

    Args:
        values: name to a sequence of values; a single value, such as a string or a number, is a sequence of one. A
            mapping as in :func:`choice` has hyperparameters for each of its keys: sequences again.

    Returns:
        The trials. ``seed`` is the seed of the run, and no hyperparameter that the recipe gets.

    Raises:
        ValueError: a sequence is empty.

    >>> grid(learning_rate=[0.1, 0.01], width=32)
    [{'learning_rate': 0.1, 'width': 32}, {'learning_rate': 0.01, 'width': 32}]
    >>> len(grid(optimizer={"adam": {}, "sgd": {"momentum": [0.0, 0.9]}}, seed=range(5)))
    15
    """
    axes: list[list[Trial]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            options = [{name: key, **inner} for key, conditional in value.items() for inner in grid(**conditional)]
        else:
            options = [{name: each} for each in _listed(name, value)]
        if not options:
            raise ValueError(f"{name}: expected at least one value, got none")
        axes.append(options)
    return [{k: v for part in parts for k, v in part.items()} for parts in itertools.product(*axes)]


def zipped(**values: Any) -> Space:
    """The first values of each together, then the second ones, and so on.

    >>> zipped(width=[32, 64], learning_rate=[0.01, 0.005])
    [{'width': 32, 'learning_rate': 0.01}, {'width': 64, 'learning_rate': 0.005}]
    """
    columns = {name: _listed(name, value) for name, value in values.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"zipped: expected sequences of equal length, got {lengths}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def random(number: int, *, draw: int = 0, **values: Any) -> Space:
    """Independent random draws.

    Args:
        number: how many configurations.
        draw: the seed of the draws: the same number gives the same trials.
        values: name to a distribution (:func:`uniform`, :func:`log_uniform`, :func:`integers`, :func:`choice`), or to
            one value for all. ``seed=range(5)`` trains each configuration with five seeds.

    Returns:
        The trials.

    References:
        Bergstra and Bengio, "Random search for hyper-parameter optimization", 2012.

    >>> trials = random(2, learning_rate=log_uniform(1e-4, 1e-1), seed=range(3))
    >>> len(trials), [trial["seed"] for trial in trials]
    (6, [0, 1, 2, 0, 1, 2])
    """
    check_positive_int("number", number)
    rng = np.random.default_rng(draw)
    return _drawn([rng.random(_dimensions(values)) for _ in range(number)], values)


def sobol(number: int, *, draw: int = 0, **values: Any) -> Space:
    """Quasi-random draws that fill the space evenly (scrambled Sobol points): as :func:`random` otherwise.

    They are most even where ``number`` is a power of two.

    >>> rates = [trial["rate"] for trial in sobol(4, rate=uniform(0.0, 4.0))]
    >>> sorted(int(rate) for rate in rates)  # one in each quarter
    [0, 1, 2, 3]
    """
    return _quasi_random("Sobol", number, draw, values)


def halton(number: int, *, draw: int = 0, **values: Any) -> Space:
    """Quasi-random draws that fill the space evenly for any number (scrambled Halton points), as :func:`random`.

    >>> len(halton(5, rate=uniform(0.0, 1.0), width=choice([32, 64])))
    5
    """
    return _quasi_random("Halton", number, draw, values)


def _quasi_random(kind: str, number: int, draw: int, values: Mapping[str, Any]) -> Space:
    import warnings

    from scipy.stats import qmc

    check_positive_int("number", number)
    dimensions = _dimensions(values)
    if not dimensions:
        return _drawn([np.zeros(0)] * number, values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of numbers that are no power of two: said in the docstring
        points = getattr(qmc, kind)(dimensions, rng=np.random.default_rng(draw)).random(number)
    return _drawn(list(points), values)


def _dimensions(values: Mapping[str, Any]) -> int:
    total = 0
    for value in values.values():
        total += isinstance(value, Distribution)
        if isinstance(value, Conditional):
            total += sum(_dimensions(inner) for _, inner in value.options)
    return total


def _drawn(points: Sequence[Any], values: Mapping[str, Any]) -> Space:
    if not values:
        raise ValueError("values: expected at least one hyperparameter, got none")
    seeds = _listed("seed", values["seed"]) if "seed" in values else None
    rest = {name: value for name, value in values.items() if name != "seed"}
    for name, value in rest.items():
        if isinstance(value, (list, tuple, range, np.ndarray)) and not isinstance(value, Distribution):
            raise TypeError(f"{name}: expected a distribution or one value, got {value!r}; use choice({value!r})")
    trials = [_draw_one(iter(point), rest) for point in points]
    return trials if seeds is None else [{**trial, "seed": seed} for trial in trials for seed in seeds]


def _draw_one(point: Any, values: Mapping[str, Any]) -> Trial:
    trial: Trial = {}
    for name, value in values.items():
        if isinstance(value, Conditional):
            chosen = min(len(value.options) - 1, int(next(point) * len(value.options)))
            for index, (key, inner) in enumerate(value.options):  # each has numbers of its own, chosen or not
                own = _draw_one(point, inner)
                if index == chosen:
                    trial |= {name: key, **own}
        else:
            trial[name] = value.at(float(next(point))) if isinstance(value, Simple) else value
    return trial


def as_trials(space: Any) -> Space:
    """The space as a list of dictionaries of plain Python values; raises for what is none, or empty."""
    if isinstance(space, Mapping) or not isinstance(space, Sequence):
        raise TypeError(f"space: expected a list of dictionaries, as sweeps.grid(learning_rate=[...]), got {space!r}")
    trials: Space = []
    for index, trial in enumerate(space):
        if not isinstance(trial, Mapping):
            raise TypeError(f"space[{index}]: expected a dictionary of hyperparameters, got {trial!r}")
        trials.append({str(name): _plain(f"space[{index}][{name!r}]", value) for name, value in trial.items()})
    if not trials:
        raise ValueError("space: expected at least one trial, got none")
    return trials


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.generic) or (hasattr(value, "item") and np.ndim(value) == 0):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    if isinstance(value, Distribution):
        raise TypeError(f"{name}: expected a value, got a distribution; draw with sweeps.random or sweeps.sobol")
    if name.endswith("['seed']") and (type(value) is not int or not 0 <= value < 2**31):
        raise ValueError(f"{name}: expected an int in [0, 2**31), got {value!r}")
    try:
        hash(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected a hashable value (a tuple for a list), got {value!r}") from error
    return value


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, Distribution):
        raise TypeError(f"{name}: expected values, got a distribution; draw with sweeps.random or sweeps.sobol")
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return [value]
    return list(value)


def _check_range(low: Any, high: Any) -> None:
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise TypeError(f"{name}: expected a number, got {value!r}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"high: expected a finite number above low = {low!r}, got {high!r}")
