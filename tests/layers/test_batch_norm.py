"""Batch normalization against closed forms in NumPy float64."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers


def apply(x, *, train=True, weight=None, state=None, **kwargs):
    @jax.jit
    def run(x, weight):
        layer = layers.batch_norm(**kwargs)
        params, fresh = layer.init(jax.random.key(0), x)
        return layer.apply(params, fresh if state is None else state, x, train=train, key=None, weight=weight)

    return run(x, weight)


def test_normalizes_each_feature_over_all_other_axes():
    x = jax.random.normal(jax.random.key(0), (16, 3, 2, 5)) * jnp.arange(1.0, 6).reshape(1, 1, 1, 5) + 3
    y, state = apply(x, epsilon=1e-3, momentum=0.75, convention="keras")
    values = np.asarray(x, np.float64).reshape(-1, 5)
    mean, var = values.mean(0), values.var(0)
    np.testing.assert_allclose(y.reshape(-1, 5), (values - mean) / np.sqrt(var + 1e-3), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["mean"], 0.25 * mean, rtol=1e-5)
    np.testing.assert_allclose(state["var"], 0.75 + 0.25 * var, rtol=1e-5)


def test_evaluation_uses_the_running_statistics():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    state = {"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([4.0, 1.0, 0.25])}
    layer = layers.batch_norm(epsilon=0.0)
    params, _ = layer.init(jax.random.key(0), x)
    y, after = layer.apply(params, state, x)
    np.testing.assert_allclose(y, (np.asarray(x) - [1, 2, 3]) / [2, 1, 0.5], rtol=1e-5)
    assert after is state


def test_the_variance_does_not_cancel():
    """Mean 1e4, deviation 0.1: E[x²] − E[x]² in float32 has no correct digit here."""
    x = (1e4 + 0.1 * np.random.default_rng(0).standard_normal((4096, 1))).astype("f")
    y, _ = apply(jnp.asarray(x), epsilon=0.0)
    np.testing.assert_allclose(np.std(np.asarray(y, np.float64)), 1, rtol=1e-2)


def test_weights_count_examples():
    """An example of weight 2 is that example twice; the image positions of an example share its weight."""
    x = jax.random.normal(jax.random.key(0), (6, 2, 3))
    weight = jnp.array([2.0, 1, 0, 1, 1, 1])
    y, state = apply(x, weight=weight, convention="flax")
    twice = jnp.concatenate([x[:1], x[:2], x[3:]])
    z, expected = apply(twice, convention="flax")
    np.testing.assert_allclose(y[jnp.array([0, 1, 3, 4, 5])], z[1:], rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 4, 5, 3), (6, 2, 3, 4, 3)])
def test_positions_count_as_examples_do(shape, weighted):
    """Whatever the order that the axes are computed in; "torch" shows the count, by its unbiased variance."""
    x = jax.random.normal(jax.random.key(0), shape) + jnp.broadcast_to(jnp.arange(3.0), shape)
    weight = jnp.array([2.0, 0.5, 0, 1, 1, 3]) if weighted else None
    of_positions = None if weight is None else jnp.repeat(weight, int(np.prod(shape[1:-1])))

    def loss(x, weight):
        y, state = apply(x, weight=weight, convention="torch")
        counted = y if weight is None else jnp.where(weight.reshape(-1, *[1] * (y.ndim - 1)) > 0, y, 0.0)
        return jnp.sum(jnp.sin(counted)), (counted, state)

    (_, (y, state)), slope = jax.value_and_grad(loss, has_aux=True)(x, weight)
    (_, (rows, expected)), row_slope = jax.value_and_grad(loss, has_aux=True)(x.reshape(-1, 3), of_positions)
    np.testing.assert_allclose(y.reshape(-1, 3), rows, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slope.reshape(-1, 3), row_slope, rtol=1e-3, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, expected)


def test_float64_stays_float64_whatever_the_state():
    """A gradient checker feeds float64 to a model whose state was made in float32."""
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 2)))
        state = {"mean": jnp.zeros(2, "f"), "var": jnp.ones(2, "f")}
        y, after = apply(x, state=state, epsilon=0.0)
        np.testing.assert_allclose(y, (x - x.mean(0, keepdims=True)) / x.std(0, keepdims=True), rtol=1e-12)
        assert after["mean"].dtype == jnp.float32


def test_gradient_has_the_variance_path():
    """Σ y² is constant under normalization up to ε: its gradient vanishes, through mean and variance."""
    x = jax.random.normal(jax.random.key(0), (32, 4))
    gradient = jax.grad(lambda x: jnp.sum(apply(x, epsilon=1e-12)[0] ** 2))(x)
    assert float(jnp.max(jnp.abs(gradient))) < 1e-4
    slope = jax.grad(lambda x: jnp.sum(apply(x, epsilon=1e-12)[0] ** 3))(x)
    assert float(jnp.max(jnp.abs(slope))) > 1e-2


@pytest.mark.parametrize("convention", ["torch", "flax", "keras"])
@pytest.mark.parametrize("shape", [(4, 3), (4, 7, 3), (0, 3), (0, 7, 3), (4, 0, 3)])
def test_without_weight_nothing_changes_and_the_running_statistics_normalize(shape, convention):
    x = 5 + jax.random.normal(jax.random.key(0), shape)
    layer = layers.batch_norm(convention=convention)
    params, _ = layer.init(None, x)
    state = {"mean": jnp.array([4.0, 5, 6]), "var": jnp.array([1.0, 2, 3])}
    expected = layer.apply(params, state, x)[0]

    def outcome(x):
        return layer.apply(params, state, x, train=True, weight=jnp.zeros(len(x)))

    for call in (outcome, jax.jit(outcome)):
        y, after = call(x)
        jax.tree.map(np.testing.assert_array_equal, after, state)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
        slope = jax.grad(lambda x, call=call: jnp.sum(call(x)[0] ** 2))(x)
        np.testing.assert_allclose(
            slope, jax.grad(lambda x: jnp.sum(layer.apply(params, state, x)[0] ** 2))(x), rtol=1e-4
        )


def test_statistics_over_parts_that_are_padded_are_those_of_the_data():
    """33 rows in a batch of 32, a padded batch of 1, each in 4 parts: the padding's parts have no weight."""
    rows = np.array([[2.0], [4.0]] * 16 + [[3.0]], "f")
    x = jnp.asarray(np.concatenate([rows, np.zeros((31, 1), "f")]).reshape(8, 8, 1))
    weight = (jnp.arange(64) < 33).astype(jnp.float32).reshape(8, 8)
    layer = layers.batch_norm()
    params, state = layer.init(None, x[0])

    def part(state, at):
        return layer.apply(params, state, at[0], train=True, weight=at[1])[1], None

    def epoch(_, state):
        return jax.lax.scan(part, state, (x, weight))[0]

    state = jax.jit(lambda state: jax.lax.fori_loop(0, 60, epoch, state))(state)
    np.testing.assert_allclose(state["mean"], 3, rtol=1e-5)
    np.testing.assert_allclose(state["var"], 8 / 7, rtol=1e-5)  # of 8 rows; the row by itself has none


