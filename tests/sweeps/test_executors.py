"""Sweeps on two workers, of which one is lost: processes of this machine, and a Ray."""

import contextlib
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, sweeps, training
from jaxopt_nn.types import Batch


@contextlib.contextmanager
def of_ray():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield sweeps.ray()
    finally:
        ray.shutdown()


@contextlib.contextmanager
def of_processes():
    pytest.importorskip("loky")
    yield sweeps.processes(2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # JAX warns of the forks by which Ray starts processes
@pytest.mark.parametrize("workers", [of_processes, of_ray])
def test_a_lost_workers_chunk_runs_again_and_the_table_is_that_of_one_process(workers, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # beside other work its workers would not get a turn
    main, flag = os.getpid(), str(tmp_path / "lost")
    x = np.random.default_rng(0).standard_normal((24, 3)).astype("f")
    train = Batch(x, x[:, :1])

    def recipe(hp):
        if os.getpid() != main and hp["width"] == 5 and not Path(flag).exists():
            Path(flag).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        if hp["width"] == 7:
            raise RuntimeError("seven")
        return training.Recipe(
            model=layers.serial(layers.dense(hp["width"]), layers.dense(1)),
            loss=losses.mean_squared_error,
            optimizer=optimizers.sgd(hp["rate"]),
            batch_size=8,
            epochs=4,
        )

    space = sweeps.grid(rate=[1e-3, 0.01, 0.1, 1e30], width=[4, 5, 7], seed=range(2))
    key, store = jax.random.key(0), tmp_path / "sweep.sqlite"
    with workers() as executor:
        rule = sweeps.successive_halving(min_epochs=2)
        pruned = sweeps.sweep(recipe, space, train, key=key, lanes=4, pruning=rule, executor=executor)
        assert Path(flag).exists()
        Path(flag).unlink()
        there = sweeps.sweep(recipe, space, train, key=key, lanes=4, store=store, executor=executor)
        assert Path(flag).exists()
    here = sweeps.sweep(recipe, space, train, key=key, lanes=4)
    for a, b in zip(here.records, there.records, strict=True):
        assert (a.trial, a.status, a.error, str(a.metrics)) == (b.trial, b.status, b.error, str(b.metrics))
    again = sweeps.sweep(recipe, space, train, key=key, lanes=4, store=store)  # from the store they filled
    assert [str(r.metrics) for r in again.records] == [str(r.metrics) for r in there.records]
    assert {r.status for r in pruned.records} == {"COMPLETED", "PRUNED", "NONFINITE_TRAINING", "FAILED"}
    for a, b in zip(here.records, pruned.records, strict=True):
        if b.status == "COMPLETED":
            assert str(a.history) == str(b.history)
