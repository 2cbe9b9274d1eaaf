"""Models as they begin: other libraries' defaults, unit variance by data, and signals through thirty layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import initializers, layers, losses
from jaxopt_nn.trees import named_leaves

KEY = jax.random.key(11)
SQRT3 = 3**0.5


def drawn(model, convention, x):
    params, _ = jax.jit(layers.with_defaults(model, convention).init)(KEY, x)
    return {path: np.asarray(leaf, np.float64) for path, leaf in named_leaves(params)}


def assert_uniform(values, bound):
    """Mean, variance and support of U(±bound)."""
    size, stddev = values.size, bound / SQRT3
    assert 0.95 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    assert abs(values.mean()) < 5 * stddev / size**0.5
    assert abs(values.var() / stddev**2 - 1) < 5 * (0.8 / size) ** 0.5


def model():
    return layers.serial(
        layers.conv(8, (3, 3)),
        layers.batch_norm(),
        jax.nn.relu,
        layers.reshape(-1, 32),
        layers.repeat(layers.residual(layers.dense(32)), 3),
        layers.lstm(20),
        layers.gru(16),
        layers.parallel(layers.transformer_block(2), layers.multi_head_attention(2)),
        layers.dense(30),
    )


X = jnp.ones((2, 8, 8, 4))


@pytest.mark.slow
def test_torch_defaults_of_a_whole_model():
    p = drawn(model(), "torch", X)
    assert_uniform(p["conv_0/kernel"], 1 / 6)  # fan_in 3·3·4
    assert_uniform(np.tile(p["conv_0/bias"], 1), np.abs(p["conv_0/bias"]).max())
    assert np.abs(p["conv_0/bias"]).max() <= 1 / 6 and p["conv_0/bias"].any()
    assert_uniform(p["repeat_0/residual_0/dense_0/kernel"], 32**-0.5)
    assert_uniform(p["repeat_0/residual_0/dense_0/bias"], 32**-0.5)
    for name in ("kernel", "recurrent_kernel", "bias"):
        assert_uniform(p[f"lstm_0/{name}"], 20**-0.5)
        assert_uniform(p[f"gru_0/{name}"], 0.25)
    for path in ("parallel_0/transformer_block_0/attention", "parallel_0/multi_head_attention_0"):
        assert_uniform(p[f"{path}/query/kernel"], (6 / (16 + 48)) ** 0.5)
        assert_uniform(p[f"{path}/output/kernel"], 0.25)
        assert not p[f"{path}/value/bias"].any()
    assert_uniform(p["parallel_0/transformer_block_0/hidden/dense_1/kernel"], 0.125)
    assert (p["batch_norm_0/scale"] == 1).all()
    assert_uniform(p["dense_0/kernel"], 32**-0.5)


@pytest.mark.slow
def test_keras_defaults_of_a_whole_model():
    p = drawn(model(), "keras", X)
    assert_uniform(p["conv_0/kernel"], (6 / (36 + 72)) ** 0.5)
    assert not p["conv_0/bias"].any() and not p["repeat_0/residual_0/dense_0/bias"].any()
    assert_uniform(p["repeat_0/residual_0/dense_0/kernel"], (6 / 64) ** 0.5)
    assert len(np.unique(p["repeat_0/residual_0/dense_0/kernel"])) > 3 * 32 * 32 - 10  # blocks differ
    assert_uniform(p["lstm_0/kernel"], (6 / (32 + 80)) ** 0.5)
    np.testing.assert_allclose(p["lstm_0/recurrent_kernel"] @ p["lstm_0/recurrent_kernel"].T, np.eye(20), atol=1e-5)
    assert p["lstm_0/bias"].tolist() == [0] * 20 + [1] * 20 + [0] * 40
    assert not p["gru_0/bias"].any()
    assert_uniform(p["dense_0/kernel"], (6 / 62) ** 0.5)


def test_defaults_of_embeddings_transposed_convolutions_and_shared_layers():
    ids = jnp.zeros((2, 3), jnp.int32)
    table = drawn(layers.embedding(500, 40), "torch", ids)["embedding"]
    assert abs(table.var() - 1) < 0.05
    assert_uniform(drawn(layers.embedding(500, 40), "keras", ids)["embedding"], 0.05)
    up = drawn(layers.serial(layers.conv_transpose(8, (3, 3))), "torch", X)
    assert_uniform(up["conv_transpose_0/kernel"], 72**-0.5)
    shared = layers.graph({"a": (layers.dense(40), "input"), "b": (layers.shared("a"), "a")}, outputs="b")
    assert_uniform(drawn(shared, "torch", jnp.ones((2, 40)))["a/kernel"], 40**-0.5)
    with pytest.raises(ValueError, match=r'^convention: expected "torch" or "keras", got "?\'?flax'):
        layers.with_defaults(shared, "flax")


def deep(stddev, bias):
    draw = initializers.normal(stddev)
    own = functools.partial(layers.dense, kernel_init=draw, bias_init=initializers.constant(bias))
    return layers.serial(
        layers.conv(6, (3, 3), kernel_init=draw),
        jax.nn.relu,
        layers.flatten,
        own(32),
        jnp.tanh,
        layers.repeat(layers.serial(own(32), jax.nn.relu), 4),
        layers.residual(own(32)),
        own(5),
    )


@jax.jit
def before_and_after_lsuv(stddev, bias, x):
    model = deep(stddev, bias)
    params, state = model.init(KEY, x)
    return params, layers.lsuv(model, params, state, x, tolerance=1e-3, iterations=30)


@pytest.mark.parametrize(("stddev", "bias"), [(2.0, 0.0), (0.001, 0.0), (0.5, 0.3)])
def test_lsuv_gives_every_kernel_unit_variance(stddev, bias):
    model, x = deep(stddev, bias), jax.random.normal(KEY, (200, 6, 6, 2))
    params, scaled = before_and_after_lsuv(stddev, bias, x)
    assert jax.tree.map(jax.typeof, scaled) == jax.tree.map(jax.typeof, params)
    for (path, before), (_, after) in zip(named_leaves(params), named_leaves(scaled), strict=True):
        if path.endswith("kernel") and not path.startswith("repeat"):
            ratio = np.asarray(after / before)
            np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-4)  # a scale, and nothing else
        elif path.endswith("bias"):
            np.testing.assert_array_equal(after, before)
    # The variance of each layer that has a kernel, with the walk written out.
    variances = []
    for node in model.wiring.nodes:
        own = scaled.get(node.name, {})
        blocks = (
            [own] if node.name != "repeat_0" else [jax.tree.map(lambda a, i=i: a[i], own)["serial_0"] for i in range(4)]
        )
        for block in blocks:
            dense = block.get("dense_0", block)
            if "kernel" in dense and dense["kernel"].ndim == 2:
                around = x if node.name == "residual_0" else 0
                x = x @ dense["kernel"] + dense["bias"][None]
                variances.append(float(jnp.var(x)))
                x = x + around
                x = jax.nn.relu(x) if node.name == "repeat_0" else x
            else:
                x, _ = node.layer.apply(block, {}, x)
                variances += [float(jnp.var(x))] if "kernel" in dense else []
    assert len(variances) == 1 + 1 + 4 + 1 + 1
    np.testing.assert_allclose(variances, 1, atol=2e-3)


def test_lsuv_of_a_shared_layer_is_that_of_its_first_use_and_the_next_layer_sees_it():
    draw = initializers.normal(2.0)
    nodes = {
        "first": (layers.dense(6, kernel_init=draw), "input"),
        "second": (layers.shared("first"), "first"),
        "last": (layers.dense(3, kernel_init=draw), "second"),
    }
    model, x = layers.graph(nodes, outputs="last"), jax.random.normal(KEY, (300, 6))
    params, state = jax.jit(model.init)(KEY, x)
    scaled = jax.jit(lambda params: layers.lsuv(model, params, state, x))(params)
    first, last = scaled["first"]["kernel"], scaled["last"]["kernel"]
    np.testing.assert_allclose(jnp.var(x @ first), 1, atol=0.01)
    np.testing.assert_allclose(jnp.var(x @ first @ first @ last), 1, atol=0.01)


@pytest.mark.slow
def test_lsuv_leaves_what_it_cannot_mend_and_names_bad_input():
    model = layers.serial(layers.dense(4), layers.lstm(3))
    x = jnp.zeros((10, 5, 2))
    params, state = model.init(KEY, x)
    same = jax.jit(lambda x: layers.lsuv(model, params, state, x))(x)  # nothing varies
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, params))
    lanes = jax.jit(jax.vmap(lambda x: layers.lsuv(model, params, state, x)))(
        jnp.stack([x, x + jnp.arange(2.0).reshape(1, 1, 2)])
    )
    assert (lanes["dense_0"]["kernel"][0] == params["dense_0"]["kernel"]).all()
    with pytest.raises(ValueError, match=r"^iterations: expected an int in \[1, inf\), got 0"):
        layers.lsuv(model, params, state, x, iterations=0)
    with pytest.raises(ValueError, match=r"^tolerance: "):
        layers.lsuv(model, params, state, x, tolerance=-1.0)
    with pytest.raises(ValueError, match=r"^dense_0: expected 2 features"):
        layers.lsuv(model, params, state, x[..., :1])


DEPTH, WIDTH, EXAMPLES, SEEDS = 30, 512, 16, 20
SETTINGS = {
    "he": (initializers.he_uniform(), jax.nn.relu),
    "xavier": (initializers.xavier_uniform(), jnp.tanh),
    "xavier 5/3": (initializers.xavier_uniform(gain=5 / 3), jnp.tanh),
    "torch's default": (initializers.torch_default(), jax.nn.relu),
    "xavier and relu": (initializers.xavier_uniform(), jax.nn.relu),
    "too large": (initializers.uniform(0.1 * SQRT3), jax.nn.relu),
}


@pytest.fixture(scope="module")
def moments():
    """Second moments of each layer's activations and of the gradients at its input, the mean over the seeds.

    Drawing and moving weights takes the time: all settings use the same draw, each times its factor.
    """
    unit, inits, activations = initializers.uniform(1.0), *zip(*SETTINGS.values(), strict=True)

    @jax.jit
    def ratios(key):
        return [init(key, (WIDTH, WIDTH)) / unit(key, (WIDTH, WIDTH)) for init in inits]

    found = np.asarray(ratios(KEY))
    factors = np.median(found, (1, 2))
    np.testing.assert_allclose(found, np.broadcast_to(factors[:, None, None], found.shape), rtol=1e-5)
    scale = factors.reshape(-1, 1, 1)

    def one(key):
        data, weights, out = jax.random.split(key, 3)
        x = jax.random.normal(data, (EXAMPLES, WIDTH))

        def forward(nudges):
            def layer(hidden, at):
                own, nudge = at
                z = (scale * (hidden + nudge)) @ unit(own, (WIDTH, WIDTH))
                new = jnp.stack([activation(row) for activation, row in zip(activations, z, strict=True)])
                return new, jnp.mean(new**2, (1, 2))

            return jax.lax.scan(layer, jnp.stack([x] * len(inits)), (jax.random.split(weights, DEPTH), nudges))

        _, back, squares = jax.vjp(forward, jnp.zeros((DEPTH, len(inits), EXAMPLES, WIDTH)), has_aux=True)
        (slopes,) = back(jnp.stack([jax.random.normal(out, x.shape)] * len(inits)))
        return squares, jnp.mean(slopes**2, (2, 3))

    keys = jax.random.split(jax.random.key(11, impl="rbg"), SEEDS)
    squares, gradients = jax.jit(lambda: jax.tree.map(lambda each: jnp.mean(each, 0), jax.lax.map(one, keys)))()
    return dict(zip(SETTINGS, zip(np.asarray(squares).T, np.asarray(gradients).T, strict=True), strict=True))


def tanh_theory(gain):
    """Mean field: second moments of activations, and the factors of gradients from layer to layer."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    weights = weights / weights.sum()
    before, squares, factors = gain**2, [], []
    for _ in range(DEPTH):
        values = np.tanh(np.sqrt(before) * nodes)
        squares.append(weights @ values**2)
        factors.append(gain**2 * (weights @ (1 - values**2) ** 2))
        before = gain**2 * squares[-1]
    gradients = np.cumprod(factors[::-1])[::-1]  # at the input of each layer, from 1 at the output
    return np.array(squares), gradients


