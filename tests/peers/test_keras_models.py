"""Models of Keras become ours: same predictions, same training, the same weights in their files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import interop, layers, losses, optimizers, training
from jaxopt_nn.types import Batch

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # Keras's own
k = keras.layers

RNG = np.random.default_rng(1)
IMAGES = RNG.normal(size=(3, 9, 9, 4)).astype("f")
SEQUENCES = RNG.normal(size=(3, 7, 4)).astype("f")
TABLE = RNG.normal(size=(5, 6)).astype("f")
IDS = RNG.integers(0, 11, (3, 7)).astype("i")


@pytest.fixture(autouse=True)
def _as_keras_likes_it():
    keras.backend.clear_session()  # which counts the names of layers
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def sequential(x, *parts):
    return keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), *parts]), x


def mlp():
    parts = k.Dense(8, "relu"), k.BatchNormalization(), k.Dropout(0.3), k.Dense(3, "softmax", use_bias=False)
    return sequential(TABLE, *parts)


def batch_norm_without_scale_or_bias():
    parts = [k.BatchNormalization(scale=scale, center=centre) for scale in (True, False) for centre in (True, False)]
    return sequential(TABLE, *parts)


def strided_convolutions():
    return sequential(
        IMAGES,
        k.Conv2D(8, 3, strides=2, padding="same", groups=2, activation="gelu"),
        k.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
        k.BatchNormalization(),
        k.LeakyReLU(),
        k.MaxPooling2D(2, padding="same"),
        k.SeparableConv2D(5, 2),
        k.Flatten(),
        k.Dense(2),
    )


def padded_and_transposed_convolutions():
    return sequential(
        IMAGES,
        k.ZeroPadding2D(((1, 2), (0, 1))),
        k.Conv2D(8, 3, dilation_rate=2),
        k.Cropping2D(1),
        k.UpSampling2D(2),
        k.AveragePooling2D(3, 2, "same"),
        k.Conv2DTranspose(3, 4, strides=2, padding="valid", activation="tanh"),
        k.Conv2DTranspose(3, 2, strides=2, padding="same", use_bias=False),
        k.GlobalAveragePooling2D(),
    )


def convolutions_in_time():
    return sequential(
        SEQUENCES,
        k.Conv1D(8, 3, padding="causal", dilation_rate=2),
        k.DepthwiseConv1D(2),
        k.ReLU(max_value=2, negative_slope=0.1, threshold=0.2),
        k.PReLU(),
        k.GlobalMaxPooling1D(keepdims=True),
    )


def normalizations():
    parts = k.LayerNormalization(epsilon=1e-2, scale=False), k.GroupNormalization(2), k.RMSNormalization()
    return sequential(SEQUENCES, *parts, k.LayerNormalization(center=False), k.ELU(0.3), k.Softmax())


def embedding():
    parts = k.Embedding(11, 5), k.TimeDistributed(k.Dense(3, "tanh")), k.Permute((2, 1)), k.Reshape((-1,))
    return sequential(IDS.astype("f"), *parts, k.RepeatVector(2), k.Rescaling(2.0, 1.0))


def recurrence(cell):
    def model():
        return sequential(
            SEQUENCES,
            cell(5, return_sequences=True),
            cell(3, return_sequences=True, go_backwards=True, use_bias=False),
            k.Bidirectional(cell(3, return_sequences=True)),
            k.Bidirectional(cell(2), merge_mode="ave"),
        )

    model.__name__ = cell.__name__
    return model


def gru_as_in_the_paper():
    return sequential(SEQUENCES, k.GRU(5, reset_after=False))


def attention():
    x = keras.Input((7, 4))
    h = k.MultiHeadAttention(2, 3)(x, x)
    causal = k.MultiHeadAttention(2, 5, output_shape=4, use_bias=False)(h, x, use_causal_mask=True)
    return keras.Model(x, k.LayerNormalization()(k.Add()([h, causal, x]))), SEQUENCES


def functional():
    """Two inputs, a shared layer, a nested model that is used twice and frozen, two outputs."""
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    shared = k.Dense(4, "relu", name="shared")
    inner = keras.Sequential([keras.Input((4,)), k.Dense(4, "tanh"), k.BatchNormalization()], name="inner")
    left, right = inner(shared(a), training=False), inner(shared(b), training=False)
    outputs = k.Dense(2, name="one")(k.Concatenate()([left, right])), k.Multiply(name="two")([left, right])
    return keras.Model([a, b], list(outputs)), {"a": TABLE, "b": TABLE[::-1].copy()}


MODELS = [
    mlp,
    batch_norm_without_scale_or_bias,
    strided_convolutions,
    padded_and_transposed_convolutions,
    convolutions_in_time,
    normalizations,
    embedding,
    *map(recurrence, (k.SimpleRNN, k.LSTM, k.GRU)),
    gru_as_in_the_paper,
    attention,
    functional,
]


def randomized(model):
    """Every weight counts."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "seed" not in variable.path:
            value = rng.normal(0, 0.3, variable.shape)
            variable.assign(np.abs(value) + 0.5 if "variance" in variable.path else value)
    return model


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_a_model_has_the_predictions_of_keras_and_its_weights_go_both_ways(make, tmp_path):
    model, x = make()
    ours = interop.from_keras(randomized(model))
    expected = jax.tree.map(np.asarray, model(x, training=False))
    y, _ = jax.jit(ours.layer.apply)(ours.params, ours.model_state, x)
    for one, other in zip(jax.tree.leaves(y), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    # Its files hold the same, by the names that from_keras says.
    variables = ours.params, ours.model_state
    model.save_weights(tmp_path / "old.weights.h5")
    model.save(tmp_path / "old.keras")
    arrays = interop.load_keras(tmp_path / "old.weights.h5")
    assert arrays.keys() == interop.load_keras(tmp_path / "old.keras").keys()
    again = interop.from_keras_weights(ours.layer, variables, arrays, ours.names)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    # And back, into a file and into Keras: other numbers, then the outputs of ours in Keras.
    other = jax.tree.map(lambda leaf: np.asarray(leaf * 1.25, leaf.dtype), variables)
    changed = interop.to_keras_weights(ours.layer, other, ours.names, arrays)
    expected, _ = jax.jit(ours.layer.apply)(*other, x)
    interop.save_keras(tmp_path / "new.weights.h5", changed, like=tmp_path / "old.weights.h5")
    interop.save_keras(tmp_path / "new.keras", changed, like=tmp_path / "old.keras")
    for write in (
        lambda: model.load_weights(tmp_path / "new.weights.h5"),
        lambda: model.load_weights(tmp_path / "new.keras"),
        lambda: interop.into_keras(model, *other),
    ):
        randomized(model)
        write()
        got = model(x, training=False)
        for one, other_one in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other_one, atol=2e-5)


