"""The sides of training. Each is a function ``work -> round``; a round trains from scratch and says how it went.

A side prepares everything that is not training (data on the device, compilation, warm-up) before it returns. A round is
timed inside, so that making the network anew is not counted for anybody whose compiled program does not contain it.
"""

import itertools
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

    from jaxopt_nn import losses, metrics, optimizers, training
    from jaxopt_nn.types import Batch

    x, y, vx, vy = (jnp.asarray(part) for part in load(case))

    def recipe(learning_rate: Any) -> training.Recipe:
        return training.Recipe(
            model=_model(case),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.adam(learning_rate),
            metrics={"accuracy": metrics.accuracy},
            batch_size=case.batch_size,
            epochs=case.epochs,
            last_batch="drop",
            early_stopping=training.EarlyStopping(patience=case.epochs),
        )

    run, keys = training.make_run(recipe), training.RunKeys(*jax.random.split(jax.random.key(0), 3))
    if case.lanes > 1:  # seeds of their own for weights and noise, one order for all
        run = jax.vmap(run, (training.RunKeys(0, None, 0), None, None, None))
        keys = training.RunKeys(
            jax.random.split(keys.init, case.lanes), keys.order, jax.random.split(keys.noise, case.lanes)
        )
    arguments = (keys, jnp.float32(case.learning_rate), Batch(x, y), Batch(vx, vy))
    started = time.perf_counter()
    compiled = jax.jit(run).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - started
    jax.block_until_ready(compiled(*arguments))

    def once() -> dict[str, float]:
        started = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        seconds = time.perf_counter() - started
        accuracy = float(result.history["valid_accuracy"][..., -1].mean())
        return _report(seconds, int(result.state.step.sum()), accuracy, compile_seconds)

    return once


def _model(case: Training) -> Any:
    import jax

    from jaxopt_nn import layers

    if not case.widths:
        return layers.serial(
            layers.conv(6, 5), jax.nn.relu, layers.max_pool(2),
            layers.conv(16, 5, padding="VALID"), jax.nn.relu, layers.max_pool(2),
            layers.flatten, layers.dense(120), jax.nn.relu, layers.dense(84), jax.nn.relu, layers.dense(10),
        )  # fmt: skip
    hidden: list[Any] = []
    for width in case.widths[1:-1]:
        hidden += [layers.dense(width), jax.nn.relu] + ([layers.dropout(case.drop_rate)] if case.drop_rate else [])
    return layers.serial(*hidden, layers.dense(case.widths[-1]))


def ours_stepwise(case: Training) -> Round:
    """The same model and optimizer, one jitted step for each batch: what the compiled loop is compared with."""
    import jax
    import jax.numpy as jnp

    from jaxopt_nn import losses, optimizers, training
    from jaxopt_nn.types import Batch

    x, y, vx, vy = load(case)
    model, optimizer = _model(case), optimizers.adam(case.learning_rate)

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
        outputs = model.apply(state.params, state.model_state, vx, train=False, key=None, weight=None)[0]
        return _report(seconds, steps, float((np.asarray(outputs).argmax(1) == vy).mean()), compile_seconds)

    return once


