"""Floating-point operations of a program and the bytes that they read and write, counted from its equations."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn import _ops
from jaxopt_nn._jaxprs.equations import opened, programs_in

__all__ = ["count_bytes", "count_flops", "flops_of"]

# What moves numbers and computes none.
_MOVES = frozenset((
    "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "device_put",
    "dynamic_slice", "dynamic_update_slice", "expand_dims", "gather", "imag", "name", _ops.BARRIER, "pad",
    "random_bits", "random_fold_in", "random_seed", "random_split", "random_unwrap", "random_wrap", "real", "reshape",
    "rev", "scatter", "select_n", "sharding_constraint", "slice", "split", "squeeze", "stop_gradient", "threefry2x32",
    "transpose"
))  # fmt: skip


def count_flops(fn: Callable[..., Any], *args: Any) -> tuple[int, Any]:
    """The floating-point operations of ``fn(*args)``, and the shapes of what it returns; nothing is computed.

    Two for a multiply-add of a matrix product or convolution, one for each element of any other floating-point result
    (``exp`` too), one for each element that is reduced; none for what only moves numbers, for integers and random bits.
    A ``scan`` counts as often as it loops, a ``while_loop`` once, of branches the largest. The compiler's own cost
    analysis agrees on products and convolutions, but takes the body of every loop once. It is the work of the plain
    forms of a layer's operations, whatever the machine does instead.

    >>> count_flops(lambda x, w: jnp.tanh(x @ w), jnp.ones((8, 5)), jnp.ones((5, 3)))[0]
    264
    """
    with _ops.plain_forms():
        program, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    return flops_of(program), shapes


def flops_of(program: Any) -> int:
    """The same of a closed jaxpr: of the forms that it holds."""
    return _of_jaxpr(program.jaxpr)


def count_bytes(fn: Callable[..., Any], *args: Any) -> int:
    """The bytes that the operations of ``fn(*args)`` read and write; nothing is computed.

    Operands and results of matrix products, convolutions, reductions, sorts, gathers and scatters; every iteration of a
    ``scan`` counts. What is computed number by number is taken to be fused with these. Arguments that are read for
    nothing else are not counted.

    >>> count_bytes(lambda x, w: jnp.tanh(x @ w), jnp.ones((8, 5)), jnp.ones((5, 3)))  # 4·(40 + 15 + 24)
    316
    """
    with _ops.plain_forms():
        return _bytes_of_jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)


_THROUGH_MEMORY = ("dot_general", "conv_general", "reduce", "cum", "arg", "sort", "gather", "scatter", "select_and")


def _bytes_of_jaxpr(jaxpr: Any) -> int:
    return sum(map(_bytes_of_equation, jaxpr.eqns))


def _bytes_of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name != "reduce_precision" and name.startswith(_THROUGH_MEMORY):
        values = [*equation.invars, *equation.outvars]
        return sum(_size(value) * value.aval.dtype.itemsize for value in values)
    counts = [_bytes_of_jaxpr(opened(program)) for program in programs_in(params)]
    if name == "cond":
        return max(counts)
    return params.get("length", 1) * sum(counts) if name == "scan" else sum(counts)


def _of_jaxpr(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"]
        if math.prod(params["lhs_dilation"]) > 1:  # a transposed one: each number of the input, the zeros are no work
            return (
                2
                * _size(equation.invars[0])
                * math.prod(kernel)
                // (kernel[numbers.rhs_spec[1]] * params["feature_group_count"])
            )
        return 2 * _size(equation.outvars[0]) * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    # A program that is applied to pairs of numbers: as it stands below.
    if name.startswith("reduce_window") or name == "select_and_gather_add":
        return _float_size(equation.outvars[0]) * math.prod(params.get("window_dimensions", ()))
    if name == "reduce" or name.startswith(("reduce_", "cum", "arg")):
        return _float_size(equation.invars[0])
    if name.startswith("scatter-"):
        return _float_size(equation.invars[2])
    if name in _MOVES:
        return 0
    counts = [_of_jaxpr(opened(program)) for program in programs_in(params)]
    if name == "cond":
        return max(counts)
    if counts:
        return params.get("length", 1) * sum(counts) if name == "scan" else sum(counts)
    return sum(_float_size(value) for value in equation.outvars[:1])


def _size(value: Any) -> int:
    return math.prod(value.aval.shape)


def _float_size(value: Any) -> int:
    return _size(value) if jnp.issubdtype(value.aval.dtype, jnp.inexact) else 0
