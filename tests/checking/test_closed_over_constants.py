"""Constants that a function closes over: the check works in float64, and the function in float32 before and after."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxopt_nn import losses
from jaxopt_nn.checking import check_gradients, check_loss, check_rule

KEY = jax.random.key(0)
X = np.arange(3, dtype=np.float32) + 0.5
MEAN = np.array([1.0, 2.0, 3.0])


@jax.jit
def inner(x):
    return x * MEAN


USES = {
    "plain": lambda c: lambda x: jnp.sum((x - c) ** 2),
    "matmul": lambda c: lambda x: (x @ c) ** 2,
    "scan": lambda c: lambda x: jnp.sum(lax.scan(lambda s, _: (s * c * 0.3, None), x, None, 2)[0]),
    "jit": lambda c: lambda x: jnp.sum((inner(x) - c) ** 2),
    "zero-dimensional": lambda c: lambda x: jnp.sum((x * np.asarray(c.sum())) ** 2) * float(c[0]),
}


@pytest.mark.parametrize("dtype", ["float64", "int64"])
@pytest.mark.parametrize("name", USES)
def test_an_array_of_numpy_is_in_the_check_what_it_is_in_the_callers_own_call(name, dtype):
    f = USES[name](MEAN.astype(dtype))
    before = jax.jit(jax.grad(f))(X)
    assert check_gradients(f, X, key=KEY).verdict == "PASS"
    for again in (jax.grad(f)(X), jax.jit(jax.grad(lambda x: f(x)))(X)):  # JAX keeps nothing of the check's
        assert again.dtype == np.float32
        np.testing.assert_allclose(again, before, rtol=1e-6)


def test_a_claim_that_is_jitted_and_second_order():
    f = USES["plain"](MEAN)
    report = check_gradients(f, X, grad_fn=jax.jit(jax.grad(f)), order=2, key=KEY)
    assert report.verdict == "PASS" and report.second.verdict == "PASS"
    doubled = jax.jit(lambda x: 2 * jax.grad(f)(x))
    assert check_gradients(f, X, grad_fn=doubled, key=KEY).verdict == "FAIL"
    assert doubled(X).dtype == np.float32


def test_a_rule_that_closes_over_one():
    sin = jax.custom_jvp(lambda x: jnp.sin(x) * MEAN)
    sin.defjvps(lambda t, out, x: t * jnp.cos(x) * MEAN)
    jax.jit(sin)(X)
    assert check_rule(sin, X, key=KEY).verdict == "PASS"
    assert jax.jit(lambda x: sin(x) + 1)(X).dtype == np.float32


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_a_loss_that_looks_its_class_weights_up(array):
    """Labels are no tracers in the caller's own call, so an array of NumPy may be indexed with them."""
    classes, labels = array([1.0, 2.0, 3.0]), np.array([0, 1, 2, 0])
    outputs = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    loss = lambda o, t: losses.softmax_cross_entropy(o, t) * classes[t]  # noqa: E731
    assert check_loss(loss, outputs, labels, key=KEY).verdict == "PASS"
    by_hand = lambda o, t: (jax.nn.softmax(o) - jax.nn.one_hot(t, 3)) * classes[t][:, None]  # noqa: E731
    total = lambda o, t: jnp.sum(loss(o, t))  # noqa: E731
    assert check_gradients(total, outputs, labels, argnums=0, grad_fn=by_hand, key=KEY).verdict == "PASS"
