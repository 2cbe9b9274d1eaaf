from decimal import Decimal, getcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.optimizers._numbers import as_decay, bias_correction, safe_divide, safe_rsqrt, safe_sqrt
from jaxopt_nn.optimizers._radam import _rectification

BETAS = [0.0, 1e-30, 1e-9, 0.1, 0.5, 0.9, 0.999, 0.99999, 0.9999999]


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("beta", BETAS)
def test_bias_correction_keeps_its_digits(beta, traced):
    beta = float(np.float32(beta))
    decay = as_decay("beta", jnp.float32(beta) if traced else beta)
    for count in (1, 2, 3, 10, 1000, 10**6):
        exact = 1.0 if beta == 0.0 else -np.expm1(count * np.log(beta))
        np.testing.assert_allclose(bias_correction(decay, jnp.int32(count), jnp.float32), exact, rtol=1e-6)


@pytest.mark.parametrize("beta", BETAS)
def test_bias_correction_has_its_derivative(beta):
    beta = np.float32(beta)
    for count in (1, 2, 3, 10):

        def correction(beta, count=count):
            return bias_correction(as_decay("beta", beta), jnp.int32(count), jnp.float32)

        exact = -count * float(beta) ** (count - 1)
        for derivative in (jax.grad(correction), jax.jacfwd(correction)):
            np.testing.assert_allclose(derivative(jnp.float32(beta)), exact, rtol=1e-5, atol=1e-6)


def test_complement_is_that_of_a_double_or_exact():
    assert as_decay("beta", 0.9999999).complement == 1 - 0.9999999
    assert as_decay("beta", np.float64(0.9999999)).complement == 1 - 0.9999999
    traced = jax.jit(lambda beta: as_decay("beta", beta).complement)(jnp.float32(0.9999999))
    assert float(traced) == 1.0 - float(np.float32(0.9999999))
    low = as_decay("beta", jnp.bfloat16(0.99))
    assert low.complement.dtype == jnp.float32
    assert float(low.complement) == 1.0 - float(jnp.bfloat16(0.99))


def test_roots_at_zero_infinity_and_nan():
    x = jnp.array([0.0, 4.0, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(safe_sqrt(x), [0.0, 2.0, jnp.inf, jnp.nan])
    np.testing.assert_allclose(safe_rsqrt(x), [0.0, 0.5, 0.0, jnp.nan])
    slopes = [jax.vmap(jax.grad(root))(x[:2]) for root in (safe_sqrt, safe_rsqrt)]
    np.testing.assert_allclose(slopes, [[0.0, 0.25], [0.0, -0.0625]], rtol=1e-6)
    for root in (safe_sqrt, safe_rsqrt):
        assert jax.grad(jax.grad(root))(0.0) == 0.0
    curvatures = [jax.grad(jax.grad(root))(4.0) for root in (safe_sqrt, safe_rsqrt)]
    np.testing.assert_allclose(curvatures, [-0.25 * 4.0**-1.5, 0.75 * 4.0**-2.5], rtol=1e-5)


def test_a_quotient_at_zero_infinity_and_nan():
    x, y = jnp.array([3.0, 0.0, 3.0, jnp.nan, 1.0]), jnp.array([2.0, 0.0, jnp.inf, 1.0, jnp.nan])
    np.testing.assert_array_equal(safe_divide(x, y), [1.5, 0.0, 0.0, jnp.nan, jnp.nan])
    slopes = jax.vmap(jax.grad(safe_divide, argnums=(0, 1)))(x[:2], y[:2])
    np.testing.assert_allclose(slopes, [[0.5, 0.0], [-0.75, 0.0]])


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.6, 0.7, 0.9, 0.99, 0.999, 0.9999, 0.99999])
def test_radam_rectifies_in_float32_when_and_as_it_would_in_fifty_digits(beta, traced):
    """The length of the average as it is written loses six digits near β = 1, and may start a step early or late."""
    getcontext().prec = 50
    beta = float(np.float32(beta))
    decay, exact = as_decay("beta", jnp.float32(beta) if traced else beta), Decimal(beta)
    for count in [*range(1, 40), 300, 3000, 10**5, 10**6]:
        longest, power = 2 / (1 - exact) - 1, exact**count
        length = longest - 2 * count * power / (1 - power)
        rectifies, got = _rectification(decay, jnp.int32(count), jnp.float32(5.0), jnp.float32)
        assert bool(rectifies) == (length > 5)
        if length > 5:
            square = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            np.testing.assert_allclose(got, float(square.sqrt()), rtol=3e-6)


def test_the_rectification_has_its_derivative():
    with jax.enable_x64(True):
        for beta in (0.5, 0.8, 0.999):
            for count in (3, 7, 40, 3000):

                def factor(beta, count=count):
                    return _rectification(as_decay("beta", beta), jnp.int32(count), jnp.asarray(5.0), jnp.float64)[1]

                step = 1e-5 * (1 - beta)
                difference = (factor(jnp.asarray(beta + step)) - factor(jnp.asarray(beta - step))) / (2 * step)
                np.testing.assert_allclose(jax.grad(factor)(beta), difference, rtol=1e-6, atol=1e-9)
