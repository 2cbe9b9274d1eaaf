"""Second order: products of the Hessian by differences, and its symmetry."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients

KEY = jax.random.key(0)


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@jax.custom_vjp
def sin_with_a_constant_slope(x):
    return jnp.sin(x)


sin_with_a_constant_slope.defvjp(
    lambda x: (jnp.sin(x), jax.lax.stop_gradient(jnp.cos(x))), lambda cos, ct: (ct * jax.lax.stop_gradient(cos),)
)


def test_a_right_gradient_with_a_wrong_hessian_fails_in_the_second_order():
    f = lambda x: sin_with_a_constant_slope(x) ** 2  # noqa: E731, an array: it gets a random cotangent
    assert check_gradients(f, draws(1, 30), key=KEY).ok
    report = check_gradients(f, draws(1, 30), key=KEY, order=2)
    assert (report.verdict, report.ok, report.second.ok) == ("BLOCKED", False, False)  # the worse of both orders
    assert {leaf.verdict for leaf in report.leaves} == {"PASS"}
    assert "second order" in str(report)
    json.dumps(report.to_dict(), allow_nan=False)
    assert check_gradients(lambda x: jnp.mean(jnp.sin(x) ** 2), draws(1, 30), key=KEY, order=2).ok


def test_a_gradient_of_no_function_has_an_asymmetric_hessian():
    """Its first order is right within rtol, the exact oracle is blind, and differences of it agree with themselves."""

    def value(a, b):
        return jax.lax.while_loop(lambda c: c[1] < 1, lambda c: (jnp.sum(jnp.sin(a) * b**2), 1), (jnp.zeros(()), 0))[0]

    def backward(kept, ct):
        a, b = kept
        curl = 1e-7 * jnp.sin(100 * b)
        return ct * (jnp.cos(a) + curl) * b**2, 2 * ct * b * jnp.sin(a)

    f = jax.custom_vjp(value)
    f.defvjp(lambda a, b: (value(a, b), (a, b)), backward)
    report = check_gradients(f, draws(1, 20), draws(2, 20), key=KEY, order=2)
    assert (report.verdict, report.ok) == ("FAIL", False), report  # the worse of both orders
    assert {leaf.verdict for leaf in report.leaves} == {"PASS"}
    assert {leaf.verdict for leaf in report.second.leaves} == {"PASS"}
    assert any("the Hessian is not symmetric" in note for note in report.second.notes)


@pytest.mark.slow
def test_a_hessian_that_is_round_off_is_not_wrong():
    """The cross-entropy of a single class is 0, and its derivatives are but for round-off; the penalty is straight."""

    def f(w, x, t):
        outputs = jax.nn.hard_tanh(x @ w["hidden"] + w["shift"][None]) @ w["kernel"] + w["bias"][None]
        losses = -jnp.sum(jax.nn.softmax(t) * jax.nn.log_softmax(outputs), axis=-1)
        return 40 * (losses + 0.01 * sum(jnp.sum(jnp.abs(w[name])) for name in ("hidden", "kernel")))

    for seed in range(6):
        draw = np.random.default_rng(seed).standard_normal
        w = {"hidden": draw((4, 2)), "shift": draw(2), "kernel": draw((2, 1)), "bias": draw(1)}
        w, x, t = (jax.tree.map(np.float32, part) for part in (w, draw((3, 4)), draw((3, 1))))
        report = check_gradients(f, w, x, t, argnums=(0, 1), key=jax.random.key(seed), order=2)
        assert report.ok or report.second.verdict == "INCONCLUSIVE", report


def test_the_slope_that_is_checked_does_not_cancel():
    """Its size says how large its round-off may be: (∇f)ᵀu of free signs may be far below the terms it is made of."""
    slopes = draws(3, 200).astype(np.float64)
    for seed in range(5):
        report = check_gradients(lambda x: x @ slopes + 1e-3 * x @ x, draws(4, 200), key=jax.random.key(seed), order=2)
        assert report.second.value > 0.5 * np.abs(slopes).sum()  # the mean of |u| is 0.8
