import copy
import pickle

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from jaxopt_nn import layers, losses
from jaxopt_nn.estimators import JaxClassifier, JaxRegressor
from tests.training.test_programs import compilations

SHUFFLED = {"check_sample_weight_equivalence_on_dense_data": "mini-batches are shuffled, and numbers are float32"}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
LABELS = np.array(["no", "yes"])[(X[:, 0] + 0.1 * RNG.normal(size=60) > 0).astype(int)]
VALUES = X @ np.array([[1.0, 0.5], [-1.0, 2.0], [0.0, 0.0], [0.5, 1.0]])


def quick(kind=JaxClassifier, **changes):
    return kind(**{"model": (8,), "learning_rate": 0.03, "epochs": 10, "batch_size": 20, "random_state": 0} | changes)


def linear(outputs):
    return layers.dense(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [JaxClassifier, JaxRegressor])
def test_every_check_of_scikit_learn(kind):
    estimator = quick(kind, epochs=50, random_state=None)
    rows = estimator_checks.check_estimator(estimator, expected_failed_checks=SHUFFLED, on_fail=None, on_skip=None)
    assert [(row["check_name"], row["exception"]) for row in rows if row["status"] == "failed"] == []
    assert len(rows) > 40


@pytest.mark.parametrize(
    ("check", "kind"),
    [
        ("check_parameters_default_constructible", JaxClassifier),
        ("check_dict_unchanged", JaxClassifier),
        ("check_regressor_multioutput", JaxRegressor),
    ],
)
def test_some_checks_of_scikit_learn(check, kind):
    getattr(estimator_checks, check)(kind.__name__, quick(kind))


@pytest.mark.slow
def test_it_says_what_scikit_learn_wants_and_is_the_same_again():
    model = quick().fit(X, LABELS)
    assert model.score(X, LABELS) > 0.9 and model.classes_.tolist() == ["no", "yes"] and model.n_iter_ == 10
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(model.classes_[p.argmax(1)], model.predict(X))
    np.testing.assert_array_equal(np.concatenate([model.predict_proba(X[i : i + 1]) for i in range(5)]), p[:5])
    for other in (quick().fit(X, LABELS), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict_proba(X), p)
    assert (clone(model).fit(X, LABELS).predict_proba(X) == p).all()
    assert (quick(random_state=1).fit(X, LABELS).predict_proba(X) != p).any()
    assert "completed 10 epochs" in repr(model.result_)


def test_regression_of_one_and_of_several_targets():
    model = quick(JaxRegressor, epochs=60).fit(X, VALUES)
    assert model.score(X, VALUES) > 0.9 and model.predict(X).shape == (60, 2)
    one = quick(JaxRegressor, epochs=60, loss=losses.huber, model=linear).fit(X, VALUES[:, 0])
    assert one.score(X, VALUES[:, 0]) > 0.9 and one.predict(X).shape == (60,)


def test_early_stopping_returns_the_best_weights():
    noise = RNG.permutation(LABELS)
    model = quick(early_stopping=True, patience=3, epochs=200, validation_fraction=0.25).fit(X, noise)
    losses_seen = np.asarray(model.result_.history["valid_loss"])
    assert model.n_iter_ < 200 and int(model.result_.best_epoch) == np.nanargmin(losses_seen) == model.n_iter_ - 4
    assert "stopped early" in repr(model.result_)


@pytest.mark.slow
def test_partial_fit_goes_on():
    model = quick(epochs=1)
    for _ in range(30):
        model.partial_fit(X, LABELS, classes=["yes", "no", "maybe"])
    assert model.n_iter_ == 30 and int(model.result_.state.step) == 90
    assert model.score(X, LABELS) > 0.9 and model.predict_proba(X).shape == (60, 3)
    again = pickle.loads(pickle.dumps(model)).partial_fit(X, LABELS)
    np.testing.assert_array_equal(again.predict_proba(X), model.partial_fit(X, LABELS).predict_proba(X))
    with compilations() as names:
        model.set_params(learning_rate=0.01).partial_fit(X, LABELS)
    assert names == []
    before = model.predict_proba(X)
    model.set_params(model=(9,))
    with pytest.raises(ValueError, match=r"init_from.*dense_0"):
        model.partial_fit(X, LABELS)
    np.testing.assert_array_equal(model.set_params(model=(8,)).predict_proba(X), before)


@pytest.mark.slow
def test_partial_fit_of_a_regression():
    regression = quick(JaxRegressor)
    for _ in range(60):
        regression.partial_fit(X, VALUES[:, 0])
    assert regression.score(X, VALUES[:, 0]) > 0.9


@pytest.mark.slow
def test_weights_are_repetitions():
    with jax.enable_x64(True):
        check = estimator_checks.check_sample_weight_equivalence_on_dense_data
        check("JaxClassifier", JaxClassifier((8,), batch_size=1000, epochs=20, learning_rate=0.01))


@pytest.mark.slow
def test_a_grid_search_compiles_once_for_all_numbers():
    rates = [0.01, 0.02, 0.05]
    search = GridSearchCV(quick(epochs=3, l2=1e-3), {"learning_rate": rates[:1]}, cv=2, refit=False).fit(X, LABELS)
    search.set_params(param_grid={"learning_rate": rates, "l2": [1e-4]})
    with compilations() as names:
        search.fit(X, LABELS)
    assert names == []
    assert search.best_params_["learning_rate"] == 0.05


def test_in_a_pipeline_with_names_of_features():
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = make_pipeline(StandardScaler().set_output(transform="pandas"), quick()).fit(frame, LABELS)
    assert model[-1].feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        model[-1].predict(frame[list("dcba")])


@pytest.mark.slow
def test_it_learns_a_real_table_as_scikit_learn_does():
    x, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), JaxClassifier((32,), epochs=40, random_state=0))
    assert cross_val_score(model, x, y, cv=3).mean() > 0.96


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quick(model="100").fit(X, LABELS), TypeError, r"^model: expected widths of hidden layers"),
        (lambda: quick(model=layers.dense(2)).fit(X, LABELS), TypeError, r"^model: .* or a function"),
        (lambda: quick(optimizer="adam").fit(X, LABELS), TypeError, r"^optimizer: expected a function .* got 'adam'"),
        (lambda: quick(epochs=0).fit(X, LABELS), ValueError, r"^epochs: expected an int in \[1, inf\), got 0"),
        (lambda: quick(early_stopping=1).fit(X, LABELS), TypeError, r"^early_stopping: expected True or False"),
        (lambda: quick(learning_rate="no").fit(X, LABELS), TypeError, r"^learning_rate: expected a number"),
        (lambda: quick().fit(X, LABELS, -np.ones(60)), ValueError, r"^sample_weight: expected finite numbers >= 0"),
        (lambda: quick().fit(X, LABELS, np.zeros(60)), ValueError, r"^sample_weight: .* got zero weights"),
        (lambda: quick().fit(X, np.ones(60, int)), ValueError, r"^y: expected at least two classes, got 1 class"),
        (lambda: quick().partial_fit(X, LABELS), ValueError, r"^classes: expected all labels in the first call"),
        (
            lambda: quick(epochs=1).partial_fit(X, LABELS, ["no", "maybe"]),
            ValueError,
            r"^y: expected labels among classes, got .*'yes'",
        ),
        (lambda: quick(JaxRegressor, learning_rate=1e30).fit(X, VALUES), ValueError, r"not finite at step .* smaller"),
        (lambda: quick(JaxRegressor).fit(X, VALUES * 1e300), ValueError, r"^y: expected numbers that fit float32"),
    ],
)
def test_what_cannot_be_used_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
