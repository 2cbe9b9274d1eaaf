"""Every layer, loss, penalty and optimizer of this project has the gradient that it should, from the tables it has."""

import functools
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxopt_nn import losses, penalties
from jaxopt_nn.checking import check_gradients, check_layer, check_loss, check_optimizer

KEY = jax.random.key(0)
TESTS = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.gradcheck


@functools.cache
def table_of(file, name):
    """A table of another test module, which is in no package."""
    spec = importlib.util.spec_from_file_location(f"{Path(file).stem}_table", TESTS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


LAYERS = table_of("layers/test_layers.py", "LAYERS")
OPTIMIZERS = table_of("optimizers/test_every_transform.py", "OPTIMIZERS")
# One of each kind: the table's own test compares the derivatives of all of them with differences, through ten steps.
CHOSEN = {"nesterov", "adamw", "adafactor", "lookahead"}


def draws(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("factory", "kwargs", "shape"), [row[1:] for row in LAYERS], ids=[row[0] for row in LAYERS])
def test_layers(factory, kwargs, shape):
    check_layer(factory(**kwargs), draws(1, *shape), key=KEY, directions=2).assert_ok()


LOSSES = [
    ("softmax_cross_entropy", losses.softmax_cross_entropy, draws(1, 6, 4), np.arange(6) % 4),
    (
        "softmax_smoothed",
        functools.partial(losses.softmax_cross_entropy, label_smoothing=0.1),
        draws(1, 6, 4),
        np.arange(6) % 4,
    ),
    ("sigmoid_cross_entropy", losses.sigmoid_cross_entropy, draws(1, 6), np.arange(6) % 2),
    ("mean_squared_error", losses.mean_squared_error, draws(1, 6, 2), draws(2, 6, 2)),
    ("huber", losses.huber, 2 * draws(1, 6, 2), draws(2, 6, 2)),
]


@pytest.mark.parametrize(("loss", "outputs", "targets"), [row[1:] for row in LOSSES], ids=[row[0] for row in LOSSES])
def test_losses(loss, outputs, targets):
    check_loss(loss, outputs, targets, key=KEY).assert_ok()


def test_no_loss_is_forgotten():
    plain = {name for name in losses.__all__ if name not in ("Loss", "weighted_mean")}
    assert plain <= {row[0] for row in LOSSES}


@pytest.mark.parametrize("penalty", [penalties.l1(0.1), penalties.l2(0.1), penalties.elastic_net(0.1, 0.2)])
def test_penalties(penalty):
    params = {"dense": {"kernel": draws(1, 4, 3), "bias": draws(2, 3)}}
    report = check_gradients(penalty, params, key=KEY)
    assert {leaf.path: leaf.verdict for leaf in report.leaves} == {"dense/bias": "DEAD", "dense/kernel": "PASS"}


def test_weighted_mean():
    check_gradients(losses.weighted_mean, draws(1, 5), np.abs(draws(2, 5)), key=KEY).assert_ok()


@pytest.mark.parametrize(
    ("factory", "numbers"),
    [pytest.param(*row[1:], id=row[0]) for row in OPTIMIZERS if row[0] in CHOSEN],
)
def test_optimizers(factory, numbers):
    params = {"layer": {"kernel": draws(1, 2, 3)}, "scale": np.float64(0.5)}
    given = {name: 1e-3 if name == "eps" else float(number) for name, number in numbers.items()}
    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, params)
        check_optimizer(factory, given, params, key=KEY, steps=2, directions=2).assert_ok()
