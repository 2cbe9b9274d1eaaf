"""The machine: what it is, and how fast it multiplies matrices and copies memory.

The two rates are a side of a case like any other, so that they are measured in turn with the sides that are compared
with them. A rate is the best that any way of doing it gave in the round.
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.roofline import count
from benchmarks.work import Training, Work

__all__ = ["backend", "describe", "rates", "versions"]

SECONDS = 0.25  # for each way of measuring a rate
PACKAGES = (
    "jax", "jaxlib", "optax", "numpy", "torch", "keras", "equinox", "flax", "scikit-learn", "jaxopt-nn"
)  # fmt: skip


def describe() -> dict[str, Any]:
    """The machine that results belong to."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    return {"processor": processor, "cores": os.cpu_count(), "python": platform.python_version(), "backend": backend()}


def backend() -> str:
    """The kind of device that JAX computes on, such as ``cpu``, asked in a process that ends: it would keep memory."""
    command = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]


def versions() -> dict[str, str]:
    """The versions of what is compared; ``absent`` where there is none."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def rates(work: Work) -> Callable[[], dict[str, float]]:
    """A side that gives GFLOP/s of matrix products in the work's dtype, and GB/s of copies as large as its traffic."""
    import jax
    import jax.numpy as jnp

    dtype = work.dtype if isinstance(work, Training) else "float32"
    on_cpu = jax.default_backend() == "cpu"
    dot, products = jax.jit(jnp.dot), {}
    for size in (512, 1024, 2048) if on_cpu else (4096, 8192):
        matrix = jnp.ones((size, size), dtype)
        products[2e-9 * size**3] = lambda matrix=matrix: jax.block_until_ready(dot(matrix, matrix))
    numbers = min(max(count(work).bytes // 8, 2**16), 2**28)  # a number is read and written, 4 bytes each
    copies = {8e-9 * numbers * 10: _loop_of_copies(numbers)}
    if on_cpu:
        copies[8e-9 * numbers] = _threads_of_copies(numbers)

    def once() -> dict[str, float]:
        return {"matmul_gflops": _best(products), "copy_gbytes": _best(copies)}

    once()
    return once


def _best(ways: dict[float, Callable[[], Any]]) -> float:
    """The best rate, of ways by the amount of work that a call does."""
    best = 0.0
    for amount, call in ways.items():
        ends = time.perf_counter() + SECONDS
        while True:
            started = time.perf_counter()
            call()
            now = time.perf_counter()
            best = max(best, amount / (now - started))
            if now > ends:
                break
    return best


def _loop_of_copies(numbers: int) -> Callable[[], Any]:
    """Ten passes in a compiled loop that read and write each number, in place as an update of parameters does."""
    import jax
    import jax.numpy as jnp

    passes = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, x: x + 1, x), donate_argnums=0)
    held = [jnp.zeros(numbers)]

    def call() -> None:
        held[0] = jax.block_until_ready(passes(held[0]))

    return call


def _threads_of_copies(numbers: int) -> Callable[[], Any]:
    threads = os.cpu_count() or 1
    parts = [
        (np.zeros(numbers // threads, np.float32), np.ones(numbers // threads, np.float32)) for _ in range(threads)
    ]
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))
