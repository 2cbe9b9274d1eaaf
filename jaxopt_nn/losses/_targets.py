"""Checks before a loss is used: whether its targets are valid, and whether its outputs are logits."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend.core import Jaxpr, Literal

from jaxopt_nn._arguments import UnusableValueError
from jaxopt_nn.losses._arrays import Loss
from jaxopt_nn.losses._classification import (
    kl_divergence,
    ordinal,
    sigmoid_cross_entropy,
    sigmoid_focal,
    softmax_cross_entropy,
    softmax_focal,
)
from jaxopt_nn.types import Array, PyTree

__all__ = ["activation_before", "check_targets"]

_OF_LOGITS = (kl_divergence, ordinal, sigmoid_cross_entropy, sigmoid_focal, softmax_cross_entropy, softmax_focal)


def check_targets(name: str, loss: Loss, outputs: PyTree, targets: PyTree) -> None:
    """Raises if ``loss`` refuses a target: a class out of range, a probability outside of [0, 1].

    The loss is traced, with concrete targets and with outputs of which only the shapes are known. So every row is
    checked by the loss itself, and nothing is computed or compiled. Only this library's own errors about values are
    raised, also if a user's loss calls one of ours. Any other error will show when the loss is used.

    Args:
        name: the name of the targets in messages, such as ``"train.y"``.
        loss: or a metric, ``(outputs, targets) -> [N]``.
        outputs: ``jax.ShapeDtypeStruct`` or arrays ``[anything, ...]``: the first axis is that of the targets here.
        targets: ``[N, ...]``; nothing is checked if they are traced.

    Raises:
        ValueError: it names the first such target.
    """
    leaves = jax.tree.leaves(targets)
    if not leaves or not all(isinstance(leaf, (np.ndarray, jax.Array)) for leaf in leaves):
        return
    if any(isinstance(leaf, Tracer) or leaf.ndim == 0 for leaf in leaves):
        return
    rows = leaves[0].shape[0]
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), outputs)
    # NumPy arrays stay concrete inside of a wrapper such as `lambda o, t: loss(o, t[:, None])`.
    values = jax.tree.map(np.asarray, targets)
    try:
        jax.eval_shape(lambda outputs: loss(outputs, values), shapes)
    except UnusableValueError as error:
        raise ValueError(f"{name}, as the loss takes it: {error}") from error
    except Exception:
        return


def activation_before(loss: Loss, outputs: Callable[..., Array], *args: PyTree) -> str | None:
    """The ``"softmax"`` or ``"sigmoid"`` that ``outputs(*args)`` ends with, if ``loss`` is one that takes logits.

    Such a model learns slowly and badly, without an error. The function is traced and not run, so ``args`` may be
    shapes. A loss is recognized by itself or in a ``functools.partial``, but not inside of another function, which may
    take the logarithm first.
    """
    while isinstance(loss, functools.partial):
        loss = loss.func
    if loss not in _OF_LOGITS:
        return None
    jaxpr = jax.make_jaxpr(outputs)(*args).jaxpr
    last = _made_by(jaxpr, jaxpr.outvars[0]) if len(jaxpr.outvars) == 1 else None
    return last if isinstance(last, str) else None


_MOVES = {"broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze", "transpose"}


def _made_by(jaxpr: Jaxpr, var: Any) -> Any:
    """The name of the activation that computes ``var``; or the input of ``jaxpr`` that it is, reshaped; or None."""
    makers = {source: eqn for eqn in jaxpr.eqns for source in eqn.outvars}
    while not isinstance(var, Literal):
        if var not in makers:
            return var
        eqn = makers[var]
        operation, inner = eqn.primitive.name, _called(eqn)
        if operation == "logistic":
            return "sigmoid"
        if operation == "div":
            above, below = (_operation(makers, each) for each in eqn.invars)
            return "softmax" if above == "exp" and below == "reduce_sum" else None
        if inner is not None:
            source = _made_by(inner, inner.outvars[eqn.outvars.index(var)])
            if source is None or isinstance(source, str) or source not in inner.invars:
                return source if isinstance(source, str) else None
            var = eqn.invars[inner.invars.index(source)]
        elif operation in _MOVES:
            var = eqn.invars[0]
        else:
            return None
    return None


def _operation(makers: dict[Any, Any], var: Any) -> str:
    """The primitive that computes ``var``; reshapes and the like are skipped."""
    while not isinstance(var, Literal) and var in makers:
        if makers[var].primitive.name not in _MOVES | {"stop_gradient"}:
            return makers[var].primitive.name
        var = makers[var].invars[0]
    return ""


def _called(eqn: Any) -> Any:
    """The program that an operation, such as ``jit``, calls with its inputs for its outputs; None if there is none."""
    for value in eqn.params.values():
        inner = getattr(value, "jaxpr", value)
        if isinstance(inner, Jaxpr):
            same = len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(eqn.outvars)
            return inner if same else None
    return None
