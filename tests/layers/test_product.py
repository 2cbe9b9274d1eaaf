"""The matrix product of layers, beside jnp's: in lanes its derivatives are computed otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.layers import _product
from jaxopt_nn.layers._product import times_matrix

LANES = 3


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)


def of_a_number(product):
    return lambda x, matrix: jnp.sum(jnp.sin(product(x, matrix)))


def arguments(lanes_of_x, lanes_of_matrix, shape=(2, 4, 5), features=7):
    x_key, matrix_key = jax.random.split(jax.random.key(0))
    x = jax.random.normal(x_key, (LANES,) * lanes_of_x + shape, float)
    return x, jax.random.normal(matrix_key, (LANES,) * lanes_of_matrix + (shape[-1], features), float)


def derivatives(product):
    """Of each order and mode that training and checking take."""
    function = of_a_number(product)
    gradient = jax.grad(function, (0, 1))

    def every_one(x, matrix):
        ones = jnp.ones_like(x), jnp.ones_like(matrix)
        squares = jax.grad(lambda *at: sum(jnp.vdot(part, part) for part in gradient(*at)), (0, 1))
        return product(x, matrix), gradient(x, matrix), jax.jvp(gradient, (x, matrix), ones), squares(x, matrix)

    return every_one


@pytest.mark.parametrize("features", [1, 7, 20])
@pytest.mark.parametrize("small", [0, 2**16])
@pytest.mark.parametrize("lanes", [(0, 1), (1, 0), (1, 1), (0, 0)])
def test_values_and_derivatives_are_those_of_jnp(monkeypatch, lanes, small, features):
    monkeypatch.setattr(_product, "_SMALL", small)
    with jax.enable_x64(True):
        axes = tuple(0 if has else None for has in lanes)
        both = [derivatives(product) for product in (times_matrix, jnp.matmul)]
        if any(lanes):
            both = [jax.vmap(function, axes) for function in both]
        close(*(jax.jit(function)(*arguments(*lanes, features=features)) for function in both))


def test_lanes_within_lanes_and_the_gradient_of_all_of_them():
    with jax.enable_x64(True):
        x, matrix = arguments(1, 1)

        def of_all(product):
            inner = jax.vmap(of_a_number(product), (None, 0))
            return jax.grad(lambda x, matrix: jnp.sum(jax.vmap(inner, (0, None))(x, matrix)), (0, 1))

        close(*(jax.jit(of_all(product))(x, matrix) for product in (times_matrix, jnp.matmul)))


@pytest.mark.parametrize("rows", [2, 9])
@pytest.mark.parametrize("features", [1, 7, 20])
@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0), (None, 1), (1, None), (1, 1), (0, 1), (1, 0), (0, 2)])
def test_the_derivative_of_lanes_of_a_loop(axes, features, rows):
    """JAX traces a loop's product before its derivative: both must have their lanes on the same axis, equal or not."""
    arrays = arguments(*(axis is not None for axis in axes), (rows, 5), features)
    x, matrix = (a if axis is None else jnp.moveaxis(a, 0, axis) for a, axis in zip(arrays, axes, strict=True))

    def last(product):
        def loop(x, matrix):
            return jax.lax.scan(lambda m, _: (m + 0.1 * jnp.sum(product(x, m)), product(x, m)), matrix, length=2)[1][-1]

        return jax.vmap(loop, axes)

    found, expected = (jax.jacfwd(last(product), (0, 1))(x, matrix) for product in (times_matrix, jnp.matmul))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


def test_a_large_input_is_not_copied_for_each_lane():
    """Of 784 numbers in and 10 out, 3 lanes would take 235 times the memory of the outputs."""
    x, matrix = arguments(0, 1, (10_000, 784), 10)
    program = jax.jit(jax.vmap(times_matrix, (None, 0))).lower(x, matrix).as_text()
    assert f"tensor<{LANES}x10000x784xf32>" not in program
    small = jax.jit(jax.vmap(times_matrix, (None, 0))).lower(x[:8], matrix).as_text()
    assert (f"tensor<{LANES}x8x784xf32>" in small) == (jax.default_backend() == "cpu")
