"""Sweeps: many runs as lanes of a few programs, each finished chunk of them kept."""

import inspect
import logging
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from jaxopt_nn._arguments import check_key, check_positive_int
from jaxopt_nn._ops import lanes_of_a_device
from jaxopt_nn.sweeps._plan import Group, Plan, check_reads, make_plan, without_seed
from jaxopt_nn.sweeps._results import Sweep
from jaxopt_nn.sweeps._space import Space, Trial, as_trials
from jaxopt_nn.sweeps._store import Record, data_fingerprint, open_store, trial_id
from jaxopt_nn.training import Recipe, RunKeys, RunResult, Status, make_run
from jaxopt_nn.training._checks import check_data, check_run_arguments
from jaxopt_nn.training._recipe import build_recipe
from jaxopt_nn.training._stopping import infer_mode
from jaxopt_nn.types import Array, Batch, Key, PyTree, Static

__all__ = ["plan", "run_keys", "sweep", "sweep_function"]

_LOGGER = logging.getLogger("jaxopt_nn.sweeps")


class _Work(NamedTuple):
    """What is done for each trial.

    Attributes:
        run: ``(key or RunKeys, hparams, *data) -> result``.
        keys: from a seed, which may be traced, to the keys that ``run`` takes; a lane's keys depend on nothing else.
        data: its last arguments.
        source: what it is, for the store.
    """

    run: Callable[..., Any]
    keys: Callable[[Any], Any]
    data: tuple[Any, ...]
    source: str


