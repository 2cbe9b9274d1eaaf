"""Sweeps: each lane is the single run, nothing finished is lost or run twice, and only sound runs are best."""

import sqlite3
from contextlib import closing

import jax
import numpy as np
import pytest

from jaxopt_nn import layers, losses, metrics, optimizers, sweeps, training
from jaxopt_nn._jaxprs.flops import count_flops
from jaxopt_nn.sweeps import _engine, _execute, _lanes
from jaxopt_nn.types import Batch, Static

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 4)).astype("f")
DATA = Batch(X, (X[:, 0] > 0).astype(np.int32))
TRAIN, VALID = Batch(DATA.x[:32], DATA.y[:32]), Batch(DATA.x[32:], DATA.y[32:])
KEY = jax.random.key(0)


def recipe(hp):
    if hp["width"] == 13:
        raise RuntimeError("thirteen")
    make = {"adam": optimizers.adam, "sgd": optimizers.sgd}[hp["optimizer"]]
    return training.Recipe(
        model=layers.serial(layers.dense(hp["width"]), jax.nn.relu, layers.dense(2)),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        optimizer=make(hp["rate"]),
        batch_size=16,
        epochs=3,
    )


def space(**changes):
    return sweeps.grid(**{"rate": [1e-3, 1e-1], "width": 4, "optimizer": "adam", "seed": range(2)} | changes)


@pytest.fixture
def compiled(monkeypatch):
    """The widths of the programs that are compiled."""
    widths, compile_lane = [], _execute.compile_lane

    def counted(work, lane, width):
        widths.append(width)
        return compile_lane(work, lane, width)

    monkeypatch.setattr(_execute, "compile_lane", counted)
    return widths


def test_each_lane_is_the_single_run_and_each_group_one_program(compiled):
    trials = space(width=[4, 6], seed=range(3))
    result = sweeps.sweep(recipe, trials, TRAIN, VALID, key=KEY, lanes=4)
    assert len(compiled) == 2 and [record.trial for record in result.records] == trials
    run = jax.jit(training.make_run(recipe))
    for record in (result.records[0], result.records[7]):
        hparams = {name: record.trial[name] for name in ("rate", "width", "optimizer")}
        static = {name: value if name == "rate" else Static(value) for name, value in hparams.items()}
        single = run(sweeps.run_keys(KEY, record.trial["seed"]), static, TRAIN, VALID)
        for name, values in single.history.items():
            np.testing.assert_allclose(record.history[name], values, rtol=1e-4, atol=1e-6)
        assert record.metrics["valid_loss"] == pytest.approx(float(single.history["valid_loss"][-1]), rel=1e-4)
    same = sweeps.sweep(recipe, trials[::-1], TRAIN, VALID, key=KEY, lanes=12)  # another order and another width
    for a, b in zip(result.records, same.records[::-1], strict=True):
        assert a.trial == b.trial and a.metrics == pytest.approx(b.metrics, rel=1e-4, abs=1e-6)
    before = _lanes._executable.cache_info().misses
    sweeps.sweep(recipe, space(rate=[1e-2, 1.0], seed=range(5)), TRAIN, VALID, key=jax.random.key(1), lanes=4)
    assert _lanes._executable.cache_info().misses == before  # a wider space compiles nothing


@pytest.mark.slow
def test_the_plan_says_what_is_traced_and_what_is_compiled_in():
    plan = sweeps.plan(recipe, space(width=[4, 6]), TRAIN, key=KEY)
    assert [(group.static, group.traced) for group in plan.groups] == [
        ({"width": width, "optimizer": "adam"}, ("rate",)) for width in (4, 6)
    ]
    assert str(plan).startswith("8 trials to run, 2 programs to compile") and "width=6" in str(plan)
    static = {"rate": 0.1, "optimizer": Static("adam")}
    flops = [
        count_flops(training.make_run(recipe), KEY, static | {"width": Static(width)}, TRAIN)[0] for width in (4, 6)
    ]
    assert plan.flops == pytest.approx(4 * sum(flops), rel=0.02)
    assert plan.peak_bytes > X[:32].nbytes and plan.seconds > 2 * plan.compile_seconds > 0
    assert "floating-point operations" in str(plan) and "about" in str(plan)


