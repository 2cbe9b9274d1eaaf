"""The values of records, inside of a run.

Those of a step or a layer are summed up in the loop of the steps, so that memory does not grow with their number. The
values of one record are one row of numbers there, because each output of a loop needs kernels of its own.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import plain_array, shown
from jaxopt_nn._dtypes import compute_dtype, promote
from jaxopt_nn._ops import any_over_vmapped_axis
from jaxopt_nn.layers import Place, places
from jaxopt_nn.training._records import EpochEnd, LayerOutput, Record, StepEnd, records_of
from jaxopt_nn.trees import check_same_structure, map_with_path, named_leaves
from jaxopt_nn.types import Array, Layer, Params, PyTree

__all__ = [
    "Recorded",
    "epoch_values",
    "finished",
    "layer_values",
    "layer_vectors",
    "nothing_recorded",
    "step_values",
    "with_layers",
    "with_step",
]


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
    """The values of each record of layers in a row; NaN where it is not due."""
    vectors: dict[str, Array] = {}
    for every, records in _by_cadence(record).items():

        def due(records: Mapping[str, Record] = records) -> dict[str, Array]:
            return {name: _row(values) for name, values in layer_values(records, model, outputs, weight).items()}

        vectors |= _if_due(every, index, due, functools.partial(_missing, jax.eval_shape(due)))
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
    for every, records in _by_cadence(record).items():

        def due(records: Mapping[str, Record] = records) -> dict[str, Recorded]:
            return {name: _after_step(name, one, recorded[name], index, end) for name, one in records.items()}

        before = {name: recorded[name] for name in records}
        after |= _if_due(every, index, due, lambda before=before: before)
    return after


def _after_step(name: str, one: Record, before: Recorded, index: Array, end: StepEnd) -> Recorded:
    if one.init is None:
        return _with_row(one, before, index, _row(_numbers(name, one.function(end))))
    values, memory = _pair(name, one.function(end, before.memory))
    memory = _strong(memory)
    check_same_structure(f"record[{name!r}]: its memory", before.memory, memory)
    return dataclasses.replace(_with_row(one, before, index, _row(_numbers(name, values))), memory=memory)


def with_layers(
    record: Mapping[str, Record], recorded: Mapping[str, Recorded], index: Array, rows: Mapping[str, Array]
) -> dict[str, Recorded]:
    """What the records of layers have after a step, whose :func:`layer_vectors` are ``rows``."""
    return {name: _with_row(one, recorded[name], index, rows[name]) for name, one in record.items()}


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

        _add(entries, name, _if_due(one.every, end.epoch, due, functools.partial(_missing, jax.eval_shape(due))))
    return entries


def _add(entries: dict[str, Array], name: str, new: dict[str, Array]) -> None:
    if twice := sorted(entries.keys() & new.keys()):
        raise ValueError(f"record[{name!r}]: expected names that no other record has, got {twice}")
    entries |= new


def _by_cadence(record: Mapping[str, Record]) -> dict[int, dict[str, Record]]:
    """The records of one cadence together: each branch of a program costs about as much as a small kernel."""
    groups: dict[int, dict[str, Record]] = {}
    for name, one in record.items():
        groups.setdefault(one.every, {})[name] = one
    return groups


def _if_due(every: int, index: Any, due: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """A branch, under ``vmap`` too: there the index is the same in all lanes, though JAX may not know that it is."""
    if every == 1:
        return due()
    return lax.cond(any_over_vmapped_axis(index % every == 0), due, otherwise)


def _missing(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)


def _with_row(one: Record, before: Recorded, index: Array, row: Array) -> Recorded:
    """With the numbers of a step; those that are NaN, as all are where the record is not due, count nowhere."""
    row = row.astype(before.sums.dtype)
    missing = jnp.isnan(row)
    sums = before.sums + jnp.stack([jnp.where(missing, 0, row), (~missing).astype(row.dtype)])
    if before.series is None:
        return dataclasses.replace(before, sums=sums)
    place = jnp.where(index % one.every == 0, index // one.every, len(before.series))
    return dataclasses.replace(before, sums=sums, series=before.series.at[place].set(row, mode="drop"))


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
        if jnp.issubdtype(array.dtype, jax.dtypes.extended) or jnp.iscomplexobj(array):
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
