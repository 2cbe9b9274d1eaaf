"""Records: functions of a step, of a layer's output or of an epoch, whose values end up in the history.

Those of a step or a layer are summed up in the loop of the steps, so that memory does not grow with their number. The
values of one record are one vector there, because each output of a loop needs kernels of its own.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_bool, check_choice, check_positive_int, plain_array, shown
from jaxopt_nn._dtypes import compute_dtype, promote
from jaxopt_nn._ops import any_over_vmapped_axis
from jaxopt_nn.layers import Place, places
from jaxopt_nn.trees import check_same_structure, map_with_path, named_leaves, takes
from jaxopt_nn.types import Array, Batch, Layer, Params, PyTree, State, TrainState

__all__ = [
    "EpochEnd",
    "LayerOutput",
    "Record",
    "Recorded",
    "StepEnd",
    "check_record",
    "epoch_values",
    "finished",
    "layer_values",
    "layer_vectors",
    "nothing_recorded",
    "records_of",
    "step_values",
    "with_layers",
    "with_step",
]


class Record(NamedTuple):
    """A function whose values a run keeps in its history; an entry of a recipe's ``record``.

    Numbers and arrays that it returns, also in nested dictionaries, are entries of the history: ``name``, or
    ``name/path``. They are floats there.

    Attributes:
        function: of an :class:`EpochEnd`, a :class:`StepEnd` or a :class:`LayerOutput`, as ``of`` says; in JAX. With
            ``init``, ``(StepEnd, memory) -> (values, memory)``.
        of: ``"epoch"``: called after each epoch. ``"step"``: after each step; the history has the mean over the steps
            of an epoch, of each number without those that are NaN. ``"layer"``: in each step for each layer of the
            model; the entries are ``name/path of the layer``; a layer for which it returns None has no entry.
        every: the cadence: only every so many epochs, or steps of an epoch, beginning with the first. In between
            nothing is computed.
        series: of a step or layer: the history keeps each recorded step, ``[epochs, ceil(steps / every), ...]``.
        init: of a step: ``params -> memory``, what the function gets at the first step of an epoch. After that it gets
            what it returned. None for a function without memory.
        finish: of a step or layer: what is done with the means before they go into the history, with ``series`` with
            each step's values; such as the root of a mean of squares.
    """

    function: Callable[..., Any]
    of: Literal["epoch", "step", "layer"] = "epoch"
    every: int = 1
    series: bool = False
    init: Callable[[Params], PyTree] | None = None
    finish: Callable[[PyTree], PyTree] | None = None


class EpochEnd(NamedTuple):
    """What a callback of :func:`fit`, and a record of an epoch, is given after each epoch.

    Attributes:
        epoch: its index, from 0.
        metrics: its row of the history without arrays: Python floats; in a record traced scalars.
        state: the training state after it.
        arrays: what the row has besides: entries of records that are no scalars.
    """

    epoch: int
    metrics: dict[str, float]
    state: TrainState
    arrays: dict[str, Any] = {}  # noqa: RUF012, never written to


class StepEnd(NamedTuple):
    """What a record of a step is given. A compiled program computes only what is read of it.

    Attributes:
        step: int32, its index: the steps taken before it.
        batch: its examples.
        loss: with penalties, before the update.
        params: the parameters before the update.
        model_state: the model state after the step.
        gradient: like ``params``, before the optimizer changes it; 0 for frozen parameters.
        update: like ``params``: what the optimizer adds to them.
        loss_and_gradient: ``params -> (loss, gradient)`` for the same batch and the same noise. It costs what the
            step's own gradient costs.
    """

    step: Array
    batch: Batch
    loss: Array
    params: Params
    model_state: State
    gradient: Params
    update: Params
    loss_and_gradient: Callable[[Params], tuple[Array, Params]]


class LayerOutput(NamedTuple):
    """What a record of a layer is given, in each step for each layer that is not made of layers.

    Attributes:
        path: where the layer is in the model: ``"residual_0/serial_0/dense_0"``. Static.
        name: its kind: ``"dense"``, ``"relu"``. Static.
        position: its place in the order of evaluation, from 0. Static.
        inputs: what it got, ``[N, ...]``.
        value: what it made of that, ``[N, ...]``.
        weight: ``[N]`` weights of the examples, or None.

    Under ``micro_batches`` the function gets one part of the batch at a time, and the values are the weighted means
    over the parts. The layers of a ``repeat`` get one entry, with an axis for the n blocks in front.
    """

    path: str
    name: str
    position: int
    inputs: PyTree
    value: PyTree
    weight: Array | None


class Layout(NamedTuple):
    """The tree of a record's values, and the shapes of its leaves."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a record of a step or a layer has so far of an epoch.

    Attributes:
        sums: ``[2, n]``, of all its numbers in a row, and how many of each were no NaN.
        series: ``[rows, n]``; None if none is asked for.
        memory: what its function gets next; None for a function without.
        layout: where its values are in a row.
    """

    sums: Array
    series: Array | None
    memory: PyTree
    layout: Layout = dataclasses.field(metadata={"static": True})


def check_record(record: Any) -> None:
    """Raises ``TypeError`` or ``ValueError``, naming the entry, unless it is a dictionary of records."""
    if not isinstance(record, Mapping):
        raise TypeError(f'record: expected a dictionary, as {{"name": function}}, got {shown(record)}')
    for name, each in cast("Mapping[Any, Any]", record).items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"record: expected names, got {name!r}")
        entry, one = f"record[{name!r}]", _as_record(each)
        check_choice(f"{entry}.of", one.of, *_GIVEN)
        check_positive_int(f"{entry}.every", one.every)
        check_bool(f"{entry}.series", one.series)
        for field, kinds in {"series": ("step", "layer"), "finish": ("step", "layer"), "init": ("step",)}.items():
            if getattr(one, field) and one.of not in kinds:
                raise ValueError(f"{entry}.{field}: expected it of a record of a {' or '.join(kinds)}, got {one.of!r}")
        arguments, given = (1, _GIVEN[one.of]) if one.init is None else (2, f"{_GIVEN[one.of]} and its memory")
        if not _is_function(one.function, arguments):
            raise TypeError(f"{entry}: expected a function of {given}, got {shown(one.function)}")
        for field in ("init", "finish"):
            function = getattr(one, field)
            if function is not None and not _is_function(function, 1):
                raise TypeError(f"{entry}.{field}: expected a function of one argument, got {shown(function)}")


_GIVEN = {"epoch": "an EpochEnd", "step": "a StepEnd", "layer": "a LayerOutput"}


def _is_function(function: Any, arguments: int) -> bool:
    return callable(function) and not isinstance(function, type) and takes(function, *[None] * arguments)


def _as_record(each: Any) -> Record:
    """A function alone is a record of each epoch."""
    return each if isinstance(each, Record) else Record(each)


def records_of(record: Mapping[str, Any], *kinds: str) -> dict[str, Record]:
    """The records of these kinds: "epoch", "step", "layer"."""
    return {name: one for name, each in record.items() if (one := _as_record(each)).of in kinds}


def step_values(record: Mapping[str, Record], end: StepEnd) -> dict[str, PyTree]:
    """What each record of a step returns after the first step of an epoch."""
    values: dict[str, PyTree] = {}
    for name, one in record.items():
        if one.init is None:
            values[name] = _numbers(name, one.function(end))
        else:
            values[name] = _numbers(name, _pair(name, one.function(end, _strong(one.init(end.params))))[0])
    return values


def layer_values(
    record: Mapping[str, Record], model: Layer, outputs: Mapping[str, Any], weight: Array | None
) -> dict[str, PyTree]:
    """What each record of layers returns: ``{name: {path: values}}``."""
    values: dict[str, PyTree] = {}
    for name, one in record.items():
        of_layers: dict[str, PyTree] = {}
        for position, place in enumerate(places(model)):

            def of_layer(inputs: PyTree, value: PyTree, one: Record = one, at: Place = place, i: int = position) -> Any:
                return one.function(LayerOutput(at.path, at.name, i, inputs, value, weight))

            function = of_layer
            for _ in range(place.repeats):
                function = jax.vmap(function)
            value = function(*lax.stop_gradient(outputs[place.path]))
            if value is not None:
                of_layers[place.path] = value
        values[name] = _numbers(name, of_layers)
    return values


def layer_vectors(
    record: Mapping[str, Record], model: Layer, outputs: Mapping[str, Any], weight: Array | None, index: Array
) -> dict[str, Array]:
    """The values of each record of layers in a row; zeros where it is not due."""
    vectors: dict[str, Array] = {}
    for name, one in record.items():

        def due(name: str = name, one: Record = one) -> Array:
            return _row(layer_values({name: one}, model, outputs, weight)[name])

        shape = jax.eval_shape(due)
        vectors[name] = _if_due(one, index, due, lambda shape=shape: jnp.zeros(shape.shape, shape.dtype))
    return vectors


def nothing_recorded(
    record: Mapping[str, Record], values: Mapping[str, PyTree], params: Params, steps: int
) -> dict[str, Recorded]:
    """What records have before the first of an epoch's steps; ``values`` are the shapes of what each returns."""
    started: dict[str, Recorded] = {}
    for name, one in record.items():
        leaves, tree = jax.tree.flatten(values[name])
        layout = Layout(tree, tuple(leaf.shape for leaf in leaves))
        size, dtype = sum(math.prod(shape) for shape in layout.shapes), promote(*(leaf.dtype for leaf in leaves))
        series = jnp.full((-(-steps // one.every), size), jnp.nan, dtype) if one.series else None
        memory = None if one.init is None else _strong(one.init(params))
        started[name] = Recorded(jnp.zeros((2, size), dtype), series, memory, layout)
    return started


def with_step(
    record: Mapping[str, Record], recorded: Mapping[str, Recorded], index: Array, end: StepEnd
) -> dict[str, Recorded]:
    """What the records of steps have after a step; ``index`` is its place in the epoch."""
    after: dict[str, Recorded] = {}
    for name, one in record.items():

        def due(name: str = name, one: Record = one) -> Recorded:
            before = recorded[name]
            if one.init is None:
                return _with_row(one, before, index, _row(_numbers(name, one.function(end))))
            values, memory = _pair(name, one.function(end, before.memory))
            memory = _strong(memory)
            check_same_structure(f"record[{name!r}]: its memory", before.memory, memory)
            return dataclasses.replace(_with_row(one, before, index, _row(_numbers(name, values))), memory=memory)

        after[name] = _if_due(one, index, due, lambda name=name: recorded[name])
    return after


def with_layers(
    record: Mapping[str, Record], recorded: Mapping[str, Recorded], index: Array, rows: Mapping[str, Array]
) -> dict[str, Recorded]:
    """What the records of layers have after a step, whose :func:`layer_vectors` are ``rows``."""
    return {
        name: _if_due(
            one,
            index,
            lambda name=name, one=one: _with_row(one, recorded[name], index, rows[name]),
            lambda name=name: recorded[name],
        )
        for name, one in record.items()
    }


def finished(record: Mapping[str, Any], recorded: Mapping[str, Recorded]) -> dict[str, Array]:
    """The entries of the history that the records of steps and layers make of an epoch."""
    entries: dict[str, Array] = {}
    for name, one in records_of(record, "step", "layer").items():

        def finish(row: Array, name: str = name, one: Record = one) -> dict[str, Array]:
            values = _unpacked(recorded[name].layout, row)
            if one.finish is not None and one.of == "layer":
                values = {path: one.finish(value) for path, value in values.items()}
            elif one.finish is not None:
                values = one.finish(values)
            return _entries(name, values)

        sums, series = recorded[name].sums, recorded[name].series
        _add(entries, name, finish(sums[0] / sums[1]) if series is None else jax.vmap(finish)(series))
    return entries


def epoch_values(record: Mapping[str, Any], end: EpochEnd) -> dict[str, Array]:
    """The entries of the history that the records of epochs make."""
    entries: dict[str, Array] = {}
    for name, one in records_of(record, "epoch").items():

        def due(name: str = name, one: Record = one) -> dict[str, Array]:
            return _entries(name, one.function(end))

        shapes = jax.eval_shape(due)
        nan = functools.partial(jax.tree.map, lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)
        _add(entries, name, _if_due(one, end.epoch, due, nan))
    return entries


def _add(entries: dict[str, Array], name: str, new: dict[str, Array]) -> None:
    if twice := sorted(entries.keys() & new.keys()):
        raise ValueError(f"record[{name!r}]: expected names that no other record has, got {twice}")
    entries |= new


def _if_due(one: Record, index: Any, due: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """A branch, under ``vmap`` too: there the index is the same in all lanes, though JAX may not know that it is."""
    if one.every == 1:
        return due()
    return lax.cond(any_over_vmapped_axis(index % one.every == 0), due, otherwise)


def _with_row(one: Record, before: Recorded, index: Array, row: Array) -> Recorded:
    row = row.astype(before.sums.dtype)
    missing = jnp.isnan(row)
    sums = before.sums + jnp.stack([jnp.where(missing, 0, row), (~missing).astype(row.dtype)])
    series = None if before.series is None else before.series.at[index // one.every].set(row)
    return dataclasses.replace(before, sums=sums, series=series)


def _pair(name: str, result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(cast("tuple[Any, ...]", result)) != 2:
        raise TypeError(f"record[{name!r}]: expected it to return (values, memory), got {shown(result)}")
    return cast("tuple[Any, Any]", result)


def _numbers(name: str, values: PyTree) -> PyTree:
    """What a function returns, as floats."""
    if not jax.tree.leaves(values):
        raise TypeError(f"record[{name!r}]: expected it to return numbers, got {shown(values)}")

    def number(path: str, leaf: Any) -> Array:
        entry = f"record[{name!r}]" + (f"[{path}]" if path else "")
        array = jnp.asarray(plain_array(entry, leaf))
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended) or jnp.iscomplexobj(array):
            raise TypeError(f"{entry}: expected real numbers, got {array.dtype}{list(array.shape)}")
        return array.astype(compute_dtype(array))

    return map_with_path(number, values)


def _entries(name: str, values: PyTree) -> dict[str, Array]:
    """The values by their names in the history."""
    named = named_leaves(_numbers(name, values))
    return {f"{name}/{path}" if path else name: leaf for path, leaf in named}


def _row(values: PyTree) -> Array:
    leaves = jax.tree.leaves(values)
    dtype = promote(*(leaf.dtype for leaf in leaves))
    return jnp.concatenate([leaf.astype(dtype).ravel() for leaf in leaves])


def _unpacked(layout: Layout, row: Array) -> PyTree:
    leaves, start = list[Array](), 0
    for shape in layout.shapes:
        leaves.append(row[start : start + math.prod(shape)].reshape(shape))
        start += math.prod(shape)
    return jax.tree.unflatten(layout.tree, leaves)


def _strong(tree: PyTree) -> PyTree:
    """Without weak types, since a loop's carry keeps its type."""
    return jax.tree.map(lambda leaf: lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), tree)
