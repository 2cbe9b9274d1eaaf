import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import data, layers, losses, optimizers, training
from jaxopt_nn.training import _sanity_data
from jaxopt_nn.types import Batch
from tests.training.setups import SETUPS, all_setups, mlp

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 5)).astype(np.float32)
CLASSES = np.digitize(X @ [1.0, -1.0, 0.5, 0.0, 0.0], [-0.8, 0.8])
VALUES = (X @ np.array([[1.0], [2.0], [0.0], [0.0], [-1.0]])).astype(np.float32)
HEALTHY = Batch(X, CLASSES)


def recipe(hp=None, **changes):
    del hp
    plain = training.Recipe(mlp(16, 3), losses.softmax_cross_entropy, optimizers.adam(1e-2))
    return plain._replace(**changes)


def found(train=HEALTHY, valid=None, **changes):
    report = training.sanity_check(lambda hp: recipe(**changes), None, train, valid, key=KEY)
    return {finding.check: finding for finding in report.findings}, report


def mixing(x):
    return x - x.mean(0, keepdims=True)


@jax.custom_vjp
def wrong_slope(x):
    return jnp.tanh(x)


wrong_slope.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 + jnp.tanh(x) ** 2),))

FAULTS = {
    "logits": {"model": layers.serial(mlp(16, 3), jax.nn.softmax)},
    "initial_loss": {"model": layers.serial(mlp(16, 3), lambda x: 20 * x)},
    "loss_falls": {"optimizer": optimizers.sgd(1e-9)},
    "overfits": {"model": layers.serial(lambda x: 0 * x, mlp(16, 3))},
    "independent": {"model": layers.serial(mixing, mlp(16, 3))},
    "gradient": {"model": layers.serial(layers.dense(16), wrong_slope, layers.dense(3))},
    "constant": {"train": Batch(X, 0 * CLASSES)},
    "relation": {"train": Batch(X, RNG.permutation(CLASSES))},
    "leak": {"train": Batch(np.concatenate([X, CLASSES[:, None] / 2 - 0.5], 1, dtype=np.float32), CLASSES)},
    "scale": {"train": Batch(X * 1000, CLASSES)},
    "duplicates": {"valid": Batch(X[:20], CLASSES[:20])},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETUPS)
def test_nothing_is_found_in_a_healthy_set_up(name):
    made, train, valid = all_setups()[name]
    report = training.sanity_check(made, None, train, valid, key=KEY)
    assert report.findings == () and report.skipped == {}
    assert str(report) == f"sanity check: no findings in {len(report.figures)} checks"


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_by_its_check(fault):
    findings, report = found(**FAULTS[fault])
    assert fault in findings
    assert any(character.isdigit() for character in findings[fault].sentence)
    np.testing.assert_equal(findings[fault].figure, report.figures[fault])


@pytest.mark.slow
def test_several_faults_at_once():  # the example of sanity_check has a healthy set-up but for one
    several = {"model": layers.serial(mixing, lambda x: 0 * x, mlp(4, 3), jax.nn.softmax)}
    twice = Batch(np.concatenate([X * 1000, CLASSES[:, None]], 1, dtype=np.float32), CLASSES)
    findings, report = found(twice, Batch(twice.x[:20], CLASSES[:20]), **several, optimizer=optimizers.sgd(0.0))
    assert set(findings) >= {"logits", "loss_falls", "overfits", "leak", "duplicates"}
    assert "20 of 20 validation rows (100.0%) are in the training set" in findings["duplicates"].sentence
    assert "feature 5 is the target itself" in findings["leak"].sentence
    assert not report.ok and str(report).count("\n- ") == len(findings)


@pytest.mark.parametrize("y", [CLASSES, VALUES, np.eye(3)[CLASSES]], ids=["classes", "numbers", "rows"])
def test_targets_that_depend_on_features_and_shuffled_ones(y):
    assert _sanity_data.relation(X, y).text == "" and _sanity_data.relation(X, y).figure > 8
    assert "shuffled" in _sanity_data.relation(X, np.random.default_rng(1).permutation(y)).text


def test_shuffled_targets_are_seen_nearly_always():
    silent = [
        _sanity_data.relation(X[:150], np.random.default_rng(seed).permutation(CLASSES[:150])).text == ""
        for seed in range(6)
    ]
    assert sum(silent) <= 1


def test_a_copy_of_the_target_is_a_leak_and_a_good_feature_is_none():
    iris = data.load_iris()
    setosa = (np.asarray(iris.y) == 0).astype(int)
    assert _sanity_data.leak(np.asarray(iris.x), setosa).text == ""  # one threshold tells it
    for copy, y in (
        (3.0 - 2 * CLASSES, CLASSES),
        (CLASSES + 0.005 * X[:, 0], CLASSES),
        (CLASSES == 1, CLASSES),
        (5 * VALUES[:, 0] - 2, VALUES),
    ):
        column = np.asarray(copy, np.float32)[:, None]
        assert "feature 2 is the target" in _sanity_data.leak(np.concatenate([X[:, 3:], column], 1), y).text
    assert _sanity_data.leak(X, X) is None


def test_scales_and_duplicates():
    for factor in (1e3, 1e-3, [1, 1, 1, 1, 1e3]):
        assert _sanity_data.scales(X * np.asarray(factor)).text
    assert _sanity_data.scales(X + 100).text and not _sanity_data.scales(3 * X + 3).text
    few = Batch((X > 0).astype(np.float32), CLASSES)  # of 5 bits, which meet by chance
    assert _sanity_data.duplicates(few, few).text == ""
    assert _sanity_data.duplicates(HEALTHY, Batch(X[:100] + 1, CLASSES[:100])) == (0.0, "")
    half = Batch(np.concatenate([X[:50], X[:50] + 1]), CLASSES[:100])
    assert _sanity_data.duplicates(HEALTHY, half).figure == 0.5


def test_what_cannot_be_checked_is_named():
    with pytest.raises(TypeError, match=r"^sanity_check: expected to be called outside of jit"):
        jax.jit(lambda x: training.sanity_check(recipe, None, Batch(x, CLASSES), key=KEY))(X)
    with pytest.raises(TypeError, match=r"^key: expected a PRNG key"):
        training.sanity_check(recipe, None, HEALTHY, key=0)
    with pytest.raises(ValueError, match=r"^train.y"):
        found(Batch(X, CLASSES + 1))
