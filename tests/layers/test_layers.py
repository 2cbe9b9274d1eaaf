"""Every layer, from one table: what all of them promise."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.monitoring
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
    ("embedding", layers.embedding, {"num_embeddings": 7, "features": 3, "padding_id": 2}, (4, 5)),
]
CASES = pytest.mark.parametrize("name", [case[0] for case in LAYERS])
ROWS = {case[0]: case[1:] for case in LAYERS}
KEY = jax.random.key(3)
MODES = (False, True)
STOCHASTIC = {
    "dropout", "serial", "parallel", "repeat", "mlp", "multi_head_attention", "transformer_block",
    "spatial_dropout", "stochastic_depth", "drop_connect", "gaussian_noise",
}  # fmt: skip


IDS = {"embedding"}  # whose input is integers, and whose dtype is an argument


EAGER = {"repeat", "lstm", "conv", "max_pool", "dropout", "layer_norm", "multi_head_attention"}  # of each kind


@functools.cache
def built(name):
    """A row's layer with its variables and an input, in float32."""
    factory, kwargs, shape = ROWS[name]
    layer, rng = factory(**kwargs), np.random.default_rng(1)
    x = rng.integers(0, 7, shape, np.int32) if name in IDS else rng.standard_normal(shape).astype("f")
    return layer, *jax.jit(layer.init)(jax.random.key(2), x), x


def applied(layer, train, weight=None):
    def apply(params, state, x):
        return layer.apply(params, state, x, train=train, key=KEY, weight=weight)

    return apply


def assert_same(a, b):
    assert jax.tree.all(jax.tree.map(lambda one, two: bool(np.array_equal(one, two)), a, b))


@CASES
def test_eager_equals_jit_equals_vmap(name):
    layer, params, state, x = built(name)

    @jax.jit
    def compiled(params, x):
        pairs = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (params, x))
        calls = [lambda params, x, train=train: applied(layer, train)(params, state, x) for train in MODES]
        return [(call(params, x), jax.vmap(call)(*pairs)) for call in calls]

    for train, (jitted, lanes) in zip(MODES, compiled(params, x), strict=True):
        eager = applied(layer, train)(params, state, jnp.asarray(x))
        for got in (jitted, jax.tree.map(lambda leaf: leaf[1], lanes)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), got, eager)
        if not train:
            assert_same(eager[1], state)


@CASES
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtype_and_shape_are_kept(name, dtype):
    """Types are known without computing anything."""

    def types(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)

    factory, kwargs, shape = ROWS[name]
    with jax.enable_x64(dtype == "float64"):
        layer, x = factory(**kwargs), jax.ShapeDtypeStruct(shape, dtype)
        if name in IDS:
            layer, x = factory(**kwargs, dtype=dtype), jax.ShapeDtypeStruct(shape, jnp.int32)
        params, state = jax.eval_shape(layer.init, KEY, x)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} <= {dtype}
        for train in MODES:
            y, new_state = jax.eval_shape(applied(layer, train), params, state, x)
            assert (y.dtype, y.shape[0]) == (dtype, shape[0])
            assert types(new_state) == types(state)


@CASES
def test_init_reads_only_shape_and_dtype(name):
    """The programs are the same, whether there are numbers or not."""
    layer, _, _, x = built(name)
    numbers, none = (
        str(jax.make_jaxpr(lambda key, at=at: layer.init(key, at))(KEY))
        for at in (jnp.asarray(x), jax.ShapeDtypeStruct(x.shape, x.dtype))
    )
    assert numbers == none


@CASES
def test_rows_of_weight_zero_change_nothing(name):
    layer, params, state, x = built(name)
    garbage, weight = x.copy(), np.ones(len(x), "f")
    garbage[-2:], weight[-2:] = 6 - x[-2:] if name in IDS else np.inf, 0
    apply = jax.jit(applied(layer, True, weight))
    (y, after), (other_y, other_after) = apply(params, state, x), apply(params, state, garbage)
    np.testing.assert_array_equal(y[:-2], other_y[:-2])
    assert_same(after, other_after)


@CASES
def test_a_batch_of_one(name):
    layer, params, state, x = built(name)
    assert_same(*(jax.tree.map(jnp.shape, jax.eval_shape(layer.init, KEY, at)) for at in (x, x[:1])))
    for y in jax.jit(lambda x: [applied(layer, train)(params, state, x)[0] for train in MODES])(x[:1]):
        assert np.isfinite(y).all()


