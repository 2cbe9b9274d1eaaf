"""Sweeps: many runs as lanes of a few programs, each finished chunk of them kept."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxopt_nn import _ops
from jaxopt_nn._arguments import check_key
from jaxopt_nn.sweeps._engine import Shared
from jaxopt_nn.sweeps._execute import Made, in_this_process
from jaxopt_nn.sweeps._lanes import Work, advance, compile_lane, trace_lane, values_of, width_of
from jaxopt_nn.sweeps._plan import Plan, check_reads, make_groups, without_seed
from jaxopt_nn.sweeps._progress import is_shown, open_bar
from jaxopt_nn.sweeps._pruning import Pruning
from jaxopt_nn.sweeps._results import Sweep
from jaxopt_nn.sweeps._session import Executor, Wishes, check_lanes, made_of, open_session, plan_of, run, trace
from jaxopt_nn.sweeps._space import Space, as_trials
from jaxopt_nn.sweeps._store import PAUSED
from jaxopt_nn.training import Recipe
from jaxopt_nn.training._checks import check_data, check_run_arguments
from jaxopt_nn.training._recipe import build_recipe
from jaxopt_nn.types import Batch, Key, PyTree

__all__ = ["job_of", "plan", "sweep", "sweep_function"]


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
        executor: where it is run; None for all devices of this process, :func:`processes` for worker processes
            on this machine, :func:`ray` for a cluster.
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
    job, trials = job_of(recipe, space, train, valid, key)
    objective = objective or ("train_loss" if valid is None else "valid_loss")
    return _sweep(job, trials, Wishes(store, objective, mode, pruning, lanes, keep, executor, progress))


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
    return _sweep(job, as_trials(space), Wishes(store, objective, mode, None, lanes, 0, executor, progress))


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
    job, trials = job_of(recipe, space, train, valid, key)
    width = check_lanes(lanes)
    groups = make_groups(lambda group: trace_lane(job, trials, group), trials, ())
    return _measured(job, trials, made_of(groups), plan_of(groups, width))


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


def job_of(
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
    memory = _ops.device_memory()
    size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves((train, valid)))
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


def _sweep(job: Work, space: Space, wishes: Wishes) -> Sweep:
    with open_session(job, wishes) as session:
        traced = trace(session, space)
        if is_shown(wishes.progress):
            print(plan_of(traced.groups, session.lanes), file=sys.stderr)
        ended = [record for record in traced.records.values() if record.status != PAUSED]
        with open_bar(wishes.progress, len(space), ended, wishes.objective, session.mode) as show:
            records, results, interrupted = run(session, traced, wishes.executor or in_this_process, show)
    return Sweep(tuple(records), wishes.objective, session.mode, interrupted, results=results)
