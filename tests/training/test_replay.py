"""A run that broke, again: stage, leaves, layer, operation and line, and the steps before, exactly."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.types import Batch

KEY = jax.random.key(3)
X = jax.random.normal(jax.random.key(0), (32, 4))
DATA = Batch(X, X[:, :1])


def of_root(outputs, targets):
    return jnp.sqrt(jnp.sum(jnp.square(outputs - targets), 1))  # without a derivative where both are equal


def of_logarithm(outputs, targets):
    return jnp.log(targets[:, 0] - 7 + 0 * outputs[:, 0])  # of 0


def broken_update(at):
    def update(updates, state, params=None):
        scale = jnp.where(state == at, 0.0, 1.0)  # at this update
        return jax.tree.map(lambda leaf: -0.01 * leaf / scale, updates), state + 1

    return optax.GradientTransformation(lambda params: jnp.int32(0), update)


def large_update(at):
    def update(updates, state, params=None):
        size = jnp.where(state < at, 0.0, 3e38)  # twice this is too much
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, size), updates), state + 1

    return optax.GradientTransformation(lambda params: jnp.int32(0), update)


def recipe(hp, **changes):
    parts = training.Recipe(
        model=layers.serial(layers.dense(3), jnp.tanh, layers.dense(1)),
        loss=losses.mean_squared_error,
        optimizer=optimizers.sgd(hp),
        batch_size=8,
        epochs=4,
    )
    return parts._replace(**changes)


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return f"test_replay.py:{first + next(i for i, line in enumerate(lines) if text in line)}"


def flat_features(x):
    return x * 0  # so that parameters may grow beyond what a product could bear


MARKED = DATA._replace(y=jnp.where(jnp.arange(32)[:, None] == 13, 7.0, 9.0))
FAR = DATA._replace(x=X.at[8:16].multiply(3e19))
STAGES = {
    "loss": (MARKED, {"loss": of_logarithm, "shuffle": False}, (0, 1), (), "", "log"),
    "gradient": (
        DATA._replace(y=jnp.ones((32, 1))),
        {"loss": of_root, "model": layers.serial(layers.dense(1), jax.nn.sigmoid, lambda x: jnp.minimum(x * 1e3, 1.0))},
        None, ("dense_0/bias", "dense_0/kernel"), "", "div",
    ),
    "running statistic": (
        FAR, {"model": layers.serial(layers.batch_norm(), layers.dense(1)), "shuffle": False},
        (0, 1), ("batch_norm_0/var",), "batch_norm_0", "mul",
    ),
    "update": (
        DATA, {"optimizer": broken_update(5)},
        (1, 1), ("dense_0/bias", "dense_0/kernel", "dense_1/bias", "dense_1/kernel"), "", "div",
    ),
    "parameter": (
        DATA, {"optimizer": large_update(6), "model": layers.serial(flat_features, layers.dense(1, use_bias=False))},
        (1, 3), ("dense_0/kernel",), "", "add",
    ),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_the_stage_the_leaves_the_layer_and_the_operation(stage):
    train, changes, where, paths, layer, operation = STAGES[stage]
    named = lambda hp: recipe(hp, **changes)  # noqa: E731
    result = jax.jit(training.make_run(named))(KEY, 0.01, train)
    assert training.Status(int(result.status)) is training.Status.NONFINITE_TRAINING
    again = training.replay(named, 0.01, result, train, key=KEY, steps=3)
    failure = again.failure
    assert (failure.stage, failure.origin.operation, again.exact) == (stage, operation, True), str(again)
    assert set(failure.paths) <= set(paths) and bool(failure.paths) == bool(paths) and failure.layer == layer
    if where is not None:
        assert (failure.epoch, failure.batch) == where
    assert (again.epoch[-1], again.batch[-1]) == (failure.epoch, failure.batch)
    source = {"loss": (of_logarithm, "of 0"), "gradient": (of_root, "jnp.sqrt"), "update": (broken_update, "/ scale")}
    if stage in source:
        assert failure.origin.place == line_of(*source[stage]) and failure.origin.place in str(again)


@pytest.mark.slow
def test_a_lane_of_many_runs_replays_as_it_was_with_everything_on():
    """Two seeds; of each the learning rate of the second epoch is much too large."""

    def everything(hp):
        return recipe(
            0.01,
            model=layers.serial(layers.dense(3), layers.batch_norm(), jnp.exp, layers.dropout(0.2), layers.dense(1)),
            optimizer=optimizers.sgd(lambda count: jnp.where(count < 6, 0.01, hp)),
            plateau=optimizers.reduce_on_plateau(patience=1, mode="min"),
            early_stopping=training.EarlyStopping(patience=5),
            micro_batches=2,
        )

    keys = jax.random.split(KEY, 2)
    lanes = jax.jit(jax.vmap(training.make_run(everything), (0, None, None, None)))(keys, 1e20, DATA, DATA)
    with pytest.raises(ValueError, match=r"^result: expected that of one run, got those of \[2\]: take one"):
        training.replay(everything, 1e20, lanes, DATA, DATA, key=keys[1])
    result = jax.tree.map(lambda leaf: leaf[1], lanes)
    again = training.replay(everything, 1e20, result, DATA, DATA, key=keys[1], steps=4)
    step = int(result.first_bad_step)
    assert (
        again.exact and again.failure.stage == "loss" and (again.failure.epoch, again.failure.batch) == divmod(step, 4)
    )
    np.testing.assert_array_equal(again.epoch * 4 + again.batch, np.arange(step - 4, step + 1))
    assert list(again.outputs) == ["dense_0", "batch_norm_0", "exp_0", "dropout_0", "dense_1"]
    # The parameters before the last step are the result's, the loss and the spreads are those of the history.
    for path, spread in again.params.items():
        layer, name = path.split("/")
        values = np.asarray(result.state.params[layer][name], np.float64)
        got = [float(each[-2]) for each in spread[:3]]
        np.testing.assert_allclose(got, [values.mean(), values.std(), abs(values).max()], rtol=1e-4, atol=1e-30)
    if again.failure.epoch:
        assert np.isfinite(again.loss[:-1]).all()
    with pytest.raises(ValueError, match=r"^result: expected that of a run with these arguments, which"):
        training.replay(everything, 0.01, result, DATA, DATA, key=keys[1])


@pytest.mark.slow
def test_a_validation_and_a_run_that_did_not_fail():
    valid = DATA._replace(x=X.at[5, 0].set(300.0))
    growing = lambda hp: recipe(hp, model=layers.serial(layers.dense(1), jnp.exp, layers.dense(1)))  # noqa: E731
    result = training.fit(growing, 1e-4, DATA, valid, key=KEY)
    again = training.replay(growing, 1e-4, result, DATA, valid, key=KEY, steps=2)
    assert training.Status(int(result.status)) is training.Status.NONFINITE_VALIDATION
    assert (again.failure.stage, again.failure.layer, again.failure.origin.operation) == ("validation", "exp_0", "exp")
    assert again.exact and again.failure.epoch == int(result.epochs) - 1
    result = training.fit(growing, 1e-4, DATA, key=KEY)
    again = training.replay(growing, 1e-4, result, DATA, key=KEY, steps=6)
    assert again.failure is None and again.exact and len(again.loss) == 6 and "nothing is not finite" in str(again)
    np.testing.assert_allclose(again.loss[-4:].mean(), result.history["train_loss"][-1], rtol=1e-6)
    moved = jax.tree.map(lambda leaf: leaf * (1 + 2.0**-23), result.state.params)
    other = training.replay(growing, 1e-4, result._replace(state=result.state._replace(params=moved)), DATA, key=KEY)
    assert not other.exact and "NOT that of the result" in str(other)


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "where"), [(2, (0, 1)), (3, (0, 4))])
def test_the_failure_begins_with_the_first_of_those_in_a_row(limit, where):
    """With a limit of 3 the row goes over the end of an epoch: batches 4, 0 and 1 of 5."""
    bad = jnp.zeros(40).at[jnp.array([8, 16, 32] if limit == 2 else [0, 8, 32])].set(7.0)
    train = Batch(jnp.ones((40, 1)), bad[:, None])

    def loss(outputs, targets):
        return outputs[:, 0] ** 2 + jnp.where(targets[:, 0] == 7, jnp.inf, 0.0)  # a constant

    def in_order(hp):
        return recipe(hp, model=layers.dense(1), loss=loss, shuffle=False, nonfinite_limit=limit)

    result = jax.jit(training.make_run(in_order))(KEY, 0.01, train)
    again = training.replay(in_order, 0.01, result, train, key=KEY, steps=2)
    assert (again.failure.epoch, again.failure.batch) == where and again.exact
    assert again.failure.origin.place == line_of(loss, "a constant")


def test_bad_calls_are_named():
    result = training.fit(recipe, 0.01, DATA, key=KEY)
    with pytest.raises(TypeError, match=r"^result: expected what a run returned, a RunResult, got a dict"):
        training.replay(recipe, 0.01, {}, DATA, key=KEY)
    with pytest.raises(ValueError, match=r"^steps: expected"):
        training.replay(recipe, 0.01, result, DATA, key=KEY, steps=0)
    with pytest.raises(TypeError, match=r"^replay: expected to be called outside of jit"):
        jax.jit(lambda rate: training.replay(recipe, rate, result, DATA, key=KEY))(0.01)
