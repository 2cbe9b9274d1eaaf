"""Models of other libraries as they are, and rules that are meant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients

KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
W = X[0] + 0.1


def test_an_equinox_module():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        mlp: eqx.nn.MLP
        dropout: eqx.nn.Dropout

    net = Net(eqx.nn.MLP(5, 2, 4, 1, key=KEY), eqx.nn.Dropout(0.4))
    loss = lambda net, x, key: jnp.mean(net.dropout(jax.vmap(net.mlp)(x), key=key) ** 2)  # noqa: E731
    for claim in (None, eqx.filter_grad(loss)):
        report = check_gradients(loss, net, X, jax.random.key(2), argnums=0, grad_fn=claim, key=KEY)
        assert report.verdict == "PASS" and len(report.leaves) == 4, report
        assert "dropout/p (a float of a module)" in report.skipped


def test_a_flax_module():
    nnx = pytest.importorskip("flax.nnx")
    linear = nnx.Linear(5, 2, rngs=nnx.Rngs(0))
    loss = lambda linear, x: jnp.mean(linear(x) ** 2)  # noqa: E731
    report = check_gradients(loss, linear, X, argnums=0, grad_fn=nnx.grad(loss), key=KEY)
    assert [leaf.path for leaf in report.leaves] == ["bias", "kernel"] and report.verdict == "PASS"


def test_a_bare_float_is_a_variable():
    f = lambda hp: jnp.sin(hp["rate"]) * hp["scale"]  # noqa: E731
    assert len(check_gradients(f, {"rate": 0.1, "scale": 2.0}, key=KEY).leaves) == 2


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, ct: (ct,))


def quantized(w, x):
    return jnp.mean(jnp.tanh(x @ (straight_through(3 * w) / 3)) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [straight_through, "straight_through", [straight_through]])
def test_a_trusted_rule_is_taken_as_it_is_and_all_around_it_is_checked(trusted):
    assert check_gradients(quantized, W, X, argnums=0, key=KEY).verdict == "FAIL"
    report = check_gradients(quantized, W, X, argnums=0, trusted_rules=trusted, key=KEY)
    assert report.verdict == "PASS"
    assert report.notes[0].startswith("taken as it is: the custom_vjp rule of straight_through at test_models.py")
    wrong = lambda w, x: 1.1 * jax.grad(quantized)(w, x)  # noqa: E731
    report = check_gradients(quantized, W, X, argnums=0, grad_fn=wrong, trusted_rules=trusted, key=KEY)
    assert report.verdict == "FAIL" and "ratio 1.1000" in report.leaves[0].hypothesis


def test_a_rule_in_a_loop_and_another_one_that_is_wrong():
    sin = jax.custom_jvp(jnp.sin)
    sin.defjvps(lambda t, out, x: 2 * t * jnp.cos(x))

    def loss(w, x, inner):
        return jnp.mean(jax.lax.scan(lambda c, x: (jnp.tanh(inner(c) + x * straight_through(w)), c), w, x)[1])

    options = {"argnums": 0, "trusted_rules": straight_through, "key": KEY}
    assert check_gradients(lambda w, x: loss(w, x, jnp.sin), W, X, **options).verdict == "PASS"
    report = check_gradients(lambda w, x: loss(w, x, sin), W, X, **options)
    assert report.verdict == "FAIL" and "rule of sin" in report.leaves[0].hypothesis


@pytest.mark.parametrize(
    ("trusted", "error", "message"),
    [
        (jnp.sin, ValueError, "got 'sin'; f has the custom_vjp rule of straight_through at test_models.py"),
        ("other", ValueError, "trusted_rules: expected a function with a rule in f, got 'other'"),
        (3, TypeError, "trusted_rules: expected functions or their names, got 3"),
    ],
)
def test_a_rule_that_is_not_there_is_named(trusted, error, message):
    with pytest.raises(error, match=message):
        check_gradients(quantized, W, X, argnums=0, trusted_rules=trusted, key=KEY)
    with pytest.raises(ValueError, match="order: expected 1 with trusted_rules"):
        check_gradients(quantized, W, X, argnums=0, trusted_rules=straight_through, order=2, key=KEY)
