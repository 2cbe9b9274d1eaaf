"""Programs called from the host: never an old recipe, and nothing compiled or kept that is known already."""

import gc
import logging
import re
import types
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers, losses, metrics, optimizers, training
from jaxopt_nn.types import Batch

X = np.random.default_rng(0).standard_normal((24, 3)).astype("f")
DATA = Batch(X, X @ np.array([[1.0], [-2.0], [0.5]], "f"))
KEY = jax.random.key(0)


@contextmanager
def compilations():
    """The names of the programs that are compiled inside."""
    names = []

    class Handler(logging.Handler):
        def emit(self, record):
            names.extend(re.findall(r"^Compiling (?:jit\()?([\w<>]+)", record.getMessage()))

    logger, handler = logging.getLogger("jax"), Handler()
    kept, logger.handlers, propagate, logger.propagate = logger.handlers, [handler], logger.propagate, False
    try:
        with jax.log_compiles():
            yield names
    finally:
        logger.handlers, logger.propagate = kept, propagate


def recipe(rate, **changes):
    parts = training.Recipe(
        model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(rate), batch_size=8, epochs=2
    )
    return parts._replace(**changes)


GLOBAL_RATE = 0.0


class Settings:
    rate = 0.0

    def __init__(self):
        self.width = 1

    def recipe(self, hp):
        wide = layers.serial(layers.dense(self.width), layers.dense(1))
        return recipe(self.rate, model=wide)


def _global():
    def change(value):
        globals()["GLOBAL_RATE"] = value

    return lambda hp: recipe(GLOBAL_RATE), change, (0.01, 0.1)


def _loss():
    scope = types.SimpleNamespace(loss=losses.mean_squared_error)

    def change(scale):
        scope.loss = lambda outputs, targets: scale * losses.mean_squared_error(outputs, targets)

    return lambda hp: recipe(0.1, loss=lambda o, t: scope.loss(o, t)), change, (1.0, 2.0)


def _config(name, values):
    config = {"batch_size": 8, "epochs": 2}
    return lambda hp: recipe(0.1, **config), lambda value: config.update({name: value}), values


def _class_attribute():
    settings = Settings()
    return settings.recipe, lambda value: setattr(Settings, "rate", value), (0.01, 0.1)


def _attribute_of_a_bound_method():
    settings = Settings()
    return settings.recipe, lambda value: setattr(settings, "width", value), (1, 4)


def _closed_over(make):
    scope = types.SimpleNamespace(target=make(0.0))

    def loss(outputs, targets):
        return losses.mean_squared_error(outputs, targets + scope.target)

    return lambda hp: recipe(0.1, loss=loss), lambda value: setattr(scope, "target", make(value)), (0.0, 1.0)


STALE = {
    "global": _global,
    "loss": _loss,
    "batch size": lambda: _config("batch_size", (8, 24)),
    "epochs": lambda: _config("epochs", (1, 3)),
    "class attribute": _class_attribute,
    "bound method": _attribute_of_a_bound_method,
    "closed-over array of JAX": lambda: _closed_over(lambda value: jnp.full((1, 1), value)),
    "closed-over array of NumPy": lambda: _closed_over(lambda value: np.full((1, 1), value, np.float32)),
}


@pytest.mark.parametrize("make", STALE.values(), ids=STALE)
def test_what_a_recipe_reads_from_elsewhere_is_read_anew(make):
    """One function object; what it says changes. The values are those of the compiled run, traced anew."""
    function, change, values = make()
    seen = []
    for value in values:
        change(value)
        fitted = training.fit(function, None, DATA, key=KEY)
        expected = jax.jit(training.make_run(function))(KEY, None, DATA)
        np.testing.assert_array_equal(fitted.history["train_loss"], expected.history["train_loss"])
        seen.append(float(fitted.history["train_loss"][-1]))
    assert len(set(seen)) == len(values)


def test_a_redefined_model_is_seen_by_predict():
    scope = types.SimpleNamespace(scale=1.0)
    made = lambda hp: recipe(0.1, model=layers.serial(layers.dense(1), lambda x: scope.scale * x))  # noqa: E731
    fitted = training.fit(made, None, DATA, key=KEY)
    first = training.predict(made, None, fitted, X)
    scope.scale = 3.0
    np.testing.assert_allclose(training.predict(made, None, fitted, X), 3 * first, rtol=1e-6)


def _classify(hp):
    return recipe(
        hp["rate"],
        model=layers.serial(layers.dense(4), layers.batch_norm(), jax.nn.relu, layers.dropout(0.2), layers.dense(3)),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        early_stopping=training.EarlyStopping(patience=2),
        optimizer=optimizers.adam(hp["rate"]),
    )


LABELED = Batch(X, np.arange(24) % 3)


