"""The sides of compiling, and ``python -m benchmarks.compile_time PROGRAM``: how long one program takes, from nothing.

A round starts a process, so that nothing is warm, and times all that a person waits for: tracing, lowering and XLA;
torch.compile's first step, its caches off.
"""

import argparse
import functools
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.cases import CASES, quick
from benchmarks.work import Compiling, Training, load

__all__ = ["COMPILING"]

Round = Callable[[], dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile_time", description="Compiles one program.")
    names = "run, lanes-N, epochs-N, blocks-N, plain-0, plain-N (blocks), or torch; little-... of a smaller data set"
    parser.add_argument("program", metavar="PROGRAM", help=names)
    print(json.dumps(_measured(parser.parse_args().program)))


def _measured(named: str) -> dict[str, float]:
    program = named.removeprefix("little-")
    work = (CASES["1"] if program == named else quick(CASES["1"])).work
    assert isinstance(work, Training)
    if program == "torch":
        return _torch(work)
    return _compiled(*(_plain if program.startswith("plain") else _ours)(program, work))


def _round(program: str) -> Round:
    """In a process of its own; what is little is not measured, and needs none."""
    if program.startswith("little-"):
        return lambda: _measured(program)
    environment = {**os.environ, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}

    def once() -> dict[str, float]:
        command = [sys.executable, "-m", "benchmarks.compile_time", program]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    return once


def _ours(program: str, work: Training) -> tuple[Any, Any]:
    """The function and its arguments."""
    import jax
    import jax.numpy as jnp

    from jaxopt_nn import layers, losses, metrics, optimizers, training
    from jaxopt_nn.types import Batch

    kind, _, number = program.partition("-")
    x, y, vx, vy = (jnp.asarray(part) for part in load(work))
    block = layers.residual(layers.serial(layers.layer_norm(), layers.dense(64), jax.nn.relu, layers.dense(64)))
    hidden = [layers.dense(64), jax.nn.relu, layers.dense(32), jax.nn.relu]
    model = layers.repeat(block, int(number)) if kind == "blocks" else layers.serial(*hidden)

    def recipe(learning_rate: Any) -> training.Recipe:
        return training.Recipe(
            model=layers.serial(model, layers.dense(10)),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.adam(learning_rate),
            metrics={"accuracy": metrics.accuracy},
            batch_size=work.batch_size,
            epochs=int(number) if kind == "epochs" else work.epochs,
            last_batch="drop",
            early_stopping=training.EarlyStopping(patience=30),
        )

    run, keys = training.make_run(recipe), training.RunKeys(*jax.random.split(jax.random.key(0), 3))
    if kind == "lanes":
        run = jax.vmap(run, (training.RunKeys(0, None, 0), None, None, None))
        init, noise = (jax.random.split(key, int(number)) for key in (keys.init, keys.noise))
        keys = training.RunKeys(init, keys.order, noise)
    return run, (keys, jnp.float32(1e-3), Batch(x, y), Batch(vx, vy))


def _plain(program: str, work: Training) -> tuple[Any, Any]:
    """What one would write with JAX and optax: no validation, no early stopping, blocks one after another."""
    import jax
    import jax.numpy as jnp
    import optax

    x, y = (jnp.asarray(part) for part in load(work)[:2])
    blocks, optimizer, size = int(program.partition("-")[2]), optax.adam(1e-3), work.batch_size
    widths = (64, *[64] * (2 * blocks), 10) if blocks else work.widths

    def init(key: Any) -> list[tuple[Any, Any]]:
        pairs = zip(jax.random.split(key, len(widths) - 1), itertools.pairwise(widths), strict=True)
        return [(jax.random.normal(key, shape) * (2 / shape[0]) ** 0.5, jnp.zeros(shape[1])) for key, shape in pairs]

    def loss(params: Any, x: Any, y: Any) -> Any:
        *hidden, (kernel, bias) = params
        if blocks:
            for (first, b), (second, c) in zip(hidden[::2], hidden[1::2], strict=True):
                x = x + jax.nn.relu(jax.nn.standardize(x) @ first + b) @ second + c
        else:
            for own, b in hidden:
                x = jax.nn.relu(x @ own + b)
        return optax.softmax_cross_entropy_with_integer_labels(x @ kernel + bias, y).mean()

    def run(key: Any, x: Any, y: Any) -> Any:
        params = init(key)

        def step(carry: Any, rows: Any) -> Any:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, x[rows], y[rows])
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        def epoch(carry: Any, key: Any) -> Any:
            rows = jax.random.permutation(key, len(x))[: len(x) // size * size]
            return jax.lax.scan(step, carry, rows.reshape(-1, size))

        return jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(key, work.epochs))

    return run, (jax.random.key(0), x, y)


def _compiled(run: Callable[..., Any], arguments: Any) -> dict[str, float]:
    import jax

    jax.block_until_ready(arguments)
    started = time.perf_counter()
    lowered = jax.jit(run).lower(*arguments)
    traced = time.perf_counter()
    compiled = lowered.compile()
    ended = time.perf_counter()
    return {
        "per_second": 1 / (ended - started),
        "compile_seconds": ended - started,
        "trace_seconds": traced - started,
        "instructions": sum(" = " in line for line in compiled.as_text().splitlines()),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _torch(work: Training) -> dict[str, float]:
    import torch

    x, y, *_ = (torch.from_numpy(part) for part in load(work))
    modules: list[Any] = []
    for fan_in, width in itertools.pairwise(work.widths):
        modules += [torch.nn.Linear(fan_in, width), torch.nn.ReLU()]
    net = torch.nn.Sequential(*modules[:-1])
    optimizer = torch.optim.Adam(net.parameters(), lr=work.learning_rate, fused=True)
    started = time.perf_counter()
    loss_of = torch.compile(lambda x, y: torch.nn.functional.cross_entropy(net(x), y))
    loss_of(x[: work.batch_size], y[: work.batch_size].long()).backward()
    optimizer.step()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"per_second": 1 / seconds, "compile_seconds": seconds, "peak_memory_mib": peak}


def _side(side: str, work: Compiling) -> Round:
    return _round(work.programs[side])


def _torch_side(work: Compiling) -> Round:
    import torch

    del torch  # only whether it is there
    return _round("little-torch" if work.programs["ours"].startswith("little-") else "torch")


COMPILING: dict[str, Callable[[Compiling], Round]] = {
    **{
        side: functools.partial(_side, side)
        for side in ("ours", "ours-1-lane", "ours-4-blocks", "ours-10-epochs", "jax-plain")
    },
    "torch-compile": _torch_side,
}


if __name__ == "__main__":
    main()
