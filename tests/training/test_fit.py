"""What the host sees of a run: the bar, the callbacks, Ctrl-C."""

import builtins
import re
import sys

import jax
import numpy as np
import pytest

from jaxopt_nn import training


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
    assert "6/6 epochs" in shown and "accuracy 0." in shown
    assert max(len(line) for line in re.split("[\r\n]", shown)) <= 80


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
