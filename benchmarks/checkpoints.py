"""The sides of checkpoints: ``fit`` with one after each epoch, in a new folder a round, and ``fit`` without."""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.training import model_of, report
from benchmarks.work import Checkpointing, load

__all__ = ["CHECKPOINTS"]

Round = Callable[[], dict[str, float]]


def _fit(work: Checkpointing, *, checkpoints: bool) -> Round:
    import jax
    import jax.numpy as jnp

    from jaxopt_nn import losses, metrics, optimizers, training
    from jaxopt_nn.types import Batch

    if checkpoints:
        import orbax.checkpoint  # whether it is there  # noqa: F401
    case = work.training
    x, y, vx, vy = (jnp.asarray(part) for part in load(case))

    def recipe(learning_rate: Any) -> training.Recipe:
        return training.Recipe(
            model=model_of(case),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.adam(learning_rate),
            metrics={"accuracy": metrics.accuracy},
            batch_size=case.batch_size,
            epochs=case.epochs,
            last_batch="drop",
        )

    def fit(folder: str) -> Any:
        checkpoint = training.Checkpoint(Path(folder) / "run", every_epochs=1) if checkpoints else None
        arguments = (recipe, case.learning_rate, Batch(x, y), Batch(vx, vy))
        return jax.block_until_ready(training.fit(*arguments, key=jax.random.key(0), checkpoint=checkpoint))

    def once() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            result = fit(folder)
            seconds = time.perf_counter() - started
        return report(seconds, int(result.state.step), float(result.history["valid_accuracy"][-1]), compile_seconds)

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fit(folder)
    compile_seconds = time.perf_counter() - started
    return once


CHECKPOINTS: dict[str, Callable[[Checkpointing], Round]] = {
    "ours": functools.partial(_fit, checkpoints=True),
    "ours-without": functools.partial(_fit, checkpoints=False),
}
