"""The peers' sides of training: the same work as in :mod:`benchmarks.training`, as each library is meant to be used.

Their kernels begin as PyTorch's do, uniform within 1/√fan_in, so that all learn from the same start. Only scikit-learn
does not let one choose.
"""

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.training import Round, report
from benchmarks.work import Training, load

__all__ = ["PEERS"]


def flax_scan(case: Training) -> Round:
    """LeNet as one would write it: flax, native convolution, ``reduce_window``, optax, steps in a scan."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    x, y, vx, vy = (jnp.asarray(part) for part in load(case))

    kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    conv, dense = (functools.partial(layer, kernel_init=kernel_init) for layer in (nn.Conv, nn.Dense))

    class LeNet(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.max_pool(nn.relu(conv(6, (5, 5))(x)), (2, 2), (2, 2))
            x = nn.max_pool(nn.relu(conv(16, (5, 5), padding="VALID")(x)), (2, 2), (2, 2))
            x = x.reshape(len(x), -1)
            return dense(10)(nn.relu(dense(84)(nn.relu(dense(120)(x)))))

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
    jax.block_until_ready(compiled(jax.random.key(0)))

    def once() -> dict[str, float]:
        started = time.perf_counter()
        params = jax.block_until_ready(compiled(jax.random.key(0)))
        seconds = time.perf_counter() - started
        accuracy = float((model.apply(params, vx).argmax(1) == vy).mean())
        return report(seconds, len(x) // case.batch_size, accuracy, compile_seconds)

    return once


def torch(case: Training, *, compiled: bool = False) -> Round:
    """Lanes are trained one after another: the rate is that of one run."""
    import torch

    device, dtype = torch.get_default_device(), getattr(torch, case.dtype)
    x, y, vx, vy = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in load(case))
    x, y, vx, vy = x.to(dtype), y.long(), vx.to(dtype), vy.long()
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
        net = torch.nn.Sequential(*modules[:-1]).to(dtype)
        if not case.widths:
            net = net.to(memory_format=torch.channels_last)
        return net, torch.optim.Adam(net.parameters(), lr=case.learning_rate, fused=True)

    def epoch(net: Any, step: Callable[..., None]) -> int:
        rows = torch.randperm(len(x), device=device).split(case.batch_size)
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

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    started = time.perf_counter()
    net, optimizer = make()
    step = step_of(net, optimizer)
    step(x[: case.batch_size], y[: case.batch_size])
    wait()
    compile_seconds = time.perf_counter() - started
    epoch(net, step)
    start = {name: value.clone() for name, value in make()[0].state_dict().items()}

    def once() -> dict[str, float]:
        net.load_state_dict(start)
        optimizer.state.clear()
        wait()
        started = time.perf_counter()
        steps = sum(epoch(net, step) for _ in range(case.epochs))
        wait()
        seconds = time.perf_counter() - started
        with torch.no_grad():
            accuracy = float((net(vx).argmax(1) == vy).float().mean())
        return report(seconds, steps, accuracy, compile_seconds)

    return once


def keras(case: Training, *, steps_per_execution: int = 1) -> Round:
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    x, y, vx, vy = load(case)
    rows = len(x) // case.batch_size * case.batch_size

    start_as = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    dense = functools.partial(keras.layers.Dense, kernel_initializer=start_as)

    def make() -> Any:
        hidden = [dense(width, activation="relu") for width in case.widths[1:-1]]
        model = keras.Sequential([keras.Input((case.widths[0],)), *hidden, dense(case.widths[-1])])
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
        return report(seconds, case.epochs * (rows // case.batch_size), accuracy, compile_seconds)

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
        return report(seconds, steps, accuracy, compile_seconds)

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
        return report(seconds, steps, float((nets[0].predict(vx) == vy).mean()), 0.0)

    once()
    return once


PEERS: dict[str, Callable[[Training], Round]] = {
    "flax-scan": flax_scan,
    "torch": torch,
    "torch-compile": lambda case: torch(case, compiled=True),
    "keras-jax": keras,
    "keras-jax-16": lambda case: keras(case, steps_per_execution=16),
    "equinox": equinox,
    "sklearn": sklearn,
    "sklearn-2": lambda case: sklearn(case, processes=2),
}
