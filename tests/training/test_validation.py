"""What is known of a run after each epoch: metrics of a whole set, of training batches, with weights and without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from jaxopt_nn import data, layers, losses, metrics, optimizers, training
from jaxopt_nn.types import Batch


def classes(logits):
    return logits.argmax(-1)


WHOLE_SET = {
    "f1": metrics.whole_set(functools.partial(metrics.macro_f1, num_classes=3), classes),
    "auc": metrics.whole_set(lambda y, s, weight: metrics.roc_auc(y == 0, s, weight), lambda logits: logits[:, 0]),
    "r2": metrics.whole_set(metrics.r2_score, lambda logits: logits[:, 0]),
    "confusion": metrics.whole_set(functools.partial(metrics.confusion_matrix, num_classes=3), classes),
}


def linear(problem, **changes):
    return problem.recipe(
        **{"model": layers.dense(3), "penalty": None, "evaluation_batch_size": 16, "epochs": 3, **changes}
    )


@pytest.mark.parametrize("weighted", [True, False])
def test_whole_set_metrics_are_those_of_scikit_learn(problem, weighted):
    """40 rows in windows of 14, of which the last overlaps: each row counts once; rows of weight 0 nowhere."""
    weight = np.arange(40) % 4 / 2 if weighted else None
    valid = problem.valid._replace(weight=None if weight is None else jnp.asarray(weight, jnp.float32))
    recipe = linear(problem, metrics=WHOLE_SET | {"plain_f1": metrics.unweighted(WHOLE_SET["f1"])})
    result = training.fit(recipe, problem.hparams, problem.train, valid, key=problem.key)
    logits = np.asarray(training.predict(recipe, problem.hparams, result, valid.x))
    y, predicted = np.asarray(valid.y), logits.argmax(-1)
    counts = None if weight is None else weight > 0
    expected = {
        "f1": sklearn_metrics.f1_score(y, predicted, average="macro", sample_weight=weight),
        "plain_f1": sklearn_metrics.f1_score(y, predicted, average="macro", sample_weight=counts),
        "auc": sklearn_metrics.roc_auc_score(y == 0, logits[:, 0], sample_weight=weight),
        "r2": sklearn_metrics.r2_score(y, logits[:, 0], sample_weight=weight),
        "confusion": sklearn_metrics.confusion_matrix(y, predicted, sample_weight=weight),
    }
    assert result.history["valid_confusion"].shape == (3, 3, 3)
    scores = training.evaluate(recipe, problem.hparams, result, valid)
    for name, value in expected.items():
        np.testing.assert_allclose(result.history[f"valid_{name}"][-1], value, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(scores[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_run_stops_by_a_metric_of_the_whole_set(problem):
    recipe = linear(
        problem, metrics=WHOLE_SET, epochs=8, early_stopping=training.EarlyStopping("valid_f1", patience=2),
        plateau=optimizers.reduce_on_plateau(mode="max", patience=1), plateau_monitor="valid_auc",
    )  # fmt: skip
    result = training.fit(recipe, problem.hparams, problem.train, problem.valid, key=problem.key)
    f1 = np.asarray(result.history["valid_f1"])
    assert int(result.best_epoch) == int(np.nanargmax(f1))
    wrong = linear(problem, metrics=WHOLE_SET, early_stopping=training.EarlyStopping("valid_confusion", "max"))
    with pytest.raises(
        ValueError, match=r"monitor: expected an entry that is one number, got 'valid_confusion', \[3, 3"
    ):
        training.make_run(wrong)(problem.key, problem.hparams, problem.train, problem.valid)


@pytest.mark.slow
def test_callbacks_and_loggers_with_an_array_in_the_history(problem, tmp_path):
    ends = []
    recipe = linear(problem, metrics={"confusion": WHOLE_SET["confusion"]})
    training.fit(
        recipe, problem.hparams, problem.train, problem.valid, key=problem.key,
        callbacks=[ends.append, training.log_csv(tmp_path / "a.csv"), training.log_json_lines(tmp_path / "a.jsonl")],
        checkpoint=training.Checkpoint(tmp_path / "run"),
    )  # fmt: skip
    assert ends[-1].arrays["valid_confusion"].sum() == 40
    assert "confusion" not in (tmp_path / "a.csv").read_text() + (tmp_path / "a.jsonl").read_text()
    more = linear(problem, metrics={"confusion": WHOLE_SET["confusion"]}, epochs=4)
    result = training.fit(
        more, problem.hparams, problem.train, problem.valid, key=problem.key,
        checkpoint=training.Checkpoint(tmp_path / "run"),
    )  # fmt: skip
    np.testing.assert_array_equal(result.history["valid_confusion"].sum((1, 2)), [40] * 4)


@pytest.mark.slow
def test_validation_every_other_epoch(problem):
    """What was validated is the same as ever; NaN between; patience and plateau count validations."""
    changes = {"epochs": 8, "plateau": optimizers.reduce_on_plateau(patience=0, atol=99.0, rtol=0.0)}
    stop = training.EarlyStopping(patience=2, min_delta=99.0)
    every = linear(problem, **changes | {"plateau": None})
    some = linear(problem, **changes, early_stopping=stop, valid_every=2)
    arguments = (problem.hparams, problem.train, problem.valid)
    ours, theirs = (training.fit(recipe, *arguments, key=problem.key) for recipe in (some, every))
    loss = np.asarray(ours.history["valid_loss"])
    assert np.isnan(loss[[0, 2, 4, 6, 7]]).all() and np.isfinite(loss[[1, 3, 5]]).all()
    np.testing.assert_array_equal(loss[[1, 3]], theirs.history["valid_loss"][jnp.array([1, 3])])
    assert training.Status(int(ours.status)) is training.Status.STOPPED_EARLY
    assert int(ours.epochs) == 6 and int(ours.best_epoch) == 1
    rates = np.asarray(ours.history["learning_rate"])
    assert rates[3] == rates[0] and rates[4] < rates[3]  # after the validations of epochs 1 and 3
    with pytest.raises(ValueError, match=r"valid_every: expected a divisor of the 8 epochs, .* got 3"):
        training.fit(linear(problem, epochs=8, valid_every=3), *arguments, key=problem.key)


W = np.arange(70) % 5 / 2


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_metrics_of_training_batches(problem, micro_batches):
    """With a rate of 0 they are those of the first parameters, however the rows are batched and padded."""
    train = problem.train._replace(weight=jnp.asarray(W, jnp.float32))
    recipe = linear(
        problem, optimizer=optimizers.sgd(0.0), train_metrics=True, epochs=1, micro_batches=micro_batches,
        metrics={"accuracy": metrics.accuracy, "plain": metrics.unweighted(metrics.accuracy), "f1": WHOLE_SET["f1"]},
    )  # fmt: skip
    result = training.fit(recipe, problem.hparams, train, key=problem.key)
    logits = np.asarray(training.predict(recipe, problem.hparams, result, train.x))
    right = logits.argmax(-1) == np.asarray(train.y)
    np.testing.assert_allclose(result.history["train_accuracy"], [np.average(right, weights=W)], rtol=1e-6)
    np.testing.assert_allclose(result.history["train_plain"], [right[W > 0].mean()], rtol=1e-6)
    assert "train_f1" not in result.history
    scores = training.evaluate(recipe, problem.hparams, result, train)
    np.testing.assert_allclose(scores["plain"], right[W > 0].mean(), rtol=1e-6)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_missing_targets_count_nowhere(micro_batches):
    """One step of gradient descent is that of the mean over the targets that are there, written by hand."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)).astype(np.float32), rng.normal(size=(7, 2)).astype(np.float32)
    there = rng.random((7, 2)) < 0.6
    y[~there] = np.nan
    train = data.mask_missing(Batch(x, y))

    def recipe(rate):
        return training.Recipe(
            model=layers.dense(2), loss=losses.mean_squared_error, metrics={"error": metrics.absolute_error},
            optimizer=optimizers.sgd(rate), batch_size=7, epochs=1, micro_batches=micro_batches,
        )  # fmt: skip

    start = {"kernel": rng.normal(size=(3, 2)).astype(np.float32), "bias": np.zeros(2, np.float32)}

    def loss(params):
        error = x @ params["kernel"] + params["bias"][None] - np.nan_to_num(y)
        return jnp.sum(jnp.where(there, error**2, 0)) / there.sum()

    result = training.fit(recipe, 0.5, train, train, key=jax.random.key(0), init_from=start)
    expected = jax.tree.map(lambda leaf, slope: leaf - 0.5 * slope, start, jax.grad(loss)(start))
    for name, value in expected.items():
        np.testing.assert_allclose(result.params[name], value, rtol=1e-5)
    np.testing.assert_allclose(result.history["train_loss"][0], loss(start), rtol=1e-5)
    np.testing.assert_allclose(result.history["valid_loss"][0], loss(result.params), rtol=1e-5)
    error = np.abs(x @ np.asarray(result.params["kernel"]) + np.asarray(result.params["bias"]) - y)
    np.testing.assert_allclose(result.history["valid_error"][0], error[there].mean(), rtol=1e-5)