def test_large_and_small_numbers_are_normalized():
    x = np.random.default_rng(0).normal(size=(16, 3)) * np.array([1e20, 1.0, 1e-30])
    for weight in (None, jnp.ones(16)):
        y, state = apply(jnp.asarray(x, jnp.float32), epsilon=0.0, weight=weight)
        np.testing.assert_allclose(y, (x - x.mean(0)) / x.std(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state["mean"], 0.1 * x.mean(0), rtol=1e-4)
        slope = jax.grad(lambda x, w=weight: jnp.sum(jnp.sin(apply(x, epsilon=0.0, weight=w)[0])))(
            jnp.asarray(x, jnp.float32)
        )
        with jax.enable_x64(True):
            expected = jax.grad(lambda x: jnp.sum(jnp.sin((x - x.mean(0)[None]) / x.std(0)[None])))(jnp.asarray(x))
            expected = np.asarray(expected)
        scale = np.array([1e20, 1.0, 1e-30])
        np.testing.assert_allclose(np.asarray(slope, float) * scale, expected * scale, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("convention", "momentum", "share", "epsilon", "unbiased"),
    [
        ("torch", None, 0.1, 1e-5, True),
        ("torch", 0.3, 0.3, 1e-5, True),
        ("flax", None, 0.01, 1e-5, False),
        ("keras", None, 0.01, 1e-3, False),
        ("keras", 0.6, 0.4, 1e-3, False),
    ],
)
def test_conventions(convention, momentum, share, epsilon, unbiased):
    x = np.random.default_rng(0).normal(2, 0.01, (4, 3, 2)).astype("f")  # small, so that epsilon shows
    y, state = apply(jnp.asarray(x), momentum=momentum, convention=convention)
    rows = x.reshape(-1, 2).astype(float)
    var = rows.var(0)
    np.testing.assert_allclose(y.reshape(-1, 2), (rows - rows.mean(0)) / np.sqrt(var + epsilon), rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(state["mean"], share * rows.mean(0), rtol=1e-5)
    carried = (state["var"] - np.float32(1 - share)) / share
    np.testing.assert_allclose(carried, rows.var(0, ddof=int(unbiased)), atol=2e-5)
    wide = np.random.default_rng(0).normal(2, 3, (4, 3, 2)).astype("f")
    _, state = apply(jnp.asarray(wide), momentum=momentum, convention=convention)
    want = (1 - share) + share * wide.reshape(-1, 2).astype(float).var(0, ddof=int(unbiased))
    np.testing.assert_allclose(state["var"], want, rtol=1e-5)


def test_the_unbiased_variance_counts_examples_of_any_weight_and_not_the_absent():
    x = jax.random.normal(jax.random.key(0), (6, 2, 3))
    _, few = apply(x[:4], momentum=1.0)
    np.testing.assert_allclose(few["var"], np.var(np.asarray(x[:4], float).reshape(8, 3), 0, ddof=1), rtol=1e-5)
    for size in (1.0, 1e-3, 50.0):
        _, weighted = apply(x, momentum=1.0, weight=size * jnp.array([1.0, 1, 1, 1, 0, 0]))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), weighted, few)


