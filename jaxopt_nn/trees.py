"""Leaves of pytrees by readable path: ``{"dense_0": {"kernel": k}}`` holds ``k`` at ``"dense_0/kernel"``.

Masks select leaves: a mask is any function ``(path, leaf) -> bool``.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxopt_nn.types import PyTree

__all__ = ["Mask", "check_same_structure", "every_leaf", "kernels_only", "map_with_path", "named_leaves"]

Mask = Callable[[str, Any], bool]


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of ``tree``, each with its path.

    >>> named_leaves({"dense_0": {"kernel": 1.0, "bias": 0.0}})
    [('dense_0/bias', 0.0), ('dense_0/kernel', 1.0)]
    """
    return [(_path(keys), leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def map_with_path(fn: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """``jax.tree.map``, with the leaf's path as the first argument of ``fn``."""
    return jax.tree_util.tree_map_with_path(lambda keys, *leaves: fn(_path(keys), *leaves), tree, *rest)


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


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")
