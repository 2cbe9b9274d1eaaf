"""Every layer, from one table: what all of them promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers
from jaxopt_nn.trees import named_leaves

LAYERS = [
    ("dense", layers.dense, {"features": 3}, (8, 5)),
    ("dense rank 3", layers.dense, {"features": 3}, (4, 6, 5)),
    ("dense without bias", layers.dense, {"features": 3, "use_bias": False}, (8, 5)),
    ("dropout", layers.dropout, {"drop_rate": 0.3}, (8, 5)),
    ("batch_norm", layers.batch_norm, {}, (8, 5)),
    ("batch_norm rank 4", layers.batch_norm, {}, (4, 3, 2, 5)),
    ("relu", lambda: layers.as_layer(jax.nn.relu), {}, (8, 5)),
    ("flatten", lambda: layers.as_layer(layers.flatten), {}, (8, 2, 3)),
    (
        "serial",
        lambda: layers.serial(
            layers.flatten,
            layers.dense(4),
            layers.batch_norm(),
            jnp.tanh,
            layers.dropout(0.5),
            layers.serial(layers.dense(4), jax.nn.relu),
            layers.dense(2),
        ),
        {},
        (8, 2, 3),
    ),
    ("reshape", lambda: layers.as_layer(layers.reshape(3, -1)), {}, (8, 6)),
    ("activity_penalty", layers.activity_penalty, {"l1": 0.3, "l2": 0.2}, (8, 5)),
    ("with_defaults", lambda: layers.with_defaults(layers.mlp([4, 3], jnp.tanh), "torch"), {}, (8, 5)),
    ("residual", lambda: layers.residual(layers.dense(3), layers.dense(3)), {}, (8, 5)),
    ("parallel", lambda: layers.parallel(layers.batch_norm(), layers.dropout(0.5)), {}, (8, 5)),
    (
        "graph",
        lambda: layers.graph(
            {
                "one": (layers.dense(5), "input"),
                "two": (layers.shared("one"), "one"),
                "sum": (layers.add, "two", "one", "input"),
            },
            outputs="sum",
        ),
        {},
        (8, 5),
    ),
    (
        "repeat",
        lambda: layers.repeat(layers.serial(layers.dense(5), layers.batch_norm(), layers.dropout(0.5)), 2),
        {},
        (8, 5),
    ),
    ("mlp", layers.mlp, {"widths": (4, 3), "norm": layers.batch_norm, "drop_rate": 0.5}, (8, 5)),
    ("multi_head_attention", layers.multi_head_attention, {"num_heads": 2, "drop_rate": 0.3}, (4, 3, 6)),
    ("causal attention", layers.multi_head_attention, {"num_heads": 2, "causal": True}, (4, 3, 6)),
    ("transformer_block", layers.transformer_block, {"num_heads": 2, "drop_rate": 0.3}, (4, 3, 6)),
    ("simple_rnn", layers.simple_rnn, {"features": 2}, (4, 3, 6)),
    ("lstm", layers.lstm, {"features": 2, "return_sequences": False}, (4, 3, 6)),
    ("gru", layers.gru, {"features": 2, "reverse": True}, (4, 3, 6)),
    ("gru of the paper", layers.gru, {"features": 2, "reset_after": False, "unroll": 2}, (4, 3, 6)),
    ("conv", layers.conv, {"features": 4, "kernel_size": 3, "stride": 2, "groups": 2}, (4, 5, 6, 2)),
    ("conv 1-D", layers.conv, {"features": 2, "kernel_size": 3, "dilation": 2, "use_bias": False}, (4, 7, 3)),
    ("conv, native", layers.conv, {"features": 2, "kernel_size": 3, "lowering": "native"}, (4, 5, 6, 2)),
    ("depthwise_conv", layers.depthwise_conv, {"kernel_size": 2, "multiplier": 2}, (4, 5, 3)),
    ("conv_transpose", layers.conv_transpose, {"features": 2, "kernel_size": 3, "stride": 2}, (4, 3, 2)),
    ("max_pool", layers.max_pool, {"window": 2}, (4, 5, 6, 2)),
    ("max_pool, overlapping", layers.max_pool, {"window": 3, "stride": 2, "padding": "SAME"}, (4, 7, 2)),
    ("average_pool", layers.average_pool, {"window": 3, "stride": 2, "padding": "SAME"}, (4, 7, 2)),
    ("global_max_pool", lambda: layers.as_layer(layers.global_max_pool), {}, (4, 3, 2, 2)),
    ("global_average_pool", lambda: layers.as_layer(layers.global_average_pool), {}, (4, 3, 2, 2)),
    ("layer_norm", layers.layer_norm, {}, (4, 3, 6)),
    ("rms_norm", layers.rms_norm, {}, (4, 6)),
    ("group_norm", layers.group_norm, {"groups": 2}, (4, 3, 6)),
    ("instance_norm", layers.instance_norm, {}, (4, 3, 2, 6)),
    ("weight_norm", lambda: layers.weight_norm(layers.dense(3)), {}, (4, 6)),
    ("spatial_dropout", layers.spatial_dropout, {"drop_rate": 0.3}, (4, 3, 6)),
    ("stochastic_depth", layers.stochastic_depth, {"drop_rate": 0.3}, (4, 3)),
    ("drop_connect", lambda: layers.drop_connect(layers.dense(3), 0.3), {}, (4, 6)),
    ("gaussian_noise", layers.gaussian_noise, {"stddev": 0.5}, (4, 3)),
]
CASES = pytest.mark.parametrize(
    ("factory", "kwargs", "shape"), [case[1:] for case in LAYERS], ids=[case[0] for case in LAYERS]
)


def built(factory, kwargs, shape, dtype=jnp.float32):
    layer = factory(**kwargs)
    x = jax.random.normal(jax.random.key(1), shape, dtype)
    params, state = layer.init(jax.random.key(2), x)
    return layer, params, state, x


@CASES
@pytest.mark.parametrize("train", [False, True])
def test_eager_equals_jit_equals_vmap(factory, kwargs, shape, train):
    layer, params, state, x = built(factory, kwargs, shape)
    key = jax.random.key(3)

    def apply(params, x):
        return layer.apply(params, state, x, train=train, key=key, weight=None)

    eager = apply(params, x)
    jitted = jax.jit(apply)(params, x)
    lanes = jax.vmap(apply)(jax.tree.map(lambda a: jnp.stack([a, a]), params), jnp.stack([x, x]))
    for got in (jitted, jax.tree.map(lambda a: a[1], lanes)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), got, eager)


@CASES
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtype_shape_and_state_are_kept(factory, kwargs, shape, dtype):
    """Types are known without computing anything; that evaluation leaves the state alone is computed once."""

    def types(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)

    with jax.enable_x64(dtype == "float64"):
        layer, key = factory(**kwargs), jax.random.key(3)
        x = jax.ShapeDtypeStruct(shape, dtype)
        params, state = jax.eval_shape(layer.init, key, x)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} <= {dtype}
        for train in (True, False):
            y, new_state = jax.eval_shape(
                lambda *args, train=train: layer.apply(*args, train=train, key=key, weight=None), params, state, x
            )
            assert (y.dtype, y.shape[0]) == (dtype, shape[0])
            assert types(new_state) == types(state)
    if dtype == "float32" and jax.tree.leaves(state):
        layer, params, state, x = built(factory, kwargs, shape)
        _, same_state = layer.apply(params, state, x, train=False, key=None, weight=None)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), same_state, state))


@CASES
def test_init_reads_only_shape_and_dtype(factory, kwargs, shape):
    layer, params, state, _ = built(factory, kwargs, shape)
    from_shape = layer.init(jax.random.key(2), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), from_shape, (params, state)))


@CASES
def test_rows_of_weight_zero_change_nothing(factory, kwargs, shape):
    layer, params, state, x = built(factory, kwargs, shape)
    weight = jnp.ones(shape[0]).at[-2:].set(0)
    garbage = x.at[-2:].set(jnp.inf)

    def apply(x):
        return layer.apply(params, state, x, train=True, key=jax.random.key(3), weight=weight)

    (y, after), (other_y, other_after) = apply(x), apply(garbage)
    np.testing.assert_array_equal(y[:-2], other_y[:-2])
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), after, other_after))


@CASES
def test_a_batch_of_one(factory, kwargs, shape):
    layer, params, state, x = built(factory, kwargs, (1, *shape[1:]))
    for train in (False, True):
        y, _ = layer.apply(params, state, x, train=train, key=jax.random.key(3), weight=None)
        assert bool(jnp.all(jnp.isfinite(y)))


@CASES
@pytest.mark.gradcheck
def test_gradient_and_curvature_against_differences(factory, kwargs, shape):
    """Slope and curvature along one direction of parameters and input, in float64."""
    with jax.enable_x64(True):
        layer, params, state, x = built(factory, kwargs, shape, "float64")
        rng = np.random.default_rng(0)
        point = jax.tree.map(lambda leaf: np.asarray(leaf) + rng.normal(0, 0.1, leaf.shape), (params, x))
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), point)

        @jax.jit
        def along(t):
            def f(t):
                params, x = jax.tree.map(lambda leaf, step: leaf + t * step, point, direction)
                y = layer.apply(params, state, x, train=True, key=jax.random.key(3), weight=None)[0]
                return jnp.sum(jnp.sin(y + 0.1 * jnp.arange(y.size, dtype=y.dtype).reshape(y.shape)))

            slope = jax.grad(f)
            return f(t), slope(t), jax.grad(slope)(t), jax.jvp(slope, (t,), (1.0,))[1]

        step = 1e-4
        (low, low_slope, *_), (_, slope, *curvatures), (high, high_slope, *_) = (along(t) for t in (-step, 0.0, step))
        np.testing.assert_allclose(slope, (high - low) / (2 * step), rtol=1e-4, atol=1e-5)
        for curvature in curvatures:
            np.testing.assert_allclose(curvature, (high_slope - low_slope) / (2 * step), rtol=1e-4, atol=1e-4)


def test_names_are_kind_and_count():
    model = layers.serial(layers.dense(4), jax.nn.relu, layers.dense(3), layers.serial(layers.batch_norm()))
    params, state = model.init(jax.random.key(0), jnp.ones((2, 5)))
    assert [path for path, _ in named_leaves(params)] == [
        "dense_0/bias",
        "dense_0/kernel",
        "dense_1/bias",
        "dense_1/kernel",
        "serial_0/batch_norm_0/bias",
        "serial_0/batch_norm_0/scale",
    ]
    assert [path for path, _ in named_leaves(state)] == ["serial_0/batch_norm_0/mean", "serial_0/batch_norm_0/var"]


def test_serial_gives_each_child_its_own_key():
    model = layers.serial(layers.dropout(0.5), layers.as_layer(lambda x: 1 - x / 2), layers.dropout(0.5))
    y, _ = model.apply({}, {}, jnp.ones((1, 4096)), train=True, key=jax.random.key(0), weight=None)
    # Kept twice 0; dropped first and kept then 2: with one mask for both, 0 would be the only value.
    assert 0.15 < float(jnp.mean(y == 2.0)) < 0.35


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: layers.dense(0), ValueError, r"^features: expected an int in \[1, inf\), got 0"),
        (lambda: layers.dense(2.0), TypeError, r"^features: expected a positive int, got 2\.0"),
        (lambda: layers.dropout(1.0), ValueError, r"^drop_rate: expected a finite number in \[0, 1\), got 1"),
        (lambda: layers.dropout(-0.1), ValueError, r"^drop_rate: .* got -0\.1"),
        (lambda: layers.batch_norm(momentum=1.5), ValueError, r"^momentum: "),
        (lambda: layers.serial(layers.dense(2), 3), TypeError, r"^layer: expected a Layer or a function"),
    ],
)
def test_bad_arguments_are_named(build, error, match):
    with pytest.raises(error, match=match):
        build()


@pytest.mark.parametrize(
    ("x", "train", "error", "match"),
    [
        (np.ones((4, 6), "f"), False, ValueError, r"^serial_0/dense_0: expected 5 features on the last axis, got 6"),
        (np.ones((4, 5), "i"), False, TypeError, r"^serial_0/dense_0: expected floating-point input, got int32"),
        (
            np.ones(5, "f"),
            False,
            ValueError,
            r"^serial_0/dense_0: expected input \[batch, \.\.\., features\], got shape \[5\]",
        ),
        (
            np.ones((4, 5), "f"),
            True,
            ValueError,
            r"^serial_0/dropout_0: key: expected a PRNG key in training, got None",
        ),
    ],
)
def test_errors_carry_the_path_of_the_layer(x, train, error, match):
    model = layers.serial(layers.serial(layers.dense(4), layers.dropout(0.5)), layers.dense(2))
    params, state = model.init(jax.random.key(0), jnp.ones((1, 5)))
    with pytest.raises(error, match=match):
        model.apply(params, state, x, train=train, key=None, weight=None)
