"""Dense layers, recurrences, attention and embedding against PyTorch's (in float64) and Keras's, values and gradients.

Each kind takes 51 random configurations: weights, inputs and masks drawn anew, 17 for each of three sets of sizes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers

DRAWS = 17
SIZES = [(1, 1, 3, 4), (3, 7, 4, 2), (2, 4, 2, 6)]  # batch, time, input features, features
RECURRENT = {
    "simple_rnn": layers.simple_rnn,
    "lstm": layers.lstm,
    "gru": layers.gru,
    "gru before": functools.partial(layers.gru, reset_after=False),
}
ATTENTION = [(1, 2, 4, 2), (3, 5, 6, 3), (2, 4, 4, 1)]  # batch, time, features, heads


def drawn(layer, x_shape, y_shape, seed):
    """Weights, inputs and cotangents for all draws, as NumPy float64."""
    rng = np.random.default_rng(seed)
    shapes, _ = jax.eval_shape(layer.init, jax.random.key(0), jax.ShapeDtypeStruct(x_shape, jnp.float64))
    params = jax.tree.map(lambda leaf: rng.normal(size=(DRAWS, *leaf.shape)) * 0.7, shapes)
    return params, rng.normal(size=(DRAWS, *x_shape)), rng.normal(size=(DRAWS, *y_shape)), rng


def with_gradients(fn):
    """Values and gradients with respect to weights and input, for all draws at once."""

    def one(weights, x, cotangent, mask):
        def value(weights, x):
            y = fn(weights, x, mask)
            return jnp.sum(y * cotangent), y

        (_, y), slopes = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)(weights, x)
        return y, *slopes

    return jax.jit(jax.vmap(one))


def backward(module, x, cotangent):
    """Value and gradient by x of a PyTorch module, whose parameters keep theirs."""
    import torch

    at = torch.tensor(x, requires_grad=True)
    module.zero_grad()
    value = module(at)
    (value * torch.tensor(cotangent)).sum().backward()
    return value.detach(), at.grad


@functools.cache
def ours(kind, sizes, masked=False):
    """Our side of a recurrence: it is compared with two libraries."""
    batch, time, inputs, features = sizes
    layer = RECURRENT[kind](features)
    params, x, cotangent, rng = drawn(layer, (batch, time, inputs), (batch, time, features), sum(sizes))
    mask = np.sort(rng.random((DRAWS, batch, time)) < 0.7)[..., ::-1].copy() if masked else None

    def apply(params, x, mask):
        given = x if mask is None else (x, mask)
        return layer.apply(params, {}, given, train=True, key=None, weight=None)[0]

    return (params, x, cotangent, mask), with_gradients(apply)(params, x, cotangent, mask)


def assert_close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", ["simple_rnn", "lstm", "gru"])
def test_a_recurrence_is_that_of_torch(kind, sizes):
    torch = pytest.importorskip("torch")
    with jax.enable_x64(True):
        (params, x, cotangent, _), (y, slopes, x_slope) = ours(kind, sizes)
        size = sizes[-1]
        module = {"simple_rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind]
        module = module(sizes[2], size, batch_first=True, dtype=torch.float64)
        for draw in range(DRAWS):
            own = jax.tree.map(lambda leaf, draw=draw: np.array(leaf[draw]), params)
            hidden = np.zeros_like(own["bias"])
            if kind == "gru":
                hidden[2 * size :] = own["recurrent_bias"]
            values = own["kernel"].T, own["recurrent_kernel"].T, own["bias"], hidden
            with torch.no_grad():
                for weight, value in zip(module.parameters(), values, strict=True):
                    weight.copy_(torch.tensor(value))
            at = torch.tensor(x[draw], requires_grad=True)
            module.zero_grad()
            theirs = module(at)[0]
            (theirs * torch.tensor(cotangent[draw])).sum().backward()
            assert_close(y[draw], theirs.detach())
            assert_close(x_slope[draw], at.grad)
            kernel, recurrent, bias, other = (weight.grad.numpy() for weight in module.parameters())
            assert_close(slopes["kernel"][draw], kernel.T)
            assert_close(slopes["recurrent_kernel"][draw], recurrent.T)
            assert_close(slopes["bias"][draw], bias)
            if kind == "gru":
                assert_close(slopes["recurrent_bias"][draw], other[2 * size :])


@pytest.fixture
def keras():
    library = pytest.importorskip("keras")
    with jax.numpy_rank_promotion("allow"):
        yield library


def assert_equal_to_keras(layer_apply, given, found):
    """In float32: some of Keras's recurrences are in that, whatever their dtype."""
    theirs = with_gradients(layer_apply)(*narrow(given))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, theirs)


def narrow(tree):
    return jax.tree.map(lambda leaf: leaf if leaf.dtype == bool else leaf.astype("f"), tree)


