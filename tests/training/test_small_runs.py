"""Small functions over a run: the learning rate range test, running statistics anew, snapshot ensembles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses, optimizers, schedules, training
from jaxopt_nn.types import Batch

RNG = np.random.default_rng(0)
X = RNG.standard_normal((48, 3)).astype("f")
TRAIN = Batch(X, X @ np.array([[1.0], [-2.0], [0.5]], "f"))
KEY = jax.random.key(0)


def linear(rate, **changes):
    parts = training.Recipe(
        model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(rate), batch_size=16, epochs=1
    )
    return parts._replace(**changes)


@pytest.mark.slow
def test_the_range_test_trains_with_the_rates_it_reports():
    """Against a loop of one's own over the same batches, two epochs and a part of a third."""
    test = training.learning_rate_range_test(linear, TRAIN, key=training.RunKeys(KEY, KEY, KEY), low=1e-3, steps=7)
    np.testing.assert_allclose(test.learning_rate, np.geomspace(1e-3, 1, 7), rtol=1e-5)
    params, expected = layers.dense(1).init(KEY, X[:1])[0], []
    orders = [np.asarray(jax.random.permutation(jax.random.fold_in(KEY, epoch), 48)) for epoch in range(3)]
    for rate, rows in zip(test.learning_rate, np.concatenate(orders).reshape(-1, 16)[:7], strict=True):
        loss = lambda p, rows=rows: jnp.mean((X[rows] @ p["kernel"] + p["bias"][None] - TRAIN.y[rows]) ** 2)  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, gradient)
        expected.append(value)
    np.testing.assert_allclose(test.loss, expected, rtol=1e-4)
    ema = optax.ema(0.9)
    state = ema.init(jnp.zeros(()))
    for value, smooth in zip(test.loss, test.smooth_loss, strict=True):
        average, state = ema.update(value, state)
        np.testing.assert_allclose(smooth, average, rtol=1e-5)


@pytest.mark.slow
def test_a_rate_that_diverges_ends_the_test_and_is_not_suggested():
    # The squared error of inputs of variance 1 diverges above a rate of about 1, and hardly moves below 1e-3.
    test = training.learning_rate_range_test(linear, TRAIN, key=KEY, low=1e-6, high=1e6, steps=60)
    assert np.isnan(test.loss[-1]) and np.isfinite(test.loss[:20]).all()
    assert 1e-3 < test.suggestion < 1.0
    lanes = jax.vmap(lambda key: training.learning_rate_range_test(linear, TRAIN, key=key))(jax.random.split(KEY, 2))
    assert lanes.loss.shape == (2, 100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": 0.0}, r"^low: expected a finite number in \(0"),
        ({"low": 1.0, "high": 0.1}, r"^high: expected a finite number in \(1"),
        ({"steps": 1}, r"^steps: expected at least 2, got 1"),
    ],
)
def test_a_range_that_is_none_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        training.learning_rate_range_test(linear, TRAIN, key=KEY, **arguments)


def normalized(rate):
    model = layers.serial(layers.dense(4), layers.batch_norm(), jax.nn.relu, layers.dense(1))
    return linear(rate, model=model, optimizer=optimizers.weight_average(optimizers.sgd(rate)), epochs=3)


@pytest.mark.slow
def test_statistics_anew_are_those_of_the_weights():
    result = training.make_run(normalized)(KEY, 0.3, TRAIN)
    updated = training.update_batch_statistics(normalized, 0.3, result, TRAIN, key=KEY)
    kernel, bias = result.params["dense_0"]["kernel"], result.params["dense_0"]["bias"]
    hidden = X @ np.asarray(kernel) + np.asarray(bias)[None]
    statistics = updated.model_state["batch_norm_0"]
    np.testing.assert_allclose(statistics["mean"], hidden.mean(0), rtol=1e-3, atol=1e-5)  # three batches of 16 of 48
    order = np.asarray(jax.random.permutation(jax.random.split(KEY)[0], 48)).reshape(3, 16)
    np.testing.assert_allclose(statistics["var"], hidden[order].var(1, ddof=1).mean(0), rtol=1e-3)
    assert abs(result.model_state["batch_norm_0"]["mean"] - hidden.mean(0)).max() > 0.01  # it was of other weights
    again = training.update_batch_statistics(normalized, 0.3, updated, TRAIN, key=KEY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), again.model_state, updated.model_state)


def test_statistics_of_features_that_are_large_are_exact_too():
    far = TRAIN._replace(x=X * np.array([1e4, 1e-3, 1e7], "f") + np.array([1e6, 0.0, 1e8], "f"))
    recipe = lambda rate: linear(rate, model=layers.serial(layers.batch_norm(), layers.dense(1)))  # noqa: E731
    result = training.make_run(recipe)(KEY, 0.1, far)
    statistics = training.update_batch_statistics(recipe, 0.1, result, far, key=KEY).model_state["batch_norm_0"]
    order = np.asarray(jax.random.permutation(jax.random.split(KEY)[0], 48)).reshape(3, 16)
    exact = np.float64(far.x)[order]
    np.testing.assert_allclose(statistics["mean"], exact.mean(1).mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics["var"], exact.var(1, ddof=1).mean(0), rtol=1e-4)


def test_a_range_test_without_a_finite_loss_suggests_nothing():
    infinite = lambda rate: linear(rate, loss=lambda outputs, targets: outputs[:, 0] * jnp.inf)  # noqa: E731
    test = training.learning_rate_range_test(infinite, TRAIN, key=KEY, steps=3)
    assert np.isnan(test.loss).all() and np.isnan(test.suggestion)


@pytest.mark.slow
def test_snapshots_are_runs_one_after_another():
    def recipe(rate):
        return linear(
            rate,
            model=layers.serial(layers.batch_norm(), layers.dropout(0.2), layers.dense(1)),
            optimizer=optimizers.weight_average(optimizers.sgd(schedules.cosine_decay(rate, 6)), start=3),
            epochs=2,
        )

    keys = training.RunKeys(*jax.random.split(KEY, 3))
    members = training.snapshot_ensemble(recipe, 0.1, TRAIN, key=keys, cycles=2)
    weights, run = None, training.make_run(recipe)
    for index in range(2):
        order, noise = (jax.random.fold_in(key, index) for key in (keys.order, keys.noise))
        weights = run(training.RunKeys(keys.init, order, noise), 0.1, TRAIN, None, weights)
        for a, b in zip(jax.tree.leaves(members.params), jax.tree.leaves(weights.params), strict=True):
            np.testing.assert_allclose(a[index], b, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(members.history["train_loss"][index], weights.history["train_loss"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"^cycles: expected"):
        training.snapshot_ensemble(recipe, 0.1, TRAIN, key=keys, cycles=0)


def test_a_model_without_statistics_keeps_its_state():
    result = training.make_run(linear)(KEY, 0.1, TRAIN)
    updated = training.update_batch_statistics(linear, 0.1, result, TRAIN, key=KEY)
    assert jax.tree.leaves(updated.model_state) == jax.tree.leaves(result.model_state)
