"""What optimizers ask of a run: other weights to evaluate with, a second gradient, the loss, a plateau's scale."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.training._run import split_key
from jaxopt_nn.types import Batch

X = jax.random.normal(jax.random.key(0), (48, 5))
DATA = Batch(X, X @ jnp.arange(5.0).reshape(5, 1))
KEY = jax.random.key(1)


def recipe(optimizer, **changes):
    parts = {"model": layers.dense(1), "loss": losses.mean_squared_error, "batch_size": 16, "epochs": 6, **changes}
    return lambda hp: training.Recipe(optimizer=optimizer(hp), **parts)


AVERAGES = [
    ("weight_ema", lambda hp: optimizers.weight_ema(optimizers.sgd(hp), 0.9)),
    ("lookahead", lambda hp: optimizers.lookahead(optimizers.sgd(hp), sync_period=4)),
    ("inside freeze", lambda hp: optimizers.freeze(optimizers.weight_ema(optimizers.sgd(hp), 0.9), "bias")),
]


@pytest.mark.parametrize("optimizer", [row[1] for row in AVERAGES], ids=[row[0] for row in AVERAGES])
@pytest.mark.parametrize("stopping", [None, training.EarlyStopping(patience=6)], ids=["last", "best"])
def test_a_run_validates_and_returns_the_weights_to_evaluate_with(optimizer, stopping):
    made = recipe(optimizer, early_stopping=stopping)
    result = jax.jit(training.make_run(made))(KEY, 0.1, DATA, DATA)
    averaged = optimizers.evaluation_params(result.state.opt_state, result.state.params)
    for got, want in zip(jax.tree.leaves(result.params), jax.tree.leaves(averaged), strict=True):
        np.testing.assert_array_equal(got, want)  # the loss falls: the last epoch is the best
    assert np.abs(averaged["kernel"] - result.state.params["kernel"]).max() > 1e-4
    scores = training.evaluate(made, 0.1, result, DATA)
    np.testing.assert_allclose(result.history["valid_loss"][-1], scores["loss"], rtol=1e-5)
    fitted = training.fit(made, 0.1, DATA, DATA, key=KEY)
    np.testing.assert_allclose(fitted.params["kernel"], result.params["kernel"], rtol=1e-6)


@pytest.mark.slow
def test_sam_gets_the_gradient_of_the_step():
    rho = 0.3
    result = jax.jit(
        training.make_run(recipe(lambda hp: optimizers.sam(optimizers.sgd(hp), rho), batch_size=48, epochs=1))
    )(KEY, 0.1, DATA)
    start, _ = layers.dense(1).init(split_key(KEY).init, X)

    def loss(params):
        return jnp.mean(
            losses.mean_squared_error(
                layers.dense(1).apply(params, {}, X, train=True, key=None, weight=None)[0], DATA.y
            )
        )

    gradient = jax.grad(loss)(start)
    norm = optax.tree.norm(gradient)
    uphill = jax.tree.map(lambda p, g: p + rho * g / norm, start, gradient)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, start, jax.grad(loss)(uphill))
    for name, leaf in expected.items():
        np.testing.assert_allclose(result.params[name], leaf, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_line_search_gets_value_and_gradient():
    """L-BFGS of optax evaluates the loss along its direction: on a quadratic it needs a few full-batch steps."""
    made = recipe(lambda hp: optax.lbfgs(), batch_size=48, epochs=12)
    result = jax.jit(training.make_run(made))(KEY, 0.0, DATA)
    assert float(result.history["train_loss"][-1]) < 1e-6


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("optimizer", [optimizers.sgd, optax.sgd], ids=["ours", "optax"])
def test_a_plateau_scales_ours_and_those_of_optax(optimizer, micro_batches):
    plateau = optimizers.reduce_on_plateau(factor=0.5, patience=1, rtol=0.9)  # reduces every other epoch
    made = recipe(optimizer, plateau=plateau, plateau_monitor="train_loss", micro_batches=micro_batches)
    plain = jax.jit(training.make_run(made))(KEY, 0.01, DATA, DATA)
    scales = [1.0]
    state = plateau.init()
    for value in np.asarray(plain.history["train_loss"]):
        state = plateau.update(value, state)
        scales.append(float(state.scale))
    assert scales[-2] < 0.5
    if optimizer is optimizers.sgd:
        np.testing.assert_allclose(plain.history["learning_rate"], 0.01 * np.array(scales[:-1]), rtol=1e-6)
        np.testing.assert_allclose(plain.state.opt_state[0].scale, scales[-1], rtol=1e-6)
    theirs = jax.jit(training.make_run(recipe(optax.sgd, plateau=plateau, plateau_monitor="train_loss")))(
        KEY, 0.01, DATA, DATA
    )
    np.testing.assert_allclose(plain.history["valid_loss"], theirs.history["valid_loss"], rtol=1e-5)


@pytest.mark.parametrize("optimizer", [optimizers.sgd, lambda hp: optax.inject_hyperparams(optax.sgd)(hp)])
def test_a_plateau_may_have_an_absolute_floor(optimizer):
    plateau = optimizers.reduce_on_plateau(factor=0.1, patience=1, rtol=0.9, min_lr=2e-3)
    made = recipe(optimizer, plateau=plateau, plateau_monitor="train_loss", epochs=8)
    rates = jax.jit(training.make_run(made))(KEY, 0.01, DATA, DATA).history["learning_rate"]
    np.testing.assert_allclose([rates[0], rates[-1]], [0.01, 2e-3], rtol=1e-6)
    assert (rates > 1.99e-3).all()
