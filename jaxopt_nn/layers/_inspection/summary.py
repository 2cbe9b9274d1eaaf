"""The layers of a model, with their sizes and FLOPs, as a table."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jaxopt_nn._jaxprs.flops import count_flops
from jaxopt_nn.layers._combinators.wiring import as_layer, at_path, bind, collect, gather, output_shape, shapes_of
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Layer, Params, PyTree, State

__all__ = ["Description", "Row", "describe", "summary"]

_WIDTH = 100
_HEADINGS = ("layer", "output", "in", "parameters", "state", "kept in", "bytes", "FLOPs")


class Row(NamedTuple):
    """One layer. A combinator has no row of its own, but the sum or join that it ends with has.

    Attributes:
        path: where its parameters are in the tree: ``"residual_0/serial_0/dense_0"``.
        inputs: the paths of the rows that it reads; ``"input"``, or the name of an input.
        output: shape of its output, or of each array in it: a pytree of ``jax.ShapeDtypeStruct``.
        parameters: trained numbers; 0 if it shares those of an earlier row.
        state: numbers of its state; 0 if it shares those of an earlier row.
        bytes: of parameters and state.
        flops: floating-point operations of one forward pass, in evaluation, over the batch.
        times: how often it is repeated by a ``repeat``; the numbers are of all repetitions.
        kept: the dtypes of its parameters and state, such as ``("bfloat16", "float32")``; that of the output is in
            ``output``.
    """

    path: str
    inputs: tuple[str, ...]
    output: PyTree
    parameters: int
    state: int
    bytes: int
    flops: int
    times: int
    kept: tuple[str, ...]


class Description(NamedTuple):
    """What :func:`describe` returns. As a string it is a table of at most 100 columns.

    Attributes:
        rows: the layers in the order of their evaluation.
        output: shape of the model's output: a pytree of ``jax.ShapeDtypeStruct``.
        outputs: the paths of the rows that the output comes from.
        parameters: trained numbers.
        state: numbers that are carried but not trained.
        bytes: of both.
        flops: floating-point operations of one forward pass, in evaluation, over the batch.
    """

    rows: tuple[Row, ...]
    output: PyTree
    outputs: tuple[str, ...]
    parameters: int
    state: int
    bytes: int
    flops: int

    def __str__(self) -> str:
        cells: list[tuple[str, ...]] = [_HEADINGS]
        for row in self.rows:
            path = row.path if row.times == 1 else f"{row.path} (x{row.times})"
            cells.append(_cells(path, row, row.kept))
        kept = tuple(dict.fromkeys(dtype for row in self.rows for dtype in row.kept))
        cells.append(_cells("total", self, kept))
        return _table(cells) + "\nFLOPs: one forward pass over this batch, in evaluation, counted; 2 a multiply-add"


def describe(model: Any, x: PyTree) -> Description:
    """The layers of a model with output shapes, parameters, state and FLOPs. Nothing is computed.

    Args:
        model: a layer, or a plain function of an array.
        x: an example input, or its ``jax.ShapeDtypeStruct``; with the batch axis, which the FLOPs are for.

    Returns:
        The :class:`Description`. The numbers of its rows add up to its totals.

    Raises:
        ValueError, TypeError: those of a layer that does not fit, with its path.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.layers import dense, serial
    >>> found = describe(serial(dense(8), jax.nn.relu, dense(2)), jax.ShapeDtypeStruct((32, 5), "float32"))
    >>> [(row.path, row.output.shape, row.parameters) for row in found.rows]
    [('dense_0', (32, 8), 48), ('relu_0', (32, 8), 0), ('dense_1', (32, 2), 18)]
    >>> found.parameters, found.bytes, found.flops  # 2·32·(5·8 + 8·2), and biases and ReLU
    (66, 264, 4160)
    """
    layer, shapes = as_layer(model), shapes_of(x)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), shapes)
    names = ("input",) if layer.wiring is None else layer.wiring.inputs
    sources = (("input",),) if isinstance(names, str) else tuple((name,) for name in names)
    rows, _, leaving = _walk(layer, params, state, shapes, layer.name, "", sources, 1, True)
    total = {name: sum(getattr(row, name) for row in rows) for name in ("parameters", "state", "bytes", "flops")}
    # A model in another precision has outputs in that of its inputs, and its last layer in that of its arithmetic.
    output = output_shape(layer, params, state, shapes)
    return Description(tuple(rows), output, leaving, **total)


def summary(model: Any, x: PyTree) -> None:
    """Prints the table of a model: what each layer puts out and keeps, in which dtype, its bytes and FLOPs; and totals.

    Args:
        model: a layer, or a plain function of an array.
        x: an example input, or its ``jax.ShapeDtypeStruct``; with the batch axis, which the FLOPs are for.

    :func:`describe` returns the numbers. FLOPs are counted from the program's equations, so they do not depend on the
    machine: 2 for a multiply-add, 1 for each element of any other floating-point result.

    >>> import jax
    >>> from jaxopt_nn.layers import dense, serial
    >>> summary(serial(dense(8), jax.nn.relu, dense(2)), jax.ShapeDtypeStruct((32, 5), "float32"))
    layer    output    in  parameters  state  kept in  bytes  FLOPs
    ---------------------------------------------------------------
    dense_0  [32, 8]  f32          48      0      f32  192 B  2.8 k
    relu_0   [32, 8]  f32           0      0             0 B    256
    dense_1  [32, 2]  f32          18      0      f32   72 B  1.1 k
    ---------------------------------------------------------------
    total    [32, 2]  f32          66      0      f32  264 B  4.2 k
    FLOPs: one forward pass over this batch, in evaluation, counted; 2 a multiply-add
    """
    print(describe(model, x))


def _walk(
    layer: Layer,
    params: Params,
    state: State,
    x: PyTree,
    name: str,
    path: str,
    sources: tuple[tuple[str, ...], ...],
    times: int,
    owns: bool,
) -> tuple[list[Row], PyTree, tuple[str, ...]]:
    """The rows of a layer at ``path``, its output, and the paths of the rows that this comes from."""
    wiring = layer.wiring
    if wiring is None:

        def forward(params: Params, state: State, x: PyTree) -> PyTree:
            return layer.apply(params, state, x, train=False, key=None, weight=None)[0]

        flops, y = count_flops(forward, params, state, x)
        own = [jax.tree.leaves(tree) if owns else [] for tree in (params, state)]
        numbers = [times * sum(math.prod(leaf.shape) for leaf in leaves) for leaves in own]
        size = times * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaves in own for leaf in leaves)
        fed = tuple(dict.fromkeys(source for group in sources for source in group))
        kept = tuple(dict.fromkeys(leaf.dtype.name for leaves in own for leaf in leaves))
        row = Row(path or name, fed, y, numbers[0], numbers[1], size, times * flops, times, kept)
        return [row], y, (path or name,)
    if wiring.times is not None:
        params, state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (params, state))
        times *= wiring.times
    values, rows = bind(wiring, x), list[Row]()
    everything = tuple(source for group in sources for source in group)
    many = not isinstance(wiring.inputs, str)
    named = wiring.inputs if many else (wiring.inputs,)
    groups = sources if many and len(sources) == len(named) else (everything,) * len(named)
    origins = dict(zip(named, groups, strict=True))
    for node in wiring.nodes:
        inner, values[node.name], origins[node.name] = at_path(
            node.name,
            _walk,
            node.layer,
            params.get(node.owner, {}),
            state.get(node.owner, {}),
            gather(values, node.inputs),
            node.name,
            f"{path}/{node.name}" if path else node.name,
            tuple(origins[source] for source in node.inputs),
            times,
            owns and node.owner == node.name,
        )
        rows += inner
    last = (wiring.outputs,) if isinstance(wiring.outputs, str) else wiring.outputs
    return rows, collect(wiring, values), tuple(dict.fromkeys(source for name in last for source in origins[name]))


def _cells(path: str, row: Row | Description, kept: Sequence[str]) -> tuple[str, ...]:
    dtypes = dict.fromkeys(_short(leaf.dtype) for leaf in jax.tree.leaves(row.output))
    numbers = f"{row.parameters:,}", f"{row.state:,}", ", ".join(map(_short, kept))
    return path, _shapes(row.output), ", ".join(dtypes), *numbers, _scaled(row.bytes, "B"), _scaled(row.flops)


def _short(dtype: Any) -> str:
    """``f32``, ``bf16``, ``i32``, as JAX prints them."""
    name = str(dtype)
    for long, short in (("bfloat", "bf"), ("float", "f"), ("complex", "c"), ("uint", "u"), ("int", "i")):
        if name.startswith(long):
            return name.replace(long, short)
    return name


def _table(cells: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS))]
    spare = _WIDTH - sum(widths[2:]) - 2 * (len(widths) - 1)
    widths[1] = min(widths[1], max(spare // 2, spare - widths[0]))
    widths[0] = min(widths[0], spare - widths[1])

    def line(row: tuple[str, ...]) -> str:
        path, shape = row[0], row[1]
        if len(path) > widths[0]:
            path = "…" + path[len(path) - widths[0] + 1 :]
        if len(shape) > widths[1]:
            shape = shape[: widths[1] - 1] + "…"
        numbers = [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
        return "  ".join([f"{path:<{widths[0]}}", f"{shape:<{widths[1]}}", *numbers]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:-1]), rule, line(cells[-1])])


def _shapes(output: PyTree) -> str:
    """``[32, 8]``; of several arrays ``a: [32, 8], b: [32]``."""
    leaves = named_leaves(output)
    if len(leaves) == 1 and not leaves[0][0]:
        return str(list(leaves[0][1].shape))
    return ", ".join(f"{path}: {list(leaf.shape)}" for path, leaf in leaves)


def _scaled(number: int, unit: str = "") -> str:
    """``12.3 kB``: three digits or so, in steps of 1,000."""
    value, prefixes = float(number), iter(["k", "M", "G", "T", "P"])
    prefix = ""
    while value >= 999.5:
        value, prefix = value / 1000, next(prefixes, "")
    digits = 0 if not prefix or value >= 99.5 else 1
    return f"{value:.{digits}f} {prefix}{unit}".rstrip()
