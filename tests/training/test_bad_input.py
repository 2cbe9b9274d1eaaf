"""Nothing is trained on garbage: each mistake is named at once, by ``run`` and by ``fit``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.types import Batch

X, Y = np.random.default_rng(0).standard_normal((20, 6)).astype("f"), np.arange(20) % 3
NAN = X.copy()
NAN[4, 2] = np.nan
INF = X.copy()
INF[7, 0] = np.inf

DATA = [
    ("labels too large", Batch(X, Y.copy() + 1), ValueError, r"^train\.y, .*\[0, 3\).*3"),
    ("labels negative", Batch(X, Y - 1), ValueError, r"^train\.y, .*-1"),
    ("float labels", Batch(X, Y.astype("f")), (TypeError, ValueError), r"labels|integer"),
    ("NaN", Batch(NAN, Y), ValueError, r"^train\.x: .*row 4"),
    ("inf", Batch(INF, Y), ValueError, r"^train\.x: .*row 7"),
    ("lengths", Batch(X, Y[:-1]), ValueError, r"^train.*20.*19|^train.*19.*20"),
    ("empty", Batch(X[:0], Y[:0]), ValueError, r"^train.*(empty|at least one|no )"),
    ("negative weight", Batch(X, Y, np.full(20, -1.0, "f")), ValueError, r"^train\.weight: "),
    ("no Batch", (X, Y), TypeError, r"^train: expected a Batch\(x, y, weight\), got a tuple"),
]


def recipe(hp, **changes):
    parts = training.Recipe(
        model=layers.dense(3), loss=losses.softmax_cross_entropy, optimizer=optimizers.sgd(hp), batch_size=4, epochs=2
    )
    return parts._replace(**changes)


def by_run(recipe, hparams, train, key):
    return training.make_run(recipe)(key, hparams, train)


def by_fit(recipe, hparams, train, key):
    return training.fit(recipe, hparams, train, key=key)


DRIVERS = pytest.mark.parametrize("drive", [by_run, by_fit], ids=["run", "fit"])


@DRIVERS
@pytest.mark.parametrize(("train", "error", "match"), [case[1:] for case in DATA], ids=[case[0] for case in DATA])
def test_unusable_data(drive, train, error, match):
    with pytest.raises(error, match=match):
        drive(recipe, 0.1, train, jax.random.key(0))


@DRIVERS
@pytest.mark.parametrize(
    ("changes", "hparams", "error", "match"),
    [
        ({"batch_size": 0}, 0.1, ValueError, r"^batch_size: expected an int in \[1, inf\), got 0"),
        (
            {"batch_size": 21},
            0.1,
            ValueError,
            r"^batch_size: expected at most the number of training examples, 20, got 21",
        ),
        ({"batch_size": 4.0}, 0.1, TypeError, r"^batch_size: expected a positive int, got 4\.0"),
        ({"epochs": 0}, 0.1, ValueError, r"^epochs: "),
        ({"last_batch": "keep"}, 0.1, ValueError, r"^last_batch: expected \"pad\" or \"drop\", got 'keep'"),
        ({"optimizer": 0.1}, 0.1, TypeError, r"^optimizer: expected an optax-protocol"),
        ({}, -0.1, ValueError, r"^learning_rate: .*-0\.1"),
        ({}, float("nan"), ValueError, r"^learning_rate: .*nan"),
    ],
)
def test_unusable_recipes(drive, changes, hparams, error, match):
    with pytest.raises(error, match=match):
        drive(lambda hp: recipe(hp, **changes), hparams, Batch(X, Y), jax.random.key(0))


@DRIVERS
@pytest.mark.parametrize("key", [0, None, jnp.zeros(3), jax.random.split(jax.random.key(0), 2)])
def test_what_is_no_key(drive, key):
    with pytest.raises(TypeError, match=r"^key: expected (a|one) PRNG key, got"):
        drive(recipe, 0.1, Batch(X, Y), key)


@DRIVERS
def test_what_is_no_recipe(drive):
    with pytest.raises(TypeError, match=r"^recipe: expected a function of hyperparameters"):
        drive(recipe(0.1), 0.1, Batch(X, Y), jax.random.key(0))
    with pytest.raises(TypeError, match=r"^recipe: expected it to return a training\.Recipe, got dict"):
        drive(lambda hp: {}, 0.1, Batch(X, Y), jax.random.key(0))


def test_bad_validation_data_are_named_too():
    with pytest.raises(ValueError, match=r"^valid\.x: .*row 4"):
        training.make_run(recipe)(jax.random.key(0), 0.1, Batch(X, Y), Batch(NAN, Y))
