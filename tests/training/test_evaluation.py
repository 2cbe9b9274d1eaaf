"""Evaluation and prediction: exact over any split into batches, and clear about a model that does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import losses, metrics, training
from jaxopt_nn.types import Batch


@pytest.fixture(scope="module")
def trained(problem):
    return training.fit(problem.recipe(epochs=2), problem.hparams, problem.train, key=problem.key)


@pytest.mark.parametrize("size", [1, 7, 35, 69, 70, 1000])
def test_the_batch_size_of_evaluation_does_not_matter(problem, trained, size):
    recipe = problem.recipe(evaluation_batch_size=size)
    outputs = training.predict(recipe, problem.hparams, trained, problem.train.x)
    model = recipe(problem.hparams).model
    expected, _ = model.apply(trained.params, trained.model_state, problem.train.x, train=False, key=None, weight=None)
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