@pytest.mark.parametrize("weight", [None, jnp.ones(1)])
def test_one_value_for_each_feature_says_nothing_of_the_unbiased_variance(weight):
    y, state = apply(jnp.full((1, 3), 2.0), momentum=1.0, weight=weight)
    assert y.tolist() == [[0, 0, 0]] and state["mean"].tolist() == [2, 2, 2] and state["var"].tolist() == [1, 1, 1]
    _, biased = apply(jnp.full((1, 3), 2.0), momentum=0.0, weight=weight, convention="flax")
    assert biased["var"].tolist() == [0, 0, 0]


def test_numbers_may_be_traced():
    x = jax.random.normal(jax.random.key(0), (8, 3))
    slopes = jax.vmap(jax.grad(lambda m: apply(x, momentum=m, epsilon=m)[1]["var"].sum()))(jnp.array([0.1, 0.5]))
    np.testing.assert_allclose(slopes, np.sum(np.var(np.asarray(x, float), 0, ddof=1) - 1), rtol=1e-4)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r'^convention: expected "flax", "torch" or "keras", got \'haiku\''):
        layers.batch_norm(convention="haiku")
    with pytest.raises(ValueError, match=r"^epsilon: expected a finite number in \[0, inf\), got -1"):
        layers.batch_norm(epsilon=-1)
    with pytest.raises(ValueError, match=r"expected floating-point \[batch, \.\.\., features\], got int32"):
        layers.batch_norm().init(jax.random.key(0), jnp.ones((2, 3), int))


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from jaxopt_nn import layers
assert jax.device_count() == 8
layer = layers.batch_norm()
x = jax.random.normal(jax.random.key(0), (16, 3, 4)) * 3 + jnp.arange(16.0).reshape(16, 1, 1)
weight = jnp.arange(16.0) % 3
params, state = layer.init(jax.random.key(1), x)

def step(x, weight):
    def loss(x):
        y, after = layer.apply(params, state, x, train=True, key=None, weight=weight)
        return jnp.sum(jnp.where((weight > 0).reshape(-1, 1, 1), y, 0) ** 3), (y, after)
    return jax.grad(loss, has_aux=True)(x)

mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, P("data"))
for w in (weight, None):
    here = jax.jit(step)(x, weight) if w is not None else jax.jit(lambda x: step(x, jnp.ones(16)))(x)
    there = jax.jit(step if w is not None else lambda x, _: step(x, jnp.ones(16)))(
        jax.device_put(x, rows), jax.device_put(weight, rows))
    assert len(there[1][0].sharding.device_set) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), here, there)
"""


@pytest.mark.slow
def test_statistics_of_a_sharded_batch_are_those_of_the_whole():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
