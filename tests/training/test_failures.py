"""Faults inside a compiled run: a status and a place, the last finite state, and no harm to other lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.types import Batch

X = jax.random.normal(jax.random.key(0), (40, 3))
KEY = jax.random.key(1)
DATA = Batch(X, X @ jnp.array([[1.0], [-2.0], [0.5]]))


def recipe(hp, loss=losses.mean_squared_error, **changes):
    parts = training.Recipe(model=layers.dense(1), loss=loss, optimizer=optimizers.sgd(hp), batch_size=8, epochs=30)
    return parts._replace(**changes)


def steps_until_failure(rate):
    """The same run as a plain loop that tests each step."""
    init, order, noise = jax.random.split(jax.random.key(1), 3)
    optimizer = optimizers.sgd(rate)
    params, model_state = layers.dense(1).init(init, X)

    def loss_fn(params, model_state, batch, key):
        outputs, _ = layers.dense(1).apply(params, {}, batch.x, train=True, key=key, weight=None)
        return losses.weighted_mean(losses.mean_squared_error(outputs, batch.y)), (model_state, {})

    step = jax.jit(training.make_step(loss_fn, optimizer))
    state = training.init_state(params, optimizer, noise, model_state)
    for epoch in range(30):
        rows = jax.random.permutation(jax.random.fold_in(order, epoch), 40).reshape(5, 8)
        for indices in rows:
            new, metrics = step(state, Batch(DATA.x[indices], DATA.y[indices]))
            numbers = jax.tree.leaves((metrics["loss"], new.params))
            if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in numbers):
                return state, int(state.step)
            state = new
    return state, -1


@pytest.mark.parametrize("driver", ["run", "fit"])
@pytest.mark.parametrize("rate", [30.0, 4.0, 1e30])
def test_divergence_ends_the_run_at_the_last_finite_state(driver, rate):
    if driver == "run":
        result = jax.jit(training.make_run(recipe))(jax.random.key(1), rate, DATA)
    else:
        result = training.fit(recipe, rate, DATA, key=jax.random.key(1))
    expected, bad_step = steps_until_failure(rate)
    assert bad_step >= 0
    assert training.Status(int(result.status)) is training.Status.NONFINITE_TRAINING
    assert int(result.first_bad_step) == bad_step == int(result.state.step)
    for got, want in zip(jax.tree.leaves(result.state.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)
        assert np.isfinite(got).all()
    assert int(result.epochs) == bad_step // 5 + 1
    assert np.isnan(result.history["train_loss"][int(result.epochs) :]).all()


def test_an_infinite_loss_with_finite_gradients_ends_the_run():
    def loss(outputs, targets):  # adds a constant (no gradient) that is infinite for a target of 7
        constant = jnp.where(targets[:, 0] == 7, jnp.inf, 0.0)
        return losses.mean_squared_error(outputs, jnp.zeros_like(outputs)) + constant

    marked = DATA._replace(y=DATA.y.at[19].set(7))  # row 19 is in the third batch
    run = training.make_run(lambda hp: recipe(hp, loss=loss, shuffle=False))
    result = jax.jit(run)(jax.random.key(1), 0.01, marked)
    assert training.Status(int(result.status)) is training.Status.NONFINITE_TRAINING
    assert int(result.first_bad_step) == 2


def test_no_failure_is_minus_one():
    result = jax.jit(training.make_run(recipe))(jax.random.key(1), 0.05, DATA, DATA)
    assert int(result.first_bad_step) == -1
    assert training.Status(int(result.status)) is training.Status.COMPLETED


def test_a_diverged_lane_changes_no_bit_of_the_others():
    run = jax.jit(jax.vmap(training.make_run(recipe), (None, 0, None, None)))
    good = run(jax.random.key(1), jnp.array([0.01, 0.05, 0.1]), DATA, DATA)
    mixed = run(jax.random.key(1), jnp.array([0.01, 30.0, 0.1]), DATA, DATA)
    assert mixed.status.tolist() == [0, training.Status.NONFINITE_TRAINING, 0]
    for a, b in zip(
        jax.tree.leaves((mixed.params, mixed.history)), jax.tree.leaves((good.params, good.history)), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(a)[[0, 2]], np.asarray(b)[[0, 2]])
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(mixed.params))
    _, bad_step = steps_until_failure(30.0)
    assert mixed.first_bad_step.tolist() == [-1, bad_step, -1]


def test_a_lane_frozen_early_waits_unchanged():
    run = jax.jit(jax.vmap(training.make_run(recipe), (None, 0, None)))
    result = run(jax.random.key(1), jnp.array([1e30, 0.05]), DATA)
    assert result.epochs.tolist() == [1, 30]
    assert int(result.state.step[0]) == int(result.first_bad_step[0]) < 5


def test_the_best_weights_survive_a_later_divergence():
    stopping = training.EarlyStopping(patience=30)

    def explode_later(hp):
        optimizer = optimizers.sgd(lambda count: jnp.where(count < 50, hp, 1e30))
        return recipe(hp, early_stopping=stopping, optimizer=optimizer)

    result = jax.jit(training.make_run(explode_later))(jax.random.key(1), 0.05, DATA, DATA)
    assert training.Status(int(result.status)) is training.Status.NONFINITE_TRAINING
    assert int(result.best_epoch) == 9 and int(result.first_bad_step) in (50, 51)
    best = training.evaluate(explode_later, 0.05, result, DATA)
    np.testing.assert_allclose(best["loss"], np.nanmin(result.history["valid_loss"]), rtol=1e-5)


def test_a_failure_before_any_best_epoch_returns_the_last_finite_weights():
    stopping = training.EarlyStopping(patience=30)
    run = training.make_run(lambda hp: recipe(hp, early_stopping=stopping))
    result = jax.jit(run)(jax.random.key(1), 1e30, DATA, DATA)
    assert int(result.best_epoch) == -1
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(result.params))


def test_a_validation_loss_that_is_not_finite_ends_the_run():
    valid = DATA._replace(y=DATA.y.at[3].set(jnp.nan))
    result = jax.jit(training.make_run(recipe))(jax.random.key(1), 0.05, DATA, valid)
    assert training.Status(int(result.status)) is training.Status.NONFINITE_VALIDATION
    assert int(result.epochs) == 1 and int(result.state.step) == 5 and int(result.first_bad_step) == -1


def test_labels_out_of_range_show_in_the_status_of_a_compiled_run():
    def classify(hp):
        return recipe(hp, loss=losses.softmax_cross_entropy, model=layers.dense(2))

    labels = jnp.zeros(40, jnp.int32).at[11].set(2)
    result = jax.jit(training.make_run(classify))(jax.random.key(1), 0.05, Batch(X, labels))
    assert training.Status(int(result.status)) is training.Status.NONFINITE_TRAINING
    assert 0 <= int(result.first_bad_step) < 5


@pytest.mark.slow
def test_the_gradient_of_a_failed_lane_does_not_reach_the_others():
    def total(rates):
        lanes = jax.vmap(training.make_run(recipe), (None, 0, None, None))(jax.random.key(1), rates, DATA, DATA)
        return lanes.history["valid_loss"][:, -1]

    jacobian = jax.jacfwd(total)(jnp.array([0.01, 30.0, 0.02]))
    assert bool(jnp.all(jnp.isfinite(jacobian[jnp.array([0, 2])][:, jnp.array([0, 2])])))


def _marked(*rows):
    """Data whose named batches of 8, in their order, have an infinite loss."""
    targets = DATA.y
    for row in rows:
        targets = targets.at[8 * row].set(jnp.inf)
    return DATA._replace(y=targets)


def _in_order(hp, limit, **changes):
    return recipe(hp, shuffle=False, epochs=2, nonfinite_limit=limit, optimizer=optimizers.adam(hp), **changes)


def test_a_skipped_step_leaves_everything_as_it_was():
    """Two of five batches are bad: what is left is a run over the other three."""
    normalized = layers.serial(layers.batch_norm(), layers.dense(1))
    run = training.make_run(lambda hp: _in_order(hp, 3, model=normalized))
    result = jax.jit(run)(jax.random.key(1), 0.05, _marked(1, 2))
    good = np.add.outer(8 * np.array([0, 3, 4]), np.arange(8)).reshape(-1)
    rest = Batch(DATA.x[good], DATA.y[good])
    expected = jax.jit(run)(jax.random.key(1), 0.05, rest)
    assert training.Status(int(result.status)) is training.Status.COMPLETED
    assert int(result.skipped_steps) == 4 and int(expected.skipped_steps) == 0
    assert int(result.first_bad_step) == -1
    kept, plain = (jax.tree.leaves(r.state._replace(key=None, notfinite=None)) for r in (result, expected))
    for a, b in zip(kept, plain, strict=True):  # parameters, moments, counters, running statistics
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for name, values in expected.history.items():
        np.testing.assert_allclose(result.history[name], values, rtol=1e-5)


@pytest.mark.parametrize(("limit", "status", "skipped", "step"), [(1, 2, 1, 1), (2, 2, 2, 1), (3, 0, 6, -1)])
def test_the_limit_counts_steps_in_a_row(limit, status, skipped, step):
    # batches 1, 2 and 4 of 5 are bad: two in a row, and then one; 4 and the next epoch's 0 are not both bad
    result = jax.jit(training.make_run(lambda hp: _in_order(hp, limit)))(jax.random.key(1), 0.05, _marked(1, 2, 4))
    assert (int(result.status), int(result.skipped_steps), int(result.first_bad_step)) == (status, skipped, step)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(result.params))


def test_the_row_goes_on_over_the_end_of_an_epoch_and_limits_may_be_swept():
    run = jax.jit(jax.vmap(lambda limit: training.make_run(lambda hp: _in_order(0.05, hp))(KEY, limit, _marked(0, 4))))
    result = run(jnp.array([2, 3]))
    assert result.status.tolist() == [training.Status.NONFINITE_TRAINING, training.Status.COMPLETED]
    assert result.epochs.tolist() == [2, 2]
    assert result.first_bad_step.tolist() == [3, -1]  # batches 1, 2, 3 were taken
    assert result.skipped_steps.tolist() == [3, 4]


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_bad_limit_is_named(limit):
    with pytest.raises(ValueError, match=r"^nonfinite_limit: expected a finite number in"):
        training.make_run(lambda hp: _in_order(hp, limit))(jax.random.key(1), 0.05, DATA)


def test_data_without_weight_are_a_failure_and_not_a_trained_model():
    """Where they are not traced they are refused: see test_bad_input.py."""
    run = jax.jit(training.make_run(recipe))
    result = run(jax.random.key(1), 0.05, DATA._replace(weight=jnp.zeros(40)), DATA)
    assert training.Status(int(result.status)) is training.Status.NONFINITE_TRAINING
    assert int(result.epochs) == int(result.state.step) == 0 and int(result.first_bad_step) == -1
    result = run(jax.random.key(1), 0.05, DATA, DATA._replace(weight=jnp.zeros(40)))
    assert training.Status(int(result.status)) is training.Status.NONFINITE_VALIDATION
