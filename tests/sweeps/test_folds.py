"""Cross-validation: a lane is the run on its fold, whoever made the folds."""

import jax
import numpy as np
import pytest

from jaxopt_nn import layers, losses, metrics, optimizers, sweeps, training
from jaxopt_nn.types import Batch, Static

model_selection = pytest.importorskip("sklearn.model_selection")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 4)).astype("f")
DATA = Batch(X, (X[:, 0] > 0).astype(np.int32))
KEY = jax.random.key(3)


def recipe(hp):
    return training.Recipe(
        model=layers.serial(layers.dense(3), {"tanh": jax.nn.tanh}[hp["kind"]], layers.dense(2)),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        optimizer=optimizers.sgd(hp["rate"]),
        batch_size=8,
        epochs=2,
    )


@pytest.mark.slow
def test_a_lane_is_the_run_on_its_fold_and_padding_counts_for_nothing():
    groups = np.repeat([0, 1, 2], [14, 9, 7])
    folds = list(model_selection.GroupKFold(3).split(X, DATA.y, groups))
    result = sweeps.cross_validate(recipe, sweeps.grid(rate=[0.0, 0.1], kind="tanh", seed=1), DATA, folds, key=KEY)
    assert [record.status for record in result.records] == ["COMPLETED"] * 6 and result.repeats == ("seed", "fold")
    init, noise = jax.random.split(jax.random.fold_in(KEY, 1))
    keys = training.RunKeys(init, jax.random.split(KEY)[1], noise)
    # The fold with the most rows for training is not padded there: its lane is the run.
    largest = max(range(3), key=lambda fold: len(folds[fold][0]))
    train, valid = (Batch(X[rows], DATA.y[rows], np.ones(len(rows), "f")) for rows in folds[largest])
    single = jax.jit(training.make_run(recipe))(keys, {"rate": 0.1, "kind": Static("tanh")}, train, valid)
    record = result.records[3 + largest]
    assert record.trial == {"rate": 0.1, "kind": "tanh", "seed": 1, "fold": largest}
    assert record.history.keys() == single.history.keys()
    for name, values in single.history.items():
        np.testing.assert_allclose(record.history[name], values, rtol=1e-4, atol=1e-6)
    # At a rate of 0 the model stays as it began, and each fold's loss and accuracy are the means over its own rows.
    model = recipe({"rate": 0.0, "kind": "tanh"}).model
    params, state = model.init(init, X[:1])
    for record, (_, rows) in zip(result.records[:3], folds, strict=True):
        outputs, _ = model.apply(params, state, X[rows])
        expected = float(np.mean(losses.softmax_cross_entropy(outputs, DATA.y[rows])))
        assert record.metrics["valid_loss"] == pytest.approx(expected, rel=1e-5)
        assert record.metrics["valid_accuracy"] == pytest.approx(np.mean(outputs.argmax(1) == DATA.y[rows]))
    assert result.best().seeds == 3 and np.isfinite(result.expected_drop().new_data)


@pytest.mark.parametrize(
    ("folds", "space", "error", "message"),
    [
        (
            5,
            {"rate": 0.1, "kind": "tanh"},
            TypeError,
            r"^folds: expected pairs of row numbers, got 5; a splitter of scikit-learn",
        ),
        (
            [(range(9), range(9, 30))],
            {"rate": 0.1, "kind": "tanh"},
            ValueError,
            r"^folds: expected at least two, got 1",
        ),
        (
            [(range(9), range(8, 30))] * 2,
            {"rate": 0.1, "kind": "tanh"},
            ValueError,
            r"^folds\[0\]: .* got row 8 in both",
        ),
        (
            [(range(9), [30])] * 2,
            {"rate": 0.1, "kind": "tanh"},
            ValueError,
            r"^folds\[0\]: expected valid row numbers in \[0, 30\)",
        ),
        (
            [range(9)] * 2,
            {"rate": 0.1, "kind": "tanh"},
            TypeError,
            r"^folds\[0\]: expected a pair of row numbers \(train, valid\)",
        ),
        (
            [([True], [1])] * 2,
            {"rate": 0.1, "kind": "tanh"},
            ValueError,
            r"^folds\[0\]: expected train row numbers \[n\], got bool\[1\]",
        ),
        ([], {"rate": 0.1, "kind": "tanh", "fold": 1}, ValueError, r"^space: expected no hyperparameter called 'fold'"),
        ([], {"rate": 0.1, "kind": "tanh", "l2": 1}, ValueError, r"^space: the recipe never reads 'l2'"),
    ],
)
def test_folds_that_are_none_are_named(folds, space, error, message):
    def reading(hp):
        if "fold" in hp:
            hp["fold"]
        return recipe(hp)

    with pytest.raises(error, match=message):
        sweeps.cross_validate(reading, [space], DATA, folds, key=KEY)
