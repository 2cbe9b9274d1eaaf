"""Embedding, attention and recurrences against their formulas written out, one step and one head at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import initializers, layers
from jaxopt_nn.trees import named_leaves

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 4)).astype("f")
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 1, 0]], bool)


def filled(layer, x, seed=1):
    """Parameters with nothing zero, as NumPy float64, and the layer's output for them."""
    shapes, state = jax.eval_shape(layer.init, KEY, x)
    assert state == {}
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.5, jnp.float32), shapes)
    y = jax.jit(lambda params, x: layer.apply(params, {}, x)[0])(params, x)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params), np.asarray(y)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def steps_of(kind, params, x):
    """All h of one sequence ``[T, F]``."""
    w, u, b = params["kernel"], params["recurrent_kernel"], params["bias"]
    size = u.shape[0]
    h, c, outputs = np.zeros(size), np.zeros(size), []
    for at in x:
        if kind == "simple_rnn":
            h = np.tanh(at @ w + h @ u + b)
        elif kind == "lstm":
            i, f, g, o = np.split(at @ w + h @ u + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            (wr, wz, wn), (ur, uz, un), (br, bz, bn) = (np.split(a, 3, axis=-1) for a in (w, u, b))
            r, z = sigmoid(at @ wr + h @ ur + br), sigmoid(at @ wz + h @ uz + bz)
            inner = (r * h) @ un if kind == "gru before" else r * (h @ un + params["recurrent_bias"])
            h = (1 - z) * np.tanh(at @ wn + bn + inner) + z * h
        outputs.append(h)
    return np.stack(outputs)


RECURRENT = {
    "simple_rnn": layers.simple_rnn,
    "lstm": layers.lstm,
    "gru": layers.gru,
    "gru before": lambda features, **kwargs: layers.gru(features, reset_after=False, **kwargs),
}
each_recurrence = pytest.mark.parametrize("kind", RECURRENT)


@each_recurrence
def test_a_recurrence_is_its_formula_step_by_step(kind):
    params, y = filled(RECURRENT[kind](3), X)
    np.testing.assert_allclose(y, np.stack([steps_of(kind, params, x) for x in X]), rtol=1e-4, atol=1e-5)
    _, last = filled(RECURRENT[kind](3, return_sequences=False, unroll=5), X)
    np.testing.assert_allclose(last, y[:, -1], rtol=1e-5, atol=1e-6)


@each_recurrence
def test_backwards_is_forwards_on_the_flipped_sequence(kind):
    _, y = filled(RECURRENT[kind](3, reverse=True), X)
    _, flipped = filled(RECURRENT[kind](3), X[:, ::-1].copy())
    np.testing.assert_allclose(y, flipped[:, ::-1], rtol=1e-5, atol=1e-6)
    _, last = filled(RECURRENT[kind](3, reverse=True, return_sequences=False), X)
    np.testing.assert_allclose(last, y[:, 0], rtol=1e-5, atol=1e-6)


@each_recurrence
def test_masked_steps_do_not_exist(kind):
    garbage = np.where(MASK[..., None], X, 1e3).astype("f")
    _, last = filled(RECURRENT[kind](3, return_sequences=False), (garbage, MASK))
    _, whole = filled(RECURRENT[kind](3), (garbage, MASK))
    np.testing.assert_allclose(last, whole[:, -1], rtol=1e-5, atol=1e-6)
    for row in range(3):
        _, alone = filled(RECURRENT[kind](3), X[row : row + 1, MASK[row]])
        np.testing.assert_allclose(whole[row, MASK[row]], alone[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(whole[2, 1], whole[2, 0])  # the state stands still


def test_initial_values_of_a_recurrence():
    params, _ = jax.jit(layers.lstm(4).init)(KEY, X)
    assert params["bias"].tolist() == [0] * 4 + [1] * 4 + [0] * 8
    gram = params["recurrent_kernel"] @ params["recurrent_kernel"].T
    np.testing.assert_allclose(gram, np.eye(4), atol=1e-5)
    assert np.abs(params["kernel"]).max() <= (6 / 20) ** 0.5
    halves = initializers.constant(0.5)
    params, _ = layers.gru(2, kernel_init=halves, recurrent_init=halves, bias_init=halves).init(KEY, X)
    assert all((leaf == 0.5).all() for leaf in jax.tree.leaves(params))


def test_a_bidirectional_layer_is_two_in_parallel():
    both = layers.parallel(layers.lstm(2), layers.lstm(2, reverse=True))
    params, _ = jax.jit(both.init)(KEY, X)
    y, _ = jax.jit(lambda params: both.apply(params, {}, X))(params)
    assert y.shape == (3, 5, 4)
    alone, _ = layers.lstm(2, reverse=True).apply(params["lstm_1"], {}, X)
    np.testing.assert_allclose(y[..., 2:], alone, rtol=1e-6)


def attended(params, queries, values, allowed, heads):
    """One example, head by head and query by query."""
    q, k, v = (
        source @ params[name]["kernel"] + params[name]["bias"]
        for name, source in (("query", queries), ("key", values), ("value", values))
    )
    size = q.shape[-1] // heads
    out = np.zeros_like(q)
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        for t in range(len(queries)):
            there = np.flatnonzero(allowed[t])
            if len(there):
                logits = k[there, own] @ q[t, own] / np.sqrt(size)
                shares = np.exp(logits - logits.max())
                out[t, own] = shares / shares.sum() @ v[there, own]
    return out @ params["output"]["kernel"] + params["output"]["bias"]


CAUSAL = np.tril(np.ones((5, 5), bool))
PAIRS = RNG.random((3, 5, 5)) < 0.6
PAIRS[1, 2] = False  # a query with nothing to attend to


@pytest.mark.parametrize(
    ("kwargs", "x", "allowed"),
    [
        ({}, X, np.ones((3, 5, 5), bool)),
        ({"causal": True, "head_features": 3}, X, np.stack([CAUSAL] * 3)),
        ({}, (X, X, MASK), np.stack([MASK] * 5, 1)),
        ({"causal": True}, (X, X, MASK), np.stack([MASK] * 5, 1) & CAUSAL),
        ({"features": 7}, (X, X, PAIRS), PAIRS),
        ({}, (X, RNG.normal(size=(3, 2, 6)).astype("f")), np.ones((3, 5, 2), bool)),
    ],
)
def test_attention_is_its_formula_head_by_head(kwargs, x, allowed):
    params, y = filled(layers.multi_head_attention(2, **kwargs), x)
    queries, values = x[:2] if isinstance(x, tuple) else (x, x)
    want = [attended(params, *both, a, 2) for *both, a in zip(queries, values, allowed, strict=True)]
    np.testing.assert_allclose(y, np.stack(want), rtol=1e-4, atol=1e-5)


def test_what_is_masked_has_no_gradient_and_a_query_without_keys_a_finite_one():
    layer = layers.multi_head_attention(2)
    params, _ = layer.init(KEY, X)

    def total(x):
        return jnp.sum(layer.apply(params, {}, (jnp.asarray(X), x, PAIRS & MASK[:, None]))[0] ** 2)

    slope = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(X)))
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[~(PAIRS & MASK[:, None]).any(1)], 0)
    assert slope[MASK].any()


