"""``python -m benchmarks [CASE ...] [--rounds N] [--quick] [--json OUT]``.

Every side has a process of its own; they take turns (A B C A B C ...), so that what the machine does meanwhile meets
all of them. Reported: the median of steps (or updates) per second, and the median, least and largest ratio of ours to
each peer, round by round; compile time, peak memory and what came out (validation accuracy, or the parameters' mean
size) beside it.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from benchmarks.work import CASES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Side by side with other libraries.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one round, a smoke test: its figures mean nothing")
    parser.add_argument("--json", type=Path, help="where the results go")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - CASES.keys():
        parser.error(f"CASE: expected some of {', '.join(CASES)}, got {', '.join(sorted(unknown))}")
    rounds = 1 if arguments.quick else arguments.rounds
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": _versions(),
        "rounds": rounds,
        "cases": {name: measure(name, rounds) for name in arguments.cases or CASES},
    }
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(name: str, rounds: int) -> dict[str, Any]:
    """All sides of one case, in turn; prints a table."""
    case = CASES[name]
    print(f"\n{name}. {case.title}", flush=True)
    with contextlib.ExitStack() as files:
        measured, absent = _measure(name, rounds, files)
        sides = _table(case.unit, measured)
        return {"title": case.title, "unit": case.unit, "sides": sides, "absent": _print_absent(absent)}


def _measure(
    name: str, rounds: int, files: contextlib.ExitStack
) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    workers: dict[str, subprocess.Popen[str]] = {}
    errors: dict[str, IO[str]] = {}
    absent: dict[str, str] = {}
    for side in ("ours", *CASES[name].goals):  # one after another: nobody is timed while another one compiles
        command = [sys.executable, "-m", "benchmarks.worker", name, side]
        # What a side says goes to a file: a pipe that nobody reads would fill up and stop it.
        errors[side] = files.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115, the stack closes it
        workers[side] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors[side], text=True
        )
        answer = _read(workers[side], errors[side])
        if "ready" not in answer:
            absent[side] = answer["absent"]
            workers.pop(side).wait()
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in workers}
    for _ in range(rounds):
        for side, worker in workers.items():
            assert worker.stdin is not None
            worker.stdin.write("round\n")
            worker.stdin.flush()
            measured[side].append(_read(worker, errors[side]))
    for worker in workers.values():
        worker.communicate()
    return measured, absent


def _table(unit: str, measured: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    print(f"{'':16s}{f'{unit}/s':>10s}{'ours is faster by':>26s}{'result':>10s}{'compile':>9s}{'memory':>10s}")
    rows: dict[str, Any] = {}
    for side, answers in measured.items():
        speeds = [answer["per_second"] for answer in answers]
        ratios = [a["per_second"] / b for a, b in zip(measured["ours"], speeds, strict=True)]
        outcome = "accuracy" if "accuracy" in answers[0] else "mean_size"
        row = {
            "per_second": statistics.median(speeds),
            "ours_faster": statistics.median(ratios),
            "ours_faster_min": min(ratios),
            "ours_faster_max": max(ratios),
            outcome: statistics.median(answer[outcome] for answer in answers),
            "compile_seconds": answers[0]["compile_seconds"],
            "peak_memory_mib": max(answer["peak_memory_mib"] for answer in answers),
        }
        rows[side] = {key: float(f"{value:.5g}") for key, value in row.items()}
        ratio = f"{row['ours_faster']:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        print(
            f"{side:16s}{row['per_second']:10,.5g}{'' if side == 'ours' else ratio:>26s}{row[outcome]:10.4f}"
            f"{row['compile_seconds']:8.1f}s{row['peak_memory_mib']:7.0f}MiB",
            flush=True,
        )
    return rows


def _print_absent(absent: dict[str, str]) -> dict[str, str]:
    for side, reason in absent.items():
        print(f"{side:16s}    absent: {reason}", flush=True)
    return absent


def _read(worker: "subprocess.Popen[str]", errors: IO[str]) -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        errors.seek(0)
        raise SystemExit(f"a side failed:\n{errors.read()}")
    return json.loads(line)


def _versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "optax", "numpy", "torch", "keras", "equinox", "scikit-learn", "jaxopt-nn")
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
