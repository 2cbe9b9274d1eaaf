"""Arguments for the optimizer inside of a wrapper, which may see another tree of parameters than the wrapper."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from jaxopt_nn.trees import takes
from jaxopt_nn.types import PyTree

__all__ = ["as_optimizer", "replace_leaves", "select_leaves", "translate_extra"]

_GRADIENTS, _VALUES_AT, _GRADIENTS_AT = ("grad",), ("value_fn", "obj_fn"), ("grad_fn",)


def as_optimizer(name: str, optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """Checks that it is an optimizer of the optax protocol, and makes it one that takes extra arguments."""
    if isinstance(optimizer, optax.GradientTransformation):
        return optax.with_extra_args_support(optimizer)
    init, update = getattr(optimizer, "init", None), getattr(optimizer, "update", None)
    # A Plateau has functions of these names too, but its init takes no argument.
    if isinstance(optimizer, type) or not (callable(init) and callable(update) and takes(init, None)):
        call = f": call it, such as {optimizer.__name__}(1e-3)" if inspect.isroutine(optimizer) else ""
        raise TypeError(
            f"{name}: expected an optimizer, an optax.GradientTransformation(init, update), got {optimizer!r}{call}"
        )
    return optax.with_extra_args_support(optimizer)


def translate_extra(
    extra: dict[str, Any], inward: Callable[[PyTree], PyTree], outward: Callable[[PyTree], PyTree]
) -> dict[str, Any]:
    """The extra arguments of an update, for an optimizer that sees another tree than the caller has.

    Args:
        extra: the arguments. ``grad`` is a gradient; ``value_fn``, ``obj_fn`` and ``grad_fn`` are functions of
            parameters. All others are passed on.
        inward: from a tree like the caller's parameters to one like those of the optimizer inside.
        outward: the inverse.
    """

    def translate(fn: Any, translate_result: Callable[[Any], Any]) -> Any:
        if not callable(fn):
            return fn  # if the optimizer calls it, it raises its own message

        @functools.wraps(fn)  # optax's line searches read its signature
        def translated(params: PyTree, *args: Any, **kwargs: Any) -> Any:
            return translate_result(fn(outward(params), *args, **kwargs))

        return translated

    result = dict(extra)
    result |= {name: translate(extra[name], lambda value: value) for name in _VALUES_AT if name in extra}
    result |= {name: translate(extra[name], inward) for name in _GRADIENTS_AT if name in extra}
    result |= {name: inward(extra[name]) for name in _GRADIENTS if extra.get(name) is not None}
    return result


def select_leaves(tree: PyTree, chosen: Sequence[bool]) -> PyTree:
    """The tree with None, which is no leaf, instead of each leaf that is not chosen."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([leaf if is_in else None for leaf, is_in in zip(leaves, chosen, strict=True)])


def replace_leaves(part: PyTree, whole: PyTree, chosen: Sequence[bool]) -> PyTree:
    """The tree ``whole``, with the leaves of ``part`` instead of those that are chosen."""
    leaves, treedef = jax.tree.flatten(whole)
    parts = iter(jax.tree.leaves(part))
    return treedef.unflatten([next(parts) if is_in else leaf for leaf, is_in in zip(leaves, chosen, strict=True)])
