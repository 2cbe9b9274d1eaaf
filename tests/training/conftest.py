"""One small classification problem with every kind of part: BatchNorm, dropout, a penalty, a ragged last batch."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from jaxopt_nn import layers, losses, metrics, optimizers, penalties, training
from jaxopt_nn.types import Batch


def _data(key, examples):
    x_key, noise_key = jax.random.split(key)
    x = jax.random.normal(x_key, (examples, 6))
    scores = x[:, :3] + 0.3 * jax.random.normal(noise_key, (examples, 3))
    return Batch(x, jnp.argmax(scores, 1).astype(jnp.int32))


def _recipe(**changes):
    def recipe(hp):
        parts = training.Recipe(
            model=layers.serial(
                layers.dense(8, use_bias=False),  # before BatchNorm a bias has only rounding for a gradient
                layers.batch_norm(),
                jax.nn.relu,
                layers.dropout(hp["drop_rate"]),
                layers.dense(3),
            ),
            loss=losses.softmax_cross_entropy,
            penalty=penalties.l2(hp["l2"]),
            optimizer=optimizers.adam(hp["learning_rate"]),
            metrics={"accuracy": metrics.accuracy},
            batch_size=16,
            epochs=6,
        )
        return parts._replace(**{name: value(hp) if callable(value) else value for name, value in changes.items()})

    return recipe


@pytest.fixture(scope="session")
def problem():
    """``recipe(**changes)`` makes a recipe function; a changed part that is callable is called with the hparams."""
    return SimpleNamespace(
        recipe=_recipe,
        hparams={"learning_rate": 0.01, "l2": 1e-3, "drop_rate": 0.2},
        train=_data(jax.random.key(0), 70),  # 70 = 4 * 16 + 6
        valid=_data(jax.random.key(1), 40),
        key=jax.random.key(2),
    )
