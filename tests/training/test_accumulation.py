"""Micro-batches: the gradient of the whole batch in the memory of a part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, schedules, training
from jaxopt_nn.types import Batch

X = jax.random.normal(jax.random.key(0), (20, 4))
LABELS = jnp.arange(20) % 3
WEIGHT = jnp.array([0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.5, 1.0, 1.0, 3.0] * 2)
MODEL = layers.serial(layers.dense(8), jnp.tanh, layers.dense(3))


def loss_fn(params, model_state, batch, key):
    outputs, _ = MODEL.apply(params, {}, batch.x, train=True, key=None, weight=batch.weight)
    loss = losses.weighted_mean(losses.softmax_cross_entropy(outputs, batch.y), batch.weight)
    count = jnp.sum(batch.y >= 0)  # an integer
    return loss, (
        {"calls": model_state["calls"] + 1},
        {"count": 0 * count, "mean": losses.weighted_mean(outputs[:, 0], batch.weight)},
    )


def _step(batch, micro_batches, optimizer):
    params, _ = MODEL.init(jax.random.key(1), X)
    state = training.init_state(params, optimizer, jax.random.key(2), {"calls": jnp.int32(0)})
    return jax.jit(training.make_step(loss_fn, optimizer, micro_batches=micro_batches))(state, batch)


@pytest.mark.parametrize("micro_batches", [2, 3, 20])  # 20 = 3 * 7 - 1: the last part is filled up
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_equals_the_whole_batch(micro_batches, weight):
    batch = Batch(X, LABELS, weight)
    whole, expected = _step(batch, 1, optimizers.sgd(1.0))
    parts, metrics = _step(batch, micro_batches, optimizers.sgd(1.0))
    for a, b in zip(jax.tree.leaves(parts.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for name in expected:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, atol=1e-7)
    rows = np.arange(micro_batches * -(-20 // micro_batches)).reshape(micro_batches, -1)
    weighted = sum(weight is None or bool(np.any(WEIGHT[part[part < 20]] > 0)) for part in rows)
    assert int(parts.model_state["calls"]) == weighted  # a part without weight changes nothing


def test_a_plain_mean_of_unequal_parts_would_be_another_gradient():
    batch = Batch(X, LABELS, WEIGHT.at[:10].set(0.0))  # the first half counts nothing
    whole, _ = _step(batch, 1, optimizers.sgd(1.0))
    halves, _ = _step(batch, 2, optimizers.sgd(1.0))
    start, _ = MODEL.init(jax.random.key(1), X)
    moved = whole.params["dense_0"]["kernel"] - start["dense_0"]["kernel"]
    np.testing.assert_allclose(halves.params["dense_0"]["kernel"] - start["dense_0"]["kernel"], moved, rtol=1e-4)
    assert np.abs(moved).max() > 0.01


def test_a_part_without_weight_may_be_anything():
    marked = Batch(X.at[:10].set(jnp.nan), LABELS, WEIGHT.at[:10].set(0.0))
    clean = Batch(X.at[:10].set(0.0), LABELS, WEIGHT.at[:10].set(0.0))
    a, b = _step(marked, 2, optimizers.sgd(1.0))[0], _step(clean, 2, optimizers.sgd(1.0))[0]
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


@pytest.mark.parametrize(
    ("rows", "batch_size", "micro_batches"),
    [(33, 32, 4), (100, 64, 4), (100, 64, 8)],  # by padding alone, some parts of the last batch have no rows
)
def test_running_statistics_are_those_of_rows_that_count(rows, batch_size, micro_batches):
    """They were pulled towards 0 by parts without rows: from 50 to 41.1 with 4 parts, to 33.3 with 8."""
    x = 50 + np.random.default_rng(0).standard_normal((rows, 1)).astype("f")

    def recipe(hp):
        return training.Recipe(
            model=layers.serial(layers.batch_norm(), layers.dense(1)), loss=losses.mean_squared_error,
            optimizer=optimizers.sgd(hp), batch_size=batch_size, micro_batches=micro_batches, epochs=60,
        )  # fmt: skip

    result = jax.jit(training.make_run(recipe))(jax.random.key(0), 0.0, Batch(x, x))
    statistics = result.model_state["batch_norm_0"]
    np.testing.assert_allclose(statistics["mean"], x.mean(), atol=0.5)
    np.testing.assert_allclose(statistics["var"], x.var(), rtol=0.2)


def test_a_part_without_weight_leaves_the_model_state_whatever_the_model_does():
    weight = jnp.ones(20).at[5:10].set(0.0)
    state, _ = _step(Batch(X, LABELS, weight), 4, optimizers.sgd(1.0))
    assert int(state.model_state["calls"]) == 3


@pytest.mark.parametrize("micro_batches", [1, 2, 3])
def test_a_batch_without_weight_has_the_gradient_of_the_penalty(micro_batches):
    params, _ = MODEL.init(jax.random.key(1), X)

    def with_penalty(params, *rest):
        loss, aux = loss_fn(params, *rest)
        return loss + 0.5 * jnp.sum(params["dense_0"]["kernel"] ** 2), aux

    optimizer = optimizers.sgd(0.25)
    state = training.init_state(params, optimizer, jax.random.key(2), {"calls": jnp.int32(0)})
    step = jax.jit(training.make_step(with_penalty, optimizer, micro_batches=micro_batches))
    after, metrics = step(state, Batch(X, LABELS, jnp.zeros(20)))
    np.testing.assert_allclose(after.params["dense_0"]["kernel"], 0.75 * params["dense_0"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(after.params["dense_1"]["kernel"], params["dense_1"]["kernel"])
    np.testing.assert_allclose(metrics["loss"], 0.5 * jnp.sum(params["dense_0"]["kernel"] ** 2), rtol=1e-6)


def test_a_schedule_counts_updates_and_not_parts():
    state, _ = _step(Batch(X, LABELS), 4, optimizers.sgd(schedules.step_decay(1.0, 1, 0.5)))
    assert int(state.step) == 1
    assert float(optimizers.current_learning_rate(state.opt_state)) == 1.0


def test_the_memory_is_that_of_a_part():
    def temporary(micro_batches, examples=4096):
        def loss_fn(params, model_state, batch, key):
            hidden = jnp.tanh(batch.x @ params["in"])
            return jnp.mean((hidden @ params["out"] - batch.y) ** 2), (model_state, {})

        params = {"in": jnp.ones((4, 256)), "out": jnp.ones((256, 1))}
        optimizer = optimizers.sgd(0.1)
        state = training.init_state(params, optimizer, jax.random.key(0))
        batch = Batch(jnp.ones((examples, 4)), jnp.ones((examples, 1)))
        step = jax.jit(training.make_step(loss_fn, optimizer, micro_batches=micro_batches))
        return step.lower(state, batch).compile().memory_analysis().temp_size_in_bytes

    assert temporary(16) < temporary(1) / 8


@pytest.mark.slow
def test_a_run_in_parts_learns_the_same(problem):
    model = layers.serial(layers.dense(8), jax.nn.relu, layers.dense(3))  # without BatchNorm and dropout
    whole, parts = (
        jax.jit(training.make_run(problem.recipe(model=model, micro_batches=count)))(
            problem.key, problem.hparams, problem.train, problem.valid
        )
        for count in (1, 3)
    )
    np.testing.assert_allclose(parts.history["valid_loss"], whole.history["valid_loss"], rtol=1e-4)


@pytest.mark.parametrize(("count", "error"), [(0, "expected"), (21, "at most the number of examples in a batch, 20")])
def test_a_bad_count_is_named(count, error):
    with pytest.raises(ValueError, match=f"^micro_batches: .*{error}"):
        _step(Batch(X, LABELS), count, optimizers.sgd(1.0))