@CASES
def test_an_empty_batch_changes_nothing(name):
    layer, params, state, x = built(name)

    @jax.jit
    def slope(params, x):
        def loss(params):
            y, after = applied(layer, True, jnp.zeros(len(x)))(params, state, x)
            return jnp.sum(y), (y, after)

        return jax.grad(loss, has_aux=True)(params)

    gradient, (y, after) = slope(params, x[:0])
    assert y.size == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    if name != "activity_penalty":  # whose state is the penalty of the batch: 0
        assert_same(after, state)
    gradient, (y, after) = slope(params, x)  # the same of rows that have no weight
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, y)))
    if name != "activity_penalty":
        assert_same(after, state)


@CASES
def test_the_short_call_evaluates(name):
    """``layer.apply(params, state, x)`` is the program of ``train=False, key=None, weight=None``."""
    layer, params, state, x = built(name)

    def program(apply):
        return re.sub(r" at 0x\w+", "", str(jax.make_jaxpr(apply)(params, state, x)))

    long = functools.partial(layer.apply, train=False, key=None, weight=None)
    assert program(layer.apply) == program(long)
    if name in STOCHASTIC:
        assert program(layer.apply) != program(applied(layer, True))


@pytest.mark.slow
def test_called_eagerly_a_layer_compiles_once():
    """After the first call of ``apply`` and of its gradient: nothing."""
    compiled: list[str] = []
    listening = [True]

    def listen(event, duration, **kwargs):
        if listening and event.endswith("backend_compile_duration"):
            compiled.append(event)

    def call(name):
        layer, params, state, x = built(name)
        params, weight = jax.tree.map(jnp.asarray, params), jnp.ones(len(x))
        for train in MODES:
            apply = applied(layer, train, weight)
            jax.grad(lambda params, apply=apply: jnp.sum(apply(params, state, x)[0]))(params)
            apply(params, state, jnp.asarray(x))

    def initialize(model=layers.serial(layers.repeat(layers.dense(5), 2), layers.dense(2)), x=jnp.ones((8, 5))):  # noqa: B008
        layers.lsuv(model, *model.init(KEY, x), x)

    calls = {name: functools.partial(call, name) for name in EAGER} | {"lsuv": initialize}
    jax.monitoring.register_event_duration_secs_listener(listen)
    before = [run() or len(compiled) for run in calls.values()]
    assert before[-1] > 0  # the listener hears
    after = {name: run() or len(compiled) - before[-1] for name, run in calls.items()}
    listening.clear()
    assert not any(after.values()), after


ANYWHERE = """
import sys
import jax, jax.numpy as jnp
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
sys.path.insert(0, sys.argv[1])
from test_layers import IDS, KEY, ROWS

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
explicit = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
automatic = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
(symbol,) = export.symbolic_shape("b")
failed = {}


def shape_of(leaf, size=None, mesh=None, spec=P()):
    shape = leaf.shape if size is None else (size, *leaf.shape[1:])
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=None if mesh is None else NamedSharding(mesh, spec))


for name, (factory, kwargs, shape) in ROWS.items():
    layer = factory(**kwargs)
    x = jax.ShapeDtypeStruct((8, *shape[1:]), jnp.int32 if name in IDS else jnp.float32)
    rows = (x, jax.ShapeDtypeStruct((8,), jnp.float32))
    params, state = model = jax.eval_shape(layer.init, KEY, x)

    def gradient(params, state, x, weight):
        def loss(params, x):
            y, _ = layer.apply(params, state, x, train=True, key=KEY, weight=weight)
            return jnp.sum(jnp.square(y))

        return jax.grad(loss, 0 if name in IDS else (0, 1))(params, x)

    def summed(*args):
        return jax.tree.map(lambda leaf: jax.lax.psum(jnp.sum(leaf), "data"), gradient(*args))

    def half(tree):
        narrow = lambda leaf: jnp.bfloat16 if leaf.dtype == jnp.float32 else leaf.dtype
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, narrow(leaf)), tree)

    parts = jax.shard_map(summed, mesh=automatic, in_specs=(P(), P(), P("data"), P("data")), out_specs=P())
    whole = [jax.tree.map(lambda leaf: shape_of(leaf, mesh=explicit), tree) for tree in model]
    split = [shape_of(leaf, mesh=explicit, spec=P("data")) for leaf in rows]
    attempts = {
        "strict": lambda: jax.eval_shape(gradient, *model, *rows),
        "strict, bfloat16": lambda: jax.eval_shape(gradient, *jax.eval_shape(layer.init, KEY, half(x)), *half(rows)),
        "shard_map": lambda: jax.eval_shape(parts, *model, *rows),
        "explicit": lambda: jax.eval_shape(gradient, *whole, *split),
        "export": lambda: export.export(jax.jit(gradient))(*model, *(shape_of(leaf, symbol) for leaf in rows)),
    }
    for kind, attempt in attempts.items():
        try:
            with jax.set_mesh(explicit) if kind == "explicit" else jax.enable_x64(False):
                attempt()
        except Exception as error:
            failed[name, kind] = repr(error)[:300]
assert not failed, failed
"""


