"""Sweeps in processes of their own: on several devices, and killed at any moment."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

SCRIPT = """
import sys, jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
import numpy as np
from jaxopt_nn import layers, losses, optimizers, sweeps, training
from jaxopt_nn.types import Batch
x = np.random.default_rng(0).standard_normal((64, 4)).astype("f")

def recipe(hp):
    return training.Recipe(
        model=layers.serial(layers.dense(8), jax.nn.relu, layers.dense(1)), loss=losses.mean_squared_error,
        optimizer=optimizers.adam(hp["rate"]), batch_size=16, epochs=hp["epochs"])

space = sweeps.grid(rate=[1e-3, 1e-2, 1e-1], epochs=[2, 3], seed=range(3))
result = sweeps.sweep(recipe, space, Batch(x, x[:, :1]), key=jax.random.key(0), store=sys.argv[1], lanes=2)
for record in result.records:
    print(record.trial, record.metrics["train_loss"].hex())
"""


def run(store, devices=1):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(store), str(devices)], capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.slow
def test_lanes_on_several_devices_are_those_on_one(tmp_path):
    one, two = run(tmp_path / "one.sqlite"), run(tmp_path / "two.sqlite", devices=2)
    assert len(one) == 18
    for a, b in zip(one, two, strict=True):
        (trial, loss), (same, other) = a.rsplit(" ", 1), b.rsplit(" ", 1)
        assert trial == same
        np.testing.assert_allclose(float.fromhex(loss), float.fromhex(other), rtol=1e-4)


@pytest.mark.slow
def test_a_killed_sweep_loses_and_repeats_nothing(tmp_path):
    """The final table is that of a sweep that nobody killed, to the bit."""
    whole = run(tmp_path / "whole.sqlite")
    store, rng = tmp_path / "killed.sqlite", np.random.default_rng(0)
    for _ in range(int(os.environ.get("KILLS", "5"))):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(store), "1"], stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(1.0, 15.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run(store) == whole


WIDE = """
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, numpy as np
from jaxopt_nn import sweeps
result = sweeps.sweep_function(
    lambda key, hp, x: {"loss": jnp.sum(x * hp["rate"])}, sweeps.grid(rate=[1.0]), np.array([1.0, 1e-12]),
    key=jax.random.key(0), objective="loss", executor=sweeps.processes(1))
print(result.records[0].metrics["loss"])
"""


@pytest.mark.slow
def test_workers_take_over_the_configuration_of_jax():
    """And functions of a script come along: this one is in no file."""
    done = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, check=True)
    assert float(done.stdout) == 1.0 + 1e-12
