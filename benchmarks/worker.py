"""One side in a process of its own: ``python -m benchmarks.worker CASE SIDE [--cuda]``.

It answers in lines of JSON: first ``{"ready": true}`` or ``{"absent": reason}``, then for each line of standard input
what a round gave. An exception ends it, and its last line on standard error is the reason.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.cases import ACCELERATOR, CASES
from benchmarks.checkpoints import CHECKPOINTS
from benchmarks.checks import CHECKING
from benchmarks.compile_time import COMPILING
from benchmarks.first_result import FIRST_RESULT
from benchmarks.hypergradients import HYPERGRADIENTS
from benchmarks.large_updates import LARGE_UPDATES
from benchmarks.machine import rates
from benchmarks.points import POINTS
from benchmarks.streaming import STREAMING
from benchmarks.sweeps import SWEEPS
from benchmarks.sweeps_peers import SWEEP_PEERS
from benchmarks.training import OURS
from benchmarks.training_peers import PEERS
from benchmarks.updates import UPDATES
from benchmarks.work import (
    Checking,
    Checkpointing,
    Compiling,
    FirstResult,
    Hypergradient,
    LargeUpdate,
    Streaming,
    Sweep,
    Training,
    Update,
)

ONE_CORE = "-one-core"
"""How the name of a side ends that may use a single core."""
SIDES: dict[type, dict[str, Callable[[Any], Any]]] = {
    Training: OURS | PEERS,
    Update: UPDATES,
    LargeUpdate: LARGE_UPDATES,
    Compiling: COMPILING,
    Checking: CHECKING,
    Checkpointing: CHECKPOINTS,
    FirstResult: FIRST_RESULT,
    Hypergradient: HYPERGRADIENTS,
    Streaming: STREAMING,
    Sweep: SWEEPS | SWEEP_PEERS,
}


def main() -> None:
    name, side, *options = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    case = (CASES | ACCELERATOR | POINTS)[name]
    if "--cuda" in options and side.startswith("torch"):
        import torch

        torch.set_default_device("cuda")
    try:
        if side.endswith(ONE_CORE):
            _take_one_core()
            side = side.removesuffix(ONE_CORE)
        once = rates(case.work) if side == "machine" else SIDES[type(case.work)][side](case.work)
    except (ImportError, FileNotFoundError) as error:
        answer(absent=str(error))
        return
    answer(ready=True)
    for _ in sys.stdin:
        values = once()
        answer(**{"peak_memory_mib": _peak_memory(), **values})


def _take_one_core() -> None:
    """Before any library has counted the cores."""
    if not hasattr(os, "sched_setaffinity"):
        raise ImportError("this system cannot pin a process to a core")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _peak_memory() -> float:
    """The process's, in MiB; on an accelerator the device's."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    if jax is not None and jax.default_backend() != "cpu":
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
