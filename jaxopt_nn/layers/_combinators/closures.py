"""Weights that a plain function closes over, which would be constants of the model and never be trained."""

import contextlib
import dis
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

__all__ = ["check_no_weights"]

# The package and the base class of a library's modules, and how to make a layer of one.
_MODULES = {
    ("flax.nnx", "Module"): "layers.from_nnx(lambda rngs: ...), which makes it",
    ("flax.linen", "Module"): "layers.from_linen(module)",
    ("equinox", "Module"): "layers.from_equinox(lambda key: ...), which makes it",
    ("haiku", "Module"): "layers.from_haiku(function), which makes and applies it",
    ("keras", "Layer"): "layers.from_apply with its variables and stateless_call",
    ("torch", "Module"): "layers.from_apply, written in JAX",
}


def check_no_weights(function: Callable[..., Any]) -> None:
    """Refuses modules of other libraries, and names arrays of floats that a function holds.

    A module with weights is an error. An array of floats is a warning, since it may be meant as a constant, such as a
    positional encoding or the mean of the data. Numbers, arrays of one element, integers, masks and tracers pass
    without a word.

    Looked at are the function itself, the function that it wraps (a partial, a bound method), its closure, its
    defaults, the fields of a callable object, and the global variables that it names.

    Raises:
        TypeError: it is a module, or holds one.
    """
    arrays = dict[str, Any]()
    for name, value in _contents(function):
        adapter = _adapter(value)
        if adapter is not None:
            where = "" if value is function else f", which {_name(function)} holds as {name}"
            raise TypeError(
                f"layer: expected a Layer or a function without weights, got a module {type(value).__name__}{where}: "
                f"its weights would never be trained; wrap it by {adapter}"
            )
        if _is_weight(value):
            arrays[name] = value
    if arrays:
        text = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in arrays.items())
        warnings.warn(
            f"the function {_name(function)} of a model holds {text}: a constant of the model, which is not trained; "
            "if it is to be trained, make a layer with layers.from_apply",
            UserWarning,
            stacklevel=3,
        )


def _contents(function: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of everything that ``function`` holds; first the function itself."""
    stack: list[tuple[str, Any, bool]] = [("", function, True)]
    visited = set[int]()
    while stack:
        name, value, own = stack.pop()
        if id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, (dict, list, tuple)) and not hasattr(value, "_fields"):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            stack += [(f"{name}[{key!r}]", item, False) for key, item in items]
            continue
        yield name, value
        if _adapter(value) is None and not inspect.ismodule(value) and callable(value) and not isinstance(value, type):
            wrapped = _wrapped(value)
            # Global variables of functions that it only calls are left out: they lead into whole libraries.
            stack += [(inner, item, False) for inner, item in _parts_of(value, bool(wrapped), own)]
            stack += [("function", item, own) for item in wrapped]  # looked at before it is found in a closure


def _wrapped(value: Any) -> list[Any]:
    """The function that a partial, a bound method or a transformed function is made of."""
    if isinstance(value, functools.partial):
        return [value.func]
    return [getattr(value, name) for name in ("__func__", "__wrapped__") if hasattr(value, name)]


def _parts_of(value: Any, is_wrapper: bool, with_globals: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(value, functools.partial):
        yield from ((f"argument {index}", item) for index, item in enumerate(value.args))
        yield from value.keywords.items()
    elif inspect.ismethod(value):
        yield "self", value.__self__
        yield from getattr(value.__self__, "__dict__", {}).items()
    elif inspect.isfunction(value):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell that is not filled yet
                yield name, cell.cell_contents
        parameters = inspect.signature(value, follow_wrapped=False).parameters.values()
        yield from ((each.name, each.default) for each in parameters if each.default is not each.empty)
        if with_globals:
            names = {each.argval for each in dis.get_instructions(value) if each.opname == "LOAD_GLOBAL"}
            yield from ((name, value.__globals__[name]) for name in sorted(names & value.__globals__.keys()))
    elif not is_wrapper:
        yield from getattr(value, "__dict__", {}).items()


def _adapter(value: Any) -> str | None:
    """How to make a layer of a module of another library; None for anything else."""
    for base in type(value).__mro__:
        for (package, name), adapter in _MODULES.items():
            if base.__name__ == name and (base.__module__ == package or base.__module__.startswith(f"{package}.")):
                # In Equinox any callable can be a module, also one without an array.
                return adapter if package != "equinox" or any(map(_is_weight, jax.tree.leaves(value))) else None
    return None


def _is_weight(value: Any) -> bool:
    if isinstance(value, jax.core.Tracer) or not isinstance(value, (jax.Array, np.ndarray)):
        return False
    return value.size > 1 and jnp.issubdtype(value.dtype, jnp.inexact)


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)