def sweep(
    recipe: Callable[[Any], Recipe],
    space: Space,
    train: Batch,
    valid: Batch | None = None,
    *,
    key: Key,
    store: str | Path | None = None,
    objective: str | None = None,
    mode: str | None = None,
    lanes: int | None = None,
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
            extended space only what is new. A trial whose code raised is tried again. The source text of ``recipe`` is
            compared, not that of functions and global values that it uses: after a change there take another file.
            None keeps all in memory.
        objective: what is compared: a name of the history; ``"valid_loss"``, or without validation ``"train_loss"``.
            Its value is that of the epoch that the run returns.
        mode: ``"min"`` or ``"max"``; None takes it from the name.
        lanes: static; trials at a time; None for as many as the devices train well at a time, 16 or 256 each.
        progress: whether a bar is shown (tqdm) and the plan is printed, on standard error; None for at a terminal.

    Returns:
        A :class:`Sweep`. After Ctrl-C it holds what was finished until then.

    Raises:
        ValueError, TypeError: the space is empty or holds what is no value, the recipe does not read one of its
            hyperparameters, there is no such objective, or the store is of another recipe, data or key. A trial whose
            own code raises is recorded, and the sweep goes on.

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
    work, trials = _work_of(recipe, space, train, valid, key)
    objective = objective or ("train_loss" if valid is None else "valid_loss")
    return _sweep(work, trials, key, store, objective, mode, lanes, progress)


def sweep_function(
    function: Callable[..., PyTree],
    space: Space,
    *data: PyTree,
    key: Key,
    objective: str,
    mode: str | None = None,
    store: str | Path | None = None,
    lanes: int | None = None,
    progress: bool | None = None,
) -> Sweep:
    """The same of any pure function ``(key, hparams, *data) -> result``, ours or not.

    Args:
        function: its result is a dictionary or NamedTuple: scalars are metrics, arrays ``[epochs]`` a history, all
            else is left out. It gets plain values, numbers traced where it lets them be.
        data: further arguments, the same for all trials.
        objective: the name of the scalar that is compared.
        space, key, mode, store, lanes, progress: as of :func:`sweep`. The key of a trial is ``fold_in(key, seed)``.

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

    def run(key: Key, hparams: Mapping[str, Any], *data: PyTree) -> PyTree:
        return function(key, {name: _plain(value) for name, value in hparams.items()}, *data)

    work = _Work(run, lambda seed: jax.random.fold_in(key, seed), data, _source(function))
    return _sweep(work, as_trials(space), key, store, objective, mode, lanes, progress)


def plan(
    recipe: Callable[[Any], Recipe],
    space: Space,
    train: Batch,
    valid: Batch | None = None,
    *,
    key: Key,
    lanes: int | None = None,
) -> Plan:
    """What :func:`sweep` would do, without doing it: the groups of trials, a program each. Printed, it is a table."""
    work, trials = _work_of(recipe, space, train, valid, key)
    return make_plan(_tracer(work), trials, range(len(trials)), _lanes(lanes))


def run_keys(key: Key, seed: int = 0) -> RunKeys:
    """The keys of the trials with this seed: with them, a single run equals the lane of a sweep up to rounding."""
    init, order, noise = jax.random.split(key, 3)
    return RunKeys(jax.random.fold_in(init, seed), order, jax.random.fold_in(noise, seed))


def _work_of(
    recipe: Callable[[Any], Recipe], space: Space, train: Batch, valid: Batch | None, key: Key
) -> tuple[_Work, Space]:
    check_key("key", key)
    trials = as_trials(space)
    check_reads(recipe, trials)
    train, valid = _checked_data(recipe, trials, train, valid)
    data = (train,) if valid is None else (train, valid)
    return _Work(make_run(recipe), lambda seed: run_keys(key, seed), data, _source(recipe)), trials


def _checked_data(
    recipe: Callable[[Any], Recipe], trials: Space, train: Batch, valid: Batch | None
) -> tuple[Batch, Batch | None]:
    """The data on the device; raises as a run does, for the first trial whose recipe does not raise itself."""
    for trial in trials:
        try:
            parts = build_recipe(recipe, without_seed(trial))
        except Exception:
            continue
        return check_run_arguments(parts, train, valid)
    return check_data("train", train), None if valid is None else check_data("valid", valid)


def _sweep(
    work: _Work,
    space: Space,
    key: Key,
    store: str | Path | None,
    objective: str,
    mode: str | None,
    lanes: int | None,
    progress: bool | None,
) -> Sweep:
    direction = infer_mode(objective) if mode is None else mode
    if direction not in ("min", "max"):
        raise ValueError(f'mode: expected "min" or "max" for the objective {objective!r}, got {mode!r}')
    width = _lanes(lanes)
    ids = [trial_id(trial) for trial in space]
    if len(set(ids)) < len(ids):
        twice = next(space[i] for i, each in enumerate(ids) if each in ids[:i])
        raise ValueError(f"space: expected each trial once, got {twice} twice")
    opened = open_store(
        store,
        {
            "recipe": work.source,
            "data": data_fingerprint(work.data),
            "key": str(np.asarray(jax.random.key_data(key)).tolist()),
        },
    )
    interrupted = False
    try:
        finished = opened.finished()
        todo = [index for index, each in enumerate(ids) if each not in finished]
        steps = make_plan(_tracer(work), space, todo, width)
        _check_objective(work, space, steps, objective)
        shown = sys.stderr.isatty() if progress is None else progress
        if shown:
            print(steps, file=sys.stderr)
        with _bar(shown, len(space), len(space) - len(todo)) as show:
            try:
                for records in _chunks(work, space, steps):
                    opened.add(records)
                    show(records, objective, direction)
            except KeyboardInterrupt:
                interrupted = True
        records = opened.records(ids)
    finally:
        opened.close()
    known = dict(zip(ids, space, strict=True))
    records = [record._replace(trial=known[trial_id(record.trial)]) for record in records]
    return Sweep(tuple(records), objective, direction, interrupted)


def _chunks(work: _Work, space: Space, steps: Plan) -> Iterator[list[Record]]:
    """The finished trials, chunk by chunk. The next program compiles while one runs."""
    with ThreadPoolExecutor(1) as pool:
        ahead: list[Future[Callable[..., Any]]] = []

        def compiling(index: int) -> Future[Callable[..., Any]] | None:
            if index >= len(steps.groups):
                return None
            return pool.submit(_compiled, work, space, steps.groups[index], steps.lanes)

        following = compiling(0)
        for index, group in enumerate(steps.groups):
            current, following = following, compiling(index + 1)
            ahead = [each for each in (current, following) if each is not None]
            try:
                assert current is not None
                call = current.result()
            except Exception as error:
                yield [_failed(space[i], error) for i in group.trials]
                continue
            except KeyboardInterrupt:
                for each in ahead:
                    each.cancel()
                raise
            width = _width(group, steps.lanes)
            for first in range(0, len(group.trials), width):
                chosen = group.trials[first : first + width]
                started = time.perf_counter()
                try:
                    values = jax.device_get(call(*_arguments(space, group, chosen, width), *work.data))
                except Exception as error:
                    yield [_failed(space[i], error) for i in chosen]
                    continue
                seconds = (time.perf_counter() - started) / len(chosen)
                yield [
                    _recorded(space[i], jax.tree.map(lambda leaf, lane=lane: leaf[lane], values), seconds)
                    for lane, i in enumerate(chosen)
                ]


def _compiled(work: _Work, space: Space, group: Group, lanes: int) -> Callable[..., Any]:
    width = _width(group, lanes)

    def lane(values: dict[str, Array], seed: Array, data: tuple[Any, ...]) -> Any:
        hparams = {name: values.get(name, Static(group.static.get(name))) for name in (*group.static, *group.traced)}
        return _summary(work.run(work.keys(seed), hparams, *data))

    def chunk(values: dict[str, Array], seeds: Array, *data: Any) -> Any:
        return jax.vmap(lane, (0, 0, None))(values, seeds, data)

    devices = _devices(width)
    function = chunk
    if len(devices) > 1:
        mesh = jax.make_mesh((len(devices),), ("lanes",), (AxisType.Auto,), devices=devices)
        split, shared = PartitionSpec("lanes"), PartitionSpec()
        function = jax.shard_map(
            chunk, mesh=mesh, in_specs=(split, split, *[shared] * len(work.data)), out_specs=split, check_vma=False
        )
    arguments = (*_arguments(space, group, group.trials[:1], width), *work.data)
    return jax.jit(function).lower(*arguments).compile()


def _arguments(space: Space, group: Group, chosen: Sequence[int], width: int) -> tuple[dict[str, Any], Any]:
    """The hyperparameters and seeds of a chunk; the last trial fills what is missing of its width."""
    padded = [*chosen, *[chosen[-1]] * (width - len(chosen))]
    dtypes = {name: _dtype(space, name) for name in group.traced}
    values = {name: np.array([space[i][name] for i in padded], dtypes[name]) for name in group.traced}
    return values, np.array([space[i].get("seed", 0) for i in padded], np.int32)


def _dtype(space: Space, name: str) -> Any:
    whole = all(isinstance(trial[name], int) for trial in space if name in trial)
    return jax.dtypes.canonicalize_dtype(np.int64 if whole else np.float64)


def _width(group: Group, lanes: int) -> int:
    """Lanes of the group's program: a multiple of the devices that they are spread over."""
    width = min(lanes, len(group.trials))
    devices = len(_devices(width))
    return -(-width // devices) * devices


def _devices(width: int) -> list[Any]:
    return jax.devices()[: max(1, min(width, jax.device_count()))]


def _lanes(lanes: int | None) -> int:
    if lanes is not None:
        check_positive_int("lanes", lanes)
        return lanes
    return lanes_of_a_device() * jax.device_count()


def _tracer(work: _Work) -> Callable[[Mapping[str, Any]], Any]:
    return lambda hparams: _summary(work.run(work.keys(jnp.int32(0)), dict(hparams), *work.data))


def _check_objective(work: _Work, space: Space, steps: Plan, objective: str) -> None:
    """Raises ``ValueError`` if the first trial whose code does not raise has no such metric."""
    for group in steps.groups:
        hparams = without_seed(space[group.trials[0]])
        values = {name: jnp.asarray(hparams[name]) for name in group.traced}
        try:
            shapes = jax.eval_shape(
                lambda values, hparams=hparams: _tracer(work)(
                    {name: values.get(name, Static(value)) for name, value in hparams.items()}
                ),
                values,
            )
        except Exception:
            continue
        curves = (name for name, shape in shapes["history"].items() if len(shape.shape) == 1)
        names = sorted({*curves, *shapes["metrics"]})
        if objective not in names:
            raise ValueError(f"objective: expected one of {names}, got {objective!r}")
        return


def _summary(result: Any) -> dict[str, Any]:
    """What is kept of a run's result."""
    if isinstance(result, RunResult):
        counts = {"epochs": result.epochs, "best_epoch": result.best_epoch, "first_bad_step": result.first_bad_step}
        return {"history": result.history, "metrics": counts, "status": result.status}
    named = result._asdict() if hasattr(result, "_asdict") else result
    if not isinstance(named, Mapping):
        raise TypeError(f"function: expected it to return a dictionary or a NamedTuple, got a {type(result).__name__}")
    arrays = {str(name): jnp.asarray(value) for name, value in named.items() if _is_array(value)}
    return {
        "history": {name: array for name, array in arrays.items() if array.ndim == 1},
        "metrics": {name: array for name, array in arrays.items() if array.ndim == 0 and name != "status"},
        "status": jnp.asarray(arrays.get("status", Status.COMPLETED), jnp.int32),
    }


def _is_array(value: Any) -> bool:
    return isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)) and np.ndim(value) < 2