def keras_order(kind, size, leaf):
    """Gates in Keras's order: z, r, n for a GRU."""
    if not kind.startswith("gru") or leaf.shape[-1] == size:
        return leaf
    r, z, n = (leaf[..., i * size : (i + 1) * size] for i in range(3))
    return jnp.concatenate([z, r, n], -1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrence_is_that_of_keras(keras, kind, sizes, masked):
    with jax.enable_x64(True):
        given, found = ours(kind, sizes, masked)
    size, kwargs = sizes[-1], {"return_sequences": True, "unit_forget_bias": False}
    if kind != "lstm":
        del kwargs["unit_forget_bias"]
    if kind.startswith("gru"):
        kwargs["reset_after"] = kind == "gru"
    layer = {"s": keras.layers.SimpleRNN, "l": keras.layers.LSTM, "g": keras.layers.GRU}[kind[0]](size, **kwargs)
    layer.build(given[1].shape[1:])

    def apply(params, x, mask):
        bias = keras_order(kind, size, params["bias"])
        if kind == "gru":
            bias = jnp.stack([bias, jnp.concatenate([jnp.zeros(2 * size), params["recurrent_bias"]])])
        kernels = (keras_order(kind, size, params[name]) for name in ("kernel", "recurrent_kernel"))
        weights = [*kernels, bias]
        return layer.stateless_call(weights, [v.value for v in layer.non_trainable_variables], x, mask=mask)[0]

    assert_equal_to_keras(apply, given, found)


def attention(causal, masked, sizes):
    batch, time, features, heads = sizes
    layer = layers.multi_head_attention(heads, causal=causal)
    params, x, cotangent, rng = drawn(layer, (batch, time, features), (batch, time, features), sum(sizes))
    mask = rng.random((DRAWS, batch, time)) < 0.6 if masked else None
    if mask is not None:
        mask[:, :, 0] = True  # each query sees something: where it sees nothing, torch gives NaN

    def apply(params, x, mask):
        return layer.apply(params, {}, (x, x, mask), train=True, key=None, weight=None)[0]

    return (params, x, cotangent, mask), with_gradients(apply)(params, x, cotangent, mask)


MODES = pytest.mark.parametrize(("causal", "masked"), [(False, False), (True, False), (False, True), (True, True)])


@MODES
@pytest.mark.parametrize("sizes", ATTENTION)
def test_attention_is_that_of_torch(causal, masked, sizes):
    torch = pytest.importorskip("torch")
    with jax.enable_x64(True):
        (params, x, cotangent, mask), (y, slopes, x_slope) = attention(causal, masked, sizes)
        _, time, features, heads = sizes
        module = torch.nn.MultiheadAttention(features, heads, batch_first=True, dtype=torch.float64)
        for draw in range(DRAWS):
            own = jax.tree.map(lambda leaf, draw=draw: np.array(leaf[draw]), params)
            parts = ("query", "key", "value")
            with torch.no_grad():
                module.in_proj_weight.copy_(torch.tensor(np.concatenate([own[p]["kernel"].T for p in parts])))
                module.in_proj_bias.copy_(torch.tensor(np.concatenate([own[p]["bias"] for p in parts])))
                module.out_proj.weight.copy_(torch.tensor(own["output"]["kernel"].T))
                module.out_proj.bias.copy_(torch.tensor(own["output"]["bias"]))
            at = torch.tensor(x[draw], requires_grad=True)
            module.zero_grad()
            theirs, _ = module(
                at,
                at,
                at,
                key_padding_mask=None if mask is None else torch.tensor(~mask[draw]),
                attn_mask=torch.tensor(~np.tril(np.ones((time, time), bool))) if causal else None,
            )
            (theirs * torch.tensor(cotangent[draw])).sum().backward()
            assert_close(y[draw], theirs.detach())
            assert_close(x_slope[draw], at.grad)
            kernels = np.split(module.in_proj_weight.grad.numpy(), 3)
            biases = np.split(module.in_proj_bias.grad.numpy(), 3)
            for part, kernel, bias in zip(parts, kernels, biases, strict=True):
                assert_close(slopes[part]["kernel"][draw], kernel.T)
                assert_close(slopes[part]["bias"][draw], bias)
            assert_close(slopes["output"]["kernel"][draw], module.out_proj.weight.grad.T)
            assert_close(slopes["output"]["bias"][draw], module.out_proj.bias.grad)


@MODES
@pytest.mark.parametrize("sizes", ATTENTION)
def test_attention_is_that_of_keras(keras, causal, masked, sizes):
    with jax.enable_x64(True):
        given, found = attention(causal, masked, sizes)
    features, heads = sizes[2:]
    layer = keras.layers.MultiHeadAttention(heads, features // heads, flash_attention=False)
    layer.build(*[given[1].shape[1:]] * 2)
    shapes = [tuple(variable.shape) for variable in layer.trainable_variables]

    def apply(params, x, mask):
        leaves = [params[part][leaf] for part in ("query", "key", "value", "output") for leaf in ("kernel", "bias")]
        weights = [leaf.reshape(shape) for leaf, shape in zip(leaves, shapes, strict=True)]
        rest = [variable.value for variable in layer.non_trainable_variables]
        allowed = None if mask is None else mask[:, None, :]
        return layer.stateless_call(weights, rest, x, x, attention_mask=allowed, use_causal_mask=causal)[0]

    assert_equal_to_keras(apply, given, found)


@pytest.mark.parametrize("shape", [(1, 3), (4, 5), (2, 3, 2)])
def test_a_dense_layer_is_that_of_torch_and_keras(keras, shape):
    torch = pytest.importorskip("torch")
    layer, module, theirs = layers.dense(4), torch.nn.Linear(shape[-1], 4, dtype=torch.float64), keras.layers.Dense(4)
    theirs.build(shape)

    def apply(params, x, mask):
        return layer.apply(params, {}, x, train=True, key=None, weight=None)[0]

    with jax.enable_x64(True):
        params, x, cotangent, _ = drawn(layer, shape, (*shape[:-1], 4), len(shape))
        found = y, slopes, x_slope = with_gradients(apply)(params, x, cotangent, None)
        for draw in range(DRAWS):
            with torch.no_grad():
                module.weight.copy_(torch.tensor(params["kernel"][draw].T))
                module.bias.copy_(torch.tensor(params["bias"][draw]))
            value, slope = backward(module, x[draw], cotangent[draw])
            for got, wanted in (
                (y, value), (x_slope, slope),
                (slopes["bias"], module.bias.grad), (slopes["kernel"], module.weight.grad.T),
            ):  # fmt: skip
                assert_close(got[draw], wanted)

    def as_in_keras(params, x, mask):
        return theirs.stateless_call([params["kernel"], params["bias"]], [], x)[0]

    assert_equal_to_keras(as_in_keras, (params, x, cotangent, None), found)


@pytest.mark.parametrize("shape", [(1, 3), (4, 5), (2, 3, 2)])
def test_a_normalized_weight_is_that_of_torch(shape):
    torch = pytest.importorskip("torch")
    module = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(shape[-1], 4, dtype=torch.float64))
    layer = layers.weight_norm(layers.dense(4))

    def apply(params, x, mask):
        return layer.apply(params, {}, x, train=True, key=None, weight=None)[0]

    with jax.enable_x64(True):
        params, x, cotangent, _ = drawn(layer, shape, (*shape[:-1], 4), len(shape))
        y, slopes, x_slope = with_gradients(apply)(params, x, cotangent, None)
        for draw in range(DRAWS):
            own = module.parametrizations.weight
            with torch.no_grad():
                own.original0.copy_(torch.tensor(params["kernel"]["magnitude"][draw][:, None]))
                own.original1.copy_(torch.tensor(params["kernel"]["direction"][draw].T))
                module.bias.copy_(torch.tensor(params["bias"][draw]))
            value, slope = backward(module, x[draw], cotangent[draw])
            for got, wanted in (
                (y, value), (x_slope, slope), (slopes["bias"], module.bias.grad),
                (slopes["kernel"]["magnitude"], own.original0.grad[:, 0]),
                (slopes["kernel"]["direction"], own.original1.grad.T),
            ):  # fmt: skip
                assert_close(got[draw], wanted)


def test_an_embedding_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows, size, padding = int(rng.integers(1, 6)), int(rng.integers(1, 4)), 0
        ids = rng.integers(0, rows, (3, 4))
        table, cotangent = rng.normal(size=(rows, size)).astype("f"), rng.normal(size=(3, 4, size)).astype("f")
        table[padding] = 0  # as torch begins with
        module = torch.nn.Embedding.from_pretrained(torch.tensor(table), freeze=False, padding_idx=padding)
        theirs = module(torch.tensor(ids))
        (theirs * torch.tensor(cotangent)).sum().backward()
        layer = layers.embedding(rows, size, padding_id=padding)

        def value(params, layer=layer, ids=ids, cotangent=cotangent):
            y = layer.apply(params, {}, jnp.asarray(ids), train=True, key=None, weight=None)[0]
            return jnp.sum(y * cotangent), y

        slope, y = jax.grad(value, has_aux=True)({"embedding": jnp.asarray(table)})
        np.testing.assert_array_equal(y, theirs.detach())
        np.testing.assert_allclose(slope["embedding"], module.weight.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rows", "size", "shape"), [(1, 3, (4,)), (5, 2, (3, 4)), (7, 1, (2, 1, 3))])
def test_an_embedding_is_that_of_keras(keras, rows, size, shape):
    rng = np.random.default_rng(rows)
    ids = rng.integers(0, rows, (DRAWS, *shape))
    table, cotangent = rng.normal(size=(DRAWS, rows, size)).astype("f"), rng.normal(size=(DRAWS, *shape, size))
    module, layer = keras.layers.Embedding(rows, size), layers.embedding(rows, size)
    module.build(shape)

    def of(look_up):
        def one(table, ids, cotangent):
            return look_up(table, ids), jax.grad(lambda table: jnp.sum(look_up(table, ids) * cotangent))(table)

        return jax.jit(jax.vmap(one))(table, ids, cotangent.astype("f"))

    theirs = of(lambda table, ids: module.stateless_call([table], [], ids)[0])
    ours = of(lambda table, ids: layer.apply({"embedding": table}, {}, ids, train=True, key=None, weight=None)[0])
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-6)
