"""The parts of gradient transforms: moments, and maps over the leaves of updates and moments.

Arithmetic is in float32 for float16, bfloat16 and float32 leaves, and in float64 for float64 leaves. Moments have that
dtype, and only the updates that a transform returns have the gradient's dtype.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Params, PyTree

__all__ = [
    "Convention",
    "check_convention",
    "check_match",
    "check_real",
    "map_leaves",
    "moments_like",
    "stateless",
    "transform",
    "transform_extra",
]

Convention = Literal["optax", "torch", "keras"]
"""The library whose formula is used, if libraries differ under one name."""


def check_convention(convention: str, *allowed: str) -> None:
    """Raises ``ValueError`` unless ``convention`` is one of those ``allowed``, by default of all."""
    names = allowed or get_args(Convention)
    if convention not in names:
        quoted = [f'"{name}"' for name in names]
        expected = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
        raise ValueError(f"convention: expected {expected}, got {convention!r}")


def transform(init: Callable[..., Any], update: Callable[..., tuple[PyTree, Any]]) -> optax.GradientTransformation:
    """The transform, which checks that parameters are floating-point, and that updates have their tree and shapes.

    A gradient of another shape raises, and is not broadcast. The cast is for type checkers: optax's type of a state is
    narrower than what it accepts.
    """

    def checked_init(params: Params) -> Any:
        state = init(params)  # it may raise a better message
        check_real("params", params, or_complex=True)
        return state

    def checked_update(updates: PyTree, state: Any, params: Params | None = None) -> tuple[PyTree, Any]:
        if params is not None:
            check_match(updates, params)
        return update(updates, state, params)

    return optax.GradientTransformation(checked_init, checked_update)


def transform_extra(
    init: Callable[..., Any], update: Callable[..., tuple[PyTree, Any]]
) -> optax.GradientTransformationExtraArgs:
    """The same for an ``update`` that takes extra arguments, and passes them to the optimizer inside.

    The optimizer inside checks the parameters: one that is frozen may be an integer.
    """

    def checked_update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        if params is not None:
            check_match(updates, params)
        return update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(init, checked_update)


def stateless(fn: Callable[[PyTree], PyTree]) -> optax.GradientTransformation:
    """A stateless transform that applies ``fn`` to the updates."""

    def update(
        updates: PyTree, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[PyTree, optax.EmptyState]:
        del params
        return fn(updates), state

    return transform(lambda params: optax.EmptyState(), update)


def moments_like(params: Params, fill: Any = 0.0) -> PyTree:
    """A state with the shapes (and shardings) of ``params``, in the dtype of their arithmetic, filled with ``fill``."""
    check_real("params", params)
    # A copy, because for a scalar full_like returns the array that the caller passed as ``fill``.
    return jax.tree.map(lambda leaf: jnp.array(jnp.full_like(leaf, fill, dtype=compute_dtype(leaf)), copy=True), params)


def map_leaves(
    fn: Callable[..., tuple[Any, ...]], outputs: int, updates: PyTree, *states: PyTree
) -> tuple[PyTree, ...]:
    """``jax.tree.map`` for a function that returns ``outputs`` arrays for each leaf; returns as many trees."""
    for state in states:
        check_match(updates, state)
    check_real("updates", updates)
    leaves, treedef = jax.tree.flatten(updates)
    columns = [jax.tree.leaves(state) for state in states]
    results = [fn(jnp.asarray(leaf), *moments) for leaf, *moments in zip(leaves, *columns, strict=True)]
    return tuple(treedef.unflatten([result[i] for result in results]) for i in range(outputs))


def check_real(name: str, tree: PyTree, *, or_complex: bool = False) -> None:
    """Raises ``TypeError`` with the path unless all leaves are real, or complex, floating-point numbers."""
    kind, expected = (jnp.inexact, "real or complex") if or_complex else (jnp.floating, "real")
    if all(jnp.issubdtype(_dtype(leaf), kind) for leaf in jax.tree.leaves(tree)):
        return
    for path, leaf in named_leaves(tree):
        dtype = _dtype(leaf)
        if not jnp.issubdtype(dtype, kind):
            got = repr(leaf) if dtype is object else str(dtype)
            raise TypeError(f"{name}[{path}]: expected {expected} floating-point numbers, got {got}")


def check_match(updates: PyTree, expected: PyTree) -> None:
    """Raises ``ValueError`` with the path unless both are the same tree of leaves of the same shapes."""
    got, want = jax.tree.structure(updates), jax.tree.structure(expected)
    if got != want:
        have, due = {path for path, _ in named_leaves(updates)}, {path for path, _ in named_leaves(expected)}
        raise ValueError(
            f"updates: expected the tree of the parameters, but missing are {sorted(due - have)}, unexpected "
            f"{sorted(have - due)}: expected {want}, got {got}"
        )
    pairs = zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True)
    if all(np.shape(leaf) == np.shape(other) for leaf, other in pairs):
        return
    for (path, leaf), other in zip(named_leaves(updates), jax.tree.leaves(expected), strict=True):
        if np.shape(leaf) != np.shape(other):
            raise ValueError(f"updates[{path}]: expected shape {np.shape(other)}, got {np.shape(leaf)}")


def _dtype(leaf: Any) -> Any:
    """The dtype of a number or an array; object for anything else, such as a function or a string."""
    try:
        return jnp.result_type(leaf) if hasattr(leaf, "dtype") or isinstance(leaf, (int, float, complex)) else object
    except TypeError:
        return object
