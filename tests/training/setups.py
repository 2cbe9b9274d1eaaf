"""Healthy set-ups of every kind, at which a sanity check has nothing to say: name to (recipe, train, valid)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn import data, layers, losses, optimizers, penalties, schedules, training
from jaxopt_nn.types import Batch

SETUPS = [
    "mlp",
    "linear_sgd",
    "batch_norm_dropout",
    "conv",
    "conv_batch_norm_momentum",
    "pixels_to_1",
    "scaled_by_the_model",
    "label_smoothing",
    "one_hot",
    "weighted",
    "focal",
    "iris",
    "iris_linear",
    "wine",
    "wine_raw_normalized",
    "one_sigmoid",
    "weighted_positives",
    "hinge",
    "regression",
    "regression_raw_targets",
    "quantile",
    "linear_regression",
    "noisy_regression",
    "poisson",
    "ordinal",
    "multi_label",
    "autoencoder",
    "xor",
    "spirals",
    "recurrent",
    "embedding",
    "warmup",
    "tiny_rate",
    "deep_residual",
    "few_rows",
    "tanh",
]


def parts(name, scaled=True):
    train, valid = data.split(jax.random.key(0), getattr(data, f"load_{name}")(), (0.8, 0.2))
    if not scaled:
        return train, valid
    scaler = data.fit_standard_scaler(train.x)
    return data.transform(scaler, train), data.transform(scaler, valid)


def images(train, valid):
    return tuple(Batch(np.reshape(part.x, (-1, 8, 8, 1)) / 16, part.y) for part in (train, valid))


def made(function, features=4, rows=300, seed=0):
    """Data of a function of standard normal features and a generator."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)).astype(np.float32)
    y = function(x, rng)
    cut = rows * 4 // 5
    return Batch(x[:cut], y[:cut]), Batch(x[cut:], y[cut:])


def setup(datasets, model, loss, optimizer=None, **rest):
    optimizer = optimizers.adam(1e-3) if optimizer is None else optimizer
    return (lambda hp: training.Recipe(model, loss, optimizer, **rest)), *datasets


def with_targets(datasets, change):
    return tuple(part._replace(y=change(np.asarray(part.y))) for part in datasets)


def mlp(*widths):
    return layers.mlp(widths)


def conv(norm):
    def block(filters):
        return layers.serial(
            layers.conv(filters, 3, padding="SAME"), *([layers.batch_norm()] if norm else []), jax.nn.relu
        )

    return layers.serial(block(8), layers.max_pool(2), block(16), layers.flatten, layers.dense(10))


