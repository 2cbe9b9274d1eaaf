"""Hypergradients: the derivative of a whole run, compared with closed forms and with differences, in bounded memory."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import checking, layers, losses, optimizers, penalties, sweeps, training
from jaxopt_nn._jaxprs.equations import Scan, inner_programs, opened, programs_in
from jaxopt_nn._jaxprs.flops import count_flops
from jaxopt_nn.types import Batch

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 3)).astype("f")
TRAIN, VALID = Batch(X[:16], np.sin(X[:16, :1])), Batch(X[16:], np.sin(X[16:, :1]))
KEY = jax.random.key(0)


def linear(hp):
    return training.Recipe(
        model=layers.dense(1, use_bias=False),
        loss=losses.mean_squared_error,
        optimizer=optimizers.sgd(hp["rate"]),
        batch_size=hp["batch_size"],
        epochs=7,
    )


def network(hp):
    first, last = optimizers.adam(hp["rates"]["first"], b1=hp["b1"]), optimizers.sgd(hp["rates"]["last"])
    return training.Recipe(
        model=layers.serial(layers.dense(2), jnp.tanh, layers.dense(1)),
        loss=losses.mean_squared_error,
        penalty=penalties.l2(hp["l2"]),
        optimizer=optimizers.parameter_groups({"dense_0/*": first, "*": last}),
        batch_size=8,
        epochs=2,
    )


HPARAMS = {"rates": {"first": 0.05, "last": 0.1}, "b1": 0.8, "l2": 0.01}


@pytest.mark.slow
def test_per_step_rates_of_a_quadratic_have_the_derivative_of_the_closed_form():
    x = RNG.standard_normal((8, 1)).astype("f")
    data, rates = Batch(x, 2 * x), np.linspace(0.02, 0.2, 7, dtype="f")  # 7 steps: two segments of 3, and 1 left over
    found = sweeps.hypergradient(
        linear, {"rate": rates, "batch_size": 8}, data, data, key=KEY, steps=7, per_step=["rate"]
    )
    # w − 2 shrinks by 1 − 2 c rate at each step, and the loss is c (w − 2)²
    c = float(np.mean(x**2))
    expected = float(found.valid_loss) * 2 * (-2 * c) / (1 - 2 * c * rates)
    np.testing.assert_allclose(found.gradient["rate"], expected, rtol=1e-4)
    assert found.gradient["batch_size"] is None
    one = sweeps.hypergradient(linear, {"rate": 0.1, "batch_size": 8}, data, data, key=KEY)
    expected = float(one.valid_loss) * 2 * 7 * (-2 * c) / (1 - 2 * c * 0.1)
    assert float(one.gradient["rate"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_the_loss_is_that_of_the_run_and_its_gradient_passes_the_check():
    def loss(hparams):
        return sweeps.validation_loss(network, hparams, TRAIN, VALID, key=KEY)

    run = jax.jit(training.make_run(network))(KEY, HPARAMS, TRAIN, VALID)
    found = sweeps.hypergradient(network, HPARAMS, TRAIN, VALID, key=KEY)
    assert float(found.valid_loss) == pytest.approx(float(run.history["valid_loss"][-1]), rel=1e-5)
    report = checking.check_gradients(loss, jax.tree.map(jnp.float32, HPARAMS), key=KEY)
    assert report.verdict == "PASS", report
    assert all(float(leaf) != 0 for leaf in jax.tree.leaves(found.gradient))


def scans(jaxpr):
    """The loops of a program with a carry of floats: how long, how deep, and the numbers that they stack, a step."""
    found = []
    for equation in jaxpr.eqns:
        inner = inner_programs(equation)
        if isinstance(inner, Scan):
            stacked = equation.outvars[inner.carry :]
            floats = sum(math.prod(v.aval.shape[1:]) for v in stacked if v.aval.dtype == np.float32)
            found.append((inner.length, floats))
        for program in programs_in(equation.params):
            found += scans(opened(program))
    return found


def test_two_times_the_root_of_the_steps_are_held_and_the_work_is_less_than_four_runs():
    steps = 400
    rates = jnp.full(steps, 0.01)

    def loss(rates):
        def wide(hp):
            return linear(hp)._replace(
                model=layers.serial(layers.dense(32), jnp.tanh, layers.dense(1)), optimizer=optimizers.adam(hp["rate"])
            )

        hparams = {"rate": rates, "batch_size": 16}
        return sweeps.validation_loss(wide, hparams, TRAIN, VALID, key=KEY, steps=steps, per_step=["rate"])

    state = 3 * (3 * 32 + 32 + 32 + 1)  # parameters and two moments
    found = scans(jax.make_jaxpr(jax.grad(loss))(rates).jaxpr)
    assert max(length for length, floats in found if floats > 1) == 20  # √400, in segments and in steps
    outer = next(floats for length, floats in found if floats > 1)
    assert outer <= state + 2  # a segment keeps its first state, and Adam's two counts of it at the most
    assert count_flops(jax.grad(loss), rates)[0] < 4 * count_flops(loss, rates)[0]


@pytest.mark.slow
def test_descend_lowers_the_loss_keeps_rates_positive_and_returns_the_best():
    start = {"rate": 0.001, "batch_size": 16}
    tuned = sweeps.descend(linear, start, TRAIN, VALID, key=KEY, updates=6, optimizer=optax.sgd(100.0))
    values = tuned.valid_losses
    assert values.shape == tuned.visited["rate"].shape and values[1] < values[0]
    assert tuned.valid_loss == values.min() and tuned.hparams["batch_size"] == 16
    assert np.all(tuned.visited["rate"] > 0) and tuned.hparams["rate"] == tuned.visited["rate"][values.argmin()]
    again = sweeps.validation_loss(linear, tuned.hparams, TRAIN, VALID, key=KEY)
    assert float(again) == pytest.approx(tuned.valid_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"hparams": {"rate": 1, "batch_size": 8}}, ValueError, r"^hparams: expected at least one float"),
        ({"per_step": "rate"}, TypeError, r"^per_step: expected a list of names, got 'rate'; write \['rate'\]"),
        ({"per_step": ["rat"]}, ValueError, r"^per_step: expected names of \['batch_size', 'rate'\], got 'rat'"),
        ({"per_step": ["rate"]}, ValueError, r"^hparams\['rate'\]: expected arrays \[steps, ...\], a value a step"),
        (
            {"hparams": {"rate": np.ones(3, "f"), "batch_size": 8}, "per_step": ["rate"]},
            ValueError,
            r"^hparams\['rate'\]: expected arrays of 14 steps, a value each, got \[3\]",
        ),
        ({"steps": 0}, ValueError, r"^steps: expected an int in \[1, inf\), got 0"),
        ({"valid": None}, TypeError, r"^valid: expected a Batch whose loss is differentiated, got None"),
        (
            {"recipe": lambda hp: linear(hp)._replace(early_stopping=training.EarlyStopping(patience=1))},
            ValueError,
            r"^recipe: expected early_stopping=None: a hypergradient is of a run of fixed length",
        ),
        ({"key": 0}, TypeError, r"^key: expected a PRNG key"),
    ],
)  # fmt: skip
def test_what_cannot_be_differentiated_is_named(changes, error, message):
    arguments = {"recipe": linear, "hparams": {"rate": 0.1, "batch_size": 8}, "train": TRAIN, "valid": VALID}
    with pytest.raises(error, match=message):
        sweeps.hypergradient(**{**arguments, "key": KEY, **changes})


def test_a_descent_that_cannot_begin_says_so():
    with pytest.raises(ValueError, match=r"^hparams: expected a finite validation loss to begin with, got"):
        sweeps.descend(linear, {"rate": 1e30, "batch_size": 8}, TRAIN, VALID, key=KEY, updates=1)
