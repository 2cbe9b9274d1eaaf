"""Dropout's masks: their law, and what they depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import _ops, layers

SIZE = 200_000


def dropped(drop_rate, key, x):
    return layers.dropout(drop_rate).apply({}, {}, x, train=True, key=key, weight=None)[0]


@pytest.mark.parametrize("drop_rate", [0.0, 0.1, 0.5, 0.9])
def test_expectation_and_variance(drop_rate):
    y = np.asarray(dropped(drop_rate, jax.random.key(0), jnp.ones((1, SIZE))), np.float64)
    variance = drop_rate / (1 - drop_rate)
    assert abs(y.mean() - 1) <= 4 * np.sqrt(variance / SIZE)
    np.testing.assert_allclose(y.var(), variance, rtol=0.03, atol=1e-12)
    assert abs(np.mean(y == 0) - drop_rate) <= 4 * np.sqrt(drop_rate * (1 - drop_rate) / SIZE)


def test_evaluation_is_the_identity():
    x = jax.random.normal(jax.random.key(0), (3, 7))
    y, _ = layers.dropout(0.9).apply({}, {}, x)
    assert y is x


def test_masks_differ_by_key_and_units_are_independent():
    x = jnp.ones((2, SIZE // 2))
    first, second = dropped(0.5, jax.random.key(0), x) > 0, dropped(0.5, jax.random.key(1), x) > 0
    for a, b in [(first, second), (first[0], first[1])]:
        assert abs(float(jnp.mean(a == b)) - 0.5) < 0.01


def test_the_rate_may_be_traced_swept_and_differentiated():
    x, key = jnp.ones((1, 64)), jax.random.key(0)
    rates = jnp.array([0.0, 0.25, 0.5])
    lanes = jax.vmap(lambda rate: dropped(rate, key, x))(rates)
    for rate, lane in zip([0.0, 0.25, 0.5], lanes, strict=True):
        np.testing.assert_array_equal(lane, dropped(rate, key, x))
    slope = jax.grad(lambda rate: dropped(rate, key, x).sum())(0.5)
    np.testing.assert_allclose(slope, 4.0 * np.sum(np.asarray(lanes[2]) > 0))  # d/dp 1/(1-p) = 1/(1-p)^2


def test_gradient_passes_through_kept_units_only():
    x, key = jax.random.normal(jax.random.key(5), (4, 50)), jax.random.key(0)
    gradient = jax.grad(lambda x: dropped(0.2, key, x).sum())(x)
    np.testing.assert_allclose(gradient, np.where(dropped(0.2, key, x) == 0, 0, 1 / 0.8), rtol=1e-5)


def test_bits_are_uniform_and_not_those_of_jax_random():
    key = jax.random.key(3)
    bits = np.asarray(_ops.random_uint16(key, (2**20,)))
    high, low = np.bincount(bits >> 8, minlength=256), np.bincount(bits & 255, minlength=256)
    for counts in (high, low):  # chi-squared with 255 degrees of freedom: mean 255, deviation 22.6
        assert 255 - 5 * 22.6 < np.sum((counts - 4096.0) ** 2 / 4096) < 255 + 5 * 22.6
    pairs = np.corrcoef(bits[:-1].astype(float), bits[1:].astype(float))[0, 1]
    assert abs(pairs) < 5 / 1024
    others = np.asarray(jax.random.bits(key, (2**18,), jnp.uint32))
    assert np.mean(bits[: 2**18] == (others & 0xFFFF)) < 1e-3


@pytest.mark.parametrize(("rate", "share"), [(0.99999, 1 - 2.0**-16), (1e-7, 0.0), (0.1, 6554 / 65536)])
def test_the_rate_is_a_multiple_and_the_scale_is_that_of_the_multiple(rate, share):
    y = dropped(rate, jax.random.key(0), jnp.ones((1, 2**20)))
    kept = np.asarray(y)[np.asarray(y) > 0]
    np.testing.assert_allclose(kept, 1 / (1 - share), rtol=1e-3)
    assert abs(kept.size / 2**20 - (1 - share)) <= 5 * np.sqrt(share * (1 - share) / 2**20)


def masks(layer, key, x):
    return layer.apply({}, {}, x, train=True, key=key, weight=None)[0] != 0


def test_spatial_dropout_drops_channels_and_stochastic_depth_examples():
    x, key = jnp.ones((500, 3, 2, 40)), jax.random.key(0)
    channels = np.asarray(masks(layers.spatial_dropout(0.3), key, x))
    assert (channels == channels[:, :1, :1]).all()
    assert abs(channels.mean() - 0.7) < 4 * np.sqrt(0.21 / 20_000)
    examples = np.asarray(masks(layers.stochastic_depth(0.3), key, x))
    assert (examples == examples[:, :1, :1, :1]).all()
    assert abs(examples.mean() - 0.7) < 4 * np.sqrt(0.21 / 500)


def test_drop_connect_drops_entries_of_the_kernel():
    layer = layers.drop_connect(layers.dense(300, kernel_init=jax.nn.initializers.ones), 0.25)
    x = jnp.eye(200)  # so that the output is the kernel
    params, state = layer.init(jax.random.key(0), x)
    y, _ = layer.apply(params, state, x, train=True, key=jax.random.key(1), weight=None)
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs(float(jnp.mean(y == 0)) - 0.25) < 4 * np.sqrt(0.1875 / 60_000)
    same, _ = layer.apply(params, state, x)
    np.testing.assert_array_equal(same, jnp.ones((200, 300)))


def test_each_leaf_of_drop_connect_and_the_layer_inside_have_masks_of_their_own():
    inner = layers.serial(layers.dense(64), layers.dense(64), layers.dropout(0.5))
    layer = layers.drop_connect(inner, 0.5)
    eye = jnp.eye(64)
    params = {f"dense_{i}": {"kernel": jnp.ones((64, 64)), "bias": jnp.zeros(64)} for i in range(2)}
    seen = []
    spy = layers.as_layer(lambda x: x)._replace(
        init=lambda key, x: (params, {}), apply=lambda p, s, x, **k: (seen.append((p, k["key"])) or x, s)
    )
    layers.drop_connect(spy, 0.5).apply(params, {}, eye, train=True, key=jax.random.key(0), weight=None)
    ((dropped_params, key),) = seen
    first, second = (dropped_params[name]["kernel"] != 0 for name in ("dense_0", "dense_1"))
    third = dropped(0.5, key, jnp.ones((64, 64))) != 0
    for a, b in ((first, second), (first, third), (second, third)):
        assert abs(float(jnp.mean(a == b)) - 0.5) < 0.05
    assert layer.apply(params, {}, eye, train=True, key=jax.random.key(0), weight=None)[0].shape == (64, 64)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_lanes_with_keys_of_their_own_differ_whatever_the_generator(impl):
    keys = jax.random.split(jax.random.key(0, impl=impl), 3)
    x = jnp.ones((1, 4096))
    lanes = jax.vmap(lambda key: masks(layers.dropout(0.5), key, x))(keys)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(float(jnp.mean(lanes[i] == lanes[j])) - 0.5) < 0.05
        np.testing.assert_array_equal(lanes[i], masks(layers.dropout(0.5), keys[i], x))


FACTORIES = {
    "dropout": layers.dropout,
    "spatial_dropout": layers.spatial_dropout,
    "stochastic_depth": layers.stochastic_depth,
    "drop_connect": lambda rate: layers.drop_connect(layers.conv(2, 1), rate),
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_every_rate_may_be_traced_and_needs_a_key_in_training(factory):
    x = jnp.ones((3, 4, 2))
    params, state = factory(0.5).init(jax.random.key(0), x)

    def total(rate):
        return jnp.sum(factory(rate).apply(params, state, x, train=True, key=jax.random.key(1), weight=None)[0])

    assert jax.vmap(jax.value_and_grad(total))(jnp.array([0.0, 0.5]))[1].shape == (2,)
    with pytest.raises(ValueError, match=r"^drop_rate: expected a finite number in \[0, 1\), got 1"):
        factory(1.0)
    with pytest.raises(ValueError, match=r"^key: expected a PRNG key in training, got None"):
        factory(0.5).apply(params, state, x, train=True, key=None, weight=None)


def test_inputs_without_what_is_dropped_are_named():
    for layer in (layers.dropout(0.1), layers.stochastic_depth(0.1), layers.spatial_dropout(0.1)):
        with pytest.raises(TypeError, match=r"^expected floating-point input, got int32; convert it"):
            layer.init(jax.random.key(0), jnp.ones((2, 3, 4), "int32"))
    with pytest.raises(ValueError, match=r"expected input \[batch, spatial axes \.\.\., channels\], got shape"):
        layers.spatial_dropout(0.5).init(jax.random.key(0), jnp.ones((3, 4)))
    with pytest.raises(ValueError, match=r"^mask: expected to select a parameter of the layer, which has none"):
        layers.drop_connect(layers.flatten, 0.5).init(jax.random.key(0), jnp.ones((3, 4)))
    with pytest.raises(ValueError, match=r"^mask: "):
        layers.drop_connect(layers.dense(3), 0.5, "nothing").init(jax.random.key(0), jnp.ones((3, 4)))
