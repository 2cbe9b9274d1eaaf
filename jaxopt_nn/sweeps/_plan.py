"""The plan of a sweep: which hyperparameters are numbers of one program, and which make programs of their own."""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from jaxopt_nn.sweeps._space import Space, Trial

__all__ = ["Group", "Grouped", "Plan", "check_reads", "make_groups", "without_seed"]

_LOOKED_AT = 64  # trials whose recipe is called to see what it reads
T = TypeVar("T")


class Group(NamedTuple):
    """Trials that share a program.

    Attributes:
        static: what they have in common: values that are compiled in.
        traced: the names of what they differ in, and the run's seed.
        trials: the places in the space of those that are to run.
        size: how many trials of the space share the program, with those that were finished before.
    """

    static: Trial
    traced: tuple[str, ...]
    trials: tuple[int, ...]
    size: int


class Plan(NamedTuple):
    """What a sweep is about to do.

    Attributes:
        groups: a program each.
        lanes: trials at a time, at the most.
        finished: how many trials are in the store already.
        flops: floating-point operations of all trials, as :func:`jaxopt_nn.training.explain` counts them; a trial that
            stops early or is pruned does fewer.
        peak_bytes: the memory of one device that the program of the largest trials needs, as the compiler says.
        compile_seconds: how long its compiling took.
        seconds: how long all will take: the programs, and the trials at the rate of the one that was measured; None if
            nothing was measured.
    """

    groups: tuple[Group, ...]
    lanes: int
    finished: int
    flops: int = 0
    peak_bytes: int | None = None
    compile_seconds: float | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        trials = sum(len(group.trials) for group in self.groups)
        programs = f"{len(self.groups)} program{'s' * (len(self.groups) != 1)} to compile"
        head = f"{trials} trials to run, {programs}, up to {self.lanes} trials at a time"
        if self.finished:
            head += f"; {self.finished} finished before"
        lines = [head]
        costs = [f"{self.flops:.2g} floating-point operations"] if self.flops else []
        if self.peak_bytes is not None:
            costs.append(f"{self.peak_bytes / 2**20:.0f} MiB")
        if self.seconds is not None:
            costs.append(f"about {self.seconds:.0f} s")
        if costs:
            lines.append(", ".join(costs))
        for group in self.groups:
            static = ", ".join(f"{name}={value!r}" for name, value in group.static.items())
            lines.append(f"  {len(group.trials)} x [{', '.join(group.traced)}]" + (f" with {static}" if static else ""))
        return "\n".join(lines)


def without_seed(trial: Trial) -> Trial:
    """The hyperparameters of a trial."""
    return {name: value for name, value in trial.items() if name != "seed"}


class Grouped(NamedTuple, Generic[T]):
    """A group that was traced.

    Attributes:
        group: the group.
        traced: its lane, or the error if its code raises; None if it has nothing to run and nobody looked.
        members: the places of all its trials, finished or not.
    """

    group: Group
    traced: T | Exception | None
    members: tuple[int, ...]


def make_groups(trace: Callable[[Group], T], space: Space, finished: Collection[int]) -> list[Grouped[T]]:
    """Groups trials by what cannot be traced.

    Args:
        trace: traces a trial of a group; it raises where a number that is traced has to be a Python value.
        space: all trials.
        finished: the places of those that need not run.

    Returns:
        The groups. One without trials has nothing to run.
    """
    names: dict[frozenset[str], tuple[str, ...]] = {}
    traces: dict[Any, T | Exception] = {}
    groups: dict[Any, list[int]] = {}

    def attempt(known: tuple[Any, ...], traced: tuple[str, ...]) -> T | Exception:
        if (traced, known) not in traces:
            try:
                traces[traced, known] = trace(Group({name: value for name, _, value in known}, traced, (), 0))
            except Exception as error:
                traces[traced, known] = error
        return traces[traced, known]

    for index, trial in enumerate(space):
        hparams = without_seed(trial)
        signature = frozenset(hparams)
        if signature not in names:
            numbers = _numbers(space, hparams)
            names[signature] = _traceable(lambda some, own=hparams: attempt(_static(own, some), some), numbers)
        traced = names[signature]
        groups.setdefault((traced, _static(hparams, traced)), []).append(index)
    made: list[Grouped[T]] = []
    for (traced, known), places in groups.items():
        todo = tuple(index for index in places if index not in finished)
        group = Group({name: value for name, _, value in known}, traced, todo, len(places))
        own = attempt(known, traced) if todo else traces.get((traced, known))
        made.append(Grouped(group, own, tuple(places)))
    return made


def _static(hparams: Trial, traced: Collection[str]) -> tuple[Any, ...]:
    """What is compiled in, to be compared: 1, 1.0 and True are equal, and not the same."""
    return tuple((name, type(value), value) for name, value in hparams.items() if name not in traced)


def _numbers(space: Space, hparams: Trial) -> tuple[str, ...]:
    """The names whose values are numbers wherever they occur: floats, or integers that may turn out to be static."""

    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    return tuple(name for name in hparams if all(is_number(trial[name]) for trial in space if name in trial))


def _traceable(attempt: Callable[[tuple[str, ...]], Any], numbers: tuple[str, ...]) -> tuple[str, ...]:
    """As many of the numbers as can be traced."""
    if not isinstance(attempt(numbers), Exception):
        return numbers
    return tuple(name for name in numbers if not isinstance(attempt((name,)), Exception))


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
