"""Early stopping and plateaus: which epochs count as better, when a run ends, and what it returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import optimizers, training
from jaxopt_nn.training._stopping import EarlyStopping, infer_mode, init_best, update_best
from jaxopt_nn.types import Batch, Layer


def follow(stopping, values):
    """Feeds values to the rule, as a run does; returns (epochs run, best epoch)."""

    @jax.jit
    def scan(values):
        def body(best, pair):
            epoch, value = pair
            best = update_best(stopping, best, value, epoch, {"w": value}, {})
            return best, best

        start = init_best(stopping, {"w": jnp.float32(-1)}, {})
        return jax.lax.scan(body, start, (jnp.arange(len(values)), values))[1]

    history = scan(jnp.asarray(values, jnp.float32))
    stops = np.flatnonzero(np.asarray(history.bad_epochs) >= stopping.patience)
    epochs = int(stops[0]) + 1 if len(stops) else len(values)
    return epochs, int(history.epoch[epochs - 1])


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("stopping", "values", "expected"),
    [
        (EarlyStopping(patience=2), [3, 2, 1, 1, 1, 0], (5, 2)),  # equal is not better
        (EarlyStopping(patience=1), [1, 2, 0], (2, 0)),
        (EarlyStopping(patience=2), [3, 4, 2, 5, 1, 6, 7], (7, 4)),  # patience starts anew
        (EarlyStopping(patience=2, min_delta=0.5), [3, 2.6, 2.4, 2.2, 2.0, 0], (5, 2)),
        (EarlyStopping(patience=2, mode="max"), [0, 1, 0.5, 0.5, 9], (4, 1)),
        (EarlyStopping(patience=2, mode="max", min_delta=0.3), [0, 1, 1.2, 1.25, 9], (4, 1)),
        (EarlyStopping(patience=2), [-1, -2, -3, -3, -3], (5, 2)),  # negative values are values
        (EarlyStopping(patience=2), [3, NAN, NAN, 1], (3, 0)),  # NaN is never an improvement
        (EarlyStopping(patience=3), [NAN, NAN, 2, 3, 1], (5, 4)),
        (EarlyStopping(patience=2), [INF, INF, 0], (2, -1)),  # nor is infinity
        (EarlyStopping(patience=9), [3, 2, 1], (3, 2)),
        (EarlyStopping(patience=2, start_from_epoch=2), [0, 0, 3, 2, 4, 4, 4], (6, 3)),  # a lucky start does not count
        (EarlyStopping(patience=1, start_from_epoch=jnp.int32(9)), [3, 4, 5], (3, -1)),
    ],
)
def test_rule(stopping, values, expected):
    assert follow(stopping, values) == expected


def scripted(values):
    """A model whose only parameter counts its steps, and a loss by script: epoch e has the loss values[e]."""
    script = jnp.asarray(values, jnp.float32)

    def apply(params, state, x, *, train, key, weight):
        count = state["count"] + 1 if train else state["count"]
        # The gradient is 1 while training, so that w follows the steps; evaluation reads the script.
        output = params["w"] if train else script[state["count"] - 1]
        return jnp.broadcast_to(output, (x.shape[0],)), {"count": count}

    model = Layer(lambda key, x: ({"w": jnp.zeros(())}, {"count": jnp.int32(0)}), apply, "scripted")
    data = Batch(jnp.ones((4, 1)), jnp.zeros(4))
    return model, data


def run_script(values, stopping, **changes):
    model, data = scripted(values)

    def recipe(hp):
        return training.Recipe(
            model=model,
            loss=lambda outputs, targets: outputs,
            optimizer=optimizers.sgd(1.0),
            batch_size=4,
            epochs=len(values),
            early_stopping=None if stopping is None else stopping._replace(patience=hp),
        )._replace(**changes)

    patience = 1 if stopping is None else stopping.patience
    return jax.jit(training.make_run(recipe))(jax.random.key(0), patience, data, data)


def test_stops_and_returns_the_weights_and_the_model_state_of_the_best_epoch():
    result = run_script([5, 3, 4, 4, 4, 1], EarlyStopping(patience=3))
    assert training.Status(int(result.status)) is training.Status.STOPPED_EARLY
    assert int(result.epochs) == 5 and int(result.best_epoch) == 1
    assert float(result.params["w"]) == -2.0  # two steps of size 1
    assert int(result.model_state["count"]) == 2
    assert float(result.state.params["w"]) == -5.0 and int(result.state.step) == 5
    np.testing.assert_array_equal(result.history["valid_loss"], [5, 3, 4, 4, 4, np.nan])


def test_returns_the_best_weights_also_when_it_never_stops():
    result = run_script([5, 3, 4], EarlyStopping(patience=9))
    assert training.Status(int(result.status)) is training.Status.COMPLETED
    assert int(result.best_epoch) == 1 and float(result.params["w"]) == -2.0


def test_without_early_stopping_the_last_weights_are_returned():
    result = run_script([5, 3, 4], None)
    assert int(result.best_epoch) == 2 and float(result.params["w"]) == -3.0


def test_a_metric_can_be_maximized():
    metrics = {"score": lambda outputs, targets: -outputs}
    result = run_script([5, 3, 4, 4], EarlyStopping("valid_score", "max", patience=2), metrics=metrics)
    assert int(result.best_epoch) == 1


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        *(
            (name, "min")
            for name in ("valid_loss", "train_loss", "valid_squared_error", "valid_top_5_error", "valid_MAE")
        ),
        *(
            (name, "max")
            for name in ("valid_accuracy", "valid_top_5_accuracy", "valid_f1", "valid_r2_score", "valid_AUC")
        ),
        *((name, None) for name in ("valid_score", "gradient_norm", "learning_rate", "valid_glossary")),
        ("valid_accuracy_loss", None),
    ],
)
def test_which_values_are_better_follows_from_the_words_of_a_name(monitor, mode):
    assert infer_mode(monitor) == mode


@pytest.mark.parametrize("drive", ["run", "fit"])
def test_more_accuracy_is_better_without_a_mode(drive):
    """It was ``mode="min"``: the first epoch came back, with the lowest accuracy."""
    model, data = scripted([0.5, 0.9, 0.7, 0.7])

    def recipe(hp):
        return training.Recipe(
            model=model, loss=lambda outputs, targets: outputs, optimizer=optimizers.sgd(1.0), batch_size=4, epochs=4,
            metrics={"accuracy": lambda outputs, targets: outputs}, early_stopping=EarlyStopping("valid_accuracy"),
        )  # fmt: skip

    if drive == "run":
        result = jax.jit(training.make_run(recipe))(jax.random.key(0), None, data, data)
    else:
        result = training.fit(recipe, None, data, data, key=jax.random.key(0))
    assert int(result.best_epoch) == 1 and float(result.params["w"]) == -2.0


@pytest.mark.slow
def test_patience_may_have_lanes(problem):
    def recipe(hp):
        stopping = training.EarlyStopping(patience=hp["patience"], min_delta=hp["min_delta"])
        return problem.recipe(early_stopping=stopping, epochs=8)(problem.hparams)

    run = jax.jit(jax.vmap(training.make_run(recipe), (None, 0, None, None)))
    hparams = {"patience": jnp.array([1, 3, 20]), "min_delta": jnp.array([100.0, 100.0, 0.0])}
    result = run(problem.key, hparams, problem.train, problem.valid)
    assert result.epochs.tolist() == [2, 4, 8]  # nothing improves by 100 after the first epoch
    finite = np.isfinite(result.history["valid_loss"])
    np.testing.assert_array_equal(finite.sum(1), [2, 4, 8])
    assert result.state.step.tolist() == [10, 20, 40]


def test_work_ends_when_every_lane_has_ended(problem):
    """The epochs after the last lane's stop are skipped by a real branch, not computed and thrown away."""
    stopping = training.EarlyStopping(patience=1, min_delta=100.0)
    run = jax.vmap(training.make_run(problem.recipe(early_stopping=stopping)), (0, None, None, None))
    text = str(jax.make_jaxpr(run)(jax.random.split(problem.key, 3), problem.hparams, problem.train, problem.valid))
    assert "cond[" in text


