"""Every layer, loss, penalty and optimizer of this project has the gradient that it should, from the tables it has."""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import losses, optimizers, penalties
from jaxopt_nn.checking import check_gradients, check_layer, check_loss, check_optimizer
from jaxopt_nn.types import Layer

KEY = jax.random.key(0)
TESTS = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.gradcheck, pytest.mark.slow]


@functools.cache
def table_of(file, name):
    """A table of another test module, which is in no package."""
    spec = importlib.util.spec_from_file_location(f"{Path(file).stem}_table", TESTS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


LAYERS = table_of("layers/test_layers.py", "LAYERS")
IDS = table_of("layers/test_layers.py", "IDS")  # whose input is integers
# What has a custom rule or a stop_gradient, as masks have: for these alone the gradient without rules is compiled too.
RULED = table_of("layers/test_layers.py", "STOCHASTIC") | {"causal attention", "max_pool", "global_max_pool"}
OPTIMIZERS = table_of("optimizers/table.py", "OPTIMIZERS")
GROUPS = [OPTIMIZERS[start::7] for start in range(7)]
GROUPS += [[row for row in table_of("optimizers/table.py", "WRAPPERS") if row[0] in ("flatten", "freeze", "muon")]]


def draws(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def side_by_side(rows):
    """One layer of all ``rows`` of the table: a dictionary of inputs to a dictionary of outputs."""
    parts = {name: factory(**kwargs) for name, factory, kwargs, _ in rows}

    def init(key, x):
        made = {name: part.init(jax.random.fold_in(key, i), x[name]) for i, (name, part) in enumerate(parts.items())}
        return {name: pair[0] for name, pair in made.items()}, {name: pair[1] for name, pair in made.items()}

    def apply(params, state, x, *, train, key, weight):
        outs = {
            name: part.apply(
                params[name], state[name], x[name], train=train, key=jax.random.fold_in(key, i), weight=weight
            )
            for i, (name, part) in enumerate(parts.items())
        }
        return {name: pair[0] for name, pair in outs.items()}, {name: pair[1] for name, pair in outs.items()}

    inputs = {
        name: np.arange(np.prod(shape)).reshape(shape) % 3 if name in IDS else draws(i, *shape)
        for i, (name, _, _, shape) in enumerate(rows)
    }
    # Jitted, so that it is traced once for all readings of it.
    return Layer(jax.jit(init), jax.jit(apply, static_argnames="train")), inputs


@pytest.mark.parametrize("ruled", [True, False])
def test_layers(ruled):
    """Many layers are one function of many leaves: one compilation, and the paths name the layer."""
    layer, x = side_by_side([row for row in LAYERS if (row[0] in RULED) == ruled])
    report = check_layer(layer, x, key=KEY, directions=2)
    report.assert_ok()
    assert {leaf.path.split("/")[1] for leaf in report.leaves if leaf.path[0] == "1"} == set(x) - IDS


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
    ("softmax_focal", losses.softmax_focal, draws(1, 6, 4), np.arange(6) % 4),
    ("sigmoid_focal", losses.sigmoid_focal, draws(1, 6), np.arange(6) % 2),
    ("kl_divergence", losses.kl_divergence, draws(1, 6, 2), np.full((6, 2), 0.5, "f")),
    ("hinge", losses.hinge, draws(1, 6), np.arange(6) % 2),
    ("ordinal", losses.ordinal, draws(1, 6, 3), np.arange(6) % 4),
    ("mean_absolute_error", losses.mean_absolute_error, draws(1, 6, 2), draws(2, 6, 2)),
    ("quantile", losses.quantile, draws(1, 6), draws(2, 6)),
    ("gaussian_nll", losses.gaussian_nll, draws(1, 6, 2), draws(2, 6)),
    ("poisson_nll", losses.poisson_nll, draws(1, 6), np.arange(6)),
    ("contrastive", functools.partial(losses.contrastive, margin=3.0), draws(1, 6, 2, 3), np.arange(6) % 2),
    ("triplet", functools.partial(losses.triplet, margin=3.0), draws(1, 6, 3, 3), np.arange(6)),
    ("ctc", losses.ctc, draws(1, 2, 4, 3), np.array([[1, 2], [2, -1]])),
]


def test_losses():
    outputs, targets = ({row[0]: row[i] for row in LOSSES} for i in (2, 3))
    every = lambda o, t: jnp.concatenate([loss(o[name], t[name]).ravel() for name, loss, _, _ in LOSSES])  # noqa: E731
    report = check_loss(every, outputs, targets, key=KEY)
    assert {leaf.path: leaf.verdict for leaf in report.leaves} == {row[0]: "PASS" for row in LOSSES}


def test_no_loss_is_forgotten():
    plain = {name for name in losses.__all__ if name not in ("Loss", "weighted_mean")}
    assert plain <= {row[0] for row in LOSSES}


def test_penalties():
    kinds = {"l1": penalties.l1(0.1), "l2": penalties.l2(0.1), "both": penalties.elastic_net(0.1, 0.2)}
    params = {name: {"kernel": draws(1, 4, 3), "bias": draws(2, 3)} for name in kinds}
    report = check_gradients(lambda p: sum(kind(p[name]) for name, kind in kinds.items()), params, key=KEY)
    expected = {f"{name}/{leaf}": "DEAD" if leaf == "bias" else "PASS" for name in kinds for leaf in ("bias", "kernel")}
    assert {leaf.path: leaf.verdict for leaf in report.leaves} == expected


def test_optimizers_that_ask_for_gradients():
    """At other points than the one where they are: the check gives them the loss's gradient."""
    params = {"kernel": np.float64(draws(1, 2, 3))}

    def sam(learning_rate, rho):
        return optimizers.sam(optimizers.sgd(learning_rate), rho)

    def sophia(learning_rate, b1):
        return optimizers.sophia(learning_rate, b1, key=jax.random.key(0))

    with jax.enable_x64(True):
        check_optimizer(sam, {"learning_rate": 0.1, "rho": 0.2}, params, key=KEY).assert_ok()
        check_optimizer(sophia, {"learning_rate": 0.1, "b1": 0.8}, params, key=KEY).assert_ok()


def test_weighted_mean():
    check_gradients(losses.weighted_mean, draws(1, 5), np.abs(draws(2, 5)), key=KEY).assert_ok()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: "+".join(row[0] for row in group))
def test_optimizers(group):
    rows = {name: (factory, numbers) for name, factory, numbers in group}

    def side_by_side(**numbers):
        parts = {name: optax.with_extra_args_support(rows[name][0](**numbers[name])) for name in rows}

        def update(grads, state, params, *, value, grad, value_fn, grad_fn):
            del grad_fn  # that of all of them together
            own = {name: {"value": value, "grad": grad[name], "value_fn": value_fn} for name in parts}
            pairs = {n: part.update(grads[n], state[n], params[n], **own[n]) for n, part in parts.items()}
            return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}

        init = lambda params: {name: part.init(params[name]) for name, part in parts.items()}  # noqa: E731
        return optax.GradientTransformationExtraArgs(init, update)

    params = {name: {"kernel": np.float64(draws(1, 2, 3)), "scale": np.float64(0.5)} for name in rows}
    given = {
        name: {number: 1e-3 if number == "eps" else float(value) for number, value in numbers.items()}
        for name, (_, numbers) in rows.items()
    }
    with jax.enable_x64(True):
        check_optimizer(side_by_side, given, params, key=KEY, steps=2, directions=2).assert_ok()
