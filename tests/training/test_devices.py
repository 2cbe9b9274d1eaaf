"""Lanes spread over devices: each device runs its own and waits for nobody. In a process that has two of them."""

import os
import subprocess
import sys

LANES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from jaxopt_nn import layers, losses, metrics, optimizers, training
from jaxopt_nn import _ops
from jaxopt_nn.types import Batch

def recipe(hp):
    return training.Recipe(
        model=layers.serial(
            layers.dense(8, use_bias=False), layers.batch_norm(), jax.nn.relu, layers.dropout(0.2), layers.dense(4)),
        loss=losses.softmax_cross_entropy, optimizer=optimizers.adam(hp), metrics={"accuracy": metrics.accuracy},
        batch_size=8, epochs=3, early_stopping=training.EarlyStopping(patience=2))

x = jax.random.normal(jax.random.key(0), (40, 6))
train, valid = Batch(x, jnp.arange(40) % 4), Batch(x[:9], jnp.arange(9) % 4)
where = []

def run(keys, rate, train, valid):
    where.append(_ops._is_for_single_cpu(train.x))
    return training.make_run(recipe)(keys, rate, train, valid)

lanes = jax.vmap(run, (training.RunKeys(0, None, 0), 0, None, None))
init, order, noise = jax.random.split(jax.random.key(1), 3)
keys = training.RunKeys(jax.random.split(init, 6), order, jax.random.split(noise, 6))
rates = jnp.array([1e-3, 1e-2, jnp.nan, 1e-1, 1e-2, 0.0])

mesh = jax.make_mesh((2,), ("lanes",), (AxisType.Auto,))
apart = training.RunKeys(P("lanes"), P(), P("lanes"))
spread = jax.shard_map(
    lanes, mesh=mesh, in_specs=(apart, P("lanes"), P(), P()), out_specs=P("lanes"), check_vma=False)

program = jax.jit(spread).lower(keys, rates, train, valid).compile()
found, expected = program(keys, rates, train, valid), jax.jit(lanes)(keys, rates, train, valid)
assert where == [True, False], where  # the shortcuts for a single CPU: on each device, but not where arrays are shared
assert len(found.status.sharding.device_set) == 2
for collective in ("all-reduce", "all-gather", "all-to-all", "collective", "reduce-scatter"):
    assert collective not in program.as_text(), collective

def compare(found, expected):
    if jnp.issubdtype(found.dtype, jax.dtypes.prng_key):
        found, expected = jax.random.key_data(found), jax.random.key_data(expected)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)

jax.tree.map(compare, found, expected)
assert found.status[2] == training.Status.NONFINITE_TRAINING, found.status
"""


def test_lanes_on_two_devices_are_those_on_one_and_nothing_passes_between_them():
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", LANES], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
