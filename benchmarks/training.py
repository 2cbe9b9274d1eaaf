"""Our sides of training. Each side is a function ``work -> round``; a round trains from scratch and says how it went.

A side prepares everything that is not training (data on the device, compilation, warm-up) before it returns. A round is
timed inside, so that making the network anew is not counted for anybody whose compiled program does not contain it.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.work import Training, load

__all__ = ["OURS", "Round", "model_of", "report"]

Round = Callable[[], dict[str, float]]


EIGEN = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""Of XLA: no fusions of YNNPACK, so matrix products are Eigen's."""


def ours(case: Training) -> Round:
    """The compiled run."""
    import jax
    import jax.numpy as jnp

    from jaxopt_nn import augment, losses, metrics, monitor, optimizers, training
    from jaxopt_nn.types import Batch

    flip_and_crop = augment.chain(augment.random_flip_left_right(), augment.random_crop(2))
    devices = _devices(case.devices)
    x, y, vx, vy = (jnp.asarray(part) for part in load(case))
    x, vx = x.astype(case.dtype), vx.astype(case.dtype)

    def recipe(learning_rate: Any) -> training.Recipe:
        adam = optimizers.adam(learning_rate)
        return training.Recipe(
            model=model_of(case),
            loss=losses.softmax_cross_entropy,
            optimizer=adam if case.lanes > 1 else optimizers.flatten(adam),  # lanes have large leaves already
            metrics={"accuracy": metrics.accuracy},
            batch_size=case.batch_size,
            epochs=case.epochs,
            last_batch="drop",
            early_stopping=training.EarlyStopping(patience=case.epochs) if case.validation else None,
            augment=flip_and_crop if case.augmented else None,
            record=monitor.watch(every=case.watch) if case.watch else {},
        )

    run, keys = training.make_run(recipe), training.RunKeys(*jax.random.split(jax.random.key(0), 3))
    if case.lanes > 1:
        run = _in_lanes(run, case.together)
        keys = training.RunKeys(
            jax.random.split(keys.init, case.lanes), keys.order, jax.random.split(keys.noise, case.lanes)
        )
    if len(devices) > 1:
        run = _spread(run, devices)
    valid = (Batch(vx, vy),) if case.validation else ()
    arguments = (keys, jnp.float32(case.learning_rate), Batch(x, y), *valid)
    started = time.perf_counter()
    compiled = jax.jit(run).lower(*arguments).compile(EIGEN if case.eigen else None)
    compile_seconds = time.perf_counter() - started
    jax.block_until_ready(compiled(*arguments))

    def once() -> dict[str, float]:
        started = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        seconds = time.perf_counter() - started
        if case.validation:
            accuracy = float(result.history["valid_accuracy"][..., -1].mean())
        else:
            accuracy = float(training.evaluate(recipe, case.learning_rate, result, Batch(vx, vy))["accuracy"])
        return report(seconds, int(result.state.step.sum()), accuracy, compile_seconds)

    return once


def _in_lanes(run: Callable[..., Any], together: int | None) -> Callable[..., Any]:
    """Lanes with seeds of their own for weights and noise, and one order of examples."""
    import jax

    from jaxopt_nn.training import RunKeys

    if together is None or jax.default_backend() != "cpu":
        return jax.vmap(run, (RunKeys(0, None, 0), None, None, None))

    def a_few_at_a_time(keys: Any, *arguments: Any) -> Any:
        def one(init: Any, noise: Any) -> Any:
            return run(RunKeys(init, keys.order, noise), *arguments)

        return jax.lax.map(lambda own: one(*own), (keys.init, keys.noise), batch_size=together)

    return a_few_at_a_time


def _devices(wanted: int) -> list[Any]:
    """As many as are wanted: a CPU shows itself as several, elsewhere no more than there are. Called first of all."""
    import jax

    if wanted > jax.config.jax_num_cpu_devices:  # of a backend other than the CPU it changes nothing
        jax.config.update("jax_num_cpu_devices", wanted)
    return jax.devices()[:wanted]


