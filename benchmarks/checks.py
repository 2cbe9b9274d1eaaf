"""The sides of checking a gradient. Each is a function ``work -> round``; a round is one check, the whole report.

Both check the mean cross-entropy of the same dense tanh network, with weights of the same law. Ours takes float32
parameters and finds its evidence in float64; torch's ``gradcheck`` (its slow mode, which looks at every coordinate) is
given float64, which it needs. Each round of ours is a new function of other weights, data and lines. As everywhere here
compiling is apart: "ours" has checked an equal program before, as in a property-based test; "ours-first" compiles in
each round, as whoever checks a net once waits for it.

A round of the slow mode takes minutes and differs from the next one by little: above ``LONG`` seconds it is run once,
its figure stands for the later rounds too, and ``rounds`` says so. The fast mode, which looks along one direction, is
run in every round.
"""

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.work import Checking

__all__ = ["CHECKING", "LONG"]

LONG = 60.0  # seconds
Round = Callable[[], dict[str, float]]


def ours(work: Checking, *, first: bool = False) -> Round:
    import jax
    import jax.numpy as jnp

    from jaxopt_nn import losses
    from jaxopt_nn.checking import check_gradients

    seeds = itertools.count()

    def check(seed: int) -> tuple[float, int]:
        params, x, y = _arrays(work, seed)

        def loss(params: Any) -> Any:
            h = jnp.asarray(x, params[0][0].dtype)
            for index, (kernel, bias) in enumerate(params):
                h = h @ kernel + bias[None]
                h = jnp.tanh(h) if index < len(params) - 1 else h
            return jnp.mean(losses.softmax_cross_entropy(h, y))

        started = time.perf_counter()
        report = check_gradients(loss, params, key=jax.random.key(seed))
        seconds = time.perf_counter() - started
        report.assert_ok()
        return seconds, report.evaluations

    compiling = 0.0 if first else check(next(seeds))[0]

    def once() -> dict[str, float]:
        if first:
            jax.clear_caches()
        seconds, evaluations = check(next(seeds))
        return {"per_second": 1 / seconds, "evaluations": evaluations, "compile_seconds": max(0.0, compiling - seconds)}

    return once


def torch(work: Checking, *, fast: bool = False) -> Round:
    import torch

    params, x, y = _arrays(work, 0)
    features, labels = torch.from_numpy(x).double(), torch.from_numpy(y).long()
    leaves = [torch.from_numpy(leaf).double().requires_grad_() for pair in params for leaf in pair]
    calls = 0
    last: dict[str, float] = {}

    def loss(*leaves: Any) -> Any:
        nonlocal calls
        calls += 1
        h = features
        for index in range(0, len(leaves), 2):
            h = torch.addmm(leaves[index + 1], h, leaves[index])
            h = torch.tanh(h) if index < len(leaves) - 2 else h
        return torch.nn.functional.cross_entropy(h, labels)

    def once() -> dict[str, float]:
        nonlocal calls, last
        if "rounds" in last:
            return last
        calls = 0
        started = time.perf_counter()
        torch.autograd.gradcheck(loss, leaves, fast_mode=fast)
        seconds = time.perf_counter() - started
        last = {"per_second": 1 / seconds, "evaluations": calls, "compile_seconds": 0.0}
        last |= {"rounds": 1} if seconds > LONG else {}
        return last

    return once


def _arrays(work: Checking, seed: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    params = [
        (rng.standard_normal((a, b), np.float32) / np.float32(np.sqrt(a)), rng.standard_normal(b, np.float32))
        for a, b in itertools.pairwise(work.widths)
    ]
    x = rng.standard_normal((work.examples, work.widths[0]), np.float32)
    return params, x, rng.integers(0, work.widths[-1], work.examples).astype("int32")


CHECKING: dict[str, Callable[[Checking], Round]] = {
    "ours": ours,
    "ours-first": functools.partial(ours, first=True),
    "torch-gradcheck": torch,
    "torch-gradcheck-fast": functools.partial(torch, fast=True),
}
