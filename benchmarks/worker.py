"""One side in a process of its own: ``python -m benchmarks.worker CASE SIDE``, a round a line of standard input."""

import json
import resource
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.training import TRAINING
from benchmarks.updates import UPDATES
from benchmarks.work import CASES, Training


def main() -> None:
    name, side = sys.argv[1:]
    work = CASES[name].work
    sides: dict[str, Callable[[Any], Any]] = TRAINING if isinstance(work, Training) else UPDATES
    try:
        once = sides[side](work)
    except (ImportError, FileNotFoundError) as error:
        print(json.dumps({"absent": str(error)}), flush=True)
        return
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**once(), "peak_memory_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
