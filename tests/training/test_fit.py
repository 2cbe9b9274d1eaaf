"""What the host sees of a run: the bar, the callbacks, Ctrl-C."""

import builtins
import functools
import re
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import metrics, training


def test_callbacks_see_each_epoch(problem):
    ends = []
    result = training.fit(
        problem.recipe(), problem.hparams, problem.train, problem.valid, key=problem.key, callbacks=[ends.append]
    )
    assert [end.epoch for end in ends] == list(range(6))
    assert [int(end.state.step) for end in ends] == [5, 10, 15, 20, 25, 30]
    for end in ends:
        for name, values in result.history.items():
            assert end.metrics[name] == float(values[end.epoch])


@pytest.mark.parametrize("how", ["returns True", "Ctrl-C"])
def test_an_interrupted_fit_returns_what_it_has(problem, how):
    def callback(end):
        if end.epoch == 2:
            if how == "Ctrl-C":
                raise KeyboardInterrupt
            return True
        return None

    recipe = problem.recipe(early_stopping=training.EarlyStopping(patience=50))
    result = training.fit(recipe, problem.hparams, problem.train, problem.valid, key=problem.key, callbacks=[callback])
    assert training.Status(int(result.status)) is training.Status.INTERRUPTED
    assert int(result.epochs) == 3 and int(result.state.step) == 15
    whole = jax.jit(training.make_run(recipe))(problem.key, problem.hparams, problem.train, problem.valid)
    np.testing.assert_array_equal(result.history["valid_loss"][:3], whole.history["valid_loss"][:3])
    assert np.isnan(result.history["valid_loss"][3:]).all()
    assert int(result.best_epoch) == int(np.argmin(result.history["valid_loss"][:3]))


