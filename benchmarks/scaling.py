"""``python -m benchmarks.scaling [CURVE ...] [--quick] [--json OUT]``: steps a second against a size.

Each point is measured as a case is, in rounds of about a second for a peer; all curves together take about ten minutes
on two cores. Points are written as soon as they are measured. ``python -m benchmarks.plots`` draws them.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.__main__ import keep
from benchmarks.measure import measure, side_command
from benchmarks.points import CURVES, POINTS
from benchmarks.smoke import smoke, summary

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description="Steps a second against a size.")
    parser.add_argument("curves", nargs="*", metavar="CURVE", help=f"of {', '.join(CURVES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="whether every side runs, with hardly any work")
    parser.add_argument("--json", type=Path, help="where the results go")
    arguments = parser.parse_args()
    if unknown := set(arguments.curves) - CURVES.keys():
        parser.error(f"CURVE: expected some of {', '.join(CURVES)}, got {', '.join(sorted(unknown))}")
    if arguments.quick:
        points = [f"{curve}-{value}" for curve in arguments.curves or CURVES for value in CURVES[curve].values]
        started, backend = time.monotonic(), machine.backend()
        outcomes = smoke({name: POINTS[name] for name in points}, backend)
        print(summary(outcomes, time.monotonic() - started))
        raise SystemExit(any(outcome.kind == "failed" for outcome in outcomes))
    about = {"machine": machine.describe(), "versions": machine.versions()}
    most = max(CURVES["devices"].values) if about["machine"]["backend"] == "cpu" else _devices()
    for curve in arguments.curves or CURVES:
        for value in CURVES[curve].values:
            if curve == "devices" and value > most:
                continue
            name = f"{curve}-{value}"
            result = measure(name, POINTS[name], ROUNDS, side_command(name, about["machine"]["backend"]))
            if arguments.json:
                keep(arguments.json, name, result | about)
            if result.get("interrupted"):
                raise SystemExit(130)


def _devices() -> int:
    """How many accelerators there are; a CPU shows itself as as many devices as are asked for."""
    command = [sys.executable, "-c", "import jax; print(jax.device_count())"]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
