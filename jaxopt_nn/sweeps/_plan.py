"""The plan of a sweep: which hyperparameters are numbers of one program, and which make programs of their own."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_nn.sweeps._space import Space, Trial
from jaxopt_nn.types import Static

__all__ = ["Group", "Plan", "check_reads", "make_plan", "without_seed"]

_LOOKED_AT = 64  # trials whose recipe is called to see what it reads


class Group(NamedTuple):
    """Trials that share a program.

    Attributes:
        static: what they have in common: values that are compiled in.
        traced: the names of what they differ in, and the run's seed.
        trials: their places in the space.
    """

    static: Trial
    traced: tuple[str, ...]
    trials: tuple[int, ...]


class Plan(NamedTuple):
    """What a sweep is about to do.

    Attributes:
        groups: a program each.
        lanes: trials at a time, at the most.
        finished: how many trials are in the store already.
    """

    groups: tuple[Group, ...]
    lanes: int
    finished: int

    def __str__(self) -> str:
        trials = sum(len(group.trials) for group in self.groups)
        programs = f"{len(self.groups)} program{'s' * (len(self.groups) != 1)} to compile"
        head = f"{trials} trials to run, {programs}, up to {self.lanes} trials at a time"
        if self.finished:
            head += f"; {self.finished} finished before"
        lines = [head]
        for group in self.groups:
            static = ", ".join(f"{name}={value!r}" for name, value in group.static.items())
            lines.append(f"  {len(group.trials)} x [{', '.join(group.traced)}]" + (f" with {static}" if static else ""))
        return "\n".join(lines)


def without_seed(trial: Trial) -> Trial:
    """The hyperparameters of a trial."""
    return {name: value for name, value in trial.items() if name != "seed"}


def make_plan(trace: Callable[[Mapping[str, Any]], Any], space: Space, todo: Sequence[int], lanes: int) -> Plan:
    """Groups trials by what cannot be traced.

    Args:
        trace: traces the run of hyperparameters; it raises where one that is traced has to be a Python value.
        space: all trials.
        todo: the places of those that are to run.
        lanes: trials at a time.
    """
    traced: dict[frozenset[str], tuple[str, ...]] = {}
    groups: dict[Any, list[int]] = {}
    for index in todo:
        hparams = without_seed(space[index])
        names = frozenset(hparams)
        if names not in traced:
            traced[names] = _traceable(trace, hparams, _numbers(space, hparams))
        static = {name: value for name, value in hparams.items() if name not in traced[names]}
        # 1, 1.0 and True are equal, and not the same.
        known = tuple((name, type(value), value) for name, value in static.items())
        groups.setdefault((traced[names], known), []).append(index)
    made = [
        Group({name: value for name, _, value in known}, names, tuple(trials))
        for (names, known), trials in groups.items()
    ]
    return Plan(tuple(made), lanes, len(space) - len(todo))


def _numbers(space: Space, hparams: Trial) -> list[str]:
    """The names whose values are numbers wherever they occur: floats, or integers that may turn out to be static."""

    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    return [name for name in hparams if all(is_number(trial[name]) for trial in space if name in trial)]


def _traceable(trace: Callable[[Mapping[str, Any]], Any], hparams: Trial, numbers: list[str]) -> tuple[str, ...]:
    def works(names: Sequence[str]) -> bool:
        def run(values: dict[str, Any]) -> Any:
            return trace({name: values.get(name, Static(value)) for name, value in hparams.items()})

        try:
            jax.eval_shape(run, {name: jnp.asarray(hparams[name]) for name in names})
        except Exception:
            return False
        return True

    if works(numbers):
        return tuple(numbers)
    return tuple(name for name in numbers if works([name]))


class _Reads(Mapping[str, Any]):
    """Hyperparameters that remember which of them were read."""

    def __init__(self, hparams: Trial, read: set[str]) -> None:
        self._hparams, self._read = hparams, read

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return self._hparams[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hparams)

    def __len__(self) -> int:
        return len(self._hparams)

    def __contains__(self, name: object) -> bool:
        return name in self._hparams


def check_reads(recipe: Callable[[Any], Any], space: Space) -> None:
    """Raises ``ValueError`` for a hyperparameter that no trial's recipe reads, or that it reads and nobody gave."""
    names = {name for trial in space for name in without_seed(trial)}
    read: set[str] = set()
    looked_at = space[:: -(-len(space) // _LOOKED_AT)]
    for trial in looked_at:
        try:
            recipe(_Reads(without_seed(trial), read))
        except KeyError as error:
            missing = error.args[0] if error.args else None
            if missing in read and missing not in trial:
                raise ValueError(
                    f"space: the recipe reads {missing!r}, and the trial {trial} has no such hyperparameter"
                    + _nearest(str(missing), names)
                ) from error
            return  # the recipe's own
        except Exception:
            return  # it needs numbers of JAX, or fails: that will show
    if unread := sorted(names - read):
        raise ValueError(f"space: the recipe never reads {unread[0]!r}" + _nearest(unread[0], read))


def _nearest(name: str, others: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(others), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; it knows {sorted(others)}"
