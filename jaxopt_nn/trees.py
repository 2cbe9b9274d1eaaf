"""Leaves of pytrees by readable path: ``{"dense_0": {"kernel": k}}`` holds ``k`` at ``"dense_0/kernel"``.

Masks select leaves. A mask is a pattern of paths, several of them (a leaf is selected if any matches), or a function
``(path, leaf) -> bool``. A pattern matches a whole path, case included:

- ``*`` matches any characters or none, slashes too, but never a part of a number. So ``"dense_1*"`` and ``"dense_1/*"``
  select what is in ``dense_1`` and nothing in ``dense_10``, and ``"*0/bias"`` does not select ``dense_10/bias``.
- ``?`` matches any one character, ``[1-3]`` one of those and ``[!1-3]`` one of the others. ``"dense_[0-9]*"`` selects
  ``dense_0`` to ``dense_9``, ``"dense_1?/*"`` what begins with 1 and has two digits.
"""

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from jaxopt_nn import _safetensors
from jaxopt_nn.types import PyTree

__all__ = [
    "Mask",
    "check_mask",
    "check_same_structure",
    "every_leaf",
    "kernels_only",
    "load_arrays",
    "map_with_path",
    "named_leaves",
    "no_biases_no_norms",
    "save_arrays",
    "select",
]

Mask = str | Sequence[str] | Callable[[str, Any], bool]

_WILD = re.compile(r"\*+|\[!?\]?[^\]]*\]|.", re.DOTALL)
_NOT_WITHIN_A_NUMBER = "(?:(?<![0-9])|(?![0-9]))"


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of ``tree``, each with its path.

    >>> named_leaves({"dense_0": {"kernel": 1.0, "bias": 0.0}})
    [('dense_0/bias', 0.0), ('dense_0/kernel', 1.0)]
    """
    with_path = jax.tree_util.tree_leaves_with_path
    return [
        (_path((*keys, *inner[1:])), leaf)  # of a box without its own key
        for keys, node in with_path(tree, is_leaf=_is_flax_variable)
        for inner, leaf in with_path(node)
    ]


def map_with_path(fn: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """``jax.tree.map``, with the leaf's path as the first argument of ``fn``."""
    treedef = jax.tree.structure(tree)
    others = [treedef.flatten_up_to(other) for other in rest]
    return treedef.unflatten([fn(*named, *leaves) for named, *leaves in zip(named_leaves(tree), *others, strict=True)])


def kernels_only(path: str, leaf: Any) -> bool:
    """The default mask of weight penalties and decay: weights of layers, no biases, no scales of normalizations.

    >>> kernels_only("dense_0/kernel", None), kernels_only("dense_0/bias", None)
    (True, False)
    """
    del leaf
    return path.rsplit("/", 1)[-1] == "kernel"


def every_leaf(path: str, leaf: Any) -> bool:
    """The mask that selects every leaf."""
    del path, leaf
    return True


def no_biases_no_norms(path: str, leaf: Any) -> bool:
    """The mask for models with other names than ours: every leaf of two or more axes whose last name is no bias's.

    Biases and the scales of normalizations have one axis; matrices, convolution kernels and embeddings have more.

    >>> import numpy as np
    >>> no_biases_no_norms("attention/query/weight", np.ones((2, 3))), no_biases_no_norms("norm/weight", np.ones(3))
    (True, False)
    """
    return np.ndim(leaf) >= 2 and path.rsplit("/", 1)[-1] not in ("bias", "scale", "gamma", "beta")


def check_mask(name: str, mask: Mask) -> None:
    """Raises ``TypeError`` or ``ValueError``, naming the argument, unless ``mask`` is one.

    >>> check_mask("mask", ["*/bias", "*/scale"])
    """
    if callable(mask):
        if isinstance(mask, type) or not takes(mask, "", None):
            raise TypeError(f"{name}: expected a function (path, leaf) -> bool, got one of other arguments, {mask!r}")
        return
    patterns = [mask] if isinstance(mask, str) else mask
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"{name}: expected a pattern of paths, several, or (path, leaf) -> bool, got {mask!r}")
    if not patterns:
        raise ValueError(f"{name}: expected a pattern of paths, got none, {mask!r}, which selects nothing")


def select(name: str, mask: Mask, tree: PyTree) -> list[bool]:
    """Which leaves of ``tree`` the mask selects, in the order of ``jax.tree.leaves``.

    Args:
        name: the argument that the mask came as, for messages.
        mask: what selects.
        tree: any pytree. Of one without leaves, nothing is selected.

    Raises:
        ValueError: the mask, or one of its patterns, selects no leaf; there is no pattern.
        TypeError: it is no mask.

    >>> select("mask", "dense_0/*", {"dense_0": {"bias": 0.0, "kernel": 1.0}, "scale": 2.0})
    [True, True, False]
    """
    check_mask(name, mask)
    leaves = named_leaves(tree)
    if callable(mask):
        chosen = [bool(mask(path, leaf)) for path, leaf in leaves]
        if leaves and not any(chosen):
            raise ValueError(
                f"{name}: expected to select a leaf of {[path for path, _ in leaves]}, selected none: pass another, "
                "such as jaxopt_nn.trees.no_biases_no_norms or every_leaf"
            )
        return chosen
    patterns = [mask] if isinstance(mask, str) else mask
    matches = [[_matches(pattern, path) for path, _ in leaves] for pattern in patterns]
    for pattern, matched in zip(patterns, matches, strict=True):
        if leaves and not any(matched):
            raise ValueError(
                f"{name}: expected a pattern that matches one of {[path for path, _ in leaves]}, got {pattern!r}"
            )
    return [any(of_leaf) for of_leaf in zip(*matches, strict=True)]


