"""The engine of a sweep: trials are advanced in chunks of lanes, each chunk is kept, and a rule may end some early."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxopt_nn._arguments import check_number
from jaxopt_nn.sweeps._execute import Execute, Made, Task, tasks_of
from jaxopt_nn.sweeps._lanes import Chunk, Lane, width_of
from jaxopt_nn.sweeps._plan import without_seed
from jaxopt_nn.sweeps._pruning import Advance, Pruning, schedule
from jaxopt_nn.sweeps._space import Space, Trial
from jaxopt_nn.sweeps._store import PAUSED, PRUNED, Record, Store, trial_id
from jaxopt_nn.training import Status

__all__ = ["Shared", "Sweeping", "failed", "run_all", "run_pruned", "run_shared", "state_of", "work"]

_SOUND = (Status.COMPLETED.name, Status.STOPPED_EARLY.name)
_WAIT = 0.5  # seconds between two looks at what other processes do


class Shared(NamedTuple):
    """A store that several processes fill. See :func:`jaxopt_nn.sweeps.work`.

    Attributes:
        path: of the file.
        seconds: for how long a process may be silent before others take over what it was at.
    """

    path: str | Path
    seconds: float


def work(store: str | Path, *, seconds: float = 600.0) -> Shared:
    """A store that any number of processes fill together, such as the jobs of a SLURM array.

    Each of them makes the same call, ``sweep(recipe, space, ..., store=work("digits.sqlite"))``. A process takes a
    chunk of lanes on a lease, and renews it while it lives; one that is silent for ``seconds`` loses it, and others run
    it. The call returns in all of them once every trial is finished, with all trials.

    Args:
        store: the file. On several machines it lies in a folder that they share and that has file locks (NFS 4).
        seconds: how long a process may be silent. Clocks of the machines may differ by less.

    >>> work("digits.sqlite").seconds
    600.0
    """
    if not isinstance(store, (str, Path)):
        raise TypeError(f"store: expected the path of a file, got {store!r}")
    check_number("seconds", seconds, 1)
    return Shared(store, float(seconds))


class Sweeping(NamedTuple):
    """A sweep that is under way.

    Attributes:
        space: all trials.
        ids: their names in the store.
        groups: those that are to run.
        lanes: trials at a time, at the most.
        store: where trials are kept.
        records: what is known of each trial, by its place; it is updated.
        states: of each trial that waits at a rung, what it goes on from; it is updated.
        value: of a record, less is better.
        keep: so many trials keep what they ended with, the best ones.
        execute: runs tasks.
    """

    space: Space
    ids: Sequence[str]
    groups: Sequence[Made]
    lanes: int
    store: Store
    records: dict[int, Record]
    states: dict[int, Any]
    value: Callable[[Record], float]
    keep: int
    execute: Execute


def run_all(sweeping: Sweeping) -> Iterator[list[Record]]:
    """Every trial to its end."""
    tasks = [
        task
        for index, made in enumerate(sweeping.groups)
        for task in _tasks(sweeping, index, made.group.trials, max(made.lane.epochs, 1))
    ]
    yield from _run(sweeping, tasks)


def run_pruned(sweeping: Sweeping, pruning: Pruning, objective: str, sign: float) -> Iterator[list[Record]]:
    """Every trial as far as the rule lets it."""
    configurations: dict[str, list[int]] = {}
    for index, trial in enumerate(sweeping.space):
        configurations.setdefault(trial_id(without_seed(trial)), []).append(index)
    members = list(configurations.values())
    group_of = {i: index for index, made in enumerate(sweeping.groups) for i in made.group.trials}

    def score(configuration: int, epochs: int) -> float:
        values = [_value_at(sweeping.records.get(i), objective, epochs) for i in members[configuration]]
        return sign * float(np.mean(values))

    lengths = [len(record.history[objective]) for record in sweeping.records.values()]  # of what is finished, too
    longest = max([made.lane.epochs for made in sweeping.groups] + lengths, default=1)
    seeds = max(len(each) for each in members)
    for step in schedule(pruning, len(members), longest, score, max(1, sweeping.lanes // seeds)):
        trials = [i for configuration in step.configurations for i in members[configuration] if i in group_of]
        open_ = [i for i in trials if i not in sweeping.records or sweeping.records[i].status == PAUSED]
        if isinstance(step, Advance):
            tasks = [
                task
                for index in range(len(sweeping.groups))
                for task in _tasks(sweeping, index, [i for i in open_ if group_of[i] == index], step.epochs)
            ]
            yield from _run(sweeping, tasks)
        elif open_:
            yield _keep(sweeping, {i: sweeping.records[i]._replace(status=PRUNED) for i in open_}, {})


def _tasks(sweeping: Sweeping, index: int, trials: Sequence[int], epochs: int) -> list[Task]:
    """Tasks that bring trials of a group to an epoch, from wherever they are."""
    made = sweeping.groups[index]
    done = {i: _epochs_done(sweeping.records[i]) if i in sweeping.states else 0 for i in trials}
    tasks: list[Task] = []
    for first in sorted({each for each in done.values()}):
        if first < min(epochs, made.lane.epochs) or not made.lane.epochs:
            some = [i for i in trials if done[i] == first]
            keep = sweeping.keep > 0 or epochs < made.lane.epochs
            tasks += tasks_of(index, made, some, first, epochs, sweeping.lanes, sweeping.states, keep=keep)
    return tasks


def _run(sweeping: Sweeping, tasks: Iterable[Task]) -> Iterator[list[Record]]:
    for task, outcome in sweeping.execute(tasks):
        if isinstance(outcome, Exception):
            yield _keep(sweeping, {i: failed(sweeping.space[i], outcome) for i in task.trials}, {})
            continue
        lane = sweeping.groups[task.group].lane
        records = {
            i: _record(sweeping.space[i], lane, outcome, place, task.first, sweeping.records.get(i))
            for place, i in enumerate(task.trials)
        }
        states = {
            i: tuple(leaf[place] for leaf in outcome.state) for place, i in enumerate(task.trials) if outcome.state
        }
        yield _keep(sweeping, records, states)


def _keep(sweeping: Sweeping, records: dict[int, Record], states: dict[int, Any]) -> list[Record]:
    """Writes trials, and the states of those that go on or are among the best."""
    sweeping.records.update(records)
    for i in records:
        sweeping.states.pop(i, None)
    waiting = {i for i in states if records[i].status == PAUSED}
    dropped: set[int] = set()
    if sweeping.keep:
        ended = [i for i in {*sweeping.states, *states} if sweeping.records[i].status != PAUSED]
        values = {i: sweeping.value(sweeping.records[i]) for i in ended if sweeping.records[i].status in _SOUND}
        known = [i for i in values if not np.isnan(values[i])]
        best = sorted(known, key=lambda i: (values[i], i))[: sweeping.keep]
        dropped = {i for i in ended if i not in best}
        waiting |= {i for i in best if i in states}
    sweeping.states.update({i: states[i] for i in waiting})
    for i in dropped:
        sweeping.states.pop(i, None)
    blobs: dict[str, bytes] = {}
    if sweeping.store.path != ":memory:":
        blobs = {sweeping.ids[i]: b"".join(np.asarray(leaf).tobytes() for leaf in states[i]) for i in waiting}
    sweeping.store.add(list(records.values()), blobs, [sweeping.ids[i] for i in dropped])
    return list(records.values())


def _record(trial: Trial, lane: Lane, chunk: Chunk, place: int, first: int, before: Record | None) -> Record:
    history = {name: np.array(values[place]) for name, values in chunk.history.items()}
    ends = {name: values[place] for name, values in chunk.ends.items()}
    seconds = chunk.seconds
    if first and before is not None:
        seconds += before.seconds
        for name, values in before.history.items():
            history[name][:first] = values[:first]
    status = Status(int(ends["status"])).name
    metrics = {name: float(value) for name, value in ends.items() if name != "status"}
    if "best_epoch" in metrics:
        returned = int(metrics["best_epoch"])
        curves = {name: values for name, values in history.items() if values.ndim == 1}
        at_best = {name: float(values[returned]) if returned >= 0 else np.nan for name, values in curves.items()}
        metrics = at_best | metrics
    if lane.epochs and status == "COMPLETED" and metrics["epochs"] < lane.epochs:
        status = PAUSED
    return Record(trial, status, None, metrics, history, seconds)


def failed(trial: Trial, error: Exception) -> Record:
    """The record of a trial whose code raised."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return Record(trial, "FAILED", f"{type(error).__name__}: {lines[0]}", {}, {}, 0.0)


