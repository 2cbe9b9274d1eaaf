"""Lanes, batches and data sets spread over devices, in processes that have two or four of them."""

import os
import subprocess
import sys

import pytest

LANES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
import pytest

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
    lanes, mesh=mesh, in_specs=(apart, P("lanes"), P(), P()), out_specs=P("lanes"))

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

SPREAD = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jaxopt_nn import layers, losses, metrics, optimizers, penalties, training
from jaxopt_nn.types import Batch

MODEL = layers.serial(layers.dense(8), jax.nn.relu, layers.dense(4))

def recipe(hp):
    return training.Recipe(
        model=MODEL, loss=losses.softmax_cross_entropy, optimizer=optimizers.adam(hp), penalty=penalties.l2(1e-3),
        metrics={"accuracy": metrics.accuracy}, batch_size=8, epochs=3, micro_batches=2, evaluation_batch_size=3,
        early_stopping=training.EarlyStopping(patience=2), plateau=optimizers.reduce_on_plateau(patience=1))

key, x = jax.random.key(1), jax.random.normal(jax.random.key(0), (36, 6))
train, valid = Batch(x, jnp.arange(36) % 4), Batch(x[:8], jnp.arange(8) % 4)
run = training.make_run(recipe)
close = lambda a, b: jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), a, b)

# Lanes, with the types of shard_map checked: the default.
lanes, rates = jax.vmap(run, (None, 0, None, None)), jnp.geomspace(1e-3, 1e-1, 8)
mesh = jax.make_mesh((4,), ("lanes",), (AxisType.Auto,))
spread = jax.shard_map(lanes, mesh=mesh, in_specs=(P(), P("lanes"), P(), P()), out_specs=P("lanes"))
close(jax.jit(spread)(key, rates, train, valid).history, jax.jit(lanes)(key, rates, train, valid).history)

# One batch over four devices: the loss is the mean over them, so its gradient is too.
def loss_fn(params, model_state, batch, key, mean=lambda loss: loss):
    outputs, model_state = MODEL.apply(params, model_state, batch.x, train=True, key=key, weight=batch.weight)
    loss = losses.weighted_mean(losses.softmax_cross_entropy(outputs, batch.y), batch.weight)
    return mean(loss), (model_state, {})

optimizer = optimizers.adam(0.01)
state = training.init_state(*MODEL.init(key, x)[:1], optimizer, key)
alone = training.make_step(loss_fn, optimizer)(state, train)[0]
parts = lambda *args: loss_fn(*args, mean=lambda loss: jax.lax.pmean(loss, "lanes"))
for options in ({}, {"nonfinite_limit": 1}, {"micro_batches": 2}):  # nine rows a device: the second part is filled up
    step = training.make_step(parts, optimizer, **options)
    step = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(P(), P("lanes")), out_specs=P()))
    close(step(state, train)[0].params, alone.params)

# A mesh with explicit axes, as jax.make_mesh makes it.
expected, mesh = jax.jit(run)(key, 0.01, train, valid), jax.make_mesh((4,), ("data",))
scores, outputs = training.evaluate(recipe, 0.01, expected, valid), training.predict(recipe, 0.01, expected, valid.x)
with jax.set_mesh(mesh):
    for spec in (P("data"), P()):
        put = lambda tree: jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf), NamedSharding(mesh, spec)), tree)
        close(jax.jit(run)(key, 0.01, put(train), put(valid)).history, expected.history)
        close(training.fit(recipe, 0.01, put(train), put(valid), key=key).history, expected.history)
        close(training.evaluate(recipe, 0.01, expected, put(valid)), scores)
        close(training.predict(recipe, 0.01, expected, put(valid.x)), outputs)
"""


def _run(script, **environment):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_whole_runs_and_steps_on_four_devices_with_strict_dtypes():
    _run(SPREAD, JAX_NUM_CPU_DEVICES="4", JAX_NUMPY_DTYPE_PROMOTION="strict")


@pytest.mark.slow
def test_lanes_on_two_devices_are_those_on_one_and_nothing_passes_between_them():
    _run(LANES, JAX_NUM_CPU_DEVICES="2")
