"""What makes a run fast, read from its program: nothing here is timed.

Row 1 of the benchmarks (a 64-64-32-10 network, batch 32, Adam, validation, early stopping) is compiled once.
"""

import re
from collections import Counter
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from jaxopt_nn import _ops, layers, losses, metrics, optimizers, training
from jaxopt_nn.types import Batch


def _mlp(drop_rate=None):
    drop = [] if drop_rate is None else [layers.dropout(drop_rate)]
    return layers.serial(layers.dense(64), jax.nn.relu, *drop, layers.dense(32), jax.nn.relu, *drop, layers.dense(10))


def _lenet(**options):
    return layers.serial(
        layers.conv(6, 5, **options), jax.nn.relu, layers.max_pool(2),
        layers.conv(16, 5, padding="VALID", **options), jax.nn.relu, layers.max_pool(2),
        layers.flatten, layers.dense(120), jax.nn.relu, layers.dense(10),
    )  # fmt: skip


def row_1_run(model, *, lanes=0, epochs=30, traces=None):
    """The run of row 1, of 320 examples, and its arguments; ``traces`` gets what the recipe is called with."""

    def recipe(hp):
        if traces is not None:
            traces.append(hp)
        return training.Recipe(
            model=model,
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.adam(hp),
            metrics={"accuracy": metrics.accuracy},
            batch_size=32,
            epochs=epochs,
            early_stopping=training.EarlyStopping(patience=5),
        )

    batch = Batch(jnp.zeros((320, 64)), jnp.zeros(320, int))
    run, keys = training.make_run(recipe), training.RunKeys(*jax.random.split(jax.random.key(0), 3))
    if not lanes:
        return run, keys, 1e-3, batch, batch
    run = jax.vmap(run, (training.RunKeys(0, None, 0), 0, None, None))
    init, noise = jax.random.split(keys.init, lanes), jax.random.split(keys.noise, lanes)
    return run, training.RunKeys(init, keys.order, noise), jnp.ones(lanes), batch, batch


def lowered(model, **options):
    run, *arguments = row_1_run(model, **options)
    return jax.jit(run).lower(*arguments)


def computations(hlo):
    """The opcodes of each computation, by its name."""
    found, opcodes = {}, []
    for line in hlo.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            opcodes = found.setdefault(head[1], [])
        elif " = " in line:
            opcodes += re.findall(r"(?:^|[\]})] )([a-z][\w-]*)\(", line.split(" = ", 1)[1])[:1]
    return {name: Counter(opcodes) for name, opcodes in found.items()}


@pytest.fixture(scope="module")
def row_1():
    """What the recipe was called with, the program before the compiler, and after it."""
    traces = []
    program = lowered(_mlp(), traces=traces)
    return SimpleNamespace(traces=traces, before=program.as_text(), after=program.compile().as_text())


def test_programs_of_the_same_size_for_any_number_of_epochs(row_1):
    longer = lowered(_mlp(), epochs=10_000).compile().as_text()
    total = [sum(ops.total() for ops in computations(text).values()) for text in (row_1.after, longer)]
    assert total[0] == total[1] > 1000


def test_the_device_is_left_to_itself(row_1):
    """No call of the host, no transfer, inside or outside of the loop."""
    for word in ("callback", "infeed", "outfeed", " send(", " recv(", "host"):
        assert word not in row_1.after
    assert re.findall(r"custom_call_target=\"(\w+)\"", row_1.after) == []


def test_lanes_are_traced_once_as_a_single_run_is(row_1):
    traces = []
    jax.eval_shape(*row_1_run(_mlp(), lanes=7, traces=traces))
    assert 0 < len(traces) == len(row_1.traces)


@pytest.mark.skipif(_ops.uses_plain_forms(), reason="the plain form is that convolution")
def test_kernels_in_lanes_make_no_grouped_convolution():
    """They would, natively, and XLA is slow at those (benchmarks/layers.py)."""

    def groups(lowering):
        model, x = _lenet(lowering=lowering), jnp.zeros((4, 28, 28, 1))

        def loss(params):
            return jnp.sum(model.apply(params, {}, x, train=True, key=None, weight=None)[0])

        params = jax.eval_shape(lambda key: model.init(key, x)[0], jax.random.key(0))
        lanes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype), params)
        program = jax.jit(jax.vmap(jax.grad(loss))).lower(lanes)
        return {int(number) for number in re.findall(r"(?:feature|batch)_group_count ?= ?(\d+)", program.as_text())}

    assert 3 in groups("native")  # what is looked for is what such a program says
    assert groups("patches") <= {1}


def test_a_donated_state_is_updated_in_place():
    def loss_fn(params, model_state, batch, key):
        outputs, model_state = model.apply(params, model_state, batch.x, train=True, key=key, weight=None)
        return losses.weighted_mean(losses.softmax_cross_entropy(outputs, batch.y)), (model_state, {})

    model, optimizer = _mlp(0.2), optimizers.adam(1e-3)
    batch = Batch(jnp.zeros((32, 64)), jnp.zeros(32, int))

    def begin(key):
        params, model_state = model.init(key, batch.x)
        return training.init_state(params, optimizer, key, model_state)

    state = jax.eval_shape(begin, jax.random.key(0))
    # Kept: the plain form of the learning rate's record does not read the one before it.
    step = jax.jit(training.make_step(loss_fn, optimizer), donate_argnums=0, keep_unused=True)
    text = step.lower(state, batch).as_text()
    assert text.count("tf.aliasing_output") == len(jax.tree.leaves(state))
