from decimal import Decimal, getcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.optimizers._algorithms.radam import _rectification
from jaxopt_nn.optimizers._numerics.numbers import as_decay, bias_correction, safe_divide, safe_rsqrt, safe_sqrt

BETAS = [0.0, 1e-30, 1e-9, 0.1, 0.5, 0.9, 0.999, 0.99999, 0.9999999]


COUNTS = np.array([1, 2, 3, 10, 1000, 10**6], np.int32)


def _sweep(fn, betas, traced):
    """``fn`` of each β, as a number of the program or as lanes of it."""
    if traced:
        return jax.jit(jax.vmap(fn))(jnp.array(betas, jnp.float32))
    return jax.jit(lambda: [fn(beta) for beta in betas])()


@pytest.mark.parametrize("traced", [False, True])
def test_bias_correction_keeps_its_digits(traced):
    betas = [float(np.float32(beta)) for beta in BETAS]
    found = _sweep(lambda beta: bias_correction(as_decay("beta", beta), COUNTS, jnp.float32), betas, traced)
    for got, beta in zip(found, betas, strict=True):
        exact = np.ones(len(COUNTS)) if beta == 0.0 else -np.expm1(COUNTS * np.log(beta))
        np.testing.assert_allclose(got, exact, rtol=1e-6)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_bias_correction_has_its_derivative(derivative):
    betas, counts = np.array(BETAS, np.float32), COUNTS[:4]
    found = _sweep(derivative(lambda beta: bias_correction(as_decay("beta", beta), counts, jnp.float32)), betas, True)
    exact = -counts * betas[:, None].astype(float) ** (counts - 1)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)


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
def test_radam_rectifies_in_float32_when_and_as_it_would_in_fifty_digits(traced):
    """The length of the average as it is written loses six digits near β = 1, and may start a step early or late."""
    getcontext().prec = 50
    betas = [float(np.float32(beta)) for beta in (0.0, 0.3, 0.6, 0.7, 0.9, 0.99, 0.999, 0.9999, 0.99999)]
    counts = [*range(1, 40), 300, 3000, 10**5, 10**6]

    def rectification(beta):
        return _rectification(as_decay("beta", beta), jnp.array(counts), jnp.float32(5.0), jnp.float32)

    found = _sweep(rectification, betas, traced)
    found = zip(*found, strict=True) if traced else found
    for beta, (rectifies, factors) in zip(betas, found, strict=True):
        longest = 2 / (1 - Decimal(beta)) - 1
        for count, now, got in zip(counts, rectifies, factors, strict=True):
            power = Decimal(beta) ** count
            length = longest - 2 * count * power / (1 - power)
            assert bool(now) == (length > 5)
            if length > 5:
                square = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                np.testing.assert_allclose(got, float(square.sqrt()), rtol=3e-6)


def test_the_rectification_has_its_derivative():
    with jax.enable_x64(True):
        betas, counts = jnp.array([0.5, 0.8, 0.999]), jnp.array([3, 7, 40, 3000])

        def factors(beta):
            return _rectification(as_decay("beta", beta), counts, jnp.asarray(5.0), jnp.float64)[1]

        step = 1e-5 * (1 - betas)
        points = betas - step, betas + step, betas
        low, high, slopes = jax.jit(
            lambda: [jax.vmap(fn)(at) for fn, at in zip((factors, factors, jax.jacrev(factors)), points, strict=True)]
        )()
        np.testing.assert_allclose(slopes, (high - low) / (2 * step[:, None]), rtol=1e-6, atol=1e-9)