@pytest.mark.slow
def test_he_and_relu_keep_the_signal(moments):
    squares, gradients = moments["he"]
    for each in (squares / squares[0], gradients / gradients[0]):
        assert each.min() > 0.5 and each.max() < 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gain"), [("xavier", 1.0), ("xavier 5/3", 5 / 3)])
def test_xavier_and_tanh_follow_the_theory(moments, name, gain):
    squares, gradients = moments[name]
    expected, slopes = tanh_theory(gain)
    np.testing.assert_allclose(squares, expected, rtol=0.05)
    np.testing.assert_allclose(gradients, slopes, rtol=0.3)
    if gain == 1.0:
        assert (np.diff(squares) < 0).all() and 0.01 < squares[-1] < 0.1  # decays, slowly: like 1 / (2·depth)
    else:
        np.testing.assert_allclose(squares[10:], squares[-1], rtol=0.02)  # settles
        assert squares[-1] > 0.4


@pytest.mark.parametrize(
    ("name", "factor"), [("torch's default", 1 / 6), ("xavier and relu", 1 / 2), ("too large", 2.56)]
)
def test_poor_ones_vanish_or_explode(moments, name, factor):
    squares, gradients = moments[name]
    np.testing.assert_allclose(squares[-1] / squares[0], factor**29, rtol=0.7)
    np.testing.assert_allclose(gradients[0] / gradients[-1], factor**29, rtol=0.7)
    assert not 1e-6 < factor**29 < 1e6


def test_gradients_at_a_kernel_of_zeros_made_in_the_same_program():
    layer, x = layers.dense(10, kernel_init=jax.nn.initializers.zeros), jax.random.normal(KEY, (4096, 64))
    labels = jnp.arange(4096) % 10

    def gradient(x):
        params, state = layer.init(KEY, x)

        def loss(params):
            logits, _ = layer.apply(params, state, x, train=True, key=None, weight=None)
            return losses.softmax_cross_entropy(logits, labels).mean()

        return jax.grad(loss)(params)["kernel"]

    right = x.T @ (0.1 - jax.nn.one_hot(labels, 10)) / 4096
    for _ in range(12):  # XLA's fault showed in every third compilation
        np.testing.assert_allclose(jax.jit(lambda x: gradient(x))(x), right, atol=1e-5)
