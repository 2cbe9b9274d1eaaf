"""The matrix product that layers make of inputs with any number of axes."""

import math

import jax
from jax import lax

from jaxopt_nn._cpu import VECTOR, one_cpu
from jaxopt_nn._lanes import in_lanes, lane_by_lane
from jaxopt_nn.types import Array

__all__ = ["times_matrix"]

_SMALL = 2**16  # numbers of a lane's matrix: such a copy costs less than it saves


def times_matrix(x: Array, matrix: Array) -> Array:
    """``x @ matrix`` for ``x`` ``[..., I]`` and ``matrix`` ``[I, O]``, on a CPU as the product of two matrices.

    The gradient of a product with more axes is one whose cotangent XLA for CPUs first copies to a transposed array,
    number by number: on sequences ``[64, 16, 64]`` a step then takes twice as long.

    Lanes with matrices of their own that share ``x`` get it each. As one product of ``x`` and all matrices side by
    side, these and what comes out would be copied to and fro.
    """
    if not one_cpu():
        return x @ matrix
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return _product(rows, matrix).reshape(*x.shape[:-1], matrix.shape[-1])


@jax.custom_jvp
def _product(x: Array, matrix: Array) -> Array:
    """``x @ matrix`` whose gradient has, in lanes, no transposed matrices in products: XLA for CPUs is slow there."""
    product = _given(x, matrix) @ matrix
    # JAX takes the lanes of what the rule returns to be on the axis of this one: there a cond's are on the first.
    return lane_by_lane(product, matrix) if _few_columns(x, matrix) else product


@_product.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, matrix = primals
    x_dot, matrix_dot = tangents
    x_turned, turned = _transposed(_given(x, matrix), matrix)
    # What is turned back here is not so in the transpose of these products, which reverse mode takes.
    moved = x_dot @ turned.T + x_turned.T @ matrix_dot
    if not _few_columns(x, matrix):
        return _product(x, matrix), moved
    # In lanes both copies are there: so the few columns stand as rows. The barrier keeps XLA from turning that back.
    product = lax.cond(
        in_lanes(matrix),
        lambda: lax.optimization_barrier(turned @ x_turned).T,
        lambda: _product(x, matrix),
    )
    return product, moved


def _given(x: Array, matrix: Array) -> Array:
    """``x``, to each lane that has its own matrix, if that takes no more memory than the products do."""
    return lane_by_lane(x, matrix) if x.size <= matrix.size + x.shape[0] * matrix.shape[1] else x


def _transposed(x: Array, matrix: Array) -> tuple[Array, Array]:
    """Both, turned; if they are small, in lanes as copies, which XLA does not make a part of the next product."""
    turned = x.T, matrix.T
    if not _small(x, matrix):
        return turned
    return lax.cond(in_lanes(matrix), lax.optimization_barrier, lambda both: both, turned)


def _few_columns(x: Array, matrix: Array) -> bool:
    return matrix.shape[1] < VECTOR and _small(x, matrix)


def _small(x: Array, matrix: Array) -> bool:
    return max(x.size, matrix.size) <= _SMALL
