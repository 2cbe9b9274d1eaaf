"""The lanes of a group of trials: one trial traced, compiled for so many at a time, and driven dispatch by dispatch.

A lane of a recipe is driven by epochs, as :func:`jaxopt_nn.training.fit` drives a run and with the same epoch function.
So it can pause after any epoch and go on later, beside other lanes: how its epochs are dealt out to dispatches changes
no bit. A lane of any other function is one call.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxopt_nn import _ops
from jaxopt_nn._jaxprs.flops import flops_of
from jaxopt_nn._jaxprs.identity import fingerprint
from jaxopt_nn._safetensors import impl_of, is_key
from jaxopt_nn.sweeps._plan import Group
from jaxopt_nn.sweeps._space import Space
from jaxopt_nn.training import Recipe, RunKeys, RunResult, Status
from jaxopt_nn.training._epoch import train_epoch
from jaxopt_nn.training._programs import as_arrays
from jaxopt_nn.training._recipe import build_recipe
from jaxopt_nn.training._run import finish
from jaxopt_nn.training._run_state import RunState, init_run_state
from jaxopt_nn.types import Array, Key, PyTree, Static

__all__ = [
    "Chunk",
    "Lane",
    "Program",
    "Work",
    "advance",
    "compile_lane",
    "dtype_of",
    "result_of",
    "run_keys",
    "trace_lane",
    "values_of",
    "width_of",
]

_SECONDS_PER_CALL = 2.0
_SHARE_OF_MEMORY = 0.9
_COUNTS = ("status", "epochs", "best_epoch", "first_bad_step")


class Work(NamedTuple):
    """What is done for each trial.

    Attributes:
        recipe: a function from hyperparameters to a recipe; None for any other function.
        function: ``(key, hparams, *data) -> result``, if there is no recipe.
        key: of the sweep.
        data: the last arguments.
    """

    recipe: Callable[[Any], Recipe] | None
    function: Callable[..., Any] | None
    key: Key
    data: tuple[Any, ...]


class Lane(NamedTuple):
    """One trial of a group, traced.

    Attributes:
        program: the jaxpr of ``(values, seed, state, first, count, key, data) -> (state, rows, ends)``, flattened.
        inputs, outputs: the trees of its arguments and results, with shapes.
        epochs: how many a trial has; 0 if it is one call.
        run_state: the tree of the state, with shapes; None if it is one call.
    """

    program: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    epochs: int
    run_state: RunState | None

    def flops(self) -> int:
        """Floating-point operations of a whole trial."""
        return flops_of(self.program)

    def checksum(self) -> str:
        """The same for what computes the same, in this version of JAX."""
        return hashlib.sha256(repr(fingerprint(self.program)).encode()).hexdigest()

    def curves(self) -> list[str]:
        """The entries of the history that are one number an epoch."""
        return sorted(name for name, shape in self.outputs[1].items() if len(shape.shape) == 1)

    def names(self) -> list[str]:
        """What can be an objective."""
        return sorted({*self.curves(), *self.outputs[2]} - {"status"})


class Program(NamedTuple):
    """A lane, compiled.

    Attributes:
        call: of arguments with a leading axis of ``width``.
        width: lanes.
        peak_bytes: the memory that one device needs for a call.
        seconds: how long compiling took.
        shared: the key and the data, where the program wants them.
    """

    call: Callable[..., Any]
    width: int
    peak_bytes: int
    seconds: float
    shared: tuple[Any, Any]


class Chunk(NamedTuple):
    """What came of some epochs of some lanes, as NumPy arrays.

    Attributes:
        history: name to ``[lanes, epochs, ...]``; of epochs that were not run NaN.
        ends: name to ``[lanes]``: ``status``, counts, and the scalars that a function returns.
        state: ``[lanes, ...]`` each, what the lanes go on from; empty if it is not wanted.
        seconds: of a trial.
        pace: seconds of an epoch of all lanes.
    """

    history: dict[str, np.ndarray[Any, Any]]
    ends: dict[str, np.ndarray[Any, Any]]
    state: tuple[np.ndarray[Any, Any], ...]
    seconds: float
    pace: float


def run_keys(key: Key, seed: int | Array = 0) -> RunKeys:
    """The keys of the trials with this seed: with them, a single run equals the lane of a sweep up to rounding."""
    init, order, noise = jax.random.split(key, 3)
    return RunKeys(jax.random.fold_in(init, seed), order, jax.random.fold_in(noise, seed))


def trace_lane(work: Work, space: Space, group: Group) -> Lane:
    """Traces a trial of a group; raises what its code raises."""
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    values = {name: jax.ShapeDtypeStruct((), dtype_of(space, name)) for name in group.traced}
    key, wrap = _unwrapped(work.key)

    def hparams(values: Mapping[str, Array]) -> dict[str, Any]:
        return {name: Static(value) for name, value in group.static.items()} | dict(values)

    if work.recipe is None:
        assert work.function is not None
        function = work.function

        def call(values: Any, seed: Array, state: Any, first: Array, count: Array, key: Array, data: Any) -> Any:
            del state, first, count
            return (), *_summary(function(jax.random.fold_in(wrap(key), seed), dict(group.static) | values, *data))

        inputs = (values, scalar, (), scalar, scalar, key, work.data)
        return _lane(call, inputs, 0, None)

    recipe = work.recipe
    epochs: list[int] = []

    def begin(values: Any, seed: Array, key: Array, data: Any) -> RunState:
        parts = build_recipe(recipe, hparams(values))
        epochs.append(parts.epochs)
        return init_run_state(parts, run_keys(wrap(key), seed), data[0])

    shapes = jax.eval_shape(begin, values, scalar, key, work.data)

    def train(values: Any, seed: Array, state: Any, first: Array, count: Array, key: Array, data: Any) -> Any:
        parts, order = build_recipe(recipe, hparams(values)), run_keys(wrap(key), seed).order
        train, valid = data if len(data) > 1 else (data[0], None)
        start = lax.cond(first == 0, lambda: begin(values, seed, key, data), lambda: _typed(state, shapes))

        def body(run_state: RunState, index: Array) -> Any:
            return train_epoch(parts, run_state, order, first + index, train, valid, due=index < count)

        run_state, rows = lax.scan(body, start, jnp.arange(epochs[0]))
        result = finish(run_state, rows)
        return _raw(run_state), rows, {name: getattr(result, name) for name in _COUNTS}

    inputs = (values, scalar, jax.eval_shape(_raw, shapes), scalar, scalar, key, work.data)
    return _lane(train, inputs, epochs[0], shapes)


def _lane(function: Callable[..., Any], inputs: tuple[Any, ...], epochs: int, run_state: RunState | None) -> Lane:
    program, outputs = jax.make_jaxpr(function, return_shape=True)(*inputs)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), inputs)
    return Lane(program, shapes, outputs, epochs, run_state)


def width_of(trials: int, lanes: int) -> int:
    """Lanes of the program of so many trials: a multiple of the devices that they are spread over."""
    width = max(1, min(lanes, trials))
    devices = len(_devices(width))
    return -(-width // devices) * devices


def compile_lane(work: Work, lane: Lane, width: int) -> Program:
    """Compiles a lane for ``width`` of them at a time, or for fewer if these do not fit the device's memory."""
    memory = _ops.device_memory()
    while True:
        program = _compiled(work, lane, width)
        half = width_of(width // 2, width)
        if memory is None or program.peak_bytes <= _SHARE_OF_MEMORY * memory or half == width:
            return program
        width = half


def _compiled(work: Work, lane: Lane, width: int) -> Program:
    started = time.perf_counter()
    devices = _devices(width)
    over_lanes = (True, True, True, False, False, False, False)
    batched = [
        each for each, part in zip(over_lanes, lane.inputs, strict=True) for _ in range(len(jax.tree.leaves(part)))
    ]
    shapes = [
        jax.ShapeDtypeStruct((width, *leaf.shape) if each else leaf.shape, leaf.dtype)
        for leaf, each in zip(jax.tree.leaves(lane.inputs), batched, strict=True)
    ]
    function, tree = core.jaxpr_as_fun(lane.program), jax.tree.structure(lane.outputs)

    def chunk(*flat: Any) -> Any:
        return jax.vmap(function, [0 if each else None for each in batched])(*flat)

    shared: Any = (_unwrapped(work.key)[0], work.data)
    jitted = jax.jit(chunk)
    if len(devices) > 1:
        mesh = jax.make_mesh((len(devices),), ("lanes",), (AxisType.Auto,), devices=devices)
        split, whole = PartitionSpec("lanes"), PartitionSpec()
        specs = tuple(split if each else whole for each in batched)
        mapped = jax.shard_map(chunk, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
        jitted = jax.jit(mapped, in_shardings=tuple(NamedSharding(mesh, spec) for spec in specs))
        shared = jax.device_put(shared, NamedSharding(mesh, whole))
    compiled = jitted.lower(*shapes).compile(_ops.compiler_options())
    memory: Any = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes if memory else 0

    def call(*arguments: Any) -> Any:
        return jax.tree.unflatten(tree, compiled(*jax.tree.leaves(arguments)))

    return Program(call, width, peak, time.perf_counter() - started, shared)


def advance(
    program: Program,
    lane: Lane,
    values: tuple[dict[str, Any], Any],
    first: int,
    count: int,
    state: Sequence[Sequence[Any]] = (),
    *,
    keep: bool = False,
    pace: float | None = None,
) -> Chunk:
    """Runs some epochs of some trials; it ends when the last lane has.

    Args:
        program, lane: of their group.
        values: their hyperparameters and seeds, at most ``program.width``; the last trial fills what is missing.
        first, count: the epochs done, and those to do.
        state: of each trial, what it goes on from; not read if ``first`` is 0.
        keep: whether the state is wanted afterwards.
        pace: seconds that an epoch takes, if it is known: a dispatch does so many that Ctrl-C is heard soon.
    """
    lanes, missing = len(values[1]), program.width - len(values[1])
    padded = jax.tree.map(lambda array: np.concatenate([array, array[-1:].repeat(missing, 0)]), values)
    if first:
        rows = [*state, *[state[-1]] * missing]
        carried: Any = tuple(np.stack([row[i] for row in rows]) for i in range(len(lane.inputs[2])))
    else:
        carried = tuple(np.zeros((program.width, *leaf.shape), leaf.dtype) for leaf in lane.inputs[2])
    began = time.perf_counter()
    if not lane.epochs:
        _, rows, ends = jax.device_get(program.call(*padded, (), np.int32(0), np.int32(0), *program.shared))
        return _of_lanes(lanes, rows, ends, (), time.perf_counter() - began, 0.0)
    shapes = {name: ((program.width, *row.shape), row.dtype) for name, row in lane.outputs[1].items()}
    history = {name: np.full(shape, np.nan, dtype) for name, (shape, dtype) in shapes.items()}
    done, ends = first, {}
    while done < first + count:
        started = time.perf_counter()
        some = min(first + count - done, 1 if pace is None else max(1, int(_SECONDS_PER_CALL / pace)))
        carried, rows, ends = program.call(*padded, carried, np.int32(done), np.int32(some), *program.shared)
        rows, ends = jax.device_get((rows, ends))  # waits; Ctrl-C until here loses the chunk
        for name, row in rows.items():
            history[name][:, done : done + some] = row[:, :some]
        done += some
        pace = max(time.perf_counter() - started, 1e-6) / some
        if (ends["status"] != Status.COMPLETED).all():
            break
    kept = jax.device_get(carried) if keep else ()
    return _of_lanes(lanes, history, ends, kept, time.perf_counter() - began, pace or 0.0)


def _of_lanes(lanes: int, history: Any, ends: Any, state: Any, seconds: float, pace: float) -> Chunk:
    """Without those that only filled the width."""
    history, ends, state = jax.tree.map(lambda array: array[:lanes], (history, ends, state))
    return Chunk(history, ends, state, seconds / lanes, pace)


def result_of(lane: Lane, state: Sequence[Any], history: Mapping[str, Any]) -> RunResult:
    """The result of a trial from what it ended with."""
    assert lane.run_state is not None
    return as_arrays(finish(_typed(state, lane.run_state), dict(history)))


def values_of(space: Space, group: Group, trials: Sequence[int]) -> tuple[dict[str, Any], Any]:
    """The hyperparameters and the seeds of some trials of a group, as arrays."""
    values = {name: np.array([space[i][name] for i in trials], dtype_of(space, name)) for name in group.traced}
    return values, np.array([space[i].get("seed", 0) for i in trials], np.int32)


def _devices(width: int) -> list[Any]:
    return jax.devices()[: max(1, min(width, jax.device_count()))]


def dtype_of(space: Space, name: str) -> Any:
    """The dtype of a hyperparameter: it is the same for all trials."""
    whole = all(isinstance(trial[name], int) for trial in space if name in trial)
    return jax.dtypes.canonicalize_dtype(np.int64 if whole else np.float64)


def _unwrapped(key: Key) -> tuple[Array, Callable[[Array], Key]]:
    """A key as plain numbers, and the way back."""
    if not is_key(key):
        return key, lambda data: data
    kind = impl_of(key)
    return jax.random.key_data(key), lambda data: jax.random.wrap_key_data(data, impl=kind)


def _raw(run_state: PyTree) -> tuple[Array, ...]:
    """The leaves of a state, keys as plain numbers: what NumPy and a file can hold."""
    return tuple(jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(run_state))


def _typed(state: Sequence[Any], shapes: PyTree) -> PyTree:
    """The state again, from its leaves."""
    leaves, tree = jax.tree.flatten(shapes)
    typed = [
        jax.random.wrap_key_data(jnp.asarray(value), impl=impl_of(leaf)) if is_key(leaf) else value
        for value, leaf in zip(state, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, typed)


def _summary(result: Any) -> tuple[dict[str, Array], dict[str, Array]]:
    """What is kept of a function's result: its histories, and its scalars with a status."""
    if isinstance(result, RunResult):
        return result.history, {name: getattr(result, name) for name in _COUNTS}
    named = result._asdict() if hasattr(result, "_asdict") else result
    if not isinstance(named, Mapping):
        raise TypeError(f"function: expected it to return a dictionary or a NamedTuple, got a {type(result).__name__}")
    arrays = {str(name): jnp.asarray(value) for name, value in named.items() if _is_array(value)}
    history = {name: array for name, array in arrays.items() if array.ndim == 1}
    scalars = {name: array for name, array in arrays.items() if array.ndim == 0}
    return history, scalars | {"status": jnp.asarray(arrays.get("status", Status.COMPLETED), jnp.int32)}


def _is_array(value: Any) -> bool:
    return isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)) and np.ndim(value) < 2
