"""One hyperparameter of a sweep by itself: the best over the others for each of its values, and the edges of the space.

Of a question, the *scientific* hyperparameter is the one whose effect is asked for; *nuisance* ones have to be tuned
for each of its values, to compare them fairly; *fixed* ones are held at one value.

References:
    Godbole, Dahl, Gilmer, Shallue and Nado, "Deep Learning Tuning Playbook", 2023.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxopt_nn.sweeps._configurations import Best, Configuration, best_of, sound

__all__ = ["Edge", "Isolated", "edges_of", "is_number", "isolate"]

_MANY = 12  # distinct numbers; of more, ranges are isolated
_RANGES = 8
_NONE = object()
_OUTERMOST = 0.05  # of the values tried


class Isolated(NamedTuple):
    """One value of a scientific hyperparameter, with the best of the nuisance ones.

    Attributes:
        value: the value, or of a number with many values a range ``(low, high)``, both included.
        best: the best configuration that has it; None if none ended well.
    """

    value: Any
    best: Best | None

    def __str__(self) -> str:
        value = f"{self.value[0]:.4g} to {self.value[1]:.4g}" if isinstance(self.value, tuple) else str(self.value)
        return f"{value}: {self.best or 'no configuration ended well in all seeds'}"


class Edge(NamedTuple):
    """A hyperparameter whose best value is the last one that was tried.

    Attributes:
        name: of the hyperparameter.
        value: of the best configuration.
        side: ``"low"`` or ``"high"``.
        tried: how many values were tried.
    """

    name: str
    value: float
    side: str
    tried: int

    def __str__(self) -> str:
        return (
            f"{self.name}={self.value:.4g} lies on the {self.side} edge of your space ({self.tried} values): widen it, "
            f"the best may lie beyond"
        )


def isolate(configurations: Sequence[Configuration], name: str, fixed: Mapping[str, Any]) -> tuple[Isolated, ...]:
    """For each value of one hyperparameter the best of the configurations that have it, and what is fixed."""
    names = list(dict.fromkeys(key for each in configurations for key in each.hparams))
    for role, wanted in (("scientific", name), *(("fixed", key) for key in fixed)):
        if wanted not in names:
            raise ValueError(f"{role}: expected one of {names}, got {wanted!r}")
    chosen = [
        each
        for each in configurations
        if name in each.hparams and all(each.hparams.get(key, _NONE) == value for key, value in fixed.items())
    ]
    if not chosen:
        raise ValueError(f"fixed: expected values that a configuration with {name!r} has, got {dict(fixed)}")
    values = list(dict.fromkeys(each.hparams[name] for each in chosen))
    holds: list[tuple[Any, Callable[[Any], bool]]] = []
    if all(map(is_number, values)):
        values.sort()
    if all(map(is_number, values)) and len(values) > _MANY:
        for part in np.array_split(np.array(values), _RANGES):
            low, high = part[0].item(), part[-1].item()
            holds.append(((low, high), partial(_is_between, low, high)))
    else:
        holds = [(value, partial(operator.eq, value)) for value in values]
    return tuple(Isolated(value, best_of([each for each in chosen if has(each.hparams[name])])) for value, has in holds)


def _is_between(low: float, high: float, value: float) -> bool:
    return low <= value <= high


def edges_of(configurations: Sequence[Configuration]) -> tuple[Edge, ...]:
    """The numbers of the best configuration that are the outermost of those that were tried."""
    candidates = sound(configurations)
    found: list[Edge] = []
    for name, value in candidates[0].hparams.items() if candidates else ():
        values = [each.hparams[name] for each in configurations if name in each.hparams]
        tried = sorted(set(values)) if all(map(is_number, values)) else []
        if len(tried) < 2:
            continue
        outermost = max(1, round(_OUTERMOST * len(tried)))
        if value in tried[-outermost:]:
            found.append(Edge(name, value, "high", len(tried)))
        elif value in tried[:outermost] and tried[0] != 0:  # rates and penalties end at 0
            found.append(Edge(name, value, "low", len(tried)))
    return tuple(found)


def is_number(value: Any) -> bool:
    """Whether it is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
