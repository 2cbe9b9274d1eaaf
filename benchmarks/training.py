"""The sides of training. Each is a function ``work -> round``; a round trains from scratch and says how it went.

A side prepares everything that is not training (data on the device, compilation, warm-up) before it returns. A round is
timed inside, so that making the network anew is not counted for anybody whose compiled program does not contain it.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.work import Training, load

__all__ = ["TRAINING"]

Round = Callable[[], dict[str, float]]


def ours(case: Training) -> Round:
    import jax
    import jax.numpy as jnp

    from jaxopt_nn import layers, losses, metrics, optimizers, training
    from jaxopt_nn.types import Batch

    x, y, vx, vy = (jnp.asarray(part) for part in load(case))

    def recipe(learning_rate: Any) -> training.Recipe:
        hidden = [part for width in case.widths[1:-1] for part in (layers.dense(width), jax.nn.relu)]
        return training.Recipe(
            model=layers.serial(*hidden, layers.dense(case.widths[-1])),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.adam(learning_rate),
            metrics={"accuracy": metrics.accuracy},
            batch_size=case.batch_size,
            epochs=case.epochs,
            last_batch="drop",
            early_stopping=training.EarlyStopping(patience=case.epochs),
        )

    arguments = (jax.random.key(0), jnp.float32(case.learning_rate), Batch(x, y), Batch(vx, vy))
    started = time.perf_counter()
    run = jax.jit(training.make_run(recipe)).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - started
    jax.block_until_ready(run(*arguments))

    def once() -> dict[str, float]:
        started = time.perf_counter()
        result = jax.block_until_ready(run(*arguments))
        seconds = time.perf_counter() - started
        accuracy = float(result.history["valid_accuracy"][-1])
        return _report(seconds, int(result.state.step), accuracy, compile_seconds)

    return once


def torch(case: Training, *, compiled: bool = False) -> Round:
    import torch

    x, y, vx, vy = (torch.from_numpy(np.ascontiguousarray(part)) for part in load(case))
    y, vy = y.long(), vy.long()

    def make() -> tuple[Any, Any]:
        modules: list[Any] = []
        for fan_in, width in zip(case.widths[:-1], case.widths[1:], strict=True):
            modules += [torch.nn.Linear(fan_in, width), torch.nn.ReLU()]
        net = torch.nn.Sequential(*modules[:-1])
        return net, torch.optim.Adam(net.parameters(), lr=case.learning_rate, fused=True)

    def epoch(net: Any, step: Callable[..., None]) -> int:
        rows = torch.randperm(len(x)).split(case.batch_size)
        rows = [batch for batch in rows if len(batch) == case.batch_size]
        for batch in rows:
            step(x[batch], y[batch])
        return len(rows)

    def step_of(net: Any, optimizer: Any) -> Callable[..., None]:
        def loss_of(x: Any, y: Any) -> Any:
            return torch.nn.functional.cross_entropy(net(x), y)

        forward = torch.compile(loss_of) if compiled else loss_of

        def step(x: Any, y: Any) -> None:
            optimizer.zero_grad(set_to_none=True)
            forward(x, y).backward()
            optimizer.step()

        return step

    started = time.perf_counter()
    net, optimizer = make()
    step = step_of(net, optimizer)
    step(x[: case.batch_size], y[: case.batch_size])
    compile_seconds = time.perf_counter() - started
    epoch(net, step)
    start = {name: value.clone() for name, value in make()[0].state_dict().items()}

    def once() -> dict[str, float]:
        net.load_state_dict(start)
        optimizer.state.clear()
        started = time.perf_counter()
        steps = sum(epoch(net, step) for _ in range(case.epochs))
        seconds = time.perf_counter() - started
        with torch.no_grad():
            accuracy = float((net(vx).argmax(1) == vy).float().mean())
        return _report(seconds, steps, accuracy, compile_seconds)

    return once


def keras(case: Training, *, steps_per_execution: int = 1) -> Round:
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    x, y, vx, vy = load(case)
    rows = len(x) // case.batch_size * case.batch_size

    def make() -> Any:
        hidden = [keras.layers.Dense(width, activation="relu") for width in case.widths[1:-1]]
        model = keras.Sequential([keras.Input((case.widths[0],)), *hidden, keras.layers.Dense(case.widths[-1])])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.Adam(case.learning_rate)
        model.compile(optimizer, loss, steps_per_execution=steps_per_execution, jit_compile=True)
        return model

    model = make()
    started = time.perf_counter()
    model.fit(x[:rows], y[:rows], batch_size=case.batch_size, epochs=1, verbose=0)
    compile_seconds = time.perf_counter() - started
    start = make().get_weights()

    def once() -> dict[str, float]:
        model.set_weights(start)
        for variable in model.optimizer.variables:
            variable.assign(variable * 0 if variable.path.rsplit("/", 1)[-1] != "learning_rate" else variable)
        started = time.perf_counter()
        model.fit(x[:rows], y[:rows], batch_size=case.batch_size, epochs=case.epochs, verbose=0)
        seconds = time.perf_counter() - started
        accuracy = float((model.predict(vx, batch_size=1024, verbose=0).argmax(1) == vy).mean())
        return _report(seconds, case.epochs * (rows // case.batch_size), accuracy, compile_seconds)

    return once


def equinox(case: Training) -> Round:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    x, y, vx, vy = load(case)  # batches are taken on the host: indexing device arrays step by step would be slower
    optimizer = optax.adam(case.learning_rate)

    def make() -> Any:
        keys = jax.random.split(jax.random.key(0), len(case.widths) - 1)
        pairs = zip(case.widths[:-1], case.widths[1:], keys, strict=True)
        parts: list[Any] = []
        for fan_in, width, key in pairs:
            parts += [eqx.nn.Linear(fan_in, width, key=key), eqx.nn.Lambda(jax.nn.relu)]
        return eqx.nn.Sequential(parts[:-1])

    @eqx.filter_jit
    def step(model: Any, state: Any, x: Any, y: Any) -> Any:
        def loss(model: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()

        gradients = eqx.filter_grad(loss)(model)
        updates, state = optimizer.update(gradients, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state

    def train(epochs: int) -> tuple[Any, int]:
        model, steps = make(), 0
        state, rng = optimizer.init(eqx.filter(model, eqx.is_array)), np.random.default_rng(0)
        for _ in range(epochs):
            order = rng.permutation(len(x))
            for first in range(0, len(x) - case.batch_size + 1, case.batch_size):
                rows = order[first : first + case.batch_size]
                model, state = step(model, state, x[rows], y[rows])
                steps += 1
        return jax.block_until_ready(model), steps

    started = time.perf_counter()
    model = make()
    step(model, optimizer.init(eqx.filter(model, eqx.is_array)), x[: case.batch_size], y[: case.batch_size])
    compile_seconds = time.perf_counter() - started
    train(1)

    def once() -> dict[str, float]:
        started = time.perf_counter()
        model, steps = train(case.epochs)
        seconds = time.perf_counter() - started
        accuracy = float((np.asarray(jax.vmap(model)(jnp.asarray(vx))).argmax(1) == vy).mean())
        return _report(seconds, steps, accuracy, compile_seconds)

    return once


def sklearn(case: Training) -> Round:
    import warnings

    from sklearn.neural_network import MLPClassifier

    x, y, vx, vy = load(case)
    warnings.simplefilter("ignore")  # it says that it has not converged: it is not to

    def once() -> dict[str, float]:
        net = MLPClassifier(
            case.widths[1:-1],
            alpha=0.0,
            batch_size=case.batch_size,
            learning_rate_init=case.learning_rate,
            max_iter=case.epochs,
            n_iter_no_change=case.epochs + 1,
        )
        started = time.perf_counter()
        net.fit(x, y)
        seconds = time.perf_counter() - started
        steps = case.epochs * -(-len(x) // case.batch_size)
        return _report(seconds, steps, float((net.predict(vx) == vy).mean()), 0.0)

    once()
    return once


TRAINING: dict[str, Callable[[Training], Round]] = {
    "ours": ours,
    "torch": torch,
    "torch-compile": lambda case: torch(case, compiled=True),
    "keras-jax": keras,
    "keras-jax-16": lambda case: keras(case, steps_per_execution=16),
    "equinox": equinox,
    "sklearn": sklearn,
}


def _report(seconds: float, steps: int, accuracy: float, compile_seconds: float) -> dict[str, float]:
    return {"per_second": steps / seconds, "accuracy": accuracy, "compile_seconds": compile_seconds}