@pytest.mark.parametrize("driver", ["run", "fit"])
def test_plateau_scales_the_learning_rate_from_the_next_epoch_on(driver):
    model, data = scripted([1.0] * 8)

    def recipe(hp):
        return training.Recipe(
            model=model,
            loss=lambda outputs, targets: outputs,
            optimizer=optimizers.sgd(hp),
            batch_size=4,
            epochs=8,
            plateau=optimizers.reduce_on_plateau(0.5, patience=2),
        )

    if driver == "run":
        result = jax.jit(training.make_run(recipe))(jax.random.key(0), 1.0, data, data)
    else:
        result = training.fit(recipe, 1.0, data, data, key=jax.random.key(0))
    # Epoch 0 is the first best; epochs 1, 2, 3 are bad, and more than 2 bad ones halve the rate from epoch 4 on.
    np.testing.assert_array_equal(result.history["learning_rate"], [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25])
    assert float(result.params["w"]) == -(4 + 3 * 0.5 + 0.25)


@pytest.mark.parametrize(
    ("changes", "valid", "match"),
    [
        (
            {"early_stopping": EarlyStopping("valid_f1")},
            True,
            r"^monitor: expected one of \['gradient_norm', .*got 'valid_f1'",
        ),
        ({"early_stopping": EarlyStopping()}, False, r"^monitor: .*there is no validation set.* got 'valid_loss'"),
        ({"plateau_monitor": "loss", "plateau": optimizers.reduce_on_plateau()}, True, r"^monitor: .* got 'loss'"),
        (
            {"early_stopping": EarlyStopping("valid_score")},
            True,
            r"^early_stopping\.mode: expected \"min\" or \"max\", as 'valid_score' does not say which",
        ),
        (
            {"plateau_monitor": "valid_accuracy", "plateau": optimizers.reduce_on_plateau()},
            True,
            r"^plateau: expected reduce_on_plateau\(\.\.\., mode=\"max\"\) to monitor 'valid_accuracy', got no mode",
        ),
        (
            {"plateau_monitor": "gradient_norm", "plateau": optimizers.reduce_on_plateau()},
            True,
            r"^plateau: expected reduce_on_plateau\(\.\.\., mode=\"min\" or \"max\"\)",
        ),
        ({"early_stopping": EarlyStopping(mode="lowest")}, True, r"^early_stopping\.mode: expected \"min\" or \"max\""),
        (
            {"early_stopping": EarlyStopping(patience=0)},
            True,
            r"^early_stopping\.patience: expected .* in \[1, inf\), got 0",
        ),
        ({"early_stopping": EarlyStopping(min_delta=-1.0)}, True, r"^early_stopping\.min_delta: .* got -1"),
    ],
)
def test_bad_arguments_are_named(problem, changes, valid, match):
    run = training.make_run(problem.recipe(**changes))
    with pytest.raises(ValueError, match=match):
        jax.jit(run)(problem.key, problem.hparams, problem.train, problem.valid if valid else None)


def test_batch_norm_state_of_the_best_epoch_is_restored(problem):
    """Evaluating what is returned gives the best epoch's loss: weights and running statistics belong together."""
    recipe = problem.recipe(
        early_stopping=training.EarlyStopping(patience=2), epochs=10, optimizer=optimizers.adam(0.3)
    )
    result = jax.jit(training.make_run(recipe))(problem.key, problem.hparams, problem.train, problem.valid)
    assert int(result.best_epoch) < int(result.epochs) - 1
    again = training.evaluate(recipe, problem.hparams, result, problem.valid)
    np.testing.assert_allclose(again["loss"], result.history["valid_loss"][int(result.best_epoch)], rtol=1e-5)
    last = training.evaluate(recipe, problem.hparams, result.state, problem.valid)
    assert abs(float(last["loss"] - again["loss"])) > 1e-4