def jax_plain(case: Training) -> Round:
    """LeNet as one would write it: native convolution, ``reduce_window``, optax, steps in a scan."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    x, y, vx, vy = (jnp.asarray(part) for part in load(case))

    class LeNet(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.max_pool(nn.relu(nn.Conv(6, (5, 5))(x)), (2, 2), (2, 2))
            x = nn.max_pool(nn.relu(nn.Conv(16, (5, 5), padding="VALID")(x)), (2, 2), (2, 2))
            x = x.reshape(len(x), -1)
            return nn.Dense(10)(nn.relu(nn.Dense(84)(nn.relu(nn.Dense(120)(x)))))

    model, optimizer = LeNet(), optax.adam(case.learning_rate)

    def loss(params: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    @jax.jit
    def run(key: Any) -> Any:
        params = model.init(key, x[:1])
        rows = jax.random.permutation(key, len(x))[: len(x) // case.batch_size * case.batch_size]

        def step(carry: Any, rows: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, x[rows], y[rows]), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), rows.reshape(-1, case.batch_size))[0][0]

    started = time.perf_counter()
    compiled = run.lower(jax.random.key(0)).compile()
    compile_seconds = time.perf_counter() - started

    def once() -> dict[str, float]:
        started = time.perf_counter()
        params = jax.block_until_ready(compiled(jax.random.key(0)))
        seconds = time.perf_counter() - started
        accuracy = float((model.apply(params, vx).argmax(1) == vy).mean())
        return _report(seconds, len(x) // case.batch_size, accuracy, compile_seconds)

    return once


def torch(case: Training, *, compiled: bool = False) -> Round:
    """Lanes are trained one after another: the rate is that of one run."""
    import torch

    x, y, vx, vy = (torch.from_numpy(np.ascontiguousarray(part)) for part in load(case))
    y, vy = y.long(), vy.long()
    if not case.widths:
        x, vx = (part.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last) for part in (x, vx))

    def make() -> tuple[Any, Any]:
        modules: list[Any] = []
        if not case.widths:
            conv, relu, pool = torch.nn.Conv2d, torch.nn.ReLU, torch.nn.MaxPool2d
            modules = [conv(1, 6, 5, padding=2), relu(), pool(2), conv(6, 16, 5), relu(), pool(2), torch.nn.Flatten()]
        widths = case.widths or (400, 120, 84, 10)
        for fan_in, width in itertools.pairwise(widths):
            modules += [torch.nn.Linear(fan_in, width), torch.nn.ReLU()]
        net = torch.nn.Sequential(*modules[:-1])
        if not case.widths:
            net = net.to(memory_format=torch.channels_last)
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


def sklearn(case: Training, *, processes: int = 1) -> Round:
    """With two processes, two runs at a time."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    x, y, vx, vy = load(case)
    warnings.simplefilter("ignore")  # it says that it has not converged: it is not to

    def fit(seed: int) -> Any:
        net = MLPClassifier(
            case.widths[1:-1],
            alpha=0.0,
            batch_size=case.batch_size,
            learning_rate_init=case.learning_rate,
            max_iter=case.epochs,
            n_iter_no_change=case.epochs + 1,
            random_state=seed,
        )
        return net.fit(x, y)

    if processes > 1:
        import joblib

        pool = joblib.Parallel(processes, backend="loky", verbose=0)
        jobs = 8  # of the lanes: the rate does not depend on how many there are

    def once() -> dict[str, float]:
        started = time.perf_counter()
        nets = [fit(0)] if processes == 1 else pool(joblib.delayed(fit)(seed) for seed in range(jobs))
        seconds = time.perf_counter() - started
        steps = len(nets) * case.epochs * -(-len(x) // case.batch_size)
        return _report(seconds, steps, float((nets[0].predict(vx) == vy).mean()), 0.0)

    once()
    return once


TRAINING: dict[str, Callable[[Training], Round]] = {
    "ours": ours,
    "ours-single": lambda case: ours(case._replace(lanes=1)),
    "ours-stepwise": ours_stepwise,
    "ours-without": lambda case: ours(case._replace(drop_rate=0.0)),
    "jax-plain": jax_plain,
    "torch": torch,
    "torch-compile": lambda case: torch(case, compiled=True),
    "keras-jax": keras,
    "keras-jax-16": lambda case: keras(case, steps_per_execution=16),
    "equinox": equinox,
    "sklearn": sklearn,
    "sklearn-2": lambda case: sklearn(case, processes=2),
}


def _report(seconds: float, steps: int, accuracy: float, compile_seconds: float) -> dict[str, float]:
    return {"per_second": steps / seconds, "accuracy": accuracy, "compile_seconds": compile_seconds}
