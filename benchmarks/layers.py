"""``python -m benchmarks.layers [--rounds N] [--json OUT]``: the lowerings of layers, inside a compiled loop.

Each program is a scan over steps that take the gradients by parameters and input. Reported: processor seconds a step
(of all threads, which other work on the machine disturbs less than the clock), the median over rounds in which the
variants take turns, and the median ratio of the first variant to the others.
"""

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import machine
from jaxopt_nn import layers
from jaxopt_nn.types import Layer

RESULTS = Path(__file__).parent / "results" / "cpu-layers.json"
STEPS = 4
MANY_STEPS = 1000  # of small work
LANES = 8
LOWERINGS = ("native", "patches")

# title: a layer by lowering, the shape of its input, whether kernels are in lanes
Make = Callable[[str], Layer]
ROWS: dict[str, tuple[Make, tuple[int, ...], bool]] = {
    "conv 5x5, 1 to 6, 28x28": (lambda low: layers.conv(6, 5, lowering=low), (64, 28, 28, 1), False),
    "conv 5x5, 6 to 16, 14x14": (
        lambda low: layers.conv(16, 5, padding="VALID", lowering=low),
        (64, 14, 14, 6),
        False,
    ),
    "conv 3x3, 32 to 32, 16x16": (lambda low: layers.conv(32, 3, lowering=low), (32, 16, 16, 32), False),
    "conv 3x3, 4 groups, 32 to 32": (lambda low: layers.conv(32, 3, groups=4, lowering=low), (32, 16, 16, 32), False),
    "depthwise conv 3x3, 32": (lambda low: layers.depthwise_conv(3, lowering=low), (32, 16, 16, 32), False),
    "transposed conv 3x3 / 2, 16 to 8": (
        lambda low: layers.conv_transpose(8, 3, stride=2, lowering=low),
        (32, 8, 8, 16),
        False,
    ),
    "conv 5x5, 6 to 16, 8 lanes": (
        lambda low: layers.conv(16, 5, padding="VALID", lowering=low),
        (16, 14, 14, 6),
        True,
    ),
    "dense, 64 to 64, 32 rows, 8 lanes": (lambda low: _dense(64, low), (32, 64), True),
    "dense, 784 to 64, 64 rows, 8 lanes": (lambda low: _dense(64, low), (64, 784), True),
    "max pool 2x2, tiles": (lambda low: layers.max_pool(2, lowering=low), (64, 28, 28, 6), False),
    "max pool 2x2, tiles, 16 channels": (lambda low: layers.max_pool(2, lowering=low), (64, 10, 10, 16), False),
    "max pool 3x3 / 2": (lambda low: layers.max_pool(3, stride=2, lowering=low), (64, 28, 28, 6), False),
    "average pool 2x2, tiles": (lambda low: layers.average_pool(2, lowering=low), (64, 28, 28, 6), False),
    "average pool 3x3 / 2": (lambda low: layers.average_pool(3, stride=2, lowering=low), (64, 28, 28, 6), False),
}


def _dense(features: int, lowering: str) -> Layer:
    """In lanes their input is shared, as that of a network's first layer is."""
    layer = layers.dense(features)

    def apply(params: Any, state: Any, x: Any, **rest: Any) -> Any:
        return x @ params["kernel"] + jnp.broadcast_to(params["bias"], (*x.shape[:-1], features)), state

    return layer._replace(apply=apply) if lowering == "native" else layer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description="The lowerings of layers.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help=f"where the results go, such as {RESULTS.name}")
    arguments = parser.parse_args()
    rows: dict[str, Any] = {}
    for title, (make, shape, lanes) in ROWS.items():
        steps = MANY_STEPS if title.startswith("dense") else STEPS
        programs = {low: _program(make(low), shape, lanes, steps) for low in LOWERINGS}
        rows[title] = _measured(title, programs, arguments.rounds, steps)
    programs = {name: _masks(draw) for name, draw in (("jax.random.bernoulli", _bernoulli), ("dropout", _dropout))}
    rows["masks of 32 x 96 units"] = _measured("masks of 32 x 96 units", programs, arguments.rounds, MANY_STEPS)
    if arguments.json:
        results = {
            "date": datetime.date.today().isoformat(),
            "machine": machine.describe(),
            "versions": machine.versions(),
            "rounds": arguments.rounds,
            "layers": rows,
        }
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def _program(layer: Layer, shape: tuple[int, ...], lanes: bool, steps: int) -> Callable[[], Any]:
    x = jax.random.normal(jax.random.key(0), shape)
    params, state = layer.init(jax.random.key(1), x)

    def loss(params: Any, x: Any) -> Any:
        return jnp.sum(jnp.sin(layer.apply(params, state, x, train=True, key=None, weight=None)[0]))

    gradient = jax.grad(loss, (0, 1))
    if lanes:
        gradient = jax.vmap(gradient, (0, None))
        params = jax.tree.map(lambda leaf: jnp.stack([leaf] * LANES), params)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, x = carry
        slopes, x_slope = gradient(params, x)
        x_slope = jnp.sum(x_slope, 0) if lanes else x_slope
        return jax.tree.map(lambda a, b: a - 1e-3 * b, (params, x), (slopes, x_slope)), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, steps)[0])
    return lambda: run((params, x))


def _masks(draw: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    x = jnp.ones((32, 96))

    def step(total: Any, key: Any) -> tuple[Any, None]:
        return total + draw(x, key), None

    run = jax.jit(lambda keys: jax.lax.scan(step, x, keys)[0])
    keys = jax.random.split(jax.random.key(0), MANY_STEPS)
    return lambda: run(keys)


def _bernoulli(x: Any, key: Any) -> Any:
    return jnp.where(jax.random.bernoulli(key, 0.8, (x.size,)).reshape(x.shape), x / 0.8, 0.0)


def _dropout(x: Any, key: Any) -> Any:
    return layers.dropout(0.2).apply({}, {}, x, train=True, key=key, weight=None)[0]


def _measured(title: str, programs: dict[str, Callable[[], Any]], rounds: int, steps: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        jax.block_until_ready(program())
    for _ in range(rounds):
        for name, program in programs.items():
            started = time.process_time()
            jax.block_until_ready(program())
            seconds[name].append(time.process_time() - started)
    first, second = seconds.values()
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    row = {
        "microseconds": {name: round(1e6 * statistics.median(times) / steps, 1) for name, times in seconds.items()},
        "faster": round(statistics.median(ratios), 2),
        "faster_min": round(min(ratios), 2),
        "faster_max": round(max(ratios), 2),
    }
    times = ", ".join(f"{name} {value:,.0f} us" for name, value in row["microseconds"].items())
    print(f"{title:34s} {row['faster']:6.2f}x ({min(ratios):.2f} to {max(ratios):.2f})  {times}", flush=True)
    return row


if __name__ == "__main__":
    main()
