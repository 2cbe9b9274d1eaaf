import functools

import jax
import numpy as np
import pytest
import sklearn.metrics

from jaxopt_nn import layers, losses, metrics, optimizers, training
from jaxopt_nn.types import Batch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
LABELS = np.digitize(X[:, 0], [-0.5, 0.5])
KEY = jax.random.key(0)
WEIGHT = RNG.integers(0, 3, 40).astype(np.float32)
ADAM = optimizers.adam(0.1)


def untrained(loss, outputs):
    """What fit_model would return, without its time."""
    model = layers.dense(outputs) if outputs else layers.serial(layers.dense(1), lambda x: x[:, 0])
    state = training.init_state(model.init(KEY, X)[0], ADAM, KEY)
    return training.FittedModel(lambda hp: training.Recipe(model, loss, ADAM), state)


def fitted_by(loss, y, outputs, **options):
    return training.fit_model(layers.dense(outputs), Batch(X, y), loss=loss, optimizer=ADAM, key=KEY, **options)


def test_it_is_the_run_of_a_recipe_and_its_scores_are_those_of_scikit_learn():
    fitted = training.fit_model(
        layers.dense(3), Batch(X, LABELS), Batch(X, LABELS), loss=losses.softmax_cross_entropy, optimizer=ADAM,
        epochs=20, metrics={"accuracy": metrics.accuracy}, early_stopping=training.EarlyStopping(patience=3), key=KEY,
    )  # fmt: skip

    def recipe(rate):
        return training.Recipe(
            layers.dense(3), losses.softmax_cross_entropy, optimizers.adam(rate), epochs=20,
            metrics={"accuracy": metrics.accuracy}, early_stopping=training.EarlyStopping(patience=3),
        )  # fmt: skip

    plain = training.fit(recipe, 0.1, Batch(X, LABELS), Batch(X, LABELS), key=KEY)
    np.testing.assert_allclose(fitted.history["train_loss"], plain.history["train_loss"], rtol=1e-5)
    test = Batch(X, LABELS, WEIGHT)
    predicted = np.asarray(fitted.predict_classes(X))
    np.testing.assert_allclose(fitted.predict_proba(X), jax.nn.softmax(fitted.predict(X)), rtol=1e-6)
    assert fitted.evaluate(test)["accuracy"] == pytest.approx(
        sklearn.metrics.accuracy_score(LABELS, predicted, sample_weight=WEIGHT)
    )
    expected = sklearn.metrics.confusion_matrix(LABELS, predicted, sample_weight=WEIGHT)
    np.testing.assert_array_equal(fitted.confusion_matrix(test), expected)
    np.testing.assert_array_equal(fitted.confusion_matrix(test._replace(y=np.eye(3)[LABELS])), expected)
    report = sklearn.metrics.classification_report(LABELS, predicted, target_names=["a", "b", "c"])
    assert fitted.classification_report(Batch(X, LABELS), ["a", "b", "c"]) == report
    assert repr(fitted).startswith("<FittedModel: ") and "validation accuracy" in repr(fitted)
    assert training.predict(fitted.recipe, None, fitted, X).shape == (40, 3)


@pytest.mark.parametrize("outputs", [0, 1])
def test_one_sigmoid_output_is_two_classes(outputs):
    y = (X[:, 0] > 0).astype(int)
    y = y if outputs == 0 else y[:, None]
    fitted = untrained(losses.sigmoid_cross_entropy, outputs)
    p = fitted.predict_proba(X)
    assert p.shape == (40, 2)
    np.testing.assert_allclose(p[:, 1], jax.nn.sigmoid(fitted.predict(X)).ravel(), rtol=1e-6)
    np.testing.assert_array_equal(fitted.predict_classes(X), p.argmax(1))
    expected = sklearn.metrics.confusion_matrix(y.ravel(), p.argmax(1))
    np.testing.assert_array_equal(fitted.confusion_matrix(Batch(X, y)), expected)


def test_other_losses_of_classes():
    ordered = untrained(losses.ordinal, 2)
    p = ordered.predict_proba(X)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-6)
    assert p.shape == (40, 3) and float(p.min()) >= 0 and int(ordered.confusion_matrix(Batch(X, LABELS)).sum()) == 40
    focal = untrained(functools.partial(losses.softmax_focal, gamma=1.0), 3)
    np.testing.assert_array_equal(focal.predict_classes(X), focal.predict_proba(X).argmax(1))
    labels = (X > 0).astype(int)
    several = untrained(losses.sigmoid_cross_entropy, 3)
    assert several.predict_proba(X).shape == several.predict_classes(X).shape == (40, 3)
    with pytest.raises(ValueError, match=r"^confusion_matrix: .* several labels"):
        several.confusion_matrix(Batch(X, labels))
    hinge = untrained(losses.hinge, 1)
    assert hinge.confusion_matrix(Batch(X, labels[:, :1])).shape == (2, 2)
    with pytest.raises(TypeError, match=r"^predict_proba: .* got hinge"):
        hinge.predict_proba(X)


def test_labels_of_each_step_of_a_sequence():
    x = RNG.normal(size=(10, 4, 3)).astype(np.float32)
    y, weight = np.digitize(x[..., 0], [0.0]), np.arange(10.0, dtype=np.float32)
    fitted = untrained(losses.softmax_cross_entropy, 2)
    expected = sklearn.metrics.confusion_matrix(
        y.ravel(), np.asarray(fitted.predict_classes(x)).ravel(), sample_weight=np.repeat(weight, 4)
    )
    np.testing.assert_array_equal(fitted.confusion_matrix(Batch(x, y, weight)), expected)


def test_options_are_those_of_a_recipe_and_of_fit():
    seen = []
    fitted_by(
        losses.softmax_cross_entropy, LABELS, 3, batch_size=8, epochs=3, callbacks=[lambda end: seen.append(end.epoch)]
    )
    assert seen == [0, 1, 2]
    with pytest.raises(TypeError, match=r"^epoch: expected a field of training.Recipe .*; did you mean epochs\?"):
        fitted_by(losses.softmax_cross_entropy, LABELS, 3, epoch=3)
    with pytest.raises(TypeError, match=r"^predict_classes: .* got mean_squared_error"):
        untrained(losses.mean_squared_error, 1).predict_classes(X)
