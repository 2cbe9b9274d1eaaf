"""Training with batches that are read from arrays in shuffled blocks, beside the same arrays in memory.

What is timed is ``fit`` from the end of its first epoch to the end of its last, so that tracing and compiling are in no
side. Both validate after each epoch.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.training import Round, model_of, report
from benchmarks.work import Streaming, load

__all__ = ["STREAMING"]


def _fit(work: Streaming, *, streamed: bool) -> Round:
    import jax

    from jaxopt_nn import data, losses, metrics, optimizers, training
    from jaxopt_nn.types import Batch

    case = work.training
    x, y, vx, vy = load(case)
    rows = len(x) // case.batch_size * case.batch_size
    train, valid = Batch(x[:rows], y[:rows]), Batch(vx, vy)

    def recipe(learning_rate: Any) -> training.Recipe:
        return training.Recipe(
            model=model_of(case),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.flatten(optimizers.adam(learning_rate)),
            metrics={"accuracy": metrics.accuracy},
            batch_size=case.batch_size,
            epochs=case.epochs,
            early_stopping=training.EarlyStopping(patience=case.epochs),
        )

    def once() -> dict[str, float]:
        source = data.stream_blocks(train, case.batch_size, key=jax.random.key(1)) if streamed else train
        ends: list[float] = []
        result = training.fit(
            recipe, case.learning_rate, source, valid, key=jax.random.key(0), progress_bar=False,
            callbacks=[lambda end: ends.append(time.perf_counter())],
        )  # fmt: skip
        steps = rows // case.batch_size * (case.epochs - 1)
        return report(ends[-1] - ends[0], steps, float(np.nanmax(result.history["valid_accuracy"])), 0.0)

    once()
    return once


STREAMING: dict[str, Callable[[Streaming], Round]] = {
    "ours": lambda work: _fit(work, streamed=True),
    "ours-in-memory": lambda work: _fit(work, streamed=False),
}
