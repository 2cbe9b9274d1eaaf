"""The store: what its trials were computed by is compared, processes share it, and parameters are kept in it."""

import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, sweeps, training
from jaxopt_nn.sweeps import _engine
from jaxopt_nn.sweeps._store import Record, open_store, trial_id
from jaxopt_nn.types import Batch, Static

X = np.random.default_rng(0).standard_normal((24, 3)).astype("f")
TRAIN = Batch(X, X[:, :1])
KEY = jax.random.key(0)
FACTOR = {"now": 2.0}


def scaled(value):
    return FACTOR["now"] * value


def recipe(hp):
    return training.Recipe(
        model=layers.dense(1),
        loss=losses.mean_squared_error,
        optimizer=optimizers.sgd(scaled(hp["rate"])),
        batch_size=hp["batch_size"],
        epochs=2,
    )


@pytest.mark.slow
def test_a_change_in_what_the_recipe_calls_is_refused_and_one_in_its_words_is_not(tmp_path, monkeypatch):
    store = tmp_path / "sweep.sqlite"
    space = sweeps.grid(rate=[0.01, 0.1], batch_size=8)
    first = sweeps.sweep(recipe, space, TRAIN, key=KEY, store=store)

    def reworded(hparams):
        """The same, with other words."""
        size = hparams["batch_size"]
        return recipe({"rate": hparams["rate"], "batch_size": size})

    again = sweeps.sweep(reworded, space, TRAIN, key=KEY, store=store)
    assert str(again.records) == str(first.records)
    more = sweeps.sweep(recipe, space + sweeps.grid(rate=0.01, batch_size=[6, 12]), TRAIN, key=KEY, store=store)
    assert len(more.records) == 4
    monkeypatch.setitem(FACTOR, "now", 3.0)
    with pytest.raises(ValueError, match=r"(?s)^store: .* is of another recipe \(batch_size=8\): .*-.*2\.0.*\+.*3\.0"):
        sweeps.sweep(recipe, space, TRAIN, key=KEY, store=store)  # although all of it is finished


@pytest.mark.slow
def test_the_parameters_of_the_best_are_kept_on_request(tmp_path):
    store, space = tmp_path / "sweep.sqlite", sweeps.grid(rate=[0.001, 0.1, 1e30, 0.03], batch_size=8, seed=range(2))
    result = sweeps.sweep(recipe, space[:5], TRAIN, key=KEY, store=store, lanes=2, keep=2)
    result = sweeps.sweep(recipe, space, TRAIN, key=KEY, store=store, lanes=2, keep=2)
    values = {i: r.metrics["train_loss"] for i, r in enumerate(result.records) if r.status == "COMPLETED"}
    best = sorted(values, key=values.__getitem__)[:2]
    for place in best:
        hparams = {"rate": space[place]["rate"], "batch_size": Static(8)}
        single = training.make_run(recipe)(sweeps.run_keys(KEY, space[place]["seed"]), hparams, TRAIN)
        kept = result.result(place)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), kept.params, single.params)
        assert training.predict(recipe, hparams, kept, X).shape == (24, 1)
    with pytest.raises(KeyError, match=r"trial: expected one of the 2 that were kept, got 0; see keep="):
        result.result(0)
    assert len(result.results) == 2


def test_two_that_share_a_store_do_everything_once(tmp_path, monkeypatch):
    done, record, lock = [], _engine._record, threading.Lock()

    def counted(trial, *arguments):
        with lock:
            done.append(trial_id(trial))
        return record(trial, *arguments)

    monkeypatch.setattr(_engine, "_record", counted)

    def function(key, hparams):
        return {"loss": hparams["x"] * 2.0}

    space, results = sweeps.grid(x=[float(i) for i in range(12)]), []

    def call():
        shared = sweeps.work(tmp_path / "sweep.sqlite", seconds=30)
        results.append(
            sweeps.sweep_function(function, space, key=KEY, objective="loss", store=shared, lanes=2, progress=False)
        )

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(trial_id(trial) for trial in space)
    assert [r.metrics["loss"] for r in results[0].records] == [r.metrics["loss"] for r in results[1].records]
    assert len(results[0].records) == 12


def test_a_lease_that_runs_out_is_taken_by_others(tmp_path):
    store = open_store(tmp_path / "sweep.sqlite", {}, shared=True)
    with store.another() as other:
        assert store.lease(["a", "b"], "dead", 0.0, again=()) == ["a", "b"]
        assert other.lease(["a", "b", "c"], "alive", 60.0, again=()) == ["a", "b", "c"]
        assert store.lease(["a", "b"], "late", 60.0, again=()) == [] and store.is_anybody_at_work()
        record = Record({"x": 1}, "FAILED", "RuntimeError: no", {}, {}, 0.0)
        store.add([record])
        assert other.lease([trial_id({"x": 1})], "alive", 60.0, again=()) == []  # failed just now: not again and again
        assert other.lease([trial_id({"x": 1})], "alive", 60.0, again={trial_id({"x": 1})}) != []
        other.release("alive")
        assert not store.is_anybody_at_work()
    store.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_named(tmp_path):
    """A limit on the size of files is met as a full disk is."""
    code = """
import resource, sys, jax, numpy as np
from jaxopt_nn import sweeps
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
def function(key, hparams):
    return {"loss": hparams["x"], "curve": jax.random.normal(key, (200_000,))}
try:
    space = sweeps.grid(x=[1.0, 2.0])
    sweeps.sweep_function(function, space, key=jax.random.key(0), objective="loss", store=sys.argv[1])
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "sweep.sqlite"], capture_output=True, text=True)
    assert "cannot be written" in done.stdout and "the trials that it holds are kept" in done.stdout, done.stderr


def test_a_read_only_store_is_named(tmp_path):
    path = tmp_path / "sweep.sqlite"
    open_store(path, {"data": "1"}).close()
    os.chmod(path, 0o444)
    if os.access(path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(OSError, match=r"^store: '.*' cannot be written: attempt to write a readonly database"):
        open_store(path, {"data": "1"})


def test_data_that_do_not_fit_the_device_are_named(monkeypatch):
    monkeypatch.setattr("jaxopt_nn._ops.device_memory", lambda: 100)
    with pytest.raises(MemoryError, match=r"^train, valid: expected data that fit the device, 0.0 GiB, got 0.0 GiB"):
        sweeps.sweep(recipe, sweeps.grid(rate=0.1, batch_size=8), TRAIN, key=KEY)


def test_where_there_is_no_terminal_a_line_of_the_log_tells_of_each_chunk(caplog):
    caplog.set_level("INFO", logger="jaxopt_nn.sweeps")
    space = sweeps.grid(x=[3.0, 1.0, 2.0])

    def function(key, hparams):
        return {"loss": hparams["x"]}

    sweeps.sweep_function(function, space, key=KEY, objective="loss", lanes=2, progress=False)
    assert [record.message for record in caplog.records] == [
        "2 of 3 trials finished, best loss 1",
        "3 of 3 trials finished, best loss 1",
    ]