def _recorded(trial: Trial, values: dict[str, Any], seconds: float) -> Record:
    history = {name: np.asarray(value) for name, value in values["history"].items()}
    metrics = {name: float(value) for name, value in values["metrics"].items()}
    if "best_epoch" in metrics:
        returned = int(metrics["best_epoch"])
        metrics = {
            name: float(value[returned]) if returned >= 0 else np.nan
            for name, value in history.items()
            if value.ndim == 1
        } | metrics
    return Record(trial, Status(int(values["status"])).name, None, metrics, history, seconds)


def _failed(trial: Trial, error: Exception) -> Record:
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return Record(trial, "FAILED", f"{type(error).__name__}: {lines[0]}", {}, {}, 0.0)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Static) else value


def _source(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return getattr(function, "__qualname__", repr(type(function)))


@contextmanager
def _bar(shown: bool, trials: int, finished: int) -> Generator[Callable[[list[Record], str, str], None]]:
    """A function that shows finished trials: in a bar, or in a line of the log a chunk."""
    values: list[float] = []
    bar: Any = None
    if shown:
        with suppress(ImportError):
            from tqdm.auto import tqdm

            layout = "{n_fmt}/{total_fmt} trials |{bar}| {elapsed}<{remaining}{postfix}"
            bar = tqdm(total=trials, initial=finished, bar_format=layout)

    def show(records: list[Record], objective: str, mode: str) -> None:
        values.extend(v for each in records if np.isfinite(v := each.metrics.get(objective, np.nan)))
        best = f"best {objective} {(min if mode == 'min' else max)(values):.4g}" if values else ""
        if bar is not None:
            bar.set_postfix_str(best, refresh=False)
            bar.update(len(records))
        else:
            _LOGGER.info("%d trials finished, %s", len(records), best)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
