"""Functions that JAX cannot trace, as courses have them: judged by differences alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, Y, W = RNG.standard_normal((8, 3)), RNG.standard_normal((8, 2)), {"W": RNG.standard_normal((3, 2)), "b": np.ones(2)}


def loss(params, x, y):
    scores = x @ params["W"]
    scores += params["b"]
    return np.mean(np.maximum(scores - y, 0.1 * (scores - y)) ** 2)


def backward(params, x, y):
    error = x @ params["W"] + params["b"] - y
    delta = np.zeros_like(error)
    delta[error > 0] = 2 * error[error > 0]
    delta[error <= 0] = 0.02 * error[error <= 0]
    return {"W": x.T @ delta / error.size, "b": np.sum(delta, 0) / error.size}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("factor", "verdict"), [(1, "PASS"), (-1, "FAIL")])
def test_a_loss_and_its_gradient_in_numpy(factor, verdict, dtype):
    claim = lambda *args: jax.tree.map(lambda g: factor * g, backward(*args))  # noqa: E731
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), W)
    kept = jax.tree.map(np.copy, params)
    report = check_gradients(loss, params, X, Y, argnums=0, grad_fn=claim, key=KEY)
    assert report.verdict == verdict, report
    assert report.notes[0].startswith("JAX cannot trace f ("), report
    jax.tree.map(np.testing.assert_array_equal, params, kept)
    if factor == -1:
        assert "the sign is flipped" in report.leaves[0].hypothesis


def test_a_claim_of_a_jax_loss_may_be_in_jax_or_write_into_arrays_of_numpy():
    def writes(x):
        x[:] = 2 * x
        return x

    for claim in (lambda x: (2 * x).at[0].multiply(1.0), writes):
        assert check_gradients(lambda x: jnp.sum(x**2), X[0].copy(), grad_fn=claim, key=KEY).verdict == "PASS"


def test_an_array_output_a_kink_and_numbers_of_python():
    assert check_gradients(lambda x: math.sin(x), 0.3, grad_fn=lambda x: math.cos(x), key=KEY).verdict == "PASS"
    kinked = lambda x: float(np.sum(np.abs(x)))  # noqa: E731
    assert check_gradients(kinked, np.array([0.0, 1.0]), grad_fn=np.sign, key=KEY).verdict == "KINK_OK"


def test_a_branch_of_python_is_differentiated_step_by_step():
    f = lambda x: jnp.sum(x**2) if x[0] > 0 else jnp.sum(x)  # noqa: E731
    report = check_gradients(f, X[0].astype(np.float32), key=KEY)
    assert report.verdict == "PASS" and "TracerBoolConversionError" in report.notes[0]


def test_what_has_no_claim_is_asked_for_one():
    with pytest.raises(TypeError, match=r"f: JAX cannot differentiate it .*: pass .* as grad_fn"):
        check_gradients(loss, W, X, Y, argnums=0, key=KEY)


def test_an_error_of_f_itself_is_raised_as_it_is():
    def broken(x):
        raise KeyError("kernel")

    with pytest.raises(KeyError, match="kernel"):
        check_gradients(broken, X, key=KEY)
