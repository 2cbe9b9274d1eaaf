"""What `check_gradients` takes: trees, argnums, keys, other arrays and Python values; what is bad is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients

KEY = jax.random.key(0)


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_integers_keys_and_python_values_are_left_alone_and_named():
    def f(params, labels, key, train, power):
        assert train is True
        mask = jax.random.bernoulli(key, 0.5, params["w"].shape)
        return jnp.mean(jnp.where(mask, params["w"], 0.0)[labels] ** power)

    args = ({"w": draws(1, 30), "n": np.int32(3)}, np.arange(4), jax.random.key(1), True, 2)
    report = check_gradients(f, *args, key=KEY)
    assert report.verdict == "PASS"
    assert report.skipped == ("0/n (int32)", "1 (int64)", "2 (key<fry>)", "3 (bool)", "4 (int64)")
    assert report.leaves[0].dtype_error is None  # other random numbers in float32
    assert any("random numbers" in note for note in report.notes)
    assert check_gradients(f, *args, argnums=0, key=KEY).skipped == ("n (int32)",)


def test_argnums_and_trees_of_the_claim_follow_jax_grad():
    a, b = draws(1, 20), draws(2, 20)
    f = lambda a, b: jnp.sum(jnp.sin(a) * b)  # noqa: E731
    for argnums, asked in [(None, (0, 1)), (0, 0), ((1, 0), (1, 0))]:
        report = check_gradients(f, a, b, grad_fn=jax.grad(f, asked), argnums=argnums, key=KEY)
        assert report.verdict == "PASS", report


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: check_gradients(jnp.sum, np.arange(3), key=KEY),
            TypeError,
            r"args: .*float leaf.* args\[0\] \(int64\)",
        ),
        (lambda: check_gradients(jnp.sum, np.ones(3), key=3), TypeError, "key: expected a PRNG key, got 3"),
        (lambda: check_gradients(jnp.log, -np.ones(3), key=KEY), ValueError, "f: expected a finite value"),
        (lambda: check_gradients(jnp.sum, {"w": np.array([np.nan])}, key=KEY), ValueError, "w: expected finite values"),
        (
            lambda: check_gradients(jnp.sum, np.ones(3, complex), key=KEY),
            TypeError,
            r"args\[0\]: expected a real array",
        ),
        (lambda: check_gradients(lambda x: (x, x), np.ones(3), key=KEY), TypeError, "f: expected one real float array"),
        (lambda: check_gradients(lambda x: x > 0, np.ones(3), key=KEY), TypeError, r"f: expected one real .*bool\[3\]"),
        (
            lambda: check_gradients(lambda p: jnp.sum(p["a"]), {"a": np.ones(3)}, grad_fn=lambda p: p["a"], key=KEY),
            ValueError,
            r"grad_fn: the tree does not match: missing \['a'\]",
        ),
        (
            lambda: check_gradients(
                lambda p: jnp.sum(p["a"]), {"a": np.ones(3)}, grad_fn=lambda _: {"a": 1.0}, key=KEY
            ),
            ValueError,
            r"grad_fn\[a\]: expected float64\[3\], got float64\[\]",
        ),
        (
            lambda: check_gradients(jnp.sum, np.ones(3), grad_fn=jax.value_and_grad(jnp.sum), key=KEY),
            ValueError,
            r"grad_fn: the tree does not match: missing \['args\[0\]'\], unexpected \['args\[0\]/0'",
        ),
        (
            lambda: check_gradients(jnp.sum, np.ones(3), grad_fn=np.ones(3), key=KEY),
            TypeError,
            "grad_fn: expected a function, got",
        ),
        (lambda: check_gradients(3, np.ones(3), key=KEY), TypeError, "f: expected a function, got 3"),
        (
            lambda: check_gradients(lambda x: x[:0], np.ones(3), key=KEY),
            TypeError,
            "f: expected one real float array as its output, got an empty one",
        ),
        (
            lambda: jax.jit(lambda key: check_gradients(jnp.sum, np.ones(3), key=key).value)(KEY),
            TypeError,
            "key: expected a concrete key, got a traced one",
        ),
        (
            lambda: check_gradients(jnp.sum, np.ones(3), argnums=(0, 0), key=KEY),
            ValueError,
            r"argnums: expected each argument once, got \(0, 0\)",
        ),
        (
            lambda: check_gradients(jnp.sin, np.ones(3), grad_fn=jnp.cos, key=KEY),
            ValueError,
            r"grad_fn: expected a scalar output of f, got an output of shape \[3\]",
        ),
        (
            lambda: jax.jit(lambda x: check_gradients(jnp.sum, x, key=KEY).value)(np.ones(3)),
            TypeError,
            r"args\[0\]: expected a concrete array, got a traced one",
        ),
        (lambda: check_gradients(jnp.sum, np.ones(3), argnums=1, key=KEY), ValueError, "argnums: expected integers"),
        (
            lambda: check_gradients(jnp.sum, np.ones(3), directions=1, key=KEY),
            ValueError,
            "directions: expected an int",
        ),
        (
            lambda: check_gradients(jnp.sum, np.ones(3), rtol=-1.0, key=KEY),
            ValueError,
            "rtol: expected a finite number",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_another_byte_order_is_named():
    with pytest.raises(TypeError, match=r"args\[0\]: expected the byte order of this machine, got >f4"):
        check_gradients(jnp.sum, np.ones(3, ">f4"), key=KEY)


def test_keys_that_are_used_twice_are_named():
    one, two = jax.random.split(jax.random.key(3))
    noisy = lambda x, a, b: jnp.sum(x * (jax.random.normal(a, x.shape) + jax.random.uniform(b, x.shape)))  # noqa: E731
    assert check_gradients(noisy, draws(1, 4), one, two, key=KEY).ok
    with pytest.raises(ValueError, match=r"args\[2\]: expected a key of its own, got that of args\[1\]"):
        check_gradients(noisy, draws(1, 4), one, one, key=KEY)
    with pytest.raises(ValueError, match=r"args\[1\]: expected a key of its own, got that of key"):
        check_gradients(noisy, draws(1, 4), KEY, two, key=KEY)
    report = check_gradients(lambda x, key: noisy(x, key, key), draws(1, 4), one, key=KEY)
    assert report.verdict == "PASS"  # locked dropout and antithetic sampling are meant: a note, no verdict
    assert "twice from one key" in " ".join(report.notes)
    with pytest.raises(ValueError, match=r"args\[1\]\[1\]: expected a key of its own, got that of args\[1\]\[0\]"):
        check_gradients(lambda x, keys: noisy(x, *keys), draws(1, 4), jnp.stack([one, one]), key=KEY)


def test_a_function_that_closes_over_a_traced_value_is_named():
    def in_f(y):
        return check_gradients(lambda x: jnp.sum(x * y), np.ones(3), key=KEY).value

    def in_a_rule(y):
        sin = jax.custom_vjp(jnp.sin)
        sin.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (y * ct * jnp.cos(x),))
        return check_gradients(lambda x: jnp.sum(sin(x)), np.ones(3), key=KEY).value

    def in_the_claim(y):
        return check_gradients(jnp.sum, np.ones(3), grad_fn=lambda x: x * y, key=KEY).value

    for inner, name in ((in_f, "f"), (in_a_rule, "f"), (in_the_claim, "grad_fn")):
        with pytest.raises(TypeError, match=f"{name}: it closes over a traced value"):
            jax.jit(inner)(np.ones(3))


def test_the_same_key_gives_the_same_report_and_another_key_another():
    f = lambda x: jnp.mean(jnp.sin(x))  # noqa: E731
    first, again, other = (check_gradients(f, draws(1, 50), key=jax.random.key(seed)) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first.to_dict(), again.to_dict())
    assert first.leaves[0].relative_error != other.leaves[0].relative_error
