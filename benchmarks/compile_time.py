"""``python -m benchmarks.compile_time [--json OUT]``: how long XLA compiles, and how that grows.

Each program is compiled in a process of its own, so that nothing is warm; the variants of a row take turns.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.work import CASES, Training, load

# name: what it is, the variants, and how the last may compare with the first
ROWS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "run": ("the run of row 1", ("run",), "<= 1.5 s"),
    "lanes": ("row 1 with 1 and with 256 lanes", ("lanes-1", "lanes-256"), "<= 1.2x"),
    "epochs": ("row 1 with 10 and with 10,000 epochs", ("epochs-10", "epochs-10000"), "1.0x"),
    "blocks": ("a step of 4 and of 64 equal blocks, repeated", ("blocks-4", "blocks-64"), "<= 2.2 s"),
}
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile_time", description="How long XLA compiles.")
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--variant", help="compile one program and print the seconds (used by the rows)")
    arguments = parser.parse_args()
    if arguments.variant:
        print(_seconds(arguments.variant))
        return
    rows: dict[str, Any] = {}
    for name, (title, variants, goal) in ROWS.items():
        seconds: dict[str, list[float]] = {variant: [] for variant in variants}
        for _ in range(ROUNDS):
            for variant in variants:
                command = [sys.executable, "-m", "benchmarks.compile_time", "--variant", variant]
                seconds[variant].append(
                    float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                )
        medians = [round(statistics.median(values), 2) for values in seconds.values()]
        rows[name] = {"title": title, "seconds": dict(zip(variants, medians, strict=True)), "goal": goal}
        ratio = f"{medians[-1] / medians[0]:.2f}x" if len(medians) > 1 else ""
        print(f"{title:46s} {' / '.join(f'{m:.2f} s' for m in medians):18s} {ratio:8s} goal {goal}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def _seconds(variant: str) -> float:
    import jax
    import jax.numpy as jnp

    from jaxopt_nn import layers, losses, metrics, optimizers, training
    from jaxopt_nn.types import Batch

    kind, _, number = variant.partition("-")
    work = CASES["1"].work
    assert isinstance(work, Training)
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
            early_stopping=training.EarlyStopping(patience=30),
        )

    run, keys, lanes = training.make_run(recipe), training.RunKeys(*jax.random.split(jax.random.key(0), 3)), 1
    if kind == "lanes":
        lanes = int(number)
        run = jax.vmap(run, (training.RunKeys(0, None, 0), None, None, None))
        keys = training.RunKeys(jax.random.split(keys.init, lanes), keys.order, jax.random.split(keys.noise, lanes))
    lowered = jax.jit(run).lower(keys, jnp.float32(1e-3), Batch(x, y), Batch(vx, vy))
    started = time.perf_counter()
    lowered.compile()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
