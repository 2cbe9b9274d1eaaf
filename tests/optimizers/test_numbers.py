import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.optimizers._numbers import as_decay, bias_correction, safe_rsqrt, safe_sqrt

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
