"""Floating-point operations of a program, counted from its equations."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["count_flops"]

# What moves numbers and computes none.
_MOVES = frozenset((
    "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "device_put",
    "dynamic_slice", "dynamic_update_slice", "expand_dims", "gather", "imag", "name", "optimization_barrier", "pad",
    "random_bits", "random_fold_in", "random_seed", "random_split", "random_unwrap", "random_wrap", "real", "reshape",
    "rev", "scatter", "select_n", "sharding_constraint", "slice", "split", "squeeze", "stop_gradient", "threefry2x32",
    "transpose"
))  # fmt: skip


def count_flops(fn: Callable[..., Any], *args: Any) -> tuple[int, Any]:
    """The floating-point operations of ``fn(*args)``, and the shapes of what it returns; nothing is computed.

    Two for a multiply-add of a matrix product or convolution, one for each element of any other floating-point result
    (``exp`` too), one for each element that is reduced; none for what only moves numbers, for integers and random bits.
    A ``scan`` counts as often as it loops, a ``while_loop`` once, of branches the largest. XLA's own cost analysis
    agrees on products and convolutions, but takes the body of every loop once.

    >>> count_flops(lambda x, w: jnp.tanh(x @ w), jnp.ones((8, 5)), jnp.ones((5, 3)))[0]
    264
    """
    program, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    return _of_jaxpr(program.jaxpr), shapes


def _of_jaxpr(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, outputs = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec[0]
        products = _size(equation.outvars[0]) * math.prod(kernel) // kernel[outputs]
        # Of a transposed one, the zeros in between are no work.
        return 2 * products // math.prod(params["lhs_dilation"])
    if name == "scan":
        return params["length"] * _of_jaxpr(params["jaxpr"].jaxpr)
    if name == "cond":
        return max(_of_jaxpr(branch.jaxpr) for branch in params["branches"])
    inside = [_of_jaxpr(getattr(value, "jaxpr", value)) for value in params.values() if _is_program(value)]
    if inside:
        return sum(inside)
    if name in _MOVES:
        return 0
    if name.startswith("reduce_window") or name == "select_and_gather_add":
        return _float_size(equation.outvars[0]) * math.prod(params.get("window_dimensions", ()))
    if name.startswith(("reduce_", "cum", "arg")):
        return _float_size(equation.invars[0])
    return sum(_float_size(value) for value in equation.outvars[:1])


def _is_program(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def _size(value: Any) -> int:
    return math.prod(value.aval.shape)


def _float_size(value: Any) -> int:
    return _size(value) if jnp.issubdtype(value.aval.dtype, jnp.inexact) else 0
