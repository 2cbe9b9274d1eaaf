"""What a jaxpr computes, as something to compare and to hash."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxopt_nn import _ops
from jaxopt_nn._jaxprs.equations import is_program, opened

__all__ = ["fingerprint", "identity"]


def fingerprint(program: Any) -> list[Any]:
    """A list that is equal for two traces of f exactly if they compute the same: operations, literals and constants."""
    parts: list[Any] = [_bytes(const) for const in program.consts]
    _collect(program.jaxpr, parts, _described)
    return parts


def identity(jaxpr: Any) -> tuple[Any, ...]:
    """What a jaxpr computes, to be hashed: equal for two that may share a compiled program, and for no others.

    The rules of ``custom_jvp``, ``custom_vjp`` and their like are left out: without another transformation they do
    nothing.
    """
    parts: list[Any] = []
    _collect(jaxpr, parts, _exact)
    return tuple(parts)


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


_CONTEXT = (
    "compute_type",
    "threefry_partitionable",
    "xla_metadata",
    "cur_abstract_mesh",
    "remove_size_one_mesh_axis",
)


_RULED = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", _ops.VMAP_RULE_CALL})


def _collect(jaxpr: Any, parts: list[Any], describe: Callable[[Any, str, Any], Any]) -> None:
    numbers: dict[Any, int] = {}
    for var in [*jaxpr.constvars, *jaxpr.invars]:
        numbers[var] = len(numbers)
        parts.append(describe(None, "input", var.aval))
    for equation in jaxpr.eqns:
        parts.append(equation.primitive.name)
        parts.append(tuple(_bytes(a.val) if isinstance(a, core.Literal) else numbers[a] for a in equation.invars))
        parts.append(describe(None, "context", _context(equation)))
        for var in equation.outvars:
            parts.append(describe(None, "output", var.aval))
            numbers[var] = len(numbers)
        for name, value in sorted(equation.params.items()):
            items = value if isinstance(value, (tuple, list)) else (value,)
            if any(is_program(item) for item in items):
                parts.append((name, len(items)))
                for item in items:
                    if is_program(item):
                        parts.extend(_bytes(const) for const in getattr(item, "consts", ()))
                        _collect(opened(item), parts, describe)
                    else:  # one of several programs that is left out, as in ``custom_linear_solve``
                        parts.append(describe(equation, name, item))
            else:
                parts.append((name, describe(equation, name, value)))
    parts.append(tuple(_bytes(a.val) if isinstance(a, core.Literal) else numbers[a] for a in jaxpr.outvars))


def _described(equation: Any, name: str, value: Any) -> Any:
    """A parameter as text without memory addresses. None for a callable: each trace makes a new one."""
    return None if equation is not None and callable(value) else _ADDRESS.sub("", repr(value))


def _exact(equation: Any, name: str, value: Any) -> Any:
    """A parameter itself, equal to nothing but its like: to no other where it cannot be compared."""
    if equation is not None and equation.primitive.name in _RULED:
        return None
    if callable(value):  # whatever its class says of equality
        return _Itself(value)
    try:
        hash(value)
    except TypeError:
        return object()
    # 1, 1.0 and True are equal, 0.0 and -0.0 too
    return (
        type(value),
        value,
        repr(value) if isinstance(value, (bool, int, float, complex, tuple, np.generic)) else "",
    )


class _Itself(NamedTuple):
    """Equal to what holds the very same object."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _context(equation: Any) -> tuple[Any, ...]:
    """What an equation takes from where it was traced, besides its inputs and parameters."""
    context = getattr(equation, "ctx", None)
    return tuple(getattr(context, name, None) for name in _CONTEXT)


def _bytes(value: Any) -> Any:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    try:
        array = np.asarray(value)
    except TypeError:  # not an array: an opaque constant
        return _ADDRESS.sub("", repr(value))
    return str(array.dtype), array.shape, array.tobytes()
