"""The computational graph of a model as a picture, drawn with matplotlib (the ``plots`` extra)."""

import itertools
from collections.abc import Mapping
from typing import Any

from jaxopt_nn.layers._combinators.wiring import as_layer
from jaxopt_nn.layers._inspection.summary import Description, describe
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import PyTree

__all__ = ["draw"]

_COLUMN, _LINE = 2.9, 0.78  # inches
_LONGEST = 34  # letters that a box has room for


def draw(model: Any, x: PyTree, *, title: str = "") -> Any:
    """The graph of a model: boxes for layers, with path, output shape and parameters, and arrows for the data.

    Data flow from top to bottom. An arrow that skips layers goes beside them. Layers with parameters are filled. A
    repeated block is drawn once, with its number of repetitions.

    Args:
        model: a layer, or a plain function of an array.
        x: an example input, or its ``jax.ShapeDtypeStruct``, with the batch axis.
        title: a title for the figure.

    Returns:
        A ``matplotlib.figure.Figure``, which pyplot does not know: ``figure.savefig("model.pdf")``.

    Raises:
        ImportError: without matplotlib.
        ValueError, TypeError: those of a layer that does not fit, with its path.

    >>> import jax
    >>> from jaxopt_nn.layers import dense, residual, serial
    >>> figure = draw(serial(dense(4), residual(jax.numpy.tanh)), jax.ShapeDtypeStruct((1, 3), "float32"))
    >>> [text.get_text().splitlines()[0] for text in figure.axes[0].texts]
    ['input', 'dense_0', 'residual_0/tanh_0', 'residual_0/add_0', 'output']
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path
    except ImportError as error:
        raise ImportError("drawing needs matplotlib: pip install 'jaxopt-nn[plots]'") from error
    labels, arrows = _parts(model, x)
    places, routes = _layout(list(labels), arrows)
    columns = [at[0] for route in routes for at in route] or [0.0]
    width, height = max(columns) - min(columns) + 1, max(at[1] for at in places.values()) + 1
    figure = Figure(figsize=(width * _COLUMN, height * _LINE + (0.4 if title else 0)), layout="constrained")
    figure.suptitle(title)
    ax = figure.subplots()
    ax.set(xlim=(min(columns) - 0.5, max(columns) + 0.5), ylim=(height - 0.5, -0.5))
    ax.axis("off")
    for name, (label, filled) in labels.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#dbe9f6" if filled else "white", "edgecolor": "0.35"}
        ax.text(*places[name], label, ha="center", va="center", fontsize=7.5, bbox=box, zorder=2)
    for route in routes:
        # From below a box to above the next, upright at both ends and in every row between.
        (x0, y0), points, codes = route[0], [(route[0][0], route[0][1] + 0.28)], [Path.MOVETO]
        for number, (x1, y1) in enumerate(route[1:], 1):
            start = y0 + (0.28 if number == 1 else 0.2)
            end = y1 - (0.28 if number == len(route) - 1 else 0.2)
            if number > 1:
                points.append((x0, start))
                codes.append(Path.LINETO)
            points += [(x0, (start + end) / 2), (x1, (start + end) / 2), (x1, end)]
            codes += [Path.CURVE4] * 3
            x0, y0 = x1, y1
        ax.add_patch(
            FancyArrowPatch(
                path=Path(points, codes), arrowstyle="-|>", mutation_scale=8, color="0.35", linewidth=0.9, zorder=1
            )
        )
    return figure


def _parts(model: Any, x: PyTree) -> tuple[dict[str, tuple[str, bool]], list[tuple[str, str]]]:
    """The labels of inputs, layers and outputs, whether they have parameters, and the sources of each."""
    description: Description = describe(model, x)
    wiring = as_layer(model).wiring
    names = "input" if wiring is None else wiring.inputs
    if isinstance(names, str):
        entries: Mapping[str, Any] = {"input": x}
        description = _renamed(description, names)
    else:
        entries = x if isinstance(x, Mapping) else dict(zip(names, x, strict=True))
    labels = {name: (f"{_short(name)}\n{_shape(value)}", False) for name, value in entries.items()}
    arrows: list[tuple[str, str]] = []
    for row in description.rows:
        times = "" if row.times == 1 else f"  x{row.times}"
        count = f" · {row.parameters:,} parameters" if row.parameters else ""
        labels[row.path] = (f"{_short(row.path)}{times}\n{_shape(row.output)}{count}", row.parameters > 0)
        arrows += [(source, row.path) for source in row.inputs]
    labels["output"] = (f"output\n{_shape(description.output)}", False)
    return labels, arrows + [(source, "output") for source in description.outputs]


def _renamed(description: Description, name: str) -> Description:
    """The same with the one input called "input"."""
    rows = [
        row._replace(inputs=tuple("input" if source == name else source for source in row.inputs))
        for row in description.rows
    ]
    return description._replace(rows=tuple(rows))


def _short(path: str) -> str:
    return path if len(path) <= _LONGEST else "…" + path[-_LONGEST + 1 :]


def _shape(value: Any) -> str:
    leaves = named_leaves(value)
    text = ", ".join(f"{path}: {list(leaf.shape)}" if path else str(list(leaf.shape)) for path, leaf in leaves)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _layout(
    names: list[str], arrows: list[tuple[str, str]]
) -> tuple[dict[str, tuple[float, float]], list[list[tuple[float, float]]]]:
    """The places of the boxes, and the points through which each arrow goes, as (column, row).

    Each box is in the row below the last of its sources. An arrow over several rows has a place of its own in each of
    them, so that it crosses no box. In a row, places are ordered by the mean place of their sources.
    """
    rows = dict.fromkeys(names, 0)
    for name in names:  # sources come first in this order
        rows[name] = max((rows[source] + 1 for source, target in arrows if target == name), default=0)
    last = max(rows.values())
    rows["output"] = last
    chains: list[list[str | tuple[int, int]]] = []
    sources_of: dict[Any, list[Any]] = {name: [] for name in names}
    members: list[list[Any]] = [[name for name in names if rows[name] == row] for row in range(last + 1)]
    for number, (source, target) in enumerate(arrows):
        chain: list[Any] = [source, *((number, row) for row in range(rows[source] + 1, rows[target])), target]
        for one, two in itertools.pairwise(chain):
            sources_of.setdefault(two, []).append(one)
        for place in chain[1:-1]:
            members[place[1]].append(place)
        chains.append(chain)
    columns: dict[Any, float] = {}
    for row in members:
        preferred = {place: _mean([columns[source] for source in sources_of[place]]) for place in row}
        ordered = sorted(row, key=lambda place: (preferred[place], isinstance(place, tuple)))
        centre = _mean(list(preferred.values()))
        for position, place in enumerate(ordered):
            columns[place] = centre + position - (len(ordered) - 1) / 2
    at = {place: (columns[place], float(number)) for number, row in enumerate(members) for place in row}
    return {name: at[name] for name in names}, [[at[place] for place in chain] for chain in chains]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