@pytest.mark.slow
def test_ignored_tokens_count_nowhere():
    """The cross-entropy of torch with ``ignore_index``: the mean over all tokens that are there, of all sequences."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 5, 4)).astype(np.float32), rng.integers(0, 3, (6, 5))
    y[rng.random((6, 5)) < 0.5] = -100
    y[2] = -100

    def recipe(rate):
        return training.Recipe(
            model=layers.dense(3), loss=losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy},
            optimizer=optimizers.sgd(rate), batch_size=4, epochs=1, evaluation_batch_size=4,
        )  # fmt: skip

    tokens = data.mask_missing(Batch(x, y), ignore=-100)
    result = training.fit(recipe, 0.1, tokens, tokens, key=jax.random.key(0))
    logits = np.asarray(training.predict(recipe, 0.1, result, x), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    there = y >= 0
    picked = np.take_along_axis(log_p, np.where(there, y, 0)[..., None], -1)[..., 0]
    np.testing.assert_allclose(result.history["valid_loss"][0], -picked[there].mean(), rtol=1e-5)
    np.testing.assert_allclose(result.history["valid_accuracy"][0], (logits.argmax(-1) == y)[there].mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"valid_every": 0}, ValueError, r"valid_every: expected an int in \[1, inf\), got 0"),
        ({"train_metrics": "yes"}, TypeError, r"train_metrics: expected True or False, got 'yes'"),
        (
            {"early_stopping": training.EarlyStopping(start_from_epoch=3)}, ValueError,
            r"early_stopping.start_from_epoch: expected less than the 3 epochs, got 3",
        ),
        (
            {"metrics": {"f1": lambda o, y: jnp.mean(o)}}, ValueError,
            r"metrics\['f1'\]: expected one number an example, \[14\], got \[\]; one of a whole set is metrics.",
        ),
        (
            {"metrics": {"all": metrics.whole_set(lambda y, o, weight: None)}}, TypeError,
            r"metrics\['all'\]: expected an array of numbers, got None",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_validated_with_is_said(problem, changes, kind, match):
    with pytest.raises(kind, match=match):
        training.make_run(linear(problem, **changes))(problem.key, problem.hparams, problem.train, problem.valid)
