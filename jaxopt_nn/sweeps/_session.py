"""One sweep: its store is open, its trials are grouped and traced, and then they run."""

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_nn import _ops
from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.sweeps._engine import Shared, Sweeping, failed, run_all, run_pruned, run_shared, state_of
from jaxopt_nn.sweeps._execute import Execute, Made
from jaxopt_nn.sweeps._lanes import Lane, Work, result_of, trace_lane
from jaxopt_nn.sweeps._plan import Group, Grouped, Plan, make_groups
from jaxopt_nn.sweeps._pruning import Pruning
from jaxopt_nn.sweeps._source import check_programs
from jaxopt_nn.sweeps._space import Space
from jaxopt_nn.sweeps._store import PAUSED, Record, Store, data_fingerprint, open_store, trial_id
from jaxopt_nn.training import RunResult
from jaxopt_nn.training._stopping import infer_mode

__all__ = [
    "Executor",
    "Session",
    "Traced",
    "Wishes",
    "check_lanes",
    "ids_of",
    "made_of",
    "open_session",
    "plan_of",
    "run",
    "trace",
]

Executor = Callable[[Work, Space, Sequence[Made]], AbstractContextManager[Execute]]


class Wishes(NamedTuple):
    """Arguments of :func:`jaxopt_nn.sweeps.sweep`."""

    store: str | Path | Shared | None
    objective: str
    mode: str | None
    pruning: Pruning | None
    lanes: int | None
    keep: int
    executor: Executor | None
    progress: bool | None


class Session(NamedTuple):
    """A sweep with its store open.

    Attributes:
        job: what is done for each trial.
        wishes: how.
        mode: of the objective.
        lanes: trials at a time, at the most.
        store: where they are kept.
    """

    job: Work
    wishes: Wishes
    mode: str
    lanes: int
    store: Store

    @property
    def sign(self) -> float:
        """With it, less is better."""
        return 1.0 if self.mode == "min" else -1.0


class Traced(NamedTuple):
    """A space that is ready to run.

    Attributes:
        space: all trials.
        ids: their names in the store.
        groups: of them.
        records: what the store holds of them, by place.
        states: what they go on from, or ended with.
    """

    space: Space
    ids: Sequence[str]
    groups: Sequence[Grouped[Lane]]
    records: dict[int, Record]
    states: dict[int, Any]


@contextmanager
def open_session(job: Work, wishes: Wishes) -> Generator[Session]:
    """Opens the store. Raises for arguments that do not fit."""
    mode, lanes = _checked(wishes), check_lanes(wishes.lanes)
    shared = wishes.store if isinstance(wishes.store, Shared) else None
    provenance = {
        "data": data_fingerprint(job.data) if wishes.store is not None else "",
        "key": str(np.asarray(jax.random.key_data(job.key)).tolist()),
        "pruning": "None" if wishes.pruning is None else f"{wishes.pruning} of {wishes.objective}",
    }
    path: Any = shared.path if shared else wishes.store
    store = open_store(path, provenance, shared=shared is not None)
    try:
        yield Session(job, wishes, mode, lanes, store)
    finally:
        store.close()


def ids_of(space: Space) -> list[str]:
    """The names of trials; raises for one that is there twice."""
    ids = [trial_id(trial) for trial in space]
    if len(set(ids)) < len(ids):
        twice = next(space[i] for i, each in enumerate(ids) if each in ids[:i])
        raise ValueError(f"space: expected each trial once, got {twice} twice")
    return ids


def trace(session: Session, space: Space, lane_of: Callable[[Group], Lane] | None = None) -> Traced:
    """Groups and traces trials, and compares them with the store.

    Args:
        session: an open one.
        space: trials.
        lane_of: traces a group; None for :func:`trace_lane`.
    """
    ids, store, job = ids_of(space), session.store, session.job
    place = {each: i for i, each in enumerate(ids)}
    earlier = store.records(ids, paused=True)
    records = {place[trial_id(record.trial)]: record for record in earlier if record.status != "FAILED"}
    finished = {i for i, record in records.items() if record.status != PAUSED}
    groups = make_groups(lane_of or (lambda group: trace_lane(job, space, group)), space, finished)
    _check_objective(groups, session.wishes)
    if store.path != ":memory:":
        check_programs(store, job, groups)
    held = {place[each]: blob for each, blob in store.states().items() if place.get(each) in records}
    held = {i: blob for i, blob in held.items() if session.wishes.keep or records[i].status == PAUSED}
    lanes = _lanes_of(job, space, groups, held)
    return Traced(space, ids, groups, records, {i: state_of(lane, held[i]) for i, lane in lanes.items()})