def test_nothing_is_compiled_or_kept_after_the_first_call():
    def everything(rate):
        def made(hp):  # a new function that says the same
            return _classify(hp)

        hparams = {"rate": rate}
        result = training.fit(made, hparams, LABELED, LABELED, key=KEY)
        training.make_run(made)(KEY, hparams, LABELED, LABELED)
        training.predict(made, hparams, result, X)
        return training.evaluate(made, hparams, result, LABELED)

    for rate in (0.1, 0.05):
        everything(rate)
    with compilations() as names:
        everything(0.01)
        gc.collect()
        before = len(gc.get_objects())
        for rate in (0.02, 0.03, 0.04):
            everything(rate)
        gc.collect()
    assert names == []
    assert len(gc.get_objects()) - before < 300  # one trace of these makes tens of thousands


@pytest.mark.parametrize("options", [{}, {"nonfinite_limit": 2}, {"micro_batches": 3, "nonfinite_limit": 2}], ids=str)
def test_a_step_called_without_jit_compiles_nothing_after_its_first_calls(options):
    def loss_fn(params, model_state, batch, key):
        return jnp.mean((batch.x @ params["kernel"] - batch.y) ** 2), (model_state, {})

    def step(state):
        return training.make_step(loss_fn, optimizers.sgd(0.1), **options)(state, DATA)[0]

    state = training.init_state({"kernel": jnp.zeros((3, 1))}, optimizers.sgd(0.1), KEY)
    state = step(step(state))
    with compilations() as names:
        for _ in range(3):
            state = step(state)
    assert names == []
    compiled = jax.jit(training.make_step(loss_fn, optimizers.sgd(0.1), **options))
    expected = training.init_state({"kernel": jnp.zeros((3, 1))}, optimizers.sgd(0.1), KEY)
    for _ in range(5):
        expected, _ = compiled(expected, DATA)
    np.testing.assert_allclose(state.params["kernel"], expected.params["kernel"], rtol=1e-6)


def test_the_first_example_of_the_readme_compiles_three_programs():
    """Two for ``fit``: the beginning, and the epochs. One for ``evaluate``."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
    names = {}
    exec(example[: example.index("result = training.fit")], names)
    recipe, hparams, train, valid, test = (names[name] for name in ("recipe", "hparams", "train", "valid", "test"))
    train, valid, test = (jax.tree.map(lambda leaf: leaf[:64], part) for part in (train, valid, test))
    with compilations() as compiled:
        result = training.fit(recipe, hparams, train, valid, key=jax.random.key(1), epochs_per_call=30)
        training.evaluate(recipe, hparams, result, test)
    assert len(compiled) <= 3, compiled


@pytest.mark.slow
def test_a_run_that_closes_over_a_traced_number_has_its_derivative():
    def last_loss(rate):
        run = training.make_run(lambda hp: recipe(rate))
        return run(KEY, None, DATA, DATA).history["valid_loss"][-1]

    slope = jax.grad(last_loss)(0.1)
    by_argument = jax.grad(lambda rate: training.make_run(recipe)(KEY, rate, DATA, DATA).history["valid_loss"][-1])(0.1)
    np.testing.assert_allclose(slope, by_argument, rtol=1e-5)
    assert abs(slope) > 1e-3


def test_make_predict_traces_once_for_each_shape_and_keeps_the_model_as_it_was():
    scope = types.SimpleNamespace(scale=1.0, calls=0)

    def double(x):
        scope.calls += 1
        return scope.scale * x

    made = lambda hp: recipe(0.1, model=layers.serial(layers.dense(1), double))  # noqa: E731
    fitted = training.fit(made, None, DATA, key=KEY)
    expected = training.predict(made, None, fitted, X)
    predict = training.make_predict(made, None, fitted)
    np.testing.assert_array_equal(predict(X), expected)
    scope.scale, before = 3.0, scope.calls
    with compilations() as names:
        for _ in range(3):
            np.testing.assert_array_equal(predict(X), expected)
    assert (names, scope.calls) == ([], before)
    np.testing.assert_allclose(jax.jit(predict)(X), expected, rtol=1e-6)


def test_make_predict_raises_what_predict_raises():
    made = lambda hp: recipe(0.1, model=layers.serial(layers.embedding(5, 3), layers.flatten, layers.dense(1)))  # noqa: E731
    ids = np.arange(24).reshape(24, 1) % 5
    fitted = training.fit(made, None, Batch(ids, DATA.y), key=KEY)
    predict = training.make_predict(made, None, fitted)
    assert predict(ids).shape == (24, 1)
    for x, message in (
        (ids + 1, r"expected ids in \[0, 5\), got 1 to 5"),  # of the same shape as what was looked at before
        (np.zeros((2, 3), int), "serial|dense"),
        (Batch(ids, None), "expected features, got a Batch"),
    ):
        for function in (predict, lambda x: training.predict(made, None, fitted, x)):
            with pytest.raises((TypeError, ValueError), match=message):
                function(x)
    other = lambda hp: recipe(0.1)  # noqa: E731
    with pytest.raises(ValueError, match="params: not those of this model"):
        training.make_predict(other, None, fitted)(X)
    with pytest.raises(TypeError, match="expected what has params"):
        training.make_predict(made, None, fitted.params)
