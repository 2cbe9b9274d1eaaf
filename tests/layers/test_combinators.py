"""Combinators against what they say they are, written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Layer

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)
KEY = jax.random.key(3)


def apply(model, variables, x=X, *, train=False, key=None, weight=None):
    return jax.jit(functools.partial(model.apply, train=train))(*variables, x, key=key, weight=weight)


def assert_equal(a, b, rtol=1e-6, atol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=rtol, atol=atol), a, b)


def paths(tree):
    return [path for path, _ in named_leaves(tree)]


def test_residual_adds_the_input_or_the_shortcut():
    model = layers.residual(layers.serial(layers.dense(5), jnp.tanh))
    params, state = model.init(KEY, X)
    assert paths(params) == ["serial_0/dense_0/bias", "serial_0/dense_0/kernel"]
    kernel = params["serial_0"]["dense_0"]["kernel"]
    assert_equal(apply(model, (params, state))[0], X + jnp.tanh(X @ kernel))
    model = layers.residual(layers.dense(3), layers.dense(3, use_bias=False))
    params, state = model.init(KEY, X)
    assert paths(params) == ["dense_0/bias", "dense_0/kernel", "dense_1/kernel"]
    assert_equal(
        apply(model, (params, state))[0], X @ params["dense_0"]["kernel"] + X @ params["dense_1"]["kernel"], 1e-5
    )


def test_parallel_merges_what_its_branches_give():
    branches = layers.dense(3, use_bias=False), layers.dense(3, use_bias=False)
    model = layers.parallel(*branches)
    variables = model.init(KEY, X)
    kernels = [variables[0][f"dense_{i}"]["kernel"] for i in range(2)]
    assert not np.allclose(*kernels)
    left, right = (X @ kernel for kernel in kernels)
    assert_equal(apply(model, variables)[0], jnp.concatenate([left, right], -1))
    assert_equal(apply(layers.parallel(*branches, merge=layers.add), variables)[0], left + right, 1e-5)
    assert_equal(apply(layers.parallel(*branches, merge=None), variables)[0], (left, right))
    assert_equal(apply(layers.parallel(*branches, merge=lambda both: both[0] * both[1]), variables)[0], left * right)
    assert_equal(apply(layers.parallel(branches[0]), variables)[0], left)  # the merge of one is a merge too
    assert_equal(apply(layers.parallel(branches[0], merge=None), variables)[0], (left,))
    gate = layers.serial(layers.concatenate, layers.dense(2))  # with parameters of its own
    assert paths(layers.parallel(*branches, merge=gate).init(KEY, X)[0])[2:] == [
        "serial_0/dense_0/bias",
        "serial_0/dense_0/kernel",
    ]


def test_a_graph_is_the_model_written_out():
    """Two inputs, a shared encoder with BatchNorm, a skip connection, two outputs; defined in a wild order."""
    model = layers.graph(
        {
            "score": (layers.dense(1, use_bias=False), "joined"),
            "right": (layers.shared("left"), "b"),
            "left": (layers.serial(layers.dense(3, use_bias=False), layers.batch_norm()), "a"),
            "joined": (layers.concatenate, "left", "right", "b"),
        },
        inputs=("a", "b"),
        outputs=("score", "right"),
    )
    a, b = X, X[::-1] + 1
    variables = model.init(KEY, {"a": a, "b": b})
    assert sorted(variables[0]) == ["left", "score"] and sorted(variables[1]) == ["left"]
    y, state = apply(model, variables, {"a": a, "b": b}, train=True)
    kernel = variables[0]["left"]["dense_0"]["kernel"]
    batch_norm = layers.batch_norm()
    norm, running = variables[0]["left"]["batch_norm_0"], variables[1]["left"]["batch_norm_0"]
    left, running = apply(batch_norm, (norm, running), a @ kernel, train=True)
    right, running = apply(batch_norm, (norm, running), b @ kernel, train=True)  # the second use goes on from the first
    score = jnp.concatenate([left, right, b], -1) @ variables[0]["score"]["kernel"]
    assert_equal(y, {"score": score, "right": right}, 1e-5)
    assert_equal(state["left"]["batch_norm_0"], running, 1e-5)
    assert_equal(apply(model, variables, (a, b), train=True)[0], y)  # inputs in their order
    # The gradient of a shared kernel is the sum over its uses.
    slope = jax.jit(jax.grad(lambda p: jnp.sum(apply(model, (p, variables[1]), (a, b))[0]["right"])))(variables[0])
    np.testing.assert_allclose(slope["left"]["dense_0"]["kernel"].sum(), 3 * b.sum() / (1 + 1e-5) ** 0.5, rtol=1e-4)


def test_one_input_and_one_output_are_bare():
    model = layers.graph({"out": (layers.add, "input", "tanh"), "tanh": (jnp.tanh, "input")}, outputs="out")
    assert model.init(KEY, X) == ({}, {})
    assert_equal(apply(model, ({}, {}))[0], X + jnp.tanh(X))


def block():
    return layers.residual(layers.serial(layers.batch_norm(), jnp.tanh, layers.dropout(0.2), layers.dense(5)))


def outcomes(model, params, state):
    """Loss, new state and gradient in training, and the output in evaluation."""

    def loss(params):
        y, after = apply(model, (params, state), train=True, key=KEY, weight=jnp.array([1.0, 2, 0, 1]))
        return jnp.sum(y**2), after

    return jax.value_and_grad(loss, has_aux=True)(params), apply(model, (params, state))[0]


@functools.cache
def written_out():
    """Three blocks in a row: parameters and state, and outcomes; trees of blocks as ``repeat`` stacks them."""

    def stacked(blocks):
        return {"residual_0": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks.values())}

    @jax.jit
    def all_at_once():
        model = layers.serial(*[block()] * 3)
        params, state = model.init(KEY, X)
        ((value, after), slope), y = outcomes(model, params, state)
        return [*map(stacked, (params, state))], (((value, stacked(after)), stacked(slope)), y)

    return all_at_once()


@pytest.mark.slow
@pytest.mark.parametrize(("unroll", "remat"), [(1, False), (2, True), (8, False)])
def test_repeat_is_serial_with_stacked_parameters(unroll, remat):
    (params, state), expected = written_out()
    model = layers.repeat(block(), 3, unroll=unroll, remat=remat)
    assert_equal(jax.jit(model.init)(KEY, X), (params, state))
    ((value, after), slope), y = jax.jit(functools.partial(outcomes, model))(params, state)
    ((wanted_value, wanted_after), wanted_slope), wanted_y = expected
    assert_equal((value, y), (wanted_value, wanted_y), 1e-5)
    assert_equal((after, slope), (wanted_after, wanted_slope), 1e-4, 1e-4)


def test_the_program_of_repeat_does_not_grow_with_depth():
    def text(n):
        model = layers.repeat(block(), n)

        def loss(params, state, key):
            return jnp.sum(apply(model, (params, state), train=True, key=key)[0])

        params, state = jax.eval_shape(model.init, KEY, X)
        init = jax.jit(model.init).lower(KEY, X).as_text().count("\n")
        return init, jax.jit(jax.grad(loss)).lower(params, state, KEY).as_text().count("\n")

    assert text(100) == text(3)


def test_repeated_blocks_differ_in_values_and_masks():
    params, _ = layers.repeat(layers.dense(5), 3).init(KEY, X)
    kernels = np.asarray(params["dense_0"]["kernel"])
    assert len(np.unique(kernels)) == kernels.size
    ones = jnp.ones((1, 4096))
    y, _ = apply(layers.repeat(layers.dropout(0.5), 2), ({}, {}), ones, train=True, key=KEY)
    assert abs(float(jnp.mean(y == 4)) - 0.25) < 0.05  # one mask for both would keep a half


def test_mlp_is_dense_norm_activation_dropout():
    model = layers.mlp([4, 3, 2], jnp.tanh, norm=layers.batch_norm, drop_rate=0.1)
    assert [node.name for node in model.wiring.nodes] == [
        *("dense_0", "batch_norm_0", "tanh_0", "dropout_0"),
        *("dense_1", "batch_norm_1", "tanh_1", "dropout_1"),
        "dense_2",
    ]
    params, _ = model.init(KEY, X)
    assert "bias" not in params["dense_0"] and "bias" in params["dense_2"]
    params, state = layers.mlp([2]).init(KEY, X)
    assert paths(params) == ["dense_0/bias", "dense_0/kernel"] and state == {}


def test_pyramids():
    assert layers.pyramid(1000, 10, 3) == (1000, 100, 10)
    assert layers.pyramid(10, 1000, 3, spacing="linear") == (10, 505, 1000)
    assert layers.pyramid(64, 64, 4) == (64,) * 4 and layers.pyramid(7, 7, 1) == (7,)


def test_eval_mode_holds_the_state_and_drops_nothing():
    inner = layers.serial(layers.dense(5), layers.batch_norm(), layers.dropout(0.5))
    model, held = layers.serial(inner, layers.dense(2)), layers.serial(layers.eval_mode(inner), layers.dense(2))
    variables = model.init(KEY, X)
    assert_equal(held.init(KEY, X), variables)
    y, state = apply(held, variables, train=True, key=KEY, weight=jnp.array([1.0, 0, 2, 1]))
    assert_equal(state, variables[1])
    assert_equal(y, apply(model, variables)[0])
    assert len(layers.describe(held, X).rows) == 4  # still seen into


def run(model, x=X, **kwargs):
    return apply(model, model.init(KEY, x), x, **kwargs)


def twice(x):
    return jnp.concatenate([x, x], -1)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: layers.add(X), TypeError, r"^expected a tuple of arrays, got one array float32\[4, 5\]; parallel"),
        (lambda: layers.concatenate(np.ones((3, 2))), TypeError, r"^expected a tuple of arrays, got one array float64"),
        (lambda: layers.add(()), TypeError, r"^expected a tuple of arrays, got \(\); "),
        (lambda: layers.add({"a": X}), TypeError, r"^expected a tuple of arrays, got \{'a'"),
        (
            lambda: run(layers.serial(layers.parallel(jnp.tanh, jnp.sin), layers.concatenate)),
            TypeError,
            r"^concatenate_0: expected a tuple of arrays, got one array float32\[4, 10\]",
        ),
        (
            lambda: run(layers.graph({"a": (layers.add, "input")}, outputs="a")),
            TypeError,
            r"^a: expected a tuple of arrays, got one array",
        ),
        (lambda: layers.parallel(), ValueError, r"^branches: expected one or more, got none"),
        (lambda: layers.residual(3), TypeError, r"^layer: expected a Layer or a function of an array, got 3"),
        (lambda: layers.repeat(jnp.tanh, 0), ValueError, r"^n: expected an int in \[1, inf\), got 0"),
        (lambda: layers.repeat(jnp.tanh, 2, unroll=0), ValueError, r"^unroll: "),
        (lambda: layers.mlp([]), ValueError, r"^widths: expected one or more, got none"),
        (lambda: layers.mlp([3, 0]), ValueError, r"^widths\[1\]: expected an int in \[1, inf\), got 0"),
        (lambda: layers.pyramid(3, 0, 2), ValueError, r"^last: "),
        (lambda: layers.pyramid(3, 2, 1), ValueError, r"^depth: expected 2 or more from the width 3 to 2, got 1"),
        (lambda: layers.pyramid(3, 2, 2, spacing="log"), ValueError, r'^spacing: expected "geometric" or "linear"'),
        (lambda: layers.graph({}, outputs="a"), ValueError, r"^nodes: expected one or more, got none"),
        (lambda: layers.graph({"a": (jnp.tanh, "input")}, outputs="b"), ValueError, r"^outputs: .* got 'b'"),
        (lambda: layers.graph({"a": (jnp.tanh, "input")}, outputs=()), ValueError, r"^outputs: .* got none"),
        (lambda: layers.graph({"a": (jnp.tanh, "x")}, outputs="a", inputs=("x", "x")), ValueError, r"^inputs: "),
        (lambda: layers.graph({"a": jnp.tanh}, outputs="a"), ValueError, r"^nodes\[a\]: expected \(layer, source, "),
        (lambda: layers.graph({"a": layers.dense(2)}, outputs="a"), ValueError, r"^nodes\[a\]: expected \(layer, "),
        (lambda: layers.graph({"a": (3, "input")}, outputs="a"), TypeError, r"^nodes\[a\]: layer: expected a Layer"),
        (
            lambda: layers.graph({"a": (jnp.tanh, "b")}, outputs="a"),
            ValueError,
            r"^nodes\[a\]: expected a source of \['input', 'a'\], got 'b'",
        ),
        (lambda: layers.graph({"a/b": (jnp.tanh, "input")}, outputs="a/b"), ValueError, r"^nodes: .* got 'a/b'"),
        (lambda: layers.graph({"input": (jnp.tanh, "input")}, outputs="input"), ValueError, r"^nodes: .* 'input'"),
        (
            lambda: layers.graph({"a": (layers.shared("c"), "input")}, outputs="a"),
            ValueError,
            r"^nodes\[a\]: expected to share the layer of one of \[\], got 'c'",
        ),
        (
            lambda: layers.graph({"a": (jnp.tanh, "b"), "b": (jnp.tanh, "a")}, outputs="a"),
            ValueError,
            r"^nodes: expected no cycle, got one among \['a', 'b'\]",
        ),
        (lambda: layers.graph({"a": (layers.add, "a", "input")}, outputs="a"), ValueError, r"^nodes: .*cycle.*\['a'\]"),
        (
            lambda: run(layers.serial(layers.residual(layers.dense(4)))),
            ValueError,
            r"^residual_0/add_0: expected the shape \[4, 5\] of the shortcut, got \[4, 4\]; give a shortcut",
        ),
        (
            lambda: run(layers.parallel(jnp.tanh, layers.flatten, lambda x: x[:2])),
            ValueError,
            r"^concatenate_0: expected shapes that agree but for the last axis, got \[\[4, 5\], \[4, 5\], \[2, 5\]\]",
        ),
        (
            lambda: run(layers.parallel(jnp.tanh, twice, merge=layers.add)),
            ValueError,
            r"^add_0: expected arrays of one",
        ),
        (
            lambda: run(layers.serial(layers.repeat(layers.serial(layers.dense(4)), 2))),
            ValueError,
            r"^repeat_0/serial_0: expected the block to keep .* float32\[4, 5\], got float32\[4, 4\]",
        ),
        (
            lambda: run(layers.graph({"a": (layers.repeat(block(), 2), "input")}, outputs="a"), train=True),
            ValueError,
            r"^a/residual_0/serial_0/dropout_0: key: expected a PRNG key in training, got None",
        ),
        (
            lambda: run(layers.graph({"a": (layers.add, "b", "c")}, outputs="a", inputs=("b", "c")), {"b": X}),
            ValueError,
            r"^expected inputs \['b', 'c'\], got \['b'\]",
        ),
        (
            lambda: run(layers.graph({"a": (layers.add, "b", "c")}, outputs="a", inputs=("b", "c")), (X, X, X)),
            ValueError,
            r"^expected 2 inputs \['b', 'c'\], as a dictionary or in this order, got 3",
        ),
    ],
)
def test_bad_input_is_named_with_its_path(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_any_layer_of_ones_own_is_a_child():
    own = Layer(
        lambda key, x: ({"gain": jnp.ones(())}, {"calls": jnp.int32(0)}),
        lambda params, state, x, *, train, key, weight: (params["gain"] * x, {"calls": state["calls"] + 1}),
        "own",
    )
    model = layers.serial(own, layers.repeat(own, 3))
    y, state = run(model)
    assert_equal(y, X)
    assert state == {"own_0": {"calls": 1}, "repeat_0": {"own_0": {"calls": state["repeat_0"]["own_0"]["calls"]}}}
    assert state["repeat_0"]["own_0"]["calls"].tolist() == [1, 1, 1]


KERNEL = jnp.ones((5, 5))


class Callable:
    def __init__(self):
        self.kernel = KERNEL

    def __call__(self, x):
        return x @ self.kernel

    method = __call__


def closure(held):
    return lambda x: x @ held


@pytest.mark.parametrize(
    ("function", "held"),
    [
        (lambda x: x @ KERNEL, r"KERNEL float32\[5, 5\]"),
        (closure(KERNEL), r"held float32\[5, 5\]"),
        (jax.jit(closure(np.ones((5, 5)))), r"held float64\[5, 5\]"),
        (jax.vmap(jax.checkpoint(closure(KERNEL))), r"held float32\[5, 5\]"),
        (functools.partial(jnp.dot, b=KERNEL), r"b float32\[5, 5\]"),
        (functools.partial(lambda w, x: x @ w["a"], {"a": KERNEL}), r"argument 0\['a'\] float32\[5, 5\]"),
        (lambda x, kernel=KERNEL: x @ kernel, r"kernel float32\[5, 5\]"),
        (Callable(), r"kernel float32\[5, 5\]"),
        (Callable().method, r"kernel float32\[5, 5\]"),
    ],
)
def test_arrays_that_a_function_holds_are_named(function, held):
    with pytest.warns(UserWarning, match=rf"of a model holds {held}: a constant of the model, which is not trained"):
        layers.serial(function)


def test_functions_without_weights_pass_in_silence():
    mask, scale, ids = np.ones((5, 5), bool), np.float32(2), jnp.arange(3)
    layers.serial(
        jax.nn.relu, jax.nn.gelu, np.tanh, jnp.sin, lambda x: jnp.where(mask, x, scale * ids[0]), layers.reshape(5, -1),
        functools.partial(jax.nn.leaky_relu, negative_slope=0.2), jax.jit(jax.nn.softmax), layers.concatenate,
    )  # fmt: skip
    # What is traced is an argument of something.
    jax.eval_shape(lambda w: layers.serial(lambda x: x @ w).apply({}, {}, X)[0], KERNEL)
