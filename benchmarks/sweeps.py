"""Our sides of sweeps: from the call to the table, compiling included, each time in a process of its own.

A round is one sweep. What is compiled is thrown away before each, so every round waits for it, as a person does.

``python -m benchmarks.sweeps`` says how often successive halving chooses one of the three best of the full sweep.
"""

import functools
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.work import Sweep, Training, load

__all__ = ["GRID", "SWEEPS", "Round", "configurations"]

Round = Callable[[], dict[str, float]]

GRID: dict[str, list[Any]] = {
    "learning_rate": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
    "l2": [0.0, 1e-5, 1e-4],
    "drop_rate": [0.0, 0.2],
    "width": [32, 64],
    "optimizer": ["adam", "sgd"],
}
"""120 configurations."""


def configurations(work: Sweep) -> list[dict[str, Any]]:
    """What every side of the grid trains."""
    from jaxopt_nn import sweeps

    space = sweeps.grid(**GRID, seed=range(work.seeds))
    return space if work.trials is None else space[:: max(1, len(space) // work.trials)][: work.trials]


def use_devices(number: int) -> None:
    """The cores of the CPU as devices; before JAX has looked for any."""
    import contextlib

    import jax

    with contextlib.suppress(RuntimeError):  # several sides share a process under --quick
        jax.config.update("jax_num_cpu_devices", number)


def forget_programs() -> None:
    """Throws away what was compiled; sweeps keep their programs themselves."""
    import jax

    from jaxopt_nn.sweeps import _lanes

    jax.clear_caches()
    _lanes._executable.cache_clear()  # pyright: ignore[reportPrivateUsage]


def _parts(work: Sweep) -> tuple[Any, Any, Any]:
    import jax

    from jaxopt_nn import layers, losses, metrics, optimizers, penalties, training
    from jaxopt_nn.types import Batch

    x, y, vx, vy = load(Training(work.dataset, (784,), work.batch_size, 1, 0.0, examples=work.examples))

    def recipe(hp: Any) -> training.Recipe:
        hidden = [layers.dense(hp["width"]), jax.nn.relu]
        if work.dataset == "digits":
            hidden += [layers.dropout(hp["drop_rate"]), layers.dense(hp["width"]), jax.nn.relu]
            hidden += [layers.dropout(hp["drop_rate"])]
        optimizer = {"adam": optimizers.adam, "sgd": functools.partial(optimizers.sgd, momentum=0.9)}[hp["optimizer"]]
        return training.Recipe(
            model=layers.serial(*hidden, layers.dense(10)),
            loss=losses.softmax_cross_entropy,
            penalty=penalties.l2(hp["l2"]),
            optimizer=optimizer(hp["learning_rate"]),
            metrics={"accuracy": metrics.accuracy},
            batch_size=work.batch_size,
            epochs=work.epochs,
            last_batch="drop",
        )

    return recipe, Batch(x, y), Batch(vx, vy)


def grid(work: Sweep, *, devices: int = 2, workers: int = 0, **options: Any) -> Round:
    """The whole grid: on two devices of the CPU, or on so many workers of Ray with one each."""
    import jax

    from jaxopt_nn import sweeps

    use_devices(1 if workers else devices)
    recipe, train, valid = _parts(work)
    space = configurations(work)
    key = jax.random.key(0)
    if workers:
        import ray

        ray.shutdown()
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        options["executor"] = sweeps.ray()

    def once() -> dict[str, float]:
        forget_programs()
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "sweep.sqlite" if work.store else None
            result = sweeps.sweep(
                recipe, space, train, valid, key=key, objective="valid_accuracy", store=store, **options
            )
            table = result.table()
        seconds = time.perf_counter() - started
        sound = table[table.status == "COMPLETED"]
        best = float(sound.valid_accuracy.max())
        return {"per_second": len(space) / seconds, "accuracy": best, "compile_seconds": 0.0}

    return once


def halving(work: Sweep, *, full: bool = False) -> Round:
    """One seed each; another seed, and other configurations, in every round."""
    use_devices(2)
    parts = _parts(work)
    draws = itertools.count()

    def once() -> dict[str, float]:
        draw = next(draws)
        forget_programs()
        started = time.perf_counter()
        best = _drawn(work, parts, draw, full=full).best()
        seconds = time.perf_counter() - started
        return {"per_second": (work.trials or 81) / seconds, "accuracy": best.value, "compile_seconds": 0.0}

    return once


def _drawn(work: Sweep, parts: tuple[Any, Any, Any], draw: int, *, full: bool) -> Any:
    import jax

    from jaxopt_nn import sweeps

    rates = {"learning_rate": sweeps.log_uniform(1e-5, 1e-1), "l2": sweeps.log_uniform(1e-7, 1e-2)}
    space = sweeps.halton(work.trials or 81, draw=draw, **rates, width=64, optimizer="adam", drop_rate=0.0)
    space = [
        {name: trial[name] for name in trial if work.dataset == "digits" or name != "drop_rate"} for trial in space
    ]
    rule, key = None if full else sweeps.successive_halving(), jax.random.key(draw)
    recipe, train, valid = parts
    return sweeps.sweep(recipe, space, train, valid, key=key, objective="valid_accuracy", pruning=rule)


def agreement(work: Sweep, draws: int) -> float:
    """How often the choice of successive halving is among the three best of the full sweep."""
    parts, agreed = _parts(work), 0
    for draw in range(draws):
        full = _drawn(work, parts, draw, full=True)
        values = sorted((record.metrics["valid_accuracy"] for record in full.records), reverse=True)
        best = _drawn(work, parts, draw, full=False).best().hparams
        own = next(record for record in full.records if record.trial == best)
        agreed += own.metrics["valid_accuracy"] >= values[2]
        print(f"draw {draw}: {best}: {own.metrics['valid_accuracy']:.4f}, the third {values[2]:.4f}", flush=True)
    return agreed / draws


def frame(work: Sweep) -> Round:
    """A thousand lanes with their histories to a data frame of all epochs; training is done before."""
    import pandas

    from jaxopt_nn import sweeps

    rng = np.random.default_rng(0)
    lanes, epochs = work.trials or 1000, work.epochs
    records = tuple(
        sweeps.Record(
            {"learning_rate": float(rate), "seed": i},
            "COMPLETED",
            None,
            {"valid_loss": float(rate)},
            {name: rng.standard_normal(epochs) for name in ("train_loss", "valid_loss", "valid_accuracy")},
            0.1,
        )
        for i, rate in enumerate(rng.random(lanes))
    )
    result = sweeps.Sweep(records, "valid_loss", "min", False)

    def once() -> dict[str, float]:
        started = time.perf_counter()
        result.table()
        parts = {name: np.concatenate([r.history[name] for r in result.records]) for name in records[0].history}
        pandas.DataFrame(
            {"trial": np.repeat(np.arange(lanes), epochs), "epoch": np.tile(np.arange(epochs), lanes)} | parts
        )
        return {"per_second": 1 / (time.perf_counter() - started), "compile_seconds": 0.0}

    return once


SWEEPS: dict[str, Callable[[Sweep], Round]] = {
    "ours": lambda work: {"grid": grid, "halving": halving, "frame": frame}[work.program](work),
    "ours-full": functools.partial(halving, full=True),
    "ours-one-device": functools.partial(grid, devices=1),
    "ours-memory": lambda work: grid(work._replace(store=False)),
    "ours-ray-1": functools.partial(grid, workers=1),
    "ours-ray-2": functools.partial(grid, workers=2),
}


if __name__ == "__main__":
    from benchmarks.cases import CASES

    halved = CASES["9"].work
    assert isinstance(halved, Sweep)
    print(f"in the top 3: {agreement(halved, 20):.0%}")
