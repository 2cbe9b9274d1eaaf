"""Evaluation and prediction: exact over any split into batches, and clear about a model that does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers, losses, metrics, optimizers, training
from jaxopt_nn.types import Batch


@pytest.fixture(scope="module")
def trained(problem):
    return training.fit(problem.recipe(epochs=2), problem.hparams, problem.train, key=problem.key)


@pytest.mark.parametrize("size", [1, 7, 35, 69, 70, 1000])
def test_the_batch_size_of_evaluation_does_not_matter(problem, trained, size):
    recipe = problem.recipe(evaluation_batch_size=size)
    outputs = training.predict(recipe, problem.hparams, trained, problem.train.x)
    model = recipe(problem.hparams).model
    expected, _ = model.apply(trained.params, trained.model_state, problem.train.x)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    values = training.evaluate(recipe, problem.hparams, trained, problem.train)
    loss = jnp.mean(losses.softmax_cross_entropy(expected, problem.train.y))
    accuracy = jnp.mean(metrics.accuracy(expected, problem.train.y))
    np.testing.assert_allclose(values["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(values["accuracy"], accuracy, rtol=1e-6)


@pytest.mark.parametrize(
    ("copies", "limit", "size"),
    [(1, 70, 70), (1, 69, 35), (1, 35, 35), (1, 34, 24), (1, 1, 1), (1, None, 70), (7, None, 490), (16, None, None)],
)
def test_passes_are_equal_and_within_the_limit(problem, trained, copies, limit, size):
    recipe, sizes = problem.recipe(evaluation_batch_size=limit), set()

    def watched(hparams):
        model = recipe(hparams).model

        def apply(params, state, x, **rest):
            sizes.add(len(x))
            return model.apply(params, state, x, **rest)

        return recipe(hparams)._replace(model=model._replace(apply=apply))

    examples = jax.tree.map(lambda leaf: np.concatenate([leaf] * copies), problem.train)
    training.evaluate(watched, problem.hparams, trained, examples)
    # By default at most 1,024.
    assert sizes == {size or 560}


def test_weights_of_examples_count(problem, trained):
    weight = jnp.asarray(np.random.default_rng(0).integers(0, 3, 70), jnp.float32)
    weighted = training.evaluate(
        problem.recipe(evaluation_batch_size=16), problem.hparams, trained, problem.train._replace(weight=weight)
    )
    rows = np.repeat(np.arange(70), np.asarray(weight, int))
    repeated = Batch(problem.train.x[rows], problem.train.y[rows])
    expected = training.evaluate(problem.recipe(), problem.hparams, trained, repeated)
    for name, value in expected.items():
        np.testing.assert_allclose(weighted[name], value, rtol=1e-5)


def test_evaluation_is_deterministic_and_without_dropout(problem, trained):
    first, second = (training.predict(problem.recipe(), problem.hparams, trained, problem.valid.x) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_works_inside_jit(problem, trained):
    evaluate = jax.jit(lambda trained, batch: training.evaluate(problem.recipe(), problem.hparams, trained, batch))
    np.testing.assert_allclose(
        evaluate(trained, problem.valid)["loss"],
        training.evaluate(problem.recipe(), problem.hparams, trained, problem.valid)["loss"],
        rtol=1e-6,
    )


def test_a_wrong_feature_count_names_the_layer(problem, trained):
    with pytest.raises(ValueError, match=r"^dense_0: expected 6 features on the last axis, got 5"):
        training.predict(problem.recipe(), problem.hparams, trained, np.ones((4, 5), "f"))


def test_a_mismatched_parameter_tree_is_named(problem, trained):
    params = {name: value for name, value in trained.params.items() if name != "dense_1"}
    broken = trained._replace(params={**params, "head": trained.params["dense_1"]})
    match = r"^params: .*missing \['dense_1/bias', 'dense_1/kernel'\], unexpected \['head/bias', 'head/kernel'\]"
    with pytest.raises(ValueError, match=match):
        training.predict(problem.recipe(), problem.hparams, broken, problem.valid.x)


@pytest.mark.parametrize("rows", [513, 1025, 3000])
def test_all_rows_of_labels_are_looked_at(problem, trained, rows):
    """Of more than 512 none were: 1-based labels gave an accuracy of 0.064 and a loss of NaN."""
    labels = np.zeros(rows, int)
    labels[-1] = 3
    with pytest.raises(
        ValueError, match=rf"^batch\.y, .*labels\[{rows - 1}\]: expected a class label in \[0, 3\), got 3"
    ):
        training.evaluate(problem.recipe(), problem.hparams, trained, Batch(np.zeros((rows, 6), "f"), labels))


def test_labels_of_a_metric_are_looked_at_too(problem, trained):
    recipe = problem.recipe(loss=lambda hp: lambda outputs, targets: jnp.mean(outputs**2, -1))
    with pytest.raises(ValueError, match=r"^batch\.y, .*labels\[1\]: expected a class label in \[0, 3\), got 7"):
        training.evaluate(recipe, problem.hparams, trained, Batch(np.zeros((2, 6), "f"), np.array([0, 7])))


def test_ids_out_of_range_are_named():
    def recipe(hp):
        model = layers.serial(layers.embedding(5, 2), layers.flatten, layers.dense(1))
        return training.Recipe(model=model, loss=losses.mean_squared_error, optimizer=optimizers.sgd(hp), batch_size=2)

    ids = np.zeros((4, 3), int)
    result = training.fit(recipe, 0.1, Batch(ids, np.zeros((4, 1), "f")), key=jax.random.key(0))
    ids[3, 1] = 5
    with pytest.raises(ValueError, match=r"^embedding_0: expected ids in \[0, 5\), got 0 to 5"):
        training.predict(recipe, 0.1, result, ids)
    with pytest.raises(ValueError, match=r"^embedding_0: expected ids in \[0, 5\), got 0 to 5"):
        training.fit(recipe, 0.1, Batch(ids, np.zeros((4, 1), "f")), key=jax.random.key(0))


def test_what_is_no_trained_model_and_what_are_no_features(problem, trained):
    with pytest.raises(TypeError, match=r"^trained: expected what has params and model_state, .*got a dict"):
        training.predict(problem.recipe(), problem.hparams, trained.params, problem.valid.x)
    with pytest.raises(TypeError, match=r"^x: expected features, got a Batch: pass its x"):
        training.predict(problem.recipe(), problem.hparams, trained, problem.valid)
