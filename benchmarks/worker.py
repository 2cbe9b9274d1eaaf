"""One side in a process of its own: ``python -m benchmarks.worker CASE SIDE``, a round a line of standard input."""

import json
import resource
import sys

from benchmarks.sides import SIDES
from benchmarks.work import CASES


def main() -> None:
    case, side = sys.argv[1:]
    try:
        once = SIDES[side](CASES[case])
    except (ImportError, FileNotFoundError) as error:
        print(json.dumps({"absent": str(error)}), flush=True)
        return
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**once(), "peak_memory_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
