"""Sweeps: many runs as lanes of a few programs, each finished chunk of them kept."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_nn import _ops
from jaxopt_nn._arguments import check_key, check_positive_int
from jaxopt_nn.sweeps._engine import Shared, Sweeping, failed, run_all, run_pruned, run_shared, state_of
from jaxopt_nn.sweeps._execute import Execute, Made, in_this_process
from jaxopt_nn.sweeps._lanes import Lane, Work, advance, compile_lane, result_of, trace_lane, values_of, width_of
from jaxopt_nn.sweeps._plan import Grouped, Plan, check_reads, make_groups, without_seed
from jaxopt_nn.sweeps._progress import is_shown, open_bar
from jaxopt_nn.sweeps._pruning import Pruning
from jaxopt_nn.sweeps._results import Sweep
from jaxopt_nn.sweeps._source import check_programs
from jaxopt_nn.sweeps._space import Space, as_trials
from jaxopt_nn.sweeps._store import PAUSED, Record, data_fingerprint, open_store, trial_id
from jaxopt_nn.training import Recipe, RunResult
from jaxopt_nn.training._checks import check_data, check_run_arguments
from jaxopt_nn.training._recipe import build_recipe
from jaxopt_nn.training._stopping import infer_mode
from jaxopt_nn.types import Batch, Key, PyTree

__all__ = ["plan", "sweep", "sweep_function"]

Executor = Callable[[Work, Space, Sequence[Made]], AbstractContextManager[Execute]]


def sweep(
    recipe: Callable[[Any], Recipe],
    space: Space,
    train: Batch,
    valid: Batch | None = None,
    *,
    key: Key,
    store: str | Path | Shared | None = None,
    objective: str | None = None,
    mode: str | None = None,
    pruning: Pruning | None = None,
    lanes: int | None = None,
    keep: int = 0,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Runs every trial of a space, and keeps what came of it.

    Numbers that the recipe lets be traced become lanes of one program, by ``vmap``. All else (a width, a batch size,
    the name of an optimizer) groups the trials, a program each. Seeds are lanes too: ``seed`` in the space is the seed
    of the run's initial weights and noise. All lanes see the same batches in the same order, so that two trials of one
    seed differ in their hyperparameters alone.

    Args:
        recipe: a function from hyperparameters, a dictionary, to a :class:`~jaxopt_nn.training.Recipe`. It gets plain
            values.
        space: a list of trials, as :func:`grid`, :func:`random`, :func:`sobol` and :func:`zipped` make them; two lists
            may be added.
        train, valid: the data.
        key: a PRNG key; :func:`run_keys` gives the keys of a single run of the same seed.
        store: a file (SQLite) that holds each finished chunk. The same call again runs only what is missing, an
            extended space only what is new. A trial whose code raised is tried again. A file of other data, another
            key, or a recipe that computes something else is refused. With :func:`work` several processes fill one
            file. None keeps all in memory.
        objective: what is compared: a name of the history; ``"valid_loss"``, or without validation ``"train_loss"``.
            Its value is that of the epoch that the run returns.
        mode: ``"min"`` or ``"max"``; None takes it from the name.
        pruning: which trials end early: :func:`successive_halving`, :func:`hyperband`, :func:`asha`; None for none.
            Those that go on do so from their state.
        lanes: static; trials at a time; None for as many as the devices train well at a time, 16 or 256 each. Fewer, if
            these do not fit the memory of a device.
        keep: static; the parameters of so many trials are kept, the best ones: see :meth:`Sweep.result`.
        executor: where it is run; None for all devices of this process, :func:`ray` for a cluster.
        progress: whether a bar is shown (tqdm) and the plan is printed, on standard error; None for at a terminal.

    Returns:
        A :class:`Sweep`. After Ctrl-C it holds what was finished until then.

    Raises:
        ValueError, TypeError: the space is empty or holds what is no value, the recipe does not read one of its
            hyperparameters, there is no such objective, or the store is of another recipe, data or key. A trial whose
            own code raises is recorded, and the sweep goes on.
        MemoryError: the data do not fit a device.
        OSError: the store cannot be written.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, sweeps, training
    >>> from jaxopt_nn.types import Batch
    >>> x = jax.random.normal(jax.random.key(0), (32, 3))
    >>> train = Batch(x, x @ jnp.array([[1.0], [-2.0], [0.5]]))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(hp["rate"]),
    ...         batch_size=hp["batch_size"], epochs=5)
    >>> space = sweeps.grid(rate=[1e-3, 1e-1], batch_size=[8, 16], seed=range(2))
    >>> result = sweeps.sweep(recipe, space, train, key=jax.random.key(1))
    >>> len(result.records), result.best().hparams["rate"]
    (8, 0.1)
    """
    job, trials = _job_of(recipe, space, train, valid, key)
    objective = objective or ("train_loss" if valid is None else "valid_loss")
    return _sweep(job, trials, _Wishes(store, objective, mode, pruning, lanes, keep, executor, progress))


