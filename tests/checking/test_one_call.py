"""One call each: a rule, a layer, a loss, an optimizer; bad ones are found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses
from jaxopt_nn.checking import check_layer, check_loss, check_optimizer, check_rule
from jaxopt_nn.types import Layer

KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


def with_vjp(forward, backward, returns=None):
    f = jax.custom_vjp(forward)
    f.defvjp(lambda x: ((returns or forward)(x), x), lambda x, ct: (backward(x, ct),))
    return f


def with_jvp(factor):
    f = jax.custom_jvp(jnp.cos)
    f.defjvps(lambda t, out, x: -factor * jnp.sin(x) * t)
    return f


def softmax(x):
    return jax.nn.softmax(x)


def softmax_without_the_cross_term():
    return with_vjp(softmax, lambda x, ct: ct * jax.nn.softmax(x) * (1 - jax.nn.softmax(x)))


@pytest.mark.parametrize(
    ("rule", "verdict", "says"),
    [
        (with_vjp(jnp.sin, lambda x, ct: ct * jnp.cos(x)), "PASS", ""),
        (with_vjp(jnp.sin, lambda x, ct: 2 * ct * jnp.cos(x)), "FAIL", "ratio 2.0000"),
        (with_vjp(jnp.sin, lambda x, ct: jnp.cos(x)), "FAIL", "the custom_vjp rule of sin at test_one_call.py"),
        (with_vjp(lambda x: jnp.sum(x), lambda x, ct: jnp.ones_like(x)), "FAIL", "ratio"),
        (with_vjp(jnp.sin, lambda x, ct: ct * jnp.cos(x), returns=jnp.cos), "FAIL", "returns another value than f"),
        (softmax_without_the_cross_term(), "FAIL", "rule of softmax at test_one_call.py"),
        (with_jvp(1.0), "PASS", ""),
        (with_jvp(1.0001), "FAIL", "ratio 1.0001"),
    ],
    ids=["right", "double", "no_cotangent", "scalar_no_cotangent", "other_value", "softmax", "jvp", "jvp_wrong"],
)
def test_rules(rule, verdict, says):
    report = check_rule(rule, X, key=KEY)
    assert (report.verdict, says in " ".join(str(report).split())) == (verdict, True), report


def test_what_has_no_rule_is_named():
    with pytest.raises(ValueError, match="f: expected a function with a custom_vjp or custom_jvp"):
        check_rule(jnp.sin, X, key=KEY)


@pytest.mark.parametrize("train", [True, False])
def test_a_wrong_layer_is_found_and_its_input_checked(train):
    right = layers.serial(layers.dense(3), layers.batch_norm(), layers.dropout(0.5), jnp.tanh)
    assert check_layer(right, X, key=KEY, train=train).ok
    scale = with_vjp(lambda w: 3.0 * w, lambda w, ct: ct)
    wrong = Layer(lambda key, x: ({"w": jnp.ones(4)}, ()), lambda p, s, x, **_: (x * scale(p["w"])[None], s))
    report = check_layer(wrong, X, key=KEY, train=train)
    assert {leaf.path: leaf.verdict for leaf in report.leaves} == {"0/w": "FAIL", "1": "PASS"}
    assert "ratio 0.33333" in report.leaves[0].hypothesis or "ratio 0.3333" in report.leaves[0].hypothesis


def test_losses_of_one_example_that_leak_into_another_are_found():
    assert check_loss(losses.mean_squared_error, X, 0 * X, key=KEY).ok
    leaky = with_vjp(lambda e: e**2, lambda e, ct: 2 * e * jnp.mean(ct, 0, keepdims=True))
    assert check_loss(lambda o, t: jnp.mean(leaky(o - t), -1), X, 0 * X, key=KEY).verdict == "FAIL"


@pytest.mark.slow
def test_a_wrong_step_of_an_optimizer_is_found():
    params = {"w": X[:2]}
    assert check_optimizer(lambda rate: optax.adam(rate), {"rate": 0.1}, params, key=KEY).ok

    def wrong(rate):
        halved = with_vjp(lambda g: g, lambda g, ct: ct / 2)
        return optax.stateless(lambda updates, _: jax.tree.map(lambda g: -rate * halved(g), updates))

    report = check_optimizer(wrong, {"rate": 0.1}, params, key=KEY)
    assert {leaf.path: leaf.verdict for leaf in report.leaves} == {"0/rate": "FAIL", "1/w": "FAIL"}


def test_any_function_is_a_layer():
    report = check_layer(jax.nn.relu, X, key=KEY)
    assert report.verdict == "PASS" and [leaf.path for leaf in report.leaves] == ["1"]
    scaled = jax.tree_util.Partial(lambda w, x: jnp.tanh(x) * w[None], jnp.ones(4))
    assert [leaf.path for leaf in check_layer(scaled, X, key=KEY).leaves] == ["0/0/0", "1"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_layer("relu", X, key=KEY), TypeError, "layer: expected a function such as .*, got 'relu'"),
        (lambda: check_rule(X, X, key=KEY), TypeError, "f: expected a function such as"),
        (lambda: check_loss("mse", X, X, key=KEY), TypeError, "loss: expected a function such as"),
        (
            lambda: check_loss(losses.softmax_cross_entropy, np.arange(6), X, key=KEY),
            TypeError,
            "outputs: expected floats, got int64; the order is outputs, targets",
        ),
        (
            lambda: check_optimizer(optax.adam(0.1), {"w": X}, key=KEY),
            TypeError,
            "check_optimizer.* missing 1 required positional argument: 'params'",
        ),
        (
            lambda: check_optimizer(optax.adam(0.1), {}, {"w": X}, key=KEY),
            TypeError,
            "factory: expected a function that makes the optimizer, got an optimizer",
        ),
        (lambda: check_optimizer(optax.adam, 0.1, {"w": X}, key=KEY), TypeError, "hyperparameters: expected a mapping"),
        (lambda: check_optimizer("adam", {}, {"w": X}, key=KEY), TypeError, "factory: expected a function such as"),
    ],
)
def test_natural_wrong_calls_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