@functools.cache
def all_setups():
    cross, mse, bce = losses.softmax_cross_entropy, losses.mean_squared_error, losses.sigmoid_cross_entropy
    digits, raw = parts("digits"), parts("digits", scaled=False)
    cancer, wine, iris = parts("breast_cancer"), parts("wine"), parts("iris")
    diabetes = parts("diabetes")
    unit = tuple(Batch(part.x, (np.asarray(part.y)[:, None] - 152) / 77) for part in diabetes)
    first = lambda x: x[:, 0]  # noqa: E731
    steps = np.random.default_rng(1).normal(size=(300, 10, 2)).astype(np.float32)
    sequences = Batch(steps, (steps[:, :, 0].sum(1) > 0).astype(int))
    tokens = np.random.default_rng(2).integers(0, 20, (300, 12))
    words = Batch(tokens, ((tokens < 5).sum(1) > 2).astype(int))
    angle = np.linspace(0.5, 9, 200)
    arm = np.stack([np.cos(angle), np.sin(angle)], 1) * angle[:, None] / 9
    spirals = Batch(np.concatenate([arm, -arm]).astype(np.float32), np.repeat([0, 1], 200))
    warmup = schedules.warmup(1e-3, 500)
    halves = lambda batch: (jax.tree.map(lambda leaf: leaf[::2], batch), jax.tree.map(lambda leaf: leaf[1::2], batch))  # noqa: E731
    linear = lambda x, rng: (x @ np.array([[1.0], [-2.0], [0.5], [0.0]], np.float32)).astype(np.float32)  # noqa: E731
    noisy = lambda x, rng: (x[:, :1] + 0.5 * rng.normal(size=(len(x), 1))).astype(np.float32)  # noqa: E731
    return {
        "mlp": setup(digits, mlp(64, 10), cross, batch_size=64),
        "linear_sgd": setup(digits, layers.dense(10), cross, optimizers.sgd(0.1)),
        "batch_norm_dropout": setup(
            digits,
            layers.serial(layers.dense(64), layers.batch_norm(), jax.nn.relu, layers.dropout(0.5), layers.dense(10)),
            cross, optimizers.adamw(1e-3, weight_decay=1e-2), penalty=penalties.l2(1e-4),
        ),
        "conv": setup(images(*raw), conv(False), cross),
        "conv_batch_norm_momentum": setup(images(*raw), conv(True), cross, optimizers.sgd(0.05, momentum=0.9)),
        "pixels_to_1": setup(tuple(Batch(part.x / 16, part.y) for part in raw), mlp(64, 10), cross),
        "scaled_by_the_model": setup(
            tuple(Batch(part.x * 16, part.y) for part in raw),
            layers.serial(lambda x: x / 255, mlp(64, 10)), cross,
        ),
        "label_smoothing": setup(digits, mlp(64, 10), functools.partial(cross, label_smoothing=0.1)),
        "one_hot": setup(with_targets(digits, lambda y: np.eye(10, dtype=np.float32)[y]), mlp(64, 10), cross),
        "weighted": setup(
            tuple(part._replace(weight=np.where(np.asarray(part.y) > 4, 2.0, 0.0)) for part in digits),
            mlp(64, 10), cross,
        ),
        "focal": setup(digits, mlp(64, 10), losses.softmax_focal),
        "iris": setup(iris, mlp(16, 3), cross, batch_size=16),
        "iris_linear": setup(iris, layers.dense(3), cross, optimizers.adam(0.01)),
        "wine": setup(wine, mlp(16, 3), cross, batch_size=142),
        "wine_raw_normalized": setup(
            parts("wine", scaled=False), layers.serial(layers.batch_norm(), mlp(16, 3)), cross, optimizers.sgd(0.1)
        ),
        "one_sigmoid": setup(cancer, layers.serial(mlp(16, 1), first), bce),
        "weighted_positives": setup(
            cancer, layers.serial(mlp(16, 1), first), functools.partial(bce, positive_weight=0.5), optimizers.lion(1e-4)
        ),
        "hinge": setup(cancer, layers.serial(layers.dense(1), first), losses.hinge, optimizers.sgd(0.01)),
        "regression": setup(unit, mlp(32, 1), mse),
        "regression_raw_targets": setup(
            with_targets(diabetes, lambda y: y[:, None]), mlp(32, 1), mse, optimizers.adam(0.01)
        ),
        "quantile": setup(unit, mlp(32, 1), functools.partial(losses.quantile, quantile=0.9)),
        "linear_regression": setup(made(linear), layers.dense(1), mse, optimizers.sgd(0.1)),
        "noisy_regression": setup(made(noisy), mlp(16, 1), losses.huber, optimizers.rmsprop(1e-3)),
        "poisson": setup(
            made(lambda x, rng: rng.poisson(np.exp(0.7 * x[:, :1])).astype(np.float32)), mlp(16, 1), losses.poisson_nll
        ),
        "ordinal": setup(made(lambda x, rng: np.digitize(x[:, 0], [-1, 0, 1])), mlp(16, 3), losses.ordinal),
        "multi_label": setup(made(lambda x, rng: (x[:, :3] > 0).astype(int)), mlp(16, 3), bce),
        "autoencoder": setup(made(lambda x, rng: x), mlp(16, 2, 16, 4), mse),
        "xor": setup(made(lambda x, rng: ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(int), 2), mlp(16, 2), cross),
        "spirals": setup(halves(spirals), mlp(32, 32, 2), cross, optimizers.adam(0.01)),
        "recurrent": setup(
            halves(sequences), layers.serial(layers.gru(16, return_sequences=False), layers.dense(2)), cross
        ),
        "embedding": setup(
            halves(words), layers.serial(layers.embedding(20, 8), lambda x: x.mean(1), layers.dense(2)), cross
        ),
        "warmup": setup(digits, mlp(64, 10), cross, optimizers.adam(warmup), batch_size=64),
        "tiny_rate": setup(digits, mlp(64, 10), cross, optimizers.adam(1e-5)),
        "deep_residual": setup(
            digits,
            layers.serial(
                layers.dense(32),
                *(layers.residual(layers.serial(layers.layer_norm(), layers.dense(32), jax.nn.gelu)) for _ in range(6)),
                layers.layer_norm(),
                layers.dense(10),
            ),
            cross,
        ),
        "few_rows": setup(made(lambda x, rng: (x[:, 0] > 0).astype(int), rows=40), mlp(8, 2), cross, batch_size=8),
        "tanh": setup(digits, layers.mlp([32, 10], jnp.tanh), cross, optimizers.sgd(0.05)),
    }  # fmt: skip