def test_a_store_goes_on_where_it_was_and_runs_only_what_is_new(tmp_path, compiled):
    store = tmp_path / "sweep.sqlite"
    first = sweeps.sweep(recipe, space(), TRAIN, VALID, key=KEY, store=store)
    again = sweeps.sweep(recipe, space(), TRAIN, VALID, key=KEY, store=store)
    assert len(compiled) == 1 and str(again.records) == str(first.records)  # the same numbers, and NaN where they were
    more = space(rate=[1e-3, 1e-2, 1e-1])
    extended = sweeps.sweep(recipe, more, TRAIN, VALID, key=KEY, store=store)
    assert compiled == [4, 6] and [record.trial for record in extended.records] == more
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM trials").fetchone() == (6,)


def test_a_store_of_something_else_is_refused_with_the_difference(tmp_path):
    store = tmp_path / "sweep.sqlite"
    sweeps.sweep(recipe, space(rate=0.1), TRAIN, key=KEY, store=store)
    with pytest.raises(ValueError, match=r"^store: .* is of another data: there '.*\[32, 4\].*', here '.*\[40, 4\]"):
        sweeps.sweep(recipe, space(), DATA, key=KEY, store=store)
    with pytest.raises(ValueError, match=r"^store: .* is of another key: there '\[0, 0\]', here '\[0, 1\]'"):
        sweeps.sweep(recipe, space(), TRAIN, key=jax.random.key(1), store=store)

    def other(hp):
        return recipe(hp)._replace(epochs=4)

    with pytest.raises(ValueError, match=r"(?s)^store: .* is of another recipe \(width=4.*\): .*\+.*epochs=4"):
        sweeps.sweep(other, space(), TRAIN, key=KEY, store=store)
    (tmp_path / "text").write_text("no database, but a text that is longer than a header of SQLite" * 9)
    with pytest.raises(ValueError, match=r"^store: expected a file of a sweep, and '.*text' is none"):
        sweeps.sweep(recipe, space(), TRAIN, key=KEY, store=tmp_path / "text")
    with pytest.raises(FileNotFoundError, match=r"^store: expected a file in a folder that exists, got '.*nowhere"):
        sweeps.sweep(recipe, space(), TRAIN, key=KEY, store=tmp_path / "nowhere" / "sweep.sqlite")


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_finished(tmp_path, monkeypatch):
    calls, recorded = [], _engine._record

    def interrupting(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return recorded(*arguments)

    monkeypatch.setattr(_engine, "_record", interrupting)
    store = tmp_path / "sweep.sqlite"
    partial = sweeps.sweep(recipe, space(seed=range(4)), TRAIN, VALID, key=KEY, store=store, lanes=4)
    assert partial.interrupted and len(partial.records) == 4
    monkeypatch.undo()
    whole = sweeps.sweep(recipe, space(seed=range(4)), TRAIN, VALID, key=KEY, store=store, lanes=4)
    assert not whole.interrupted and str(whole.records[:4]) == str(partial.records) and len(whole.records) == 8


def test_diverged_and_failed_trials_are_recorded_change_no_other_and_are_never_best():
    sane = sweeps.sweep(recipe, space(rate=0.01, optimizer="sgd"), TRAIN, VALID, key=KEY, lanes=4)
    mixed = sweeps.sweep(
        recipe, space(rate=[0.01, 1e20], optimizer="sgd", width=[4, 13]), TRAIN, VALID, key=KEY, lanes=4
    )
    statuses = {(r.trial["width"], r.trial["rate"]): r.status for r in mixed.records}
    assert statuses[13, 0.01] == statuses[13, 1e20] == "FAILED" and statuses[4, 0.01] == "COMPLETED"
    assert statuses[4, 1e20] == "NONFINITE_TRAINING"
    assert next(r.error for r in mixed.records if r.status == "FAILED") == "RuntimeError: thirteen"
    for a in sane.records:
        (b,) = (r for r in mixed.records if r.trial == a.trial)
        jax.tree.map(np.testing.assert_array_equal, a.history, b.history)
    best = mixed.best()
    assert best.hparams == {"rate": 0.01, "width": 4, "optimizer": "sgd"} and best.considered == 1
    assert best.left_out == {"NONFINITE_TRAINING": 2, "FAILED": 4} and "2 NONFINITE_TRAINING" in str(best)
    with pytest.raises(ValueError, match=r"^best: no configuration ended well in all of its seeds: \{'FAILED': 2\}"):
        sweeps.sweep(recipe, space(rate=0.1, width=13), TRAIN, key=KEY).best()


def test_results_are_read_over_seeds():
    def function(key, hparams):
        noise, own = jax.random.normal(key), jax.random.normal(jax.random.fold_in(key, 1))
        return {"loss": hparams["offset"] + 0.1 * noise + hparams["jitter"] * (own + 2)}

    trials = sweeps.grid(offset=[0.0, 0.05, 1.0], jitter=[0.0, 0.5], seed=range(8))
    result = sweeps.sweep_function(function, trials, key=KEY, objective="loss")
    best = result.best()
    values = [float(function(jax.random.fold_in(KEY, s), {"offset": 0.0, "jitter": 0.0})["loss"]) for s in range(8)]
    assert best.hparams == {"offset": 0.0, "jitter": 0.0} and best.value == pytest.approx(np.mean(values), rel=1e-5)
    assert best.low < best.value < best.high and best.seeds == 8
    # The noise of a seed is common to both: paired, a small difference is seen that intervals of each alone hide.
    paired = result.compare({"offset": 0.0, "jitter": 0.0}, {"offset": 0.05, "jitter": 0.0})
    assert paired.verdict == "better" and paired.difference == pytest.approx(-0.05, abs=1e-6) and paired.seeds == 8
    assert result.compare({"offset": 0.05, "jitter": 0.5}, {"offset": 0.0, "jitter": 0.5}).verdict == "worse"
    noisy = result.compare({"offset": 0.0, "jitter": 0.5}, {"offset": 1.0, "jitter": 0.0})
    assert noisy.verdict == "undecided" and noisy.low < 0 < noisy.high
    table = result.table()
    assert list(table.columns) == ["offset", "jitter", "seed", "status", "loss", "seconds", "error"]
    assert len(table) == 48 and table.loss.iloc[0] == pytest.approx(values[0], rel=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: sweeps.sweep(recipe, sweeps.grid(rate=0.1, width=4, optimizer="adam", wdith=3), TRAIN, key=KEY),
            ValueError,
            r"^space: the recipe never reads 'wdith'; did you mean 'width'\?",
        ),
        (
            lambda: sweeps.sweep(recipe, sweeps.grid(rtae=0.1, width=4, optimizer="adam"), TRAIN, key=KEY),
            ValueError,
            r"^space: the recipe reads 'rate', and the trial .* has no such hyperparameter; did you mean 'rtae'\?",
        ),
        (lambda: sweeps.sweep(recipe, [], TRAIN, key=KEY), ValueError, r"^space: expected at least one trial"),
        (
            lambda: sweeps.sweep(recipe, space() + space(), TRAIN, key=KEY),
            ValueError,
            r"^space: expected each trial once",
        ),
        (
            lambda: sweeps.sweep(recipe, space(), TRAIN, key=KEY, objective="valid_loss"),
            ValueError,
            r"^objective: expected one of \[.*'train_loss'.*\], got 'valid_loss'",
        ),
        (
            lambda: sweeps.sweep(recipe, space(), TRAIN, key=KEY, objective="gradient_norm"),
            ValueError,
            r'^mode: expected "min" or "max" for the objective \'gradient_norm\', got None',
        ),
        (lambda: sweeps.sweep(recipe, space(), TRAIN, key=0), TypeError, r"^key: expected a PRNG key"),
        (
            lambda: sweeps.sweep(recipe, space(), Batch(X, DATA.y + 1), key=KEY),
            ValueError,
            r"^train.y, as the loss takes it: labels\[.*\]: expected a class label",
        ),
        (
            lambda: sweeps.sweep_function(lambda key, hp: 1.0, space(), key=KEY, objective="loss").best(),
            ValueError,
            r"^best: no configuration ended well",
        ),
    ],
)
def test_bad_sweeps_are_named_before_anything_runs(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_what_failed_is_tried_again_and_what_ended_is_not(tmp_path, compiled):
    broken = {"now": True}

    def function(key, hparams):
        if broken["now"] and hparams["kind"] == "b":
            raise RuntimeError("broken")
        return {"loss": hparams["x"] * 1.0}

    def sweep():
        trials = sweeps.grid(x=[1.0, 2.0], kind=["a", "b"])
        return sweeps.sweep_function(function, trials, key=KEY, objective="loss", store=tmp_path / "sweep.sqlite")

    assert [record.status for record in sweep().records] == ["COMPLETED", "FAILED"] * 2
    broken["now"] = False
    assert [record.status for record in sweep().records] == ["COMPLETED"] * 4
    assert len(compiled) == 2
