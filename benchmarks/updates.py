"""The sides of an optimizer's update alone. Each is a function ``work -> round``."""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.work import Update

__all__ = ["NUMBERS", "UPDATES", "fused_adamw"]

Round = Callable[[], dict[str, float]]
NUMBERS = {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 1e-2}


def ours(work: Update) -> Round:
    from jaxopt_nn import optimizers, trees

    return _jax(work, optimizers.adamw(**NUMBERS, mask=trees.every_leaf))


def ours_flat(work: Update) -> Round:
    """With small leaves in one vector."""
    from jaxopt_nn import optimizers, trees

    return _jax(work, optimizers.flatten(optimizers.adamw(**NUMBERS, mask=trees.every_leaf)))


def optax(work: Update) -> Round:
    import optax

    return _jax(work, optax.adamw(**NUMBERS))


def torch(work: Update) -> Round:
    import torch

    start, gradients = _arrays(work)
    params = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in start]
    optimizer = fused_adamw(params)
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = torch.from_numpy(gradient)

    def once() -> dict[str, float]:
        optimizer.state.clear()
        with torch.no_grad():
            for param, p in zip(params, start, strict=True):
                param.copy_(torch.from_numpy(p))
        optimizer.step()  # makes the state; not timed
        started = time.perf_counter()
        for _ in range(work.updates - 1):
            optimizer.step()
        seconds = (time.perf_counter() - started) * work.updates / (work.updates - 1)
        return _report(work, seconds, [p.detach().numpy() for p in params], 0.0)

    once()
    return once


def fused_adamw(params: list[Any]) -> Any:
    """AdamW of torch in one kernel, with the numbers of every side."""
    from torch.optim import AdamW

    betas = (NUMBERS["b1"], NUMBERS["b2"])
    eps, weight_decay = NUMBERS["eps"], NUMBERS["weight_decay"]
    return AdamW(params, lr=NUMBERS["learning_rate"], betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


def _jax(work: Update, optimizer: Any) -> Round:
    """Called update by update, with everything donated; or all updates in one compiled loop."""
    import jax
    import jax.numpy as jnp
    from optax import apply_updates

    start, gradients = _arrays(work)
    gradients = [jnp.asarray(g) for g in gradients]

    def update(carry: Any, gradients: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(gradients, state, params)
        return apply_updates(params, updates), state

    @functools.partial(jax.jit, donate_argnums=0)
    def one(carry: Any, gradients: Any) -> Any:
        return update(carry, gradients)

    @functools.partial(jax.jit, donate_argnums=0)
    def all_of_them(carry: Any, gradients: Any, ones: Any) -> Any:
        # Gradients that change with each update, as far as XLA knows: or it would compute what depends on them alone,
        # (1-b1)*g and (1-b2)*g*g, once before the loop.
        def body(carry: Any, one: Any) -> Any:
            return update(carry, jax.tree.map(lambda g: g * one, gradients)), None

        return jax.lax.scan(body, carry, ones)[0]

    params = [jnp.asarray(p) for p in start]
    carry = (params, optimizer.init(params))
    compile_started = time.perf_counter()
    ones = (jnp.ones(work.updates),) if work.loop else ()
    compiled = (all_of_them if work.loop else one).lower(carry, gradients, *ones).compile()
    compile_seconds = time.perf_counter() - compile_started

    def once() -> dict[str, float]:
        params = [jnp.array(p) for p in start]
        carry = jax.block_until_ready((params, optimizer.init(params)))
        started = time.perf_counter()
        for _ in range(1 if work.loop else work.updates):
            carry = compiled(carry, gradients, *ones)
        jax.block_until_ready(carry)
        seconds = time.perf_counter() - started
        return _report(work, seconds, [np.asarray(p) for p in carry[0]], compile_seconds)

    once()
    return once


def _arrays(work: Update) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Parameters and gradients: the same for every side."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape, np.float32) for shape in work.shapes]
    return params, [rng.standard_normal(shape, np.float32) for shape in work.shapes]


def _report(work: Update, seconds: float, params: list[np.ndarray], compile_seconds: float) -> dict[str, float]:
    """With the mean size of the parameters at the end, to see that every side did the same."""
    size = float(np.mean([np.abs(p).mean() for p in params]))
    return {"per_second": work.updates / seconds, "mean_size": size, "compile_seconds": compile_seconds}


UPDATES: dict[str, Callable[[Update], Round]] = {
    # a call hands over fewer buffers if small leaves are one vector
    "ours": lambda work: (ours if work.loop else ours_flat)(work),
    "ours-flat": ours_flat,
    "ours-leaves": ours,
    "ours-loop": lambda work: ours(work._replace(loop=True)),
    "optax": lambda work: optax(work._replace(loop=False)),
    "optax-loop": lambda work: optax(work._replace(loop=True)),
    "torch": torch,
}
