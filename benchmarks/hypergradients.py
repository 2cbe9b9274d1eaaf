"""The sides of a hypergradient. Each is a function ``work -> round``; what is counted are the steps of the run.

"ours" is the validation loss after the run and its gradient by the learning rate of every step. "ours-run" is the run
itself, as ``make_run`` compiles it, with the same rates and without validation in between. "ours-forward" is the loss
without its gradient.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

from benchmarks.training import model_of
from benchmarks.work import Hypergradient, load

__all__ = ["HYPERGRADIENTS"]

Round = Callable[[], dict[str, float]]


def _side(work: Hypergradient, *, kind: str) -> Round:
    import jax
    import jax.numpy as jnp

    from jaxopt_nn import losses, optimizers, sweeps, training
    from jaxopt_nn.types import Batch

    case = work.training
    x, y, vx, vy = (jnp.asarray(part) for part in load(case))
    steps = case.epochs * (len(x) // case.batch_size)
    rates = jnp.full(steps, case.learning_rate, jnp.float32)

    def recipe(hp: Any) -> training.Recipe:
        return training.Recipe(
            model=model_of(case),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.adam(hp["rate"]),
            batch_size=case.batch_size,
            epochs=case.epochs,
            last_batch="drop",
        )

    def loss(rates: Any, key: Any, train: Any, valid: Any) -> Any:
        return sweeps.validation_loss(recipe, {"rate": rates}, train, valid, key=key, per_step=["rate"])

    def run(rates: Any, key: Any, train: Any, valid: Any) -> Any:
        del valid

        def scheduled(rates: Any) -> training.Recipe:
            return recipe({"rate": lambda count: rates[count]})

        return training.make_run(scheduled)(key, rates, train)

    function = {"gradient": jax.value_and_grad(loss), "forward": loss, "run": run}[kind]
    arguments = (rates, jax.random.key(0), Batch(x, y), Batch(vx, vy))
    started = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - started
    jax.block_until_ready(compiled(*arguments))

    def once() -> dict[str, float]:
        started = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        return {"per_second": steps / (time.perf_counter() - started), "compile_seconds": compile_seconds}

    return once


HYPERGRADIENTS: dict[str, Callable[[Hypergradient], Round]] = {
    "ours": functools.partial(_side, kind="gradient"),
    "ours-run": functools.partial(_side, kind="run"),
    "ours-forward": functools.partial(_side, kind="forward"),
}
