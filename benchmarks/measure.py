"""Measuring one case: every side in a process of its own, all of them in turn.

Who is absent, fails, or does not answer becomes a row that says so; the others go on.
"""

import contextlib
import datetime
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.roofline import shares
from benchmarks.work import Case

__all__ = ["measure", "side_command"]

OUTCOMES = ("accuracy", "mean_size", "evaluations", "instructions", "programs", "rounds")
Command = Callable[[str], Sequence[str]]


def measure(name: str, case: Case, rounds: int, command: Command, *, patience: float = 1800.0) -> dict[str, Any]:
    """All sides of a case, ``rounds`` times in turn.

    Args:
        name: the case's, for the heading.
        case: whose sides and what is counted.
        rounds: how many; Ctrl-C ends them early, and what there is counts.
        command: from a side to the command that starts its process.
        patience: seconds that a side may take to start or for a round.

    Returns:
        ``title``, ``unit``, ``date``, ``rounds``; ``sides``, a row of figures each; ``absent`` and ``failed``, a
        reason each; for a roofline ``machine_rates``; and ``interrupted``, if it was.
    """
    print(f"\n{name}. {case.title}", flush=True)
    result: dict[str, Any] = {"title": case.title, "unit": case.unit, "date": datetime.date.today().isoformat()}
    absent: dict[str, str] = {}
    failed: dict[str, str] = {}
    answers: dict[str, list[dict[str, float]]] = {}
    workers: dict[str, _Worker] = {}
    sides = ["ours", *case.goals, *(["machine"] if case.roofline else [])]
    try:
        # One starts after the other, and only then rounds begin: nobody is timed while another one compiles.
        for side in sides:
            worker = workers[side] = _Worker(command(side), patience)
            try:
                answer = worker.read()
            except _FailedError as error:
                failed[side] = str(error)
            else:
                absent |= {side: str(answer["absent"])} if "absent" in answer else {}
            if side in absent or side in failed:
                workers.pop(side).stop()
        for _ in range(rounds):
            for side, worker in list(workers.items()):
                try:
                    answers.setdefault(side, []).append(worker.round())
                except _FailedError as error:
                    failed[side] = str(error)
                    answers.pop(side, None)
                    workers.pop(side).stop()
    except KeyboardInterrupt:
        result["interrupted"] = True
    finally:
        for worker in workers.values():
            worker.stop()
    machine = answers.pop("machine", [])
    if machine:
        result["machine_rates"] = {rate: _short(max(a[rate] for a in machine)) for rate in _RATES}
    result["rounds"] = min(map(len, answers.values()), default=0)
    result["sides"] = _rows(case, answers, result.get("machine_rates"))
    _print(case.unit, result["sides"])
    for label, reasons in (("absent", absent), ("failed", failed)):
        result[label] = reasons
        for side, reason in reasons.items():
            print(f"{side:16s}    {label}: {reason}", flush=True)
    return result


_RATES = ("matmul_gflops", "copy_gbytes")


class _FailedError(Exception):
    """A side ended without an answer; the message is why."""


class _Worker:
    """A process that answers a line with a line."""

    def __init__(self, command: Sequence[str], patience: float) -> None:
        # What it says goes to a file: a pipe that nobody reads would fill up and stop it. No compiled program is kept
        # between processes: compiling is measured too. A session of its own: Ctrl-C is for this process alone.
        hidden = ("JAX_COMPILATION_CACHE_DIR",)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, stop closes it
        self._patience = patience
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in hidden}
            | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # all sides share the accelerator's memory
            start_new_session=True,
        )

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        late = threading.Event()
        timer = threading.Timer(self._patience, lambda: (late.set(), self._kill()))
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:  # after Ctrl-C too: the program would wait for it
            timer.cancel()
        if line:
            return json.loads(line)
        code = self._process.wait()
        if late.is_set():
            raise _FailedError(f"no answer in {self._patience:g} s")
        self._errors.seek(0)
        last = [text.strip() for text in self._errors.read().splitlines() if text.strip()][-1:]
        raise _FailedError(" ".join([f"exit code {code}", *last])[:300])

    def round(self) -> dict[str, float]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("round\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: reading says why
        return self.read()

    def stop(self) -> None:
        self._kill()
        self._process.communicate()
        self._errors.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and those that it started too
            os.killpg(self._process.pid, signal.SIGKILL)


def _rows(case: Case, answers: dict[str, list[dict[str, float]]], rates: dict[str, float] | None) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    ours = [answer["per_second"] for answer in answers.get("ours", [])]
    for side, found in answers.items():
        speeds = [answer["per_second"] for answer in found]
        row = {"per_second": statistics.median(speeds)}
        if ratios := [a / b for a, b in zip(ours, speeds, strict=False)]:  # an interrupted round has not reached all
            row |= {
                "ours_faster": statistics.median(ratios),
                "ours_faster_min": min(ratios),
                "ours_faster_max": max(ratios),
            }
        row |= {name: statistics.median(a[name] for a in found) for name in OUTCOMES if name in found[0]}
        row["compile_seconds"] = statistics.median(answer["compile_seconds"] for answer in found)
        row["peak_memory_mib"] = max(answer["peak_memory_mib"] for answer in found)
        if rates is not None:
            row |= shares(case.work, row["per_second"], rates)
        rows[side] = {key: _short(value) for key, value in row.items()}
    return rows


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _print(unit: str, rows: dict[str, Any]) -> None:
    head = f"{'':16s}{f'{unit}/s':>15s}{'ours is faster by':>28s}{'result':>10s}{'compile':>9s}{'memory':>10s}"
    columns = ("of_matmul_rate", "products"), ("of_copy_rate", "copies")
    shown = [(name, title) for name, title in columns if any(name in row for row in rows.values())]
    print(head + "".join(f"{title:>10s}" for _, title in shown))
    for side, row in rows.items():
        ratio = ""
        if side != "ours" and "ours_faster" in row:
            ratio = f"{row['ours_faster']:.2f}x ({row['ours_faster_min']:.2f} to {row['ours_faster_max']:.2f})"
        outcome = next((f"{row[name]:.4f}" for name in OUTCOMES if name in row), "")
        line = f"{side:16s}{row['per_second']:15,.5g}{ratio:>28s}{outcome:>10s}{row['compile_seconds']:8.1f}s"
        line += f"{row['peak_memory_mib']:7,.0f}MiB"
        print(line + "".join(f"{row[name]:10.0%}" for name, _ in shown), flush=True)


def side_command(name: str, backend: str) -> Command:
    """From a side of a case to the command of its worker."""
    options = ["--cuda"] * (backend == "gpu")
    return lambda side: [sys.executable, "-m", "benchmarks.worker", name, side, *options]
