"""Executing tasks: some epochs of some lanes each, in this process."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from jaxopt_nn.sweeps._lanes import Chunk, Lane, Program, Work, advance, compile_lane, dtype_of, values_of, width_of
from jaxopt_nn.sweeps._plan import Group
from jaxopt_nn.sweeps._space import Space

__all__ = ["Execute", "Kept", "Made", "Task", "in_this_process", "signature", "tasks_of"]

_FLOPS_OF_A_COMPILATION = 5e10  # of lanes, in the second or two that a small program takes to compile


class Made(NamedTuple):
    """A group that is to run: its program is made from this."""

    group: Group
    lane: Lane


class Task(NamedTuple):
    """Some epochs of some lanes of a group.

    Attributes:
        group: its place among the groups.
        trials: places in the space, at most ``width``.
        first, epochs: the epochs done, and those to do.
        width: of the program.
        keep: whether the state is wanted afterwards.
        state: of each trial, what it goes on from.
    """

    group: int
    trials: tuple[int, ...]
    first: int
    epochs: int
    width: int
    keep: bool
    state: tuple[Any, ...] = ()

    def part(self, start: int, stop: int) -> "Task":
        """The same for some of its trials."""
        return self._replace(trials=self.trials[start:stop], state=self.state[start:stop])


Kept = dict[Any, Future[Program]]
"""Programs that were compiled, or are being compiled, by :func:`signature` and width."""

Execute = Callable[[Iterable[Task]], Iterator[tuple[Task, Chunk | Exception]]]
"""Yields what came of each task, or of parts of it, in any order; the error where its code raised."""


def tasks_of(
    index: int, made: Made, trials: Sequence[int], first: int, last: int, lanes: int, states: Any, *, keep: bool
) -> list[Task]:
    """The tasks that bring some trials of a group from one epoch to another."""
    lane, width = made.lane, width_of(made.group.size, lanes)
    count = min(last, lane.epochs) - first
    tasks: list[Task] = []
    for start in range(0, len(trials), width):
        chosen = tuple(trials[start : start + width])
        narrow = width
        if count < lane.epochs and (half := width_of(len(chosen), width)) < width:
            # A survivor pays for the lanes that only fill the width. Counted in operations: the choice is the same in
            # every run, as a measured time would not be.
            wasted = (width - half) * lane.flops() * count / lane.epochs
            narrow = half if wasted > _FLOPS_OF_A_COMPILATION else width
        state = tuple(states[i] for i in chosen) if first else ()
        tasks.append(Task(index, chosen, first, count, narrow, keep, state))
    return tasks


def signature(group: Group, space: Space) -> Any:
    """What of a group fixes its program, beside the job."""
    static = tuple((name, type(value), value) for name, value in sorted(group.static.items()))
    return static, tuple((name, str(dtype_of(space, name))) for name in group.traced)


@contextmanager
def in_this_process(work: Work, space: Space, groups: Sequence[Made], kept: Kept | None = None) -> Generator[Execute]:
    """Task by task, on all devices of this process. Programs compile in a thread while others run.

    Args:
        work, space, groups: what is run.
        kept: programs of the same job; it is filled.
    """
    compiling: Kept = {} if kept is None else kept
    pace: dict[Any, float] = {}
    signatures = [signature(made.group, space) for made in groups]
    with ThreadPoolExecutor(1) as pool:

        def submit(task: Task) -> Future[Program]:
            name = (signatures[task.group], task.width)
            if name not in compiling:
                compiling[name] = pool.submit(compile_lane, work, groups[task.group].lane, task.width)
            return compiling[name]

        def execute(tasks: Iterable[Task]) -> Iterator[tuple[Task, Chunk | Exception]]:
            if isinstance(tasks, list):
                for task in tasks:
                    submit(task)
            for task in tasks:
                name, (group, lane) = (signatures[task.group], task.width), groups[task.group]
                try:
                    program = submit(task).result()
                except Exception as error:
                    yield task, error
                    continue
                for start in range(0, len(task.trials), program.width):
                    part = task.part(start, start + program.width)
                    try:
                        chunk = advance(
                            program,
                            lane,
                            values_of(space, group, part.trials),
                            part.first,
                            part.epochs,
                            part.state,
                            keep=part.keep,
                            pace=pace.get(name),
                        )
                    except Exception as error:
                        yield part, error
                        continue
                    if chunk.pace:
                        pace[name] = chunk.pace
                    yield part, chunk

        try:
            yield execute
        finally:
            pool.shutdown(cancel_futures=True)
