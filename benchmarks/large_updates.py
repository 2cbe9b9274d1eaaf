"""The sides of an update of AdamW so large that parameters and gradients are made on the device."""

import functools
import time
from collections.abc import Callable
from typing import Any

from benchmarks.updates import NUMBERS, fused_adamw
from benchmarks.work import LargeUpdate

__all__ = ["LARGE_UPDATES"]

Round = Callable[[], dict[str, float]]


def ours(work: LargeUpdate) -> Round:
    import jax
    import jax.numpy as jnp
    import optax

    from jaxopt_nn import optimizers, trees

    optimizer = optimizers.adamw(**NUMBERS, mask=trees.every_leaf)
    if work.state_dtype != "float32":
        dtypes = {f"*/{moment}/*": work.state_dtype for moment in ("mu", "nu")}
        optimizer = optimizers.store_state(optimizer, dtypes, key=jax.random.key(0))

    @functools.partial(jax.jit, donate_argnums=0)
    def update(carry: Any, gradients: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def make(key: Any) -> list[Any]:
        return [jax.random.normal(part, (work.size,)) for part in jax.random.split(key, work.leaves)]

    gradients, init = make(jax.random.key(0)), jax.jit(optimizer.init)
    like = jax.eval_shape(make, jax.random.key(1))
    started = time.perf_counter()
    compiled = update.lower((like, jax.eval_shape(init, like)), gradients).compile()
    compile_seconds = time.perf_counter() - started

    def once() -> dict[str, float]:
        params = make(jax.random.key(1))
        carry = jax.block_until_ready(compiled((params, init(params)), gradients))
        started = time.perf_counter()
        for _ in range(work.updates):
            carry = compiled(carry, gradients)
        jax.block_until_ready(carry)
        seconds = time.perf_counter() - started
        size = sum(float(jnp.abs(leaf).mean()) for leaf in carry[0]) / work.leaves
        return {"per_second": work.updates / seconds, "mean_size": size, "compile_seconds": compile_seconds}

    once()
    return once


def torch(work: LargeUpdate) -> Round:
    import torch

    params = [torch.nn.Parameter(torch.randn(work.size)) for _ in range(work.leaves)]
    optimizer = fused_adamw(params)
    for param in params:
        param.grad = torch.randn(work.size)

    def wait() -> None:
        if params[0].is_cuda:
            torch.cuda.synchronize()

    def once() -> dict[str, float]:
        optimizer.state.clear()
        for param in params:
            param.detach().normal_()
        optimizer.step()  # makes the state; not timed
        wait()
        started = time.perf_counter()
        for _ in range(work.updates):
            optimizer.step()
        wait()
        seconds = time.perf_counter() - started
        size = sum(float(param.detach().abs().mean()) for param in params) / work.leaves
        return {"per_second": work.updates / seconds, "mean_size": size, "compile_seconds": 0.0}

    once()
    return once


LARGE_UPDATES: dict[str, Callable[[LargeUpdate], Round]] = {
    "ours": ours,
    "ours-float32": lambda work: ours(work._replace(state_dtype="float32")),
    "torch": torch,
}