def test_ctrl_c_before_the_first_epoch_returns_the_start(problem, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(jax, "device_get", interrupt)
    result = training.fit(problem.recipe(), problem.hparams, problem.train, key=problem.key)
    assert training.Status(int(result.status)) is training.Status.INTERRUPTED
    assert int(result.epochs) == int(result.state.step) == 0
    assert np.isnan(result.history["train_loss"]).all()


def test_an_error_in_a_callback_is_the_callers(problem):
    def callback(end):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        training.fit(problem.recipe(), problem.hparams, problem.train, key=problem.key, callbacks=[callback])


def test_progress_bar_counts_epochs_and_shows_the_loss(problem, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    training.fit(problem.recipe(), problem.hparams, problem.train, problem.valid, key=problem.key, progress_bar=True)
    shown = capsys.readouterr().err
    assert "6/6 |" in shown and "accuracy 0." in shown and re.search(r", [\d.]+[kM]?/s", shown)
    assert max(len(line) for line in re.split("[\r\n]", shown)) <= 80


def test_progress_bar_shows_the_metric_there_is(problem, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    recipe = problem.recipe(metrics={"top_2": functools.partial(metrics.top_k_accuracy, k=2)}, epochs=1)
    training.fit(recipe, problem.hparams, problem.train, problem.valid, key=problem.key, progress_bar=True)
    assert re.search(r"train \d\.\d+, valid \d\.\d+, top_2 \d\.\d+, [\d.]+[kM]?/s", capsys.readouterr().err)


def test_no_bar_where_none_is_wanted_or_nobody_looks(problem, capsys):
    for wanted in (False, None):
        training.fit(problem.recipe(), problem.hparams, problem.train, key=problem.key, progress_bar=wanted)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_a_bar_without_tqdm_names_the_extra(problem, monkeypatch):
    real_import = builtins.__import__

    def without_tqdm(name, *args, **kwargs):
        if name.startswith("tqdm"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "tqdm.auto", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_tqdm)
    with pytest.raises(ImportError, match=r"jaxopt-nn\[progress\]"):
        training.fit(problem.recipe(), problem.hparams, problem.train, key=problem.key, progress_bar=True)
    training.fit(problem.recipe(), problem.hparams, problem.train, key=problem.key)  # None: no bar, no error


def test_strings_and_functions_need_no_static_in_fit(problem):
    def recipe(hp):
        assert hp["activation"] == "relu" and hp["use_bias"] is True
        return problem.recipe(epochs=1)(hp)

    hparams = {**problem.hparams, "activation": "relu", "use_bias": True}
    training.fit(recipe, hparams, problem.train, key=problem.key)


@pytest.mark.parametrize("answer", [True, np.bool_(True), jnp.array(True)], ids=["Python", "NumPy", "JAX"])
def test_whatever_is_true_ends_the_run(problem, answer):
    result = training.fit(
        problem.recipe(), problem.hparams, problem.train, key=problem.key, callbacks=[lambda e: answer]
    )
    assert training.Status(int(result.status)) is training.Status.INTERRUPTED and int(result.epochs) == 1


@pytest.mark.parametrize("answer", ["stop", 1, 0.5, np.ones(2, bool)], ids=repr)
def test_an_answer_that_is_no_bool_is_an_error(problem, answer):
    with pytest.raises(TypeError, match=r"^callbacks: expected <lambda> to return None, True or False, got"):
        training.fit(problem.recipe(), problem.hparams, problem.train, key=problem.key, callbacks=[lambda end: answer])


@pytest.mark.parametrize(
    ("callbacks", "match"),
    [
        (print, r"^callbacks: expected a list of functions, got <built-in function print>"),
        ([None], r"^callbacks\[0\]: expected a function of an EpochEnd, got None"),
        ([print, lambda: None], r"^callbacks\[1\]: expected a function of one argument, an EpochEnd, got one of \(\)"),
        ([lambda epoch, metrics: None], r"^callbacks\[0\]: .*got one of \(epoch, metrics\)"),
    ],
)
def test_callbacks_are_looked_at_before_the_run(problem, callbacks, match):
    def recipe(hp):
        raise AssertionError("the run has begun")

    with pytest.raises(TypeError, match=match):
        training.fit(recipe, problem.hparams, problem.train, key=problem.key, callbacks=callbacks)


def _within(transform):
    def call(problem):
        def fitted(rate):
            hparams = {**problem.hparams, "learning_rate": rate}
            return training.fit(problem.recipe(), hparams, problem.train, key=problem.key).history["train_loss"][-1]

        return transform(fitted)

    return call


@pytest.mark.parametrize(
    "call",
    [
        _within(lambda f: jax.jit(f)(0.1)),
        _within(lambda f: jax.vmap(f)(jnp.ones(2))),
        _within(lambda f: jax.grad(f)(0.1)),
        _within(lambda f: jax.jit(lambda: f(0.1))()),
        lambda problem: jax.jit(
            lambda train: training.fit(problem.recipe(), problem.hparams, train, key=problem.key).params
        )(problem.train),
    ],
    ids=["jit", "vmap", "grad", "jit of nothing", "jit of the data"],
)
def test_within_a_program_it_says_at_once_what_to_use(problem, call):
    with pytest.raises(TypeError, match=r"^fit: expected to be called outside of jit, vmap and grad; .*make_run"):
        call(problem)


def test_a_dispatch_is_bounded_by_time(problem, monkeypatch):
    """So that Ctrl-C is heard; with the same bits, and one program for dispatches of any length."""
    recipe = problem.recipe(early_stopping=training.EarlyStopping(patience=9))
    arguments = (recipe, problem.hparams, problem.train, problem.valid)
    expected = training.fit(*arguments, key=problem.key, epochs_per_call=6)
    clock = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: 10 * next(clock))  # 10 s each
    ends = []
    slow = training.fit(*arguments, key=problem.key, epochs_per_call=6, callbacks=[ends.append])
    assert [int(end.state.step) for end in ends] == [5, 10, 15, 20, 25, 30]  # one epoch at a time
    for name, values in expected.history.items():
        np.testing.assert_array_equal(slow.history[name], values)
    jax.tree.map(np.testing.assert_array_equal, slow.params, expected.params)