def _spread(run: Callable[..., Any], devices: list[Any]) -> Callable[..., Any]:
    """The run of lanes with the lanes dealt to the devices, each of which has a loop of its own."""
    import jax
    from jax.sharding import AxisType, PartitionSpec

    from jaxopt_nn import training

    lanes, shared = PartitionSpec("lanes"), PartitionSpec()
    mesh = jax.make_mesh((len(devices),), ("lanes",), (AxisType.Auto,), devices=devices)
    specs = (training.RunKeys(lanes, shared, lanes), shared, shared, shared)
    return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=lanes, check_vma=False)


def model_of(case: Training, **conv: Any) -> Any:
    """The network of the work, which begins as PyTorch's does; ``conv`` are options of convolutions."""
    import jax

    from jaxopt_nn import initializers, layers

    kernel_init = initializers.torch_default()
    dense = functools.partial(layers.dense, kernel_init=kernel_init)
    if not case.widths:
        conv_2d = functools.partial(layers.conv, kernel_size=5, kernel_init=kernel_init, **conv)
        return layers.serial(
            conv_2d(6), jax.nn.relu, layers.max_pool(2),
            conv_2d(16, padding="VALID"), jax.nn.relu, layers.max_pool(2),
            layers.flatten, dense(120), jax.nn.relu, dense(84), jax.nn.relu, dense(10),
        )  # fmt: skip
    hidden: list[Any] = []
    for width in case.widths[1:-1]:
        hidden += [dense(width), *([layers.batch_norm()] if case.batch_norm else []), jax.nn.relu]
        hidden += [layers.dropout(case.drop_rate)] if case.drop_rate else []
    return layers.serial(*hidden, dense(case.widths[-1]))


def ours_stepwise(case: Training) -> Round:
    """The same model and optimizer, one jitted step for each batch: what the compiled loop is compared with."""
    import jax
    import jax.numpy as jnp

    from jaxopt_nn import losses, optimizers, training
    from jaxopt_nn.types import Batch

    x, y, vx, vy = load(case)
    model, optimizer = model_of(case), optimizers.adam(case.learning_rate)

    def loss_fn(params: Any, model_state: Any, batch: Batch, key: Any) -> Any:
        outputs, model_state = model.apply(params, model_state, batch.x, train=True, key=key, weight=None)
        return losses.weighted_mean(losses.softmax_cross_entropy(outputs, batch.y)), (model_state, {})

    step = jax.jit(training.make_step(loss_fn, optimizer), donate_argnums=0)
    params, model_state = model.init(jax.random.key(0), x[:1])

    def train() -> tuple[Any, int]:
        copies = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (params, model_state))
        state = training.init_state(copies[0], optimizer, jax.random.key(1), copies[1])
        steps, order = 0, np.random.default_rng(0).permutation(len(x))
        for first in range(0, len(x) - case.batch_size + 1, case.batch_size):
            rows = order[first : first + case.batch_size]
            state, _ = step(state, Batch(x[rows], y[rows]))
            steps += 1
        return jax.block_until_ready(state), steps

    started = time.perf_counter()
    train()
    compile_seconds = time.perf_counter() - started

    def once() -> dict[str, float]:
        started = time.perf_counter()
        state, steps = train()
        seconds = time.perf_counter() - started
        outputs = model.apply(state.params, state.model_state, vx)[0]
        return report(seconds, steps, float((np.asarray(outputs).argmax(1) == vy).mean()), compile_seconds)

    return once


OURS: dict[str, Callable[[Training], Round]] = {
    "ours": ours,
    "ours-eigen": lambda case: ours(case._replace(eigen=True)),
    "ours-ynnpack": lambda case: ours(case._replace(eigen=False)),
    "ours-single": lambda case: ours(case._replace(lanes=1, devices=1)),
    "ours-one-device": lambda case: ours(case._replace(devices=1)),
    "ours-stepwise": ours_stepwise,
    "ours-without": lambda case: ours(case._replace(drop_rate=0.0)),
    "ours-unaugmented": lambda case: ours(case._replace(augmented=False)),
    "ours-unwatched": lambda case: ours(case._replace(watch=0)),
    "ours-watched-10": lambda case: ours(case._replace(watch=10)),
    "ours-validation": lambda case: ours(case._replace(validation=True)),
}


def report(seconds: float, steps: int, accuracy: float, compile_seconds: float) -> dict[str, float]:
    """What a round says: steps a second, the validation accuracy at the end, and how long compiling took."""
    return {"per_second": steps / seconds, "accuracy": accuracy, "compile_seconds": compile_seconds}
