"""Weights of another library in the places of ours, and back, layer by layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.layers import as_layer, places
from jaxopt_nn.trees import map_with_path, named_leaves
from jaxopt_nn.types import Params, State

__all__ = ["Kind", "Made", "Names", "place_by_name", "read_weights", "same", "write_weights"]

Names = Mapping[str, str]


class Made(NamedTuple):
    """An array, made of others.

    Attributes:
        of: the names of the others.
        by: the function of them that makes it.
        folded: whether the other library has two axes for one of it.
    """

    of: tuple[str, ...]
    by: Callable[..., NDArray[Any]]
    folded: bool = False


class Kind(NamedTuple):
    """How the weights of a kind of layer become ours, and back.

    Attributes:
        ours: our leaf to the arrays of theirs that it is made of.
        theirs: their array to the leaves of ours that it is made of, those of them that there are; in the order in
            which they hold them.
    """

    ours: Mapping[str, Made]
    theirs: Mapping[str, Made]


Place = Callable[[str, Sequence[str]], dict[str, str]]
"""Of a module's name and of its arrays that are there: their full names."""


def same(array: NDArray[Any]) -> NDArray[Any]:
    return array


def place_by_name(module: str, arrays: Sequence[str]) -> dict[str, str]:
    """``module.array``."""
    return {array: f"{module}.{array}" if module else array for array in arrays}


def read_weights(
    model: Any,
    variables: tuple[Params, State],
    weights: Mapping[str, Any],
    names: Names,
    kinds: Mapping[str, Kind],
    place: Place = place_by_name,
) -> tuple[Params, State]:
    """``(params, state)`` of a model of ours from another library's arrays."""
    shapes = {path: leaf for part in variables for path, leaf in named_leaves(part)}
    table = _layers(model, list(shapes), names, kinds)
    wanted: set[str] = set()
    wrong: list[str] = []
    found: dict[str, NDArray[Any]] = {}
    for layer in table:
        at = place(names[layer.path], layer.theirs)
        wanted |= set(at.values())
        for leaf in layer.leaves:
            made, path = layer.kind.ours[leaf], layer.full(leaf)
            full = [at.get(name, name) for name in made.of]
            missing = [name for name in full if name not in weights]
            wrong += [f"missing is {name}, for {path}" for name in missing]
            if not missing:
                found[path] = _made(path, shapes[path], made, full, weights, wrong)
    wrong += [f"left over is {name}" for name in weights if name not in wanted]
    _raise_for("weights", wrong)
    params, state = (map_with_path(lambda path, _: found[path], part) for part in variables)
    return params, state


def write_weights(
    model: Any,
    variables: tuple[Params, State],
    names: Names,
    kinds: Mapping[str, Kind],
    place: Place = place_by_name,
    like: Mapping[str, Any] | None = None,
) -> dict[str, NDArray[Any]]:
    """The inverse of :func:`read_weights`; ``like`` has arrays of the shapes that are wanted, if these are known."""
    leaves = {path: np.asarray(leaf) for part in variables for path, leaf in named_leaves(part)}
    arrays: dict[str, NDArray[Any]] = {}
    wrong: list[str] = []
    for layer in _layers(model, list(leaves), names, kinds):
        for name, full in place(names[layer.path], layer.theirs).items():
            made = layer.kind.theirs[name]
            array = np.ascontiguousarray(
                made.by(*(leaves[layer.full(leaf)] for leaf in made.of if leaf in layer.leaves))
            )
            if like is not None:
                array = _like(full, array, made, like, wrong)
            arrays[full] = array
    _raise_for("like", wrong)
    return arrays


def _like(name: str, array: NDArray[Any], made: Made, like: Mapping[str, Any], wrong: list[str]) -> NDArray[Any]:
    if name not in like:
        wrong.append(f"missing is {name}, of {' and '.join(made.of)}")
        return array
    shape = tuple(np.shape(like[name]))
    if made.folded and math.prod(shape) == array.size:
        return array.reshape(shape)
    if shape != array.shape:
        wrong.append(f"{name} is {list(shape)}, {' and '.join(made.of)} makes it {list(array.shape)}")
    return array


class _Layer(NamedTuple):
    """A layer of ours with weights.

    Attributes:
        path: its path in the model.
        prefix: of the paths of its leaves: the path with a slash; nothing if it is the whole model.
        kind: how its weights are read.
        leaves: those that it has.
        theirs: the arrays of theirs that these come from.
    """

    path: str
    prefix: str
    kind: Kind
    leaves: list[str]
    theirs: list[str]

    def full(self, leaf: str) -> str:
        return self.prefix + leaf


def _layers(model: Any, paths: Sequence[str], names: Names, kinds: Mapping[str, Kind]) -> list[_Layer]:
    """The layers with weights, with their kinds. Raises unless ``names`` names each of them once."""
    found = places(model)
    root = as_layer(model).wiring is None  # a layer by itself: its leaves have no path before them
    prefixes = {place.path: "" if root else f"{place.path}/" for place in found}
    owned = {path: [leaf for leaf in paths if leaf.startswith(prefix)] for path, prefix in prefixes.items()}
    owned = {path: leaves for path, leaves in owned.items() if leaves}
    wrong = [f"{path} has parameters and no name" for path in owned if path not in names]
    wrong += [f"{path} is no layer with parameters" for path in names if path not in owned]
    taken = list(names.values())
    wrong += [f"{name} stands for two layers" for name in dict.fromkeys(taken) if taken.count(name) > 1]
    _raise_for("names", wrong)
    table: list[_Layer] = []
    kind_of = {place.path: place.name for place in found}
    for path, leaves in owned.items():
        name, prefix = kind_of[path], prefixes[path]
        own = [leaf.removeprefix(prefix) for leaf in leaves]
        known = kinds.get(name)
        strange = [leaf for leaf in own if known is None or leaf not in known.ours]
        if known is None or strange:
            raise TypeError(f"{prefix}{strange[0]}: a {name} has no counterpart among {sorted(kinds)}")
        theirs = [array for array, made in known.theirs.items() if set(made.of) & set(own)]
        table.append(_Layer(path, prefix, known, own, theirs))
    return table


def _made(
    path: str, like: Any, made: Made, names: Sequence[str], weights: Mapping[str, Any], wrong: list[str]
) -> NDArray[Any]:
    arrays = [np.asarray(weights[name]) for name in names]
    sources = " and ".join(names)
    try:
        array = made.by(*arrays).astype(like.dtype)
    except (ValueError, IndexError):  # of another rank, or no parts of equal size
        shapes = " and ".join(str(list(array.shape)) for array in arrays)
        wrong.append(f"{path} is {list(like.shape)}, {sources} of shape {shapes} does not make it")
        return np.zeros(like.shape, like.dtype)
    if array.shape != like.shape:
        wrong.append(f"{path} is {list(like.shape)}, {sources} makes it {list(array.shape)}")
    return array


def _raise_for(argument: str, wrong: list[str]) -> None:
    wrong = list(dict.fromkeys(wrong))
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(f"{argument}: not those of this model: " + "; ".join(wrong[:4]) + more)