def test_attention_weights_are_dropped_in_training_only():
    layer = layers.multi_head_attention(1, drop_rate=0.5)
    params, _ = layer.init(KEY, X)

    def apply(train, key):
        return layer.apply(params, {}, X, train=train, key=key, weight=None)[0]

    same = layers.multi_head_attention(1).apply(params, {}, X, train=True, key=None, weight=None)[0]
    np.testing.assert_array_equal(apply(False, None), same)
    drawn = jax.jit(jax.vmap(lambda key: apply(True, key)))(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(drawn.mean(0), same, atol=5 * float(drawn.std(0).max()) / 4000**0.5)
    assert drawn.std(0).min() > 0.01


def test_a_transformer_block_is_its_formula():
    block = layers.transformer_block(2, 3)
    params, y = filled(block, X)
    assert [path for path, _ in named_leaves(params)][:4] == [
        "attention/key/bias",
        "attention/key/kernel",
        "attention/output/bias",
        "attention/output/kernel",
    ]

    def normalized(x, name):
        centred = x - x.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return unit * params[name]["scale"] + params[name]["bias"]

    normed = normalized(X, "attention_norm")
    h = X + np.stack([attended(params["attention"], n, n, np.ones((5, 5)), 2) for n in normed])
    one, two = params["hidden"]["dense_0"], params["hidden"]["dense_1"]
    hidden = np.asarray(jax.nn.gelu(normalized(h, "hidden_norm") @ one["kernel"] + one["bias"]))
    np.testing.assert_allclose(y, h + hidden @ two["kernel"] + two["bias"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_blocks_pass_their_mask_on_and_stack():
    model = layers.repeat(layers.transformer_block(2, causal=True), 3)
    params, _ = jax.jit(model.init)(KEY, (X, MASK))
    garbage = jnp.where(MASK[..., None], X, 9.0)
    apply = jax.jit(lambda x: model.apply(params, {}, (x, MASK))[0])
    (y, mask), (other, _) = apply(X), apply(garbage)
    np.testing.assert_array_equal(mask, MASK)
    np.testing.assert_allclose(y[MASK], other[MASK], rtol=1e-5, atol=1e-5)
    plain = layers.repeat(layers.transformer_block(2), 3)
    assert jax.tree.structure(jax.eval_shape(plain.init, KEY, X)[0]) == jax.tree.structure(params)


IDS = np.array([[1, 2, 0], [6, 1, 1]])


def test_an_embedding_is_a_lookup_and_its_gradient_a_count():
    layer = layers.embedding(7, 2, padding_id=0)
    params, state = layer.init(KEY, IDS)
    table = np.asarray(params["embedding"])
    assert table.shape == (7, 2) and state == {}

    def apply(params):
        return layer.apply(params, {}, jnp.asarray(IDS), train=True, key=None, weight=None)[0]

    np.testing.assert_array_equal(apply(params), np.where(IDS[..., None] == 0, 0, table[IDS]))
    slope = jax.jit(jax.grad(lambda params: apply(params).sum()))(params)["embedding"]
    np.testing.assert_array_equal(slope[:, 0], [0, 3, 1, 0, 0, 0, 1])
    wide, _ = layers.embedding(2000, 50).init(KEY, IDS)
    np.testing.assert_allclose(jnp.mean(jnp.sum(wide["embedding"] ** 2, -1)), 1, rtol=0.02)
    half, _ = layers.embedding(7, 2, dtype=jnp.bfloat16, embedding_init=initializers.constant(2.0)).init(KEY, IDS)
    assert half["embedding"].dtype == jnp.bfloat16 and (half["embedding"] == 2).all()


def test_an_id_out_of_range_is_named_or_seen():
    layer = layers.embedding(7, 2)
    params, _ = layer.init(KEY, IDS)

    def apply(ids):
        return layer.apply(params, {}, ids)[0]

    for bad in (7, -1):
        with pytest.raises(ValueError, match=rf"^expected ids in \[0, 7\), got .*{bad}"):
            apply(jnp.array([[0, bad]]))
        y = jax.jit(apply)(jnp.array([[0, bad]]))
        assert jnp.isfinite(y[0, 0]).all() and jnp.isnan(y[0, 1]).all()


def test_reshape_keeps_the_batch_axis():
    x = jnp.arange(24.0).reshape(2, 12)
    np.testing.assert_array_equal(layers.reshape(3, 4)(x), x.reshape(2, 3, 4))
    np.testing.assert_array_equal(layers.reshape(2, -1, 3)(x), x.reshape(2, 2, 2, 3))
    assert layers.reshape()(jnp.ones((2, 1))).shape == (2,)
    assert layers.reshape(12)(jnp.ones((0, 3, 4))).shape == layers.flatten(jnp.ones((0, 3, 4))).shape == (0, 12)


def run(layer, x, **kwargs):
    params, state = layer.init(KEY, X if kwargs.pop("fits", True) else x)
    return layer.apply(params, state, x, train=kwargs.pop("train", False), key=None, weight=None)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: layers.embedding(0, 2), ValueError, r"^num_embeddings: "),
        (lambda: layers.embedding(3, 0), ValueError, r"^features: "),
        (lambda: layers.embedding(3, 2, padding_id=3), ValueError, r"^padding_id: expected an int in \[0, 3\), got 3"),
        (lambda: layers.embedding(3, 2).init(KEY, X), TypeError, r"^expected integer ids, got float32\[3, 5, 4\]"),
        (lambda: layers.reshape(2, 0), ValueError, r"^shape: expected ints >= 1, or one -1, got \[2, 0\]"),
        (lambda: layers.reshape(-1, -1), ValueError, r"^shape: expected one -1 at the most"),
        (lambda: layers.reshape(3)(X), ValueError, r"^expected \[3\] to hold the 20 numbers of an example \[5, 4\]"),
        (lambda: layers.multi_head_attention(0), ValueError, r"^num_heads: "),
        (lambda: layers.multi_head_attention(1, head_features=0), ValueError, r"^head_features: "),
        (lambda: layers.multi_head_attention(1, drop_rate=1.0), ValueError, r"^drop_rate: .* \[0, 1\), got 1"),
        (lambda: layers.transformer_block(1, 0), ValueError, r"^hidden_features: "),
        (lambda: run(layers.multi_head_attention(3), X), ValueError, r"^expected features that 3 heads divide, got 4"),
        (
            lambda: run(layers.multi_head_attention(2), X[..., :3]),
            ValueError,
            r"^expected a sequence \[batch, time, 4\], got shape \[3, 5, 3\]",
        ),
        (lambda: run(layers.multi_head_attention(2), X.astype(int)), TypeError, r"^expected floating-point .* int"),
        (lambda: run(layers.multi_head_attention(2), (X,)), ValueError, r"^expected x, \(queries, values\) or .* of 1"),
        (lambda: run(layers.multi_head_attention(2), (X, X[:2])), ValueError, r"^expected one batch size"),
        (
            lambda: run(layers.multi_head_attention(2), (X, X, MASK[:, :3])),
            ValueError,
            r"^mask: expected the shape \[3, 5\] or \[3, 5, 5\], got \[3, 3\]",
        ),
        (lambda: run(layers.multi_head_attention(2), (X, X, MASK * 1)), TypeError, r"^mask: expected bool, True where"),
        (
            lambda: run(layers.multi_head_attention(2, drop_rate=0.1), X, train=True),
            ValueError,
            r"^key: expected a PRNG key in training, got None",
        ),
        (lambda: layers.lstm(0), ValueError, r"^features: "),
        (lambda: layers.gru(2, unroll=0), ValueError, r"^unroll: "),
        (
            lambda: run(layers.serial(layers.lstm(2)), X[0], fits=False),
            ValueError,
            r"^lstm_0: expected a sequence \[batch, time, features\], got shape \[5, 4\]",
        ),
        (lambda: run(layers.lstm(2), X[:, :0]), ValueError, r"^expected a sequence .* got shape \[3, 0, 4\]"),
        (lambda: run(layers.lstm(2), X[..., :3]), ValueError, r"^expected 4 features, got shape \[3, 5, 3\]"),
        (lambda: run(layers.gru(2), X.astype(int)), TypeError, r"^expected floating-point input, got int"),
        (lambda: run(layers.gru(2), (X, MASK[:2])), ValueError, r"^mask: expected the shape \[3, 5\], got \[2, 5\]"),
        (lambda: run(layers.gru(2), (X, MASK * 1.0)), TypeError, r"^mask: expected bool"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_attention_to_nothing_is_finite_and_zero():
    layer = layers.multi_head_attention(2, use_bias=False)
    x = jax.random.normal(jax.random.key(0), (3, 4, 6))
    params, _ = layer.init(jax.random.key(1), x)

    def slope(values, mask):
        return jax.value_and_grad(lambda p: jnp.sum(layer.apply(p, {}, (x, values, mask))[0] ** 2))(params)

    for values, mask in ((x, jnp.zeros((3, 4), bool)), (x[:, :0], None), (x[:, :0], jnp.zeros((3, 0), bool))):
        value, gradient = slope(values, mask)
        assert value == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
