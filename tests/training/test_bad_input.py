"""Nothing is trained on garbage: each mistake is named at once, by ``run`` and by ``fit``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.types import Batch, Static

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
    ("no weight at all", Batch(X, Y, np.zeros(20, "f")), ValueError, r"^train\.weight: expected a positive sum"),
    (
        "too large for float32",
        Batch(X.astype("d") * 1e300, Y),
        ValueError,
        r"^train\.x: expected numbers that fit float32",
    ),
    ("no Batch", (X, Y), TypeError, r"^train: expected a Batch\(x, y, weight\).*, got a tuple"),
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
        ({"optimizer": optimizers.sgd}, 0.1, TypeError, r"^optimizer: expected an optax-protocol"),
        ({"loss": "mse"}, 0.1, TypeError, r"^loss: expected a function .*got 'mse'"),
        (
            {"loss": lambda o, t: jnp.mean(o, 0)},
            0.1,
            ValueError,
            r"^loss: expected one number an example, \[4\], got \[3\]",
        ),
        ({"loss": lambda o, t: jnp.mean(o)[None]}, 0.1, ValueError, r"^loss: expected one number an .*, got \[1\]"),
        ({"loss": lambda o, t: o}, 0.1, ValueError, r"^loss: .*got \[4, 3\]; average over the axes behind the first"),
        ({"loss": lambda o, t: jnp.argmax(o, -1)}, 0.1, TypeError, r"^loss: expected floats.*got int32"),
        ({"loss": lambda o, t: jnp.argmax(o, -1) == t}, 0.1, TypeError, r"^loss: expected floats.*got bool"),
        ({"penalty": 0.1}, 0.1, TypeError, r"^penalty: expected a function params -> scalar"),
        ({"penalty": lambda p: p["bias"]}, 0.1, ValueError, r"^penalty: expected a float scalar, got float32\[3\]"),
        (
            {"metrics": ["accuracy"]},
            0.1,
            TypeError,
            r"^metrics: expected a dictionary of functions.*got \['accuracy'\]",
        ),
        ({"metrics": {"accuracy": "accuracy"}}, 0.1, TypeError, r"^metrics\['accuracy'\]: expected a function"),
        (
            {"metrics": {"loss": losses.mean_squared_error}},
            0.1,
            ValueError,
            r"^metrics: expected another name than 'loss'",
        ),
        ({"shuffle": "no"}, 0.1, TypeError, r"^shuffle: expected True or False, got 'no'"),
        ({"early_stopping": True}, 0.1, TypeError, r"^early_stopping: expected training\.EarlyStopping.*got True"),
        ({"early_stopping": training.EarlyStopping(5)}, 0.1, TypeError, r"^early_stopping\.monitor: expected .*got 5"),
        ({"plateau": 0.5}, 0.1, TypeError, r"^plateau: expected optimizers\.reduce_on_plateau.*got 0\.5"),
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


def test_numpy_integers_are_integers():
    numbers = {name: np.int64(2) for name in ("batch_size", "epochs", "micro_batches", "evaluation_batch_size")}
    result = training.fit(lambda hp: recipe(hp, **numbers), 0.1, Batch(X, Y), Batch(X, Y), key=jax.random.key(0))
    assert result.history["valid_loss"].shape == (2,) and int(result.state.step) == 20


ONE_HOT = np.eye(3, dtype="f")[Y]


@DRIVERS
@pytest.mark.parametrize(
    ("model", "loss", "y", "match"),
    [
        (layers.dense(3), losses.softmax_cross_entropy, 2 * ONE_HOT, r"^train\.y, .*labels\[0\]: expected prob"),
        (
            layers.dense(1),
            losses.sigmoid_cross_entropy,
            2.0 * (Y[:, None] > 0) - 1,
            r"^train\.y, .*targets\[0, 0\]: .*-1",
        ),
        (
            layers.dense(3),
            lambda o, t: losses.softmax_cross_entropy(o, t[:, 0]),
            Y[:, None] + 1,
            r"^train\.y, .*\[0, 3\)",
        ),
    ],
    ids=["one-hot rows that do not sum to 1", "-1 and 1 of a sigmoid", "within a person's own loss"],
)
def test_targets_are_what_the_loss_says(drive, model, loss, y, match):
    with pytest.raises(ValueError, match=match):
        drive(
            lambda hp: recipe(hp, model=model, loss=loss),
            0.1,
            Batch(X, y.astype("f") if y.dtype == "d" else y),
            jax.random.key(0),
        )


@DRIVERS
def test_integer_targets_of_a_loss_of_ones_own_are_numbers(drive):
    """Counts with a Gaussian likelihood: they were refused as class labels."""

    def gaussian(outputs, targets):
        mean, log_scale = outputs[:, 0], outputs[:, 1]
        return 0.5 * ((targets - mean) * jnp.exp(-log_scale)) ** 2 + log_scale

    counts = Batch(X, np.arange(20) * 7 - 3)
    result = drive(lambda hp: recipe(hp, model=layers.dense(2), loss=gaussian), 1e-6, counts, jax.random.key(0))
    assert training.Status(int(result.status)) is training.Status.COMPLETED


@pytest.mark.parametrize(
    "call",
    [
        lambda key, data: training.make_run(recipe)(key, data, data),
        lambda key, data: jax.jit(training.make_run(recipe))(key, data, data),
        lambda key, data: training.fit(recipe, data, data, key=key),
        lambda key, data: training.fit(recipe, {"data": data}, data, key=key),
        lambda key, data: training.evaluate(recipe, data, None, data),
        lambda key, data: training.predict(recipe, data, None, data.x),
    ],
)
def test_data_are_no_hyperparameters(call):
    with pytest.raises(TypeError, match=r"^hparams: expected hyperparameters, got a Batch; they come before the data"):
        call(jax.random.key(0), Batch(X, Y))


def test_a_result_is_no_hyperparameter():
    result = training.fit(recipe, 0.1, Batch(X, Y), key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"^hparams: expected hyperparameters, got a TrainState"):
        training.predict(recipe, result, 0.1, X)


@pytest.mark.parametrize(
    "use",
    [
        lambda hp: recipe(0.1, model=layers.dense(3 if hp > 0.5 else 4)),
        lambda hp: recipe(0.1, epochs=[1, 2][hp.astype(int)]),
        lambda hp: recipe(0.1, loss=lambda o, t: np.asarray(hp)) if np.asarray(hp) else None,
    ],
)
def test_a_traced_number_used_as_a_python_value_says_static(use):
    with pytest.raises(TypeError, match=r"^recipe: it uses a traced hyperparameter as a Python value; .*Static"):
        jax.jit(training.make_run(use))(jax.random.key(0), jnp.float32(0.1), Batch(X, Y))


def test_static_values_need_no_axes():
    """One ``in_axes=0`` for all of ``hparams``: what is static has nothing to be mapped."""
    hparams = {"rate": jnp.array([0.1, 0.2]), "width": Static(3)}
    run = training.make_run(lambda hp: recipe(hp["rate"], model=layers.dense(hp["width"])))
    lanes = jax.jit(jax.vmap(run, (None, 0, None)))(jax.random.key(0), hparams, Batch(X, Y))
    assert lanes.status.shape == (2,)


def test_what_is_no_number_in_a_jitted_run_says_static():
    """The message is JAX's, which shows the name of the function."""
    run = jax.jit(training.make_run(lambda hp: recipe(hp["rate"])))
    for value in ("relu", jax.nn.relu, ["relu"]):
        with pytest.raises(TypeError, match=r"(?s)as jaxopt_nn\.types\.Static\(value\).* hparams\['activation'\]"):
            run(jax.random.key(0), {"rate": 0.1, "activation": value}, Batch(X, Y))


@DRIVERS
def test_a_list_of_numbers_is_no_sweep(drive):
    with pytest.raises(TypeError, match=r"^learning_rate: expected a number, got \[0\.1, 0\.2\]; to sweep it, use jax"):
        drive(recipe, [0.1, 0.2], Batch(X, Y), jax.random.key(0))


def test_a_second_softmax_is_warned_of():
    twice = layers.serial(layers.dense(3), jax.nn.softmax)
    with pytest.warns(UserWarning, match=r"^loss: it takes logits, but the model ends with a softmax"):
        training.fit(lambda hp: recipe(hp, model=twice), 0.1, Batch(X, Y), key=jax.random.key(0))


def test_bad_validation_data_are_named_too():
    with pytest.raises(ValueError, match=r"^valid\.x: .*row 4"):
        training.make_run(recipe)(jax.random.key(0), 0.1, Batch(X, Y), Batch(NAN, Y))