ACTIVATIONS = [
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "softplus", "softsign",
    "sigmoid", "log_sigmoid", "hard_sigmoid", "hard_silu", "hard_tanh", "tanh", "exponential", "softmax",
    "log_softmax", "linear",
]  # fmt: skip


def test_activations_are_those_of_keras():
    x = keras.Input((6,))
    model = keras.Model(x, [k.Activation(name)(x) for name in ACTIVATIONS])
    ours = interop.from_keras(model)
    y, _ = ours.layer.apply(ours.params, ours.model_state, 4 * TABLE)
    for name, one, other in zip(ACTIVATIONS, y.values(), model(4 * TABLE), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=name)


def convolutional_network():
    """BatchNorm, a frozen layer and a regularizer."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            # Without bias: its gradient before a BatchNorm is rounding alone, which Adam makes steps of.
            k.Conv2D(4, 3, 2, "same", use_bias=False, kernel_regularizer=keras.regularizers.L2(0.01)),
            k.BatchNormalization(momentum=0.8),
            k.ReLU(),
            k.Conv2D(4, 3, padding="same"),
            k.BatchNormalization(trainable=False),
            k.Flatten(),
            k.Dense(3, "softmax", kernel_regularizer=keras.regularizers.L1L2(0.002, 0.003)),
        ]
    )
    model.layers[3].trainable = False
    return model, RNG.normal(size=(64, 8, 8, 1)).astype("f")


def recurrent_network(cell):
    def model():
        return sequential(RNG.normal(size=(64, 7, 4)).astype("f"), cell(5), k.Dense(3, "softmax"))

    model.__name__ = cell.__name__
    return model


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize(
    "make", [convolutional_network, *map(recurrent_network, (k.LSTM, k.GRU))], ids=lambda make: make.__name__
)
def test_a_model_goes_on_training_with_the_curve_of_keras(make, name):
    model, x = make()
    randomized(model)
    labels = RNG.integers(0, 3, 64).astype("i")
    ours = interop.from_keras(model)
    if name == "sgd":
        optimizer, theirs = optimizers.sgd(0.05, 0.9, convention="keras"), keras.optimizers.SGD(0.05, 0.9)
    else:
        optimizer, theirs = optimizers.adam(0.01, convention="keras"), keras.optimizers.Adam(0.01)
    if ours.frozen:
        optimizer = optimizers.freeze(optimizer, ours.frozen)

    def loss_fn(params, state, batch, key):
        y, state = ours.layer.apply(params, state, batch.x, train=True, key=key)
        loss = -jnp.mean(jnp.log(jnp.take_along_axis(y, batch.y[:, None], 1)))
        return loss + (ours.penalty(params) if ours.penalty else 0.0), (state, {})

    step = jax.jit(training.make_step(loss_fn, optimizer))
    state = training.init_state(ours.params, optimizer, model_state=ours.model_state, key=jax.random.key(0))
    model.compile(theirs, "sparse_categorical_crossentropy")
    curves = []
    for start in 5 * [0, 16, 32, 48]:
        rows = slice(start, start + 16)
        state, metrics = step(state, Batch(x[rows], labels[rows]))
        curves.append((float(metrics["loss"]), float(model.train_on_batch(x[rows], labels[rows]))))
        model.reset_metrics()
    ours_curve, theirs_curve = np.transpose(curves)
    np.testing.assert_allclose(ours_curve, theirs_curve, rtol=2e-4)
    assert ours_curve[-4:].mean() < ours_curve[:4].mean()
    y, _ = ours.layer.apply(state.params, state.model_state, x)
    np.testing.assert_allclose(y, model(x, training=False), atol=2e-3)
    trained = interop.from_keras(model)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), state.model_state, trained.model_state)


def own_layer():
    class Own(k.Layer):
        def call(self, x):
            return x

    return Own(name="own")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda: k.Lambda(lambda x: x, name="odd"), r"inner/odd \(Lambda\)"),
        (own_layer, r"inner/own \(Own: a layer of your own, Own\)"),
        (lambda: k.Dense(3, lambda x: x, name="d"), r"inner/d \(Dense: activation=<lambda>\)"),
        (lambda: k.Dense(3, kernel_constraint="non_neg", name="d"), r"inner/d \(Dense: kernel_constraint\)"),
        (lambda: k.Dense(3, activity_regularizer="l2", name="d"), r"inner/d \(Dense: activity_regularizer=L2\)"),
        (lambda: k.Dense(3, dtype="mixed_bfloat16", name="d"), r"inner/d \(Dense: dtype=bfloat16\)"),
        (lambda: k.Dropout(0.3, noise_shape=(None, 1), name="d"), r"inner/d \(Dropout: noise_shape="),
        (lambda: k.BatchNormalization(axis=1, name="b"), r"inner/b \(BatchNormalization: axis=1\)"),
        (lambda: k.LSTM(3, dropout=0.2, name="r"), r"inner/r \(LSTM: dropout=0.2\)"),
        (lambda: k.GRU(3, recurrent_activation="relu", name="r"), r"inner/r \(GRU: recurrent_activation=relu\)"),
        (lambda: k.Conv1D(3, 2, data_format="channels_first", name="c"), r"inner/c \(Conv1D: data_format="),
    ],
)
def test_what_is_not_supported_is_named_with_its_path(part, message):
    inner = keras.Sequential([keras.Input((7, 4)), part()], name="inner")
    x = keras.Input((7, 4))
    model = keras.Model(x, k.Lambda(lambda x: x, name="last")(inner(x)))
    with pytest.raises(ValueError, match=rf"^model: not supported: {message}.*; last \(Lambda\)$"):
        interop.from_keras(model)


def test_what_is_no_such_model_is_named():
    class Own(keras.Model):
        def call(self, x):
            return x

    x = keras.Input((7, 4))
    masked = keras.Model(x, k.LSTM(2, name="r")(k.Masking(name="m")(x)))
    for model, error, message in (
        (Own(), TypeError, "expected a Sequential or Functional model of Keras 3, got a Own"),
        (keras.Sequential, TypeError, "got the class Sequential"),
        (3, TypeError, "got a int"),
        (keras.Sequential([k.Dense(3)]), ValueError, "expected a model that is built"),
        (masked, ValueError, r"not supported: .*m \(Masking\)"),
        (keras.Model(x, x + 1.0), ValueError, r"not supported: add\S* \(Add: an operation with a number\)"),
    ):
        with pytest.raises(error, match=message):
            interop.from_keras(model)


def test_weights_of_another_model_change_nothing():
    model, _ = sequential(TABLE, k.Dense(3, name="d"))
    before = [np.asarray(each) for each in model.weights]
    ours = interop.from_keras(model)
    with pytest.raises(ValueError, match=r"d/vars|dense/vars/0 is \[6, 3\], kernel makes it \[6, 4\]"):
        interop.into_keras(model, {"d": {"kernel": np.ones((6, 4)), "bias": np.ones(4)}}, ours.model_state)
    for one, other in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_as_it_is_is_a_layer():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [k.Dense(16), k.BatchNormalization(momentum=0.5), k.Dropout(0.2), k.Dense(2)]

        def call(self, x, training=False):
            for part in self.parts[:3]:
                x = part(x, training=training)
            return self.parts[3](keras.ops.relu(x))

    x = np.random.default_rng(0).normal(size=(128, 2)).astype("f")
    data = Batch(x, ((x**2).sum(1) > 1.4).astype("i"))
    model = Own()
    model(x[:2])
    layer = layers.from_keras(model)
    params, state = layer.init(jax.random.key(0), x)
    np.testing.assert_allclose(layer.apply(params, state, x)[0], model(x), atol=1e-6)
    y, after = layer.apply(params, state, x, train=True, key=jax.random.key(1))
    again, _ = layer.apply(params, state, x, train=True, key=jax.random.key(1))
    other, _ = layer.apply(params, state, x, train=True, key=jax.random.key(2))
    np.testing.assert_array_equal(y, again)
    assert not np.allclose(y, other) and jax.tree.structure(after) == jax.tree.structure(state)
    _, kept = layer.apply(params, state, x, train=True, key=jax.random.key(1), weight=jnp.zeros(128))
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    with pytest.raises(ValueError, match=r"^key: expected a PRNG key in training"):
        layer.apply(params, state, x, train=True)

    def recipe(rate):
        return training.Recipe(
            model=layer, loss=losses.softmax_cross_entropy, optimizer=optimizers.adam(rate), batch_size=32, epochs=30
        )

    result = jax.jit(training.make_run(recipe))(jax.random.key(0), 0.02, data, None)
    assert float(result.history["train_loss"][-1]) < 0.7 * float(result.history["train_loss"][0])
    np.testing.assert_array_equal(layer.init(jax.random.key(0), x)[0]["own"]["dense"]["kernel"], model.weights[0])
    for wrong, error, message in (
        (Own, TypeError, "got the class Own"),
        (Own(), ValueError, "expected a model that is built"),
        (3, TypeError, "got a int"),
    ):
        with pytest.raises(error, match=rf"^model: .*{message}"):
            layers.from_keras(wrong)