def run(
    session: Session, traced: Traced, executor: Executor, show: Callable[[Sequence[Record]], None]
) -> tuple[list[Record], dict[str, RunResult], bool]:
    """Runs what is not finished: the records of all finished trials, the results that were kept, and if Ctrl-C came."""
    wishes, store, space = session.wishes, session.store, traced.space
    sign, interrupted, made = session.sign, False, made_of(traced.groups)
    for grouped in traced.groups:
        if isinstance(grouped.traced, Exception):
            lost = [failed(space[i], grouped.traced) for i in grouped.group.trials]
            store.add(lost)
            show(lost)

    def value(record: Record) -> float:
        return sign * record.metrics.get(wishes.objective, np.nan)

    try:
        with executor(session.job, space, made) as execute:
            sweeping = Sweeping(
                space,
                traced.ids,
                made,
                session.lanes,
                store,
                traced.records,
                traced.states,
                value,
                wishes.keep,
                execute,
            )
            for records in _steps(sweeping, wishes, sign):
                show(records)
    except KeyboardInterrupt:
        interrupted = True
    known = dict(zip(traced.ids, space, strict=True))
    found = [record._replace(trial=known[trial_id(record.trial)]) for record in store.records(traced.ids)]
    return found, _results(session.job, traced, found) if wishes.keep else {}, interrupted


def plan_of(groups: Sequence[Grouped[Lane]], lanes: int) -> Plan:
    """What is to be run."""
    flops = sum(len(made.group.trials) * made.lane.flops() for made in made_of(groups))
    finished = sum(len(each.members) - len(each.group.trials) for each in groups)
    return Plan(tuple(each.group for each in groups if each.group.trials), lanes, finished, flops)


def _steps(sweeping: Sweeping, wishes: Wishes, sign: float) -> Iterator[list[Record]]:
    if wishes.pruning is not None:
        return run_pruned(sweeping, wishes.pruning, wishes.objective, sign)
    return run_shared(sweeping, wishes.store) if isinstance(wishes.store, Shared) else run_all(sweeping)


def made_of(groups: Sequence[Grouped[Lane]]) -> list[Made]:
    """The groups that have something to run, and code that does not raise."""
    return [Made(each.group, each.traced) for each in groups if isinstance(each.traced, Lane) and each.group.trials]


def _lanes_of(job: Work, space: Space, groups: Sequence[Grouped[Lane]], trials: Collection[int]) -> dict[int, Lane]:
    """The lanes of some trials, finished or not."""
    lanes: dict[int, Lane] = {}
    for group, traced, members in groups:
        if own := [i for i in members if i in trials]:
            lane = trace_lane(job, space, group) if traced is None else traced
            lanes |= {i: lane for i in own if isinstance(lane, Lane)}
    return lanes


def _results(job: Work, traced: Traced, records: Sequence[Record]) -> dict[str, RunResult]:
    """The results of the trials whose state was kept to the end."""
    known = {trial_id(record.trial): record for record in records}
    ended = {i: known[traced.ids[i]] for i in traced.states if traced.ids[i] in known}
    lanes = _lanes_of(job, traced.space, traced.groups, ended)
    return {traced.ids[i]: result_of(lanes[i], traced.states[i], record.history) for i, record in ended.items()}


def _checked(wishes: Wishes) -> str:
    """The mode. Raises for arguments that do not fit."""
    objective, pruning = wishes.objective, wishes.pruning
    mode = infer_mode(objective) if wishes.mode is None else wishes.mode
    if mode not in ("min", "max"):
        raise ValueError(f'mode: expected "min" or "max" for the objective {objective!r}, got {wishes.mode!r}')
    if pruning is not None and not isinstance(pruning, Pruning):
        raise TypeError(f"pruning: expected a rule, as sweeps.successive_halving(), got {pruning!r}")
    if pruning is not None and isinstance(wishes.store, Shared):
        raise ValueError("pruning: expected None with a store that several processes fill: a rung needs all of them")
    if not isinstance(wishes.store, (str, Path, Shared, type(None))):
        raise TypeError(f"store: expected the path of a file, sweeps.work(path) or None, got {wishes.store!r}")
    if wishes.executor is not None and isinstance(wishes.store, Shared):
        raise ValueError("executor: expected None with a store that several processes fill")
    if isinstance(wishes.keep, bool) or not isinstance(wishes.keep, int) or wishes.keep < 0:
        raise ValueError(f"keep: expected an int >= 0, got {wishes.keep!r}")
    if wishes.executor is not None and not callable(wishes.executor):
        raise TypeError(f"executor: expected None, sweeps.processes() or sweeps.ray(), got {wishes.executor!r}")
    return mode


def check_lanes(lanes: int | None) -> int:
    """Trials at a time."""
    if lanes is not None:
        check_positive_int("lanes", lanes)
        return lanes
    return _ops.lanes_of_a_device() * jax.device_count()


def _check_objective(groups: Sequence[Grouped[Lane]], wishes: Wishes) -> None:
    """Raises ``ValueError`` if the first group whose code does not raise has no such metric."""
    for _, lane, _ in groups:
        if isinstance(lane, Lane):
            names = lane.curves() if wishes.pruning is not None else lane.names()
            if wishes.objective not in names:
                raise ValueError(f"objective: expected one of {names}, got {wishes.objective!r}")
            return