def _epochs_done(record: Record) -> int:
    return int(record.metrics["epochs"])


def _value_at(record: Record | None, objective: str, epochs: int) -> float:
    """The last value of the objective until then; NaN if the trial had ended badly, or was not run so far."""
    if record is None or record.status == "FAILED":
        return np.nan
    done = _epochs_done(record)
    if done < epochs and record.status in (PAUSED, PRUNED):
        return np.nan
    if done <= epochs and record.status.startswith("NONFINITE"):
        return np.nan
    values = record.history[objective][: min(done, epochs)]
    known = values[~np.isnan(values)]  # not every epoch validates
    return float(known[-1]) if len(known) else np.nan


def run_shared(sweeping: Sweeping, shared: Shared) -> Iterator[list[Record]]:
    """Every trial to its end, by all processes that share the store. Ends when nothing is left for anybody."""
    worker = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex[:8]}"
    place = {each: i for i, each in enumerate(sweeping.ids)}
    again = sweeping.store.failed()
    chunks = [
        [sweeping.ids[i] for i in made.group.trials[start : start + width]]
        for made in sweeping.groups
        for width in [width_of(made.group.size, sweeping.lanes)]
        for start in range(0, len(made.group.trials), width)
    ]
    group_of = {i: index for index, made in enumerate(sweeping.groups) for i in made.group.trials}

    def tasks() -> Iterator[Task]:
        while True:
            idle, taken = not sweeping.store.is_anybody_at_work(), False
            for chunk in chunks:
                if own := sweeping.store.lease(chunk, worker, shared.seconds, again=again):
                    taken = True
                    again.difference_update(own)
                    index = group_of[place[own[0]]]
                    epochs = max(sweeping.groups[index].lane.epochs, 1)
                    yield from _tasks(sweeping, index, [place[each] for each in own], epochs)
            if not taken and idle and not sweeping.store.is_anybody_at_work():
                return  # nobody had anything before, nothing was free, and nobody has anything now
            if not taken:
                time.sleep(_WAIT)

    with _heartbeat(sweeping.store, worker, shared.seconds):
        yield from _run(sweeping, tasks())


@contextmanager
def _heartbeat(store: Store, worker: str, seconds: float) -> Generator[None]:
    """Holds what the worker has taken for as long as this process lives."""
    ended = threading.Event()

    def beat() -> None:
        with store.another() as own:
            while not ended.wait(seconds / 3):
                own.renew(worker, seconds)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        store.release(worker)


def state_of(lane: Lane, blob: bytes) -> tuple[np.ndarray[Any, Any], ...]:
    """What the store holds of a state, as arrays."""
    leaves: list[np.ndarray[Any, Any]] = []
    start = 0
    for shape in lane.inputs[2]:
        size = int(np.prod(shape.shape)) * np.dtype(shape.dtype).itemsize
        leaves.append(np.frombuffer(blob[start : start + size], shape.dtype).reshape(shape.shape))
        start += size
    return tuple(leaves)