@pytest.mark.slow
def test_gradients_work_in_shard_map_on_explicit_meshes_with_symbolic_batches_and_strict_promotion():
    """Types are checked while a program is traced; nothing is compiled."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ANYWHERE, str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@CASES
def test_a_missing_key_in_training_is_named_with_the_path(name):
    layer, params, state, x = built(name)
    child, model = f"{layer.name}_0", layers.serial(layer)

    def call(key):
        return model.apply({child: params}, {child: state}, x, train=True, key=key, weight=None)[0]

    if name in STOCHASTIC:
        with pytest.raises(ValueError, match=rf"^{child}(/\w+)*: key: expected a PRNG key in training, got None"):
            jax.eval_shape(call, None)
    else:
        assert jax.eval_shape(call, None) == jax.eval_shape(call, KEY)


@CASES
@pytest.mark.gradcheck
def test_gradient_and_curvature_against_differences(name):
    """Slope and curvature along one direction of parameters and input, in float64."""
    layer, params, state, x = built(name)
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params, state = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, state))
        point = params if name in IDS else (params, x.astype(np.float64))
        point = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape), point)
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), point)

        @jax.jit
        def along(t):
            def f(t):
                at = jax.tree.map(lambda leaf, step: leaf + t * step, point, direction)
                params, given = (at, x) if name in IDS else at
                y = applied(layer, True)(params, state, given)[0]
                return jnp.sum(jnp.sin(y + 0.1 * jnp.arange(y.size, dtype=y.dtype).reshape(y.shape)))

            def both(t):
                return jax.value_and_grad(f)(t)

            (value, slope), (_, forward) = jax.jvp(both, (t,), (1.0,))
            return value, slope, jax.grad(jax.grad(f))(t), forward

        step = 1e-4
        (low, low_slope, *_), (_, slope, *curvatures), (high, high_slope, *_) = (along(t) for t in (-step, 0.0, step))
        np.testing.assert_allclose(slope, (high - low) / (2 * step), rtol=1e-4, atol=1e-5)
        for curvature in curvatures:
            np.testing.assert_allclose(curvature, (high_slope - low_slope) / (2 * step), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "wrap", [lambda layer: layer, layers.weight_norm, lambda layer: layers.drop_connect(layer, 0.0)]
)
def test_a_kernel_that_lanes_share_has_the_gradient_of_the_product(wrap):
    """Whatever axis of x the lanes are on: compared with x @ W."""
    layer, weight = wrap(layers.dense(3, use_bias=False)), jnp.arange(12.0).reshape(2, 2, 3)
    params, _ = layer.init(KEY, jnp.ones((1, 3)))
    x, kernel = weight / 10, params["kernel"]
    if isinstance(kernel, dict):
        kernel = kernel["direction"]  # at first of the magnitudes that the kernel has

    def slope(product, axis):
        f = jax.jit(lambda p, x: jax.vmap(lambda x: product(p, x), axis, axis)(x))
        return jax.value_and_grad(lambda x: jnp.sum(weight * f(x[0], x[1]) ** 2))

    for axis in (0, 1):
        ours, (_, by_x) = slope(lambda p, x: layer.apply(p, {}, x, train=True, key=KEY)[0], axis)((params, x))
        theirs, (_, expected) = slope(lambda p, x: x @ p, axis)((kernel, x))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        np.testing.assert_allclose(by_x, expected, rtol=1e-4, atol=1e-5)


def test_a_dense_layer_in_lanes_on_the_second_axis():
    layer, weight = layers.dense(3, use_bias=False), jnp.arange(12.0).reshape(2, 2, 3)
    f = jax.jit(lambda kernel, x: jax.vmap(lambda x: layer.apply({"kernel": kernel}, {}, x, train=True)[0], 1, 1)(x))
    value, slope = jax.value_and_grad(lambda kernel: jnp.sum(weight * f(kernel, weight / 10) ** 2))(jnp.eye(3))
    np.testing.assert_allclose(value, 43.56, rtol=1e-6)
    rows = np.arange(12.0).reshape(4, 3)
    np.testing.assert_allclose(slope, 2 * (rows / 10).T @ (rows * rows / 10), rtol=1e-5)


def test_a_kernel_for_each_lane_and_a_head_that_they_share():
    first, head = layers.dense(8, use_bias=False), layers.dense(3, use_bias=False)
    kernels, shared, x = (
        jax.random.normal(jax.random.fold_in(KEY, i), shape)
        for i, shape in enumerate([(64, 5, 8), (8, 3), (64, 64, 5)])
    )

    def slope(one, two):
        def loss(shared, kernels):
            lanes = jax.jit(jax.vmap(lambda kernel, x: two(shared, jnp.tanh(one(kernel, x)))))
            return jnp.mean(jnp.sin(lanes(kernels, x)))

        return jax.grad(loss, (0, 1))(shared, kernels)

    def dense(layer):
        return lambda kernel, x: layer.apply({"kernel": kernel}, {}, x)[0]

    for ours, expected in zip(slope(dense(first), dense(head)), slope(*[lambda w, x: x @ w] * 2), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-7)


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


X = np.ones((4, 5), "f")


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: layers.dense(0), ValueError, r"^features: expected an int in \[1, inf\), got 0"),
        (lambda: layers.dense(2.0), TypeError, r"^features: expected a positive int, got 2\.0"),
        (lambda: layers.dropout(1.0), ValueError, r"^drop_rate: expected a finite number in \[0, 1\), got 1"),
        (lambda: layers.dropout(-0.1), ValueError, r"^drop_rate: .* got -0\.1"),
        (lambda: layers.batch_norm(momentum=1.5), ValueError, r"^momentum: "),
        (lambda: layers.serial(layers.dense(2), 3), TypeError, r"^layer: expected a Layer or a function"),
        (lambda: layers.batch_norm(16), TypeError, r"^batch_norm: expected arguments by name.*, got 16; the number of"),
        (lambda: layers.serial(layers.dense(2)).init(0, X), TypeError, r"^key: .* make one with jax.random.key\(0\)"),
        (lambda: layers.repeat(layers.dense(5), 2).init(0, X), TypeError, r"^key: expected a PRNG key, got 0"),
        (lambda: layers.dense(2).init(0, X), TypeError, r"^key: expected a PRNG key, got 0"),
        (
            lambda: layers.dense(2).init(KEY, [[1.0, 2.0]]),
            TypeError,
            r"^expected one array, got a list; .* jnp.asarray",
        ),
        (
            lambda: layers.serial(layers.dense(2)).init(KEY, (6,)),
            TypeError,
            r"^x\[0\]: expected an array, or jax.Shape",
        ),
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


@pytest.mark.parametrize(
    ("layer", "x", "error", "match"),
    [
        (layers.dense(3), X, KeyError, r"serial_0/dense_0: no entry 'kernel'"),
        (layers.flatten, (X, X), TypeError, r"^serial_0/flatten_0: expected one array, got a tuple of 2"),
        (
            layers.dropout(0.5),
            (X, X),
            TypeError,
            r"^serial_0/dropout_0: expected one array, got a tuple of 2; layers\.con",
        ),
        (layers.lstm(3), (X, X, X), ValueError, r"^serial_0/lstm_0: expected x or \(x, mask\), got a tuple of 3"),
        (lambda x: x[0][99], ([],), IndexError, r"^serial_0/lambda_0: list index out of range"),
    ],
)
def test_errors_of_any_class_carry_the_path(layer, x, error, match):
    with pytest.raises(error, match=match):
        layers.serial(layers.serial(layer)).apply({}, {}, x)


def test_errors_of_jax_carry_the_path_as_a_note():
    model = layers.serial(layers.repeat(lambda x: x if x.sum() > 0 else -x, 2))
    with pytest.raises(jax.errors.TracerBoolConversionError) as raised:
        model.init(KEY, X)
    assert raised.value.__notes__[-1] == "in the layer repeat_0/lambda_0"


@pytest.mark.slow
def test_integers_of_numpy_are_integers():
    two = np.int64(2)
    model = layers.serial(
        layers.conv(two, two, groups=np.int8(1)), layers.depthwise_conv(2, multiplier=two), layers.reshape(two, -1),
        layers.lstm(two, unroll=two), layers.repeat(layers.dense(two), two, unroll=two), layers.dense(two),
    )  # fmt: skip
    x = jnp.ones((3, 4, 2))
    params, state = model.init(KEY, x)
    assert model.apply(params, state, x)[0].shape == (3, 2, 2)
    table = layers.embedding(np.int32(5), two, padding_id=np.int32(0))
    assert table.apply(*table.init(KEY, jnp.array([1])), jnp.array([[0]]))[0].tolist() == [[[0, 0]]]
