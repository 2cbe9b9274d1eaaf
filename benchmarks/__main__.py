"""``python -m benchmarks [CASE ...] [--rounds N] [--quick] [--json OUT]``.

Every side has a process of its own; they take turns (A B C A B C ...), so that what the machine does meanwhile meets
all of them. Reported: the median of steps (or updates, ...) per second, and the median, least and largest ratio of ours
to each peer, round by round; compile time, peak memory and what came out (validation accuracy, the parameters' mean
size, ...) beside it; for some cases how much of the machine's measured matrix-product and copy rates is used.

``--json OUT`` gathers: each case is written as soon as it is measured, with its date, machine and versions, and
replaces what OUT held of it.

``--quick`` measures nothing: it runs each side once with hardly any work and says in one line how that went.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.cases import ACCELERATOR, CASES
from benchmarks.measure import measure, side_command
from benchmarks.smoke import smoke, summary

__all__ = ["keep"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Side by side with other libraries.")
    names = ", ".join(CASES | ACCELERATOR)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {names}; by default those for the machine")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="whether every side runs, with hardly any work")
    parser.add_argument("--json", type=Path, help="where the results go")
    arguments = parser.parse_args()
    cases = CASES | ACCELERATOR
    if unknown := set(arguments.cases) - cases.keys():
        parser.error(f"CASE: expected some of {names}, got {', '.join(sorted(unknown))}")
    if arguments.quick:
        if arguments.json:
            parser.error("--json: --quick has no results to keep")
        started, backend = time.monotonic(), machine.backend()
        outcomes = smoke({name: cases[name] for name in arguments.cases or cases}, backend)
        print(summary(outcomes, time.monotonic() - started))
        raise SystemExit(any(outcome.kind == "failed" for outcome in outcomes))
    about = {"machine": machine.describe(), "versions": machine.versions()}
    backend = about["machine"]["backend"]
    chosen = arguments.cases or [*CASES, *(ACCELERATOR if backend != "cpu" else ())]
    failed: list[str] = []
    for name in chosen:
        result = measure(name, cases[name], arguments.rounds, side_command(name, backend))
        failed += [f"{name} {side}" for side in result["failed"]]
        if arguments.json:
            keep(arguments.json, name, result | about)
        if result.get("interrupted"):
            raise SystemExit(130)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def keep(path: Path, name: str, result: dict[str, Any]) -> None:
    """Writes a case's result into the file, beside the other cases that it holds."""
    results = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    results["cases"][name] = result
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    temporary.replace(path)  # at no time half a file


if __name__ == "__main__":
    main()