def check_same_structure(name: str, expected: PyTree, got: PyTree) -> None:
    """Raises ``ValueError`` naming the path at which ``got`` has another tree, shape or dtype than ``expected``."""
    want, have = dict(named_leaves(expected)), dict(named_leaves(got))
    missing, extra = want.keys() - have.keys(), have.keys() - want.keys()
    if missing or extra:
        what = f"missing {sorted(missing) or 'nothing'}, unexpected {sorted(extra) or 'nothing'}"
        raise ValueError(f"{name}: the tree does not match: {what}")
    for path, leaf in want.items():
        a, b = jax.typeof(leaf), jax.typeof(have[path])
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(f"{name}[{path}]: expected {a.dtype}{list(a.shape)}, got {b.dtype}{list(b.shape)}")


def save_arrays(path: str | os.PathLike[str], tree: PyTree, names: Mapping[str, str] | None = None) -> None:
    """Writes the leaves of a tree to a safetensors file, for this library or any other.

    Args:
        path: the file. One that is there is replaced, once the new one is complete.
        tree: any pytree of arrays. Typed PRNG keys are written as their numbers.
        names: the path of a leaf to its name in the file; other leaves are left out. None writes every leaf by its
            path.

    Raises:
        TypeError: a leaf has a dtype that such a file cannot hold.
        ValueError: ``names`` has a path that the tree does not have; two leaves have one name.
        OSError: the file cannot be written.

    >>> import tempfile
    >>> params = {"dense_0": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_arrays(folder + "/weights.safetensors", params, {"dense_0/kernel": "fc.weight"})
    ...     sorted(load_arrays(folder + "/weights.safetensors"))
    ['fc.weight']
    """
    leaves = _by_path("tree", tree)
    names = {path: path for path in leaves} if names is None else _checked_names(names, leaves)
    if len(set(names.values())) < len(names):
        raise ValueError(f"names: expected another name for each leaf, got {sorted(names.values())}")
    _safetensors.write_arrays(Path(path), {name: leaves[path] for path, name in names.items()})


def load_arrays(path: str | os.PathLike[str], tree: PyTree = None, names: Mapping[str, str] | None = None) -> PyTree:
    """The arrays of any safetensors file, in the places of a tree's leaves.

    Args:
        path: the file. Nothing in it is executed.
        tree: what the arrays are put into: arrays, or their shapes and dtypes. None for a dictionary of all arrays in
            the file, by their names.
        names: the path of a leaf to its name in the file; other leaves stay as they are. None takes every leaf, each
            from its path.

    Returns:
        A tree like ``tree``, of NumPy arrays where they come from the file.

    Raises:
        ValueError: ``names`` has a path that the tree does not have; the file has no such name, or has another shape or
            dtype there (both are named); it is no safetensors file.
        OSError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_arrays(folder + "/weights.safetensors", {"fc.weight": np.ones((2, 3), np.float32)})
    ...     tree = {"kernel": np.zeros((2, 3), np.float32), "bias": np.zeros(3, np.float32)}
    ...     loaded = load_arrays(folder + "/weights.safetensors", tree, {"kernel": "fc.weight"})
    >>> float(loaded["kernel"].sum()), float(loaded["bias"].sum())
    (6.0, 0.0)
    """
    arrays = _safetensors.read_arrays(Path(path))
    if tree is None:
        if names is not None:
            raise ValueError("names: expected a tree to put the arrays into, got none")
        return arrays
    leaves = _by_path("tree", tree)
    names = {path: path for path in leaves} if names is None else _checked_names(names, leaves)
    if missing := sorted(set(names.values()) - arrays.keys()):
        raise ValueError(f"{path}: expected an array {missing[0]!r}, got a file that has {sorted(arrays)}")
    return map_with_path(
        lambda path, leaf: _safetensors.like(path, leaf, arrays[names[path]]) if path in names else leaf, tree
    )


def _by_path(name: str, tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their paths, each of which has to be another."""
    named = named_leaves(tree)
    leaves = dict(named)
    if len(leaves) < len(named):
        paths = [path for path, _ in named]
        raise ValueError(f"{name}: two leaves have the path {next(path for path in paths if paths.count(path) > 1)!r}")
    return leaves


def _checked_names(names: Mapping[str, str], leaves: Mapping[str, Any]) -> Mapping[str, str]:
    if not isinstance(names, Mapping):
        raise TypeError(f"names: expected a dictionary of paths to names in the file, got {names!r}")
    if unknown := sorted(names.keys() - leaves.keys()):
        raise ValueError(f"names: expected paths of {list(leaves)}, got {unknown[0]!r}")
    return names


def takes(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether a function may be called with these arguments, as far as its signature says."""
    try:
        inspect.signature(fn).bind(*args)
    except TypeError:
        return False
    except ValueError:  # of some built-in functions there is no signature
        return True
    return True


def _matches(pattern: str, path: str) -> bool:
    """Whether the pattern matches the whole path: as ``fnmatch`` has it, but that a ``*`` splits no number."""
    star = f"{_NOT_WITHIN_A_NUMBER}.*{_NOT_WITHIN_A_NUMBER}"
    # The last two characters of a translated pattern are the end of the text.
    parts = (star if part.startswith("*") else translate(part)[:-2] for part in cast(list[str], _WILD.findall(pattern)))
    return re.fullmatch("".join(parts), path, re.DOTALL) is not None


def _is_flax_variable(node: Any) -> bool:
    """Whether it is a box that has no place in a path: Flax hands its optimizers trees with them and without."""
    return any(base.__module__ == "flax.nnx.variablelib" for base in type(node).__mro__)


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")