def sweep_function(
    function: Callable[..., PyTree],
    space: Space,
    *data: PyTree,
    key: Key,
    objective: str,
    mode: str | None = None,
    store: str | Path | Shared | None = None,
    lanes: int | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Sweep:
    """The same of any pure function ``(key, hparams, *data) -> result``, ours or not.

    Args:
        function: its result is a dictionary or NamedTuple: scalars are metrics, arrays ``[epochs]`` a history, all
            else is left out. It gets plain values, numbers traced where it lets them be.
        data: further arguments, the same for all trials.
        objective: the name of the scalar that is compared.
        space, key, mode, store, lanes, executor, progress: as of :func:`sweep`. The key of a trial is ``fold_in(key,
            seed)``.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import sweeps
    >>> def parabola(key, hparams):
    ...     return {"loss": (hparams["x"] - 1.0) ** 2}
    >>> result = sweeps.sweep_function(
    ...     parabola, sweeps.grid(x=[0.0, 1.0, 2.0]), key=jax.random.key(0), objective="loss")
    >>> result.best().hparams
    {'x': 1.0}
    """
    check_key("key", key)
    if not callable(function):
        raise TypeError(f"function: expected (key, hparams, *data) -> result, got {function!r}")

    job = Work(None, function, key, data)
    return _sweep(job, as_trials(space), _Wishes(store, objective, mode, None, lanes, 0, executor, progress))


def plan(
    recipe: Callable[[Any], Recipe],
    space: Space,
    train: Batch,
    valid: Batch | None = None,
    *,
    key: Key,
    lanes: int | None = None,
) -> Plan:
    """What :func:`sweep` would do: the groups of trials, a program each, and what they cost. Printed, it is a table.

    For memory and time, the program of the group with the most operations is compiled, and one epoch of one chunk is
    run. No trial is kept.
    """
    job, trials = _job_of(recipe, space, train, valid, key)
    width = _checked_lanes(lanes)
    groups = make_groups(lambda group: trace_lane(job, trials, group), trials, ())
    return _measured(job, trials, _made(groups), _plan(groups, width, 0))


def _measured(job: Work, space: Space, made: Sequence[Made], steps: Plan) -> Plan:
    """The plan with memory and time, from the group whose trials have the most operations."""
    if not made:
        return steps
    group, lane = max(made, key=lambda each: each.lane.flops())
    program = compile_lane(job, lane, width_of(group.size, steps.lanes))
    pace = advance(program, lane, values_of(space, group, group.trials[: program.width]), 0, 1).pace
    seconds_of_a_flop = pace * lane.epochs / (program.width * lane.flops())
    seconds = program.seconds * len(made)
    for group, lane in made:
        width = width_of(group.size, steps.lanes)
        seconds += -(-len(group.trials) // width) * width * lane.flops() * seconds_of_a_flop
    return steps._replace(peak_bytes=program.peak_bytes, compile_seconds=program.seconds, seconds=seconds)


def _job_of(
    recipe: Callable[[Any], Recipe], space: Space, train: Batch, valid: Batch | None, key: Key
) -> tuple[Work, Space]:
    check_key("key", key)
    trials = as_trials(space)
    check_reads(recipe, trials)
    train, valid = _checked_data(recipe, trials, train, valid)
    return Work(recipe, None, key, (train,) if valid is None else (train, valid)), trials


def _checked_data(
    recipe: Callable[[Any], Recipe], trials: Space, train: Batch, valid: Batch | None
) -> tuple[Batch, Batch | None]:
    """The data on the device; raises as a run does, for the first trial whose recipe does not raise itself."""
    size, memory = (
        sum(leaf.nbytes for leaf in jax.tree.leaves((train, valid)) if hasattr(leaf, "nbytes")),
        _ops.device_memory(),
    )
    if memory is not None and size > memory:
        raise MemoryError(
            f"train, valid: expected data that fit the device, {memory / 2**30:.1f} GiB, got {size / 2**30:.1f} GiB"
        )
    for trial in trials:
        try:
            parts = build_recipe(recipe, without_seed(trial))
        except Exception:
            continue
        return check_run_arguments(parts, train, valid)
    return check_data("train", train), None if valid is None else check_data("valid", valid)


class _Wishes(NamedTuple):
    """Arguments of :func:`sweep`."""

    store: str | Path | Shared | None
    objective: str
    mode: str | None
    pruning: Pruning | None
    lanes: int | None
    keep: int
    executor: Executor | None
    progress: bool | None


def _sweep(job: Work, space: Space, wishes: _Wishes) -> Sweep:
    objective, direction, lanes = wishes.objective, _checked(wishes), _checked_lanes(wishes.lanes)
    sign = 1.0 if direction == "min" else -1.0
    ids = [trial_id(trial) for trial in space]
    if len(set(ids)) < len(ids):
        twice = next(space[i] for i, each in enumerate(ids) if each in ids[:i])
        raise ValueError(f"space: expected each trial once, got {twice} twice")
    shared = wishes.store if isinstance(wishes.store, Shared) else None
    store = open_store(
        shared.path if shared else wishes.store,
        {
            "data": data_fingerprint(job.data),
            "key": str(np.asarray(jax.random.key_data(job.key)).tolist()),
            "pruning": str(wishes.pruning),
        },
        shared=shared is not None,
    )
    interrupted = False
    try:
        finished = store.finished()
        earlier = store.records(ids, paused=True)
        place = {each: i for i, each in enumerate(ids)}
        records = {place[trial_id(record.trial)]: record for record in earlier if record.status != "FAILED"}
        groups = make_groups(
            lambda group: trace_lane(job, space, group), space, {i for i, each in enumerate(ids) if each in finished}
        )
        _check_objective(groups, objective, wishes.pruning)
        if store.path != ":memory:":
            check_programs(store, job, groups)
        held = {place[each]: blob for each, blob in store.states().items() if each in place}
        held = {i: blob for i, blob in held.items() if wishes.keep or records[i].status == PAUSED}
        states = {i: state_of(lane, held[i]) for i, lane in _lanes_of(job, space, groups, held).items()}
        if is_shown(wishes.progress):
            print(_plan(groups, lanes, len(finished & set(ids))), file=sys.stderr)
        ended = [record for record in records.values() if record.status != PAUSED]
        executor = wishes.executor or in_this_process
        made = _made(groups)
        with open_bar(wishes.progress, len(space), ended, objective, direction) as show:
            for grouped in groups:
                if isinstance(grouped.traced, Exception):
                    lost = [failed(space[i], grouped.traced) for i in grouped.group.trials]
                    store.add(lost)
                    show(lost)
            try:
                with executor(job, space, made) as execute:
                    sweeping = Sweeping(
                        space,
                        ids,
                        made,
                        lanes,
                        store,
                        records,
                        states,
                        lambda record: sign * record.metrics.get(objective, np.nan),
                        wishes.keep,
                        execute,
                    )
                    for done in _steps(sweeping, shared, wishes.pruning, objective, sign):
                        show(done)
            except KeyboardInterrupt:
                interrupted = True
        found = store.records(ids)
        results = _results(job, space, groups, ids, found, states) if wishes.keep else {}
    finally:
        store.close()
    known = dict(zip(ids, space, strict=True))
    found = [record._replace(trial=known[trial_id(record.trial)]) for record in found]
    return Sweep(tuple(found), objective, direction, interrupted, results)


def _steps(
    sweeping: Sweeping, shared: Shared | None, pruning: Pruning | None, objective: str, sign: float
) -> Iterator[list[Record]]:
    if pruning is not None:
        return run_pruned(sweeping, pruning, objective, sign)
    return run_all(sweeping) if shared is None else run_shared(sweeping, shared)


def _plan(groups: Sequence[Grouped[Lane]], lanes: int, finished: int) -> Plan:
    flops = sum(len(made.group.trials) * made.lane.flops() for made in _made(groups))
    return Plan(tuple(each.group for each in groups if each.group.trials), lanes, finished, flops)


def _made(groups: Sequence[Grouped[Lane]]) -> list[Made]:
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


def _results(
    job: Work,
    space: Space,
    groups: Sequence[Grouped[Lane]],
    ids: Sequence[str],
    records: Sequence[Record],
    states: Mapping[int, Any],
) -> dict[str, RunResult]:
    """The results of the trials whose state was kept to the end."""
    known = {trial_id(record.trial): record for record in records}
    ended = {i: known[ids[i]] for i in states if ids[i] in known}
    lanes = _lanes_of(job, space, groups, ended)
    return {ids[i]: result_of(lanes[i], states[i], record.history) for i, record in ended.items()}


def _checked(wishes: _Wishes) -> str:
    """The mode. Raises for arguments that do not fit."""
    objective, pruning = wishes.objective, wishes.pruning
    mode = infer_mode(objective) if wishes.mode is None else wishes.mode
    if mode not in ("min", "max"):
        raise ValueError(f'mode: expected "min" or "max" for the objective {objective!r}, got {wishes.mode!r}')
    if pruning is not None and not isinstance(pruning, Pruning):
        raise TypeError(f"pruning: expected a rule, as sweeps.successive_halving(), got {pruning!r}")
    if pruning is not None and isinstance(wishes.store, Shared):
        raise ValueError("pruning: expected None with a store that several processes fill: a rung needs all of them")
    if isinstance(wishes.keep, bool) or not isinstance(wishes.keep, int) or wishes.keep < 0:
        raise ValueError(f"keep: expected an int >= 0, got {wishes.keep!r}")
    if wishes.executor is not None and not callable(wishes.executor):
        raise TypeError(f"executor: expected None or sweeps.ray(), got {wishes.executor!r}")
    return mode


def _checked_lanes(lanes: int | None) -> int:
    if lanes is not None:
        check_positive_int("lanes", lanes)
        return lanes
    return _ops.lanes_of_a_device() * jax.device_count()


def _check_objective(groups: Sequence[Grouped[Lane]], objective: str, pruning: Pruning | None) -> None:
    """Raises ``ValueError`` if the first group whose code does not raise has no such metric."""
    for _, lane, _ in groups:
        if isinstance(lane, Lane):
            names = sorted(lane.outputs[1]) if pruning is not None else lane.names()
            if objective not in names:
                raise ValueError(f"objective: expected one of {names}, got {objective!r}")
            return
