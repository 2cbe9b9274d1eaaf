"""In float64 whatever the caller's precision is; the gradient in that precision is a question of its own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients

KEY = jax.random.key(0)


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_the_precision_of_the_process_is_untouched():
    x = draws(1, 10)
    seen = []

    def f(x):
        seen.append((x.dtype, jax.config.jax_default_matmul_precision))
        return jnp.sum(x**2)

    with jax.enable_x64(False):
        check_gradients(f, x, key=KEY)
        assert jnp.ones(()).dtype == jnp.float32
        assert jax.config.jax_default_matmul_precision is None
        with pytest.raises(ValueError, match="f: expected a finite value"):
            check_gradients(lambda x: jnp.log(-jnp.sum(x**2)), x, key=KEY)
        assert jnp.ones(()).dtype == jnp.float32
    assert (jnp.float64, "highest") in seen


def test_bfloat16_leaves_are_widened_and_their_own_error_is_recorded():
    x = jnp.asarray(draws(1, 500), jnp.bfloat16)
    leaf = check_gradients(lambda x: jnp.sum(jnp.tanh(x)), x, key=KEY).leaves[0]
    assert (leaf.verdict, leaf.dtype) == ("PASS", "bfloat16")
    assert 1e-4 < leaf.dtype_error < 0.1


def test_a_gradient_that_is_wrong_in_float32_only_has_a_verdict_of_its_own():
    def normalized(x, two_pass):
        centre = jnp.mean(x)
        variance = jnp.mean((x - centre) ** 2) if two_pass else jnp.mean(x**2) - centre**2
        return jnp.mean(((x - centre) / jnp.sqrt(variance + 1e-5)) ** 3)

    bad, good = (check_gradients(partial(normalized, two_pass=two), draws(1, 50) + 2000, key=KEY) for two in (0, 1))
    assert (bad.verdict, bad.leaves[0].verdict, bad.dtype_verdict, bad.ok) == ("FAIL", "PASS", "FAIL", False)
    assert str(bad).startswith("gradient check: FAIL (1 FAIL in float32); ")
    assert (good.verdict, good.dtype_verdict, good.ok) == ("PASS", "PASS", True)


X = draws(3, 16, 8)


def net(w, inner):
    """A layer that computes in a shorter float."""
    h = (jnp.asarray(X, inner) @ w.astype(inner)).astype(jnp.float32)
    return jnp.mean(jnp.tanh(h * jax.lax.rsqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-6)) ** 3)


@pytest.mark.parametrize("inner", [jnp.float32, jnp.bfloat16])
def test_a_shorter_float_inside_of_f_hides_nothing(inner):
    f, w = partial(net, inner=inner), draws(2, 8, 5)
    report = check_gradients(f, w, key=KEY)
    assert report.ok, report
    assert any(f"{jnp.dtype(inner)} at test_float64.py" in note for note in report.notes)
    for factor in (1.1, 2.0):
        wrong = check_gradients(f, w, grad_fn=lambda w, by=factor: by * jax.grad(f)(w), key=KEY)
        assert wrong.verdict == "FAIL", wrong


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.1, "FAIL"), (2.0, "FAIL")])
def test_a_claim_in_bfloat16_is_told_from_a_factor(factor, verdict):
    f = lambda w: jnp.mean(jnp.tanh(X.astype(w.dtype) @ w) ** 2)  # noqa: E731
    claim = lambda w: (factor * jax.grad(f)(w)).astype(jnp.bfloat16)  # noqa: E731
    assert check_gradients(f, draws(2, 8, 5), grad_fn=claim, key=KEY).verdict == verdict


def test_a_function_that_rejects_float64_says_that_it_got_float64():
    def f(x):
        return jax.lax.scan(lambda c, a: (c + a, None), jnp.zeros((), jnp.float32), x)[0]

    with pytest.raises(TypeError, match="carry") as caught:
        check_gradients(f, draws(1, 5), key=KEY)
    assert any("float64" in note for note in caught.value.__notes__)
