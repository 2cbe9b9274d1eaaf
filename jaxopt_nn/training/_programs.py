"""Programs that are called from the host: compiled once, and known by what they compute.

``jax.jit`` knows a function by its identity. If a recipe reads a global variable that has changed, ``jax.jit`` goes on
with the program that was compiled before. So a function is traced anew at each call here, which takes milliseconds, and
the compiled program is looked up by the operations, literals and types of the trace. A recipe that is defined anew, but
is equal, compiles nothing either.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxopt_nn._jaxprs.cache import evaluator
from jaxopt_nn.types import PyTree, Static

__all__ = ["as_arrays", "compiled", "is_traced_any", "static_unless_number"]


def as_arrays(tree: PyTree) -> PyTree:
    """The same tree of JAX arrays. ``jnp.asarray`` would compile a program for each new shape."""
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf), tree)


def compiled(function: Callable[..., Any], *examples: PyTree) -> tuple[Callable[..., Any], PyTree]:
    """``function`` as a compiled program of arguments with the types of ``examples``; and the shapes of its output.

    Args:
        function: a new closure, since JAX remembers the traces of functions that it has seen.
        examples: arguments.
    """
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
    if is_traced_any(jaxpr.consts):  # it closes over values of a program that is being traced
        return function, shapes
    run, treedef = evaluator(jaxpr), jax.tree.structure(shapes)
    return lambda *arguments: jax.tree.unflatten(treedef, run(jax.tree.leaves(arguments))), shapes


def is_traced_any(tree: PyTree) -> bool:
    """Whether a leaf is traced: then the call is part of a larger program."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def static_unless_number(hparams: PyTree) -> PyTree:
    """Hyperparameters as arguments of a program: everything that is no number is wrapped as ``Static``."""

    def wrapped(leaf: Any) -> Any:
        number = isinstance(leaf, (int, float, complex, np.number)) and not isinstance(leaf, bool)
        return leaf if number or isinstance(leaf, Static) or hasattr(leaf, "shape") else Static(leaf)

    return jax.tree.map(wrapped, hparams, is_leaf=lambda leaf: leaf is None)
