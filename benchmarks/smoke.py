"""``--quick``: whether every side of every case runs, with hardly any work. Nothing is measured.

The sides of a library share a process (ours two), which imports it once; as many processes run at a time as there are
cores. What two cases ask of a side in the same way, of other data perhaps, is run once, and ours without what a case is
about is left to the other cases.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from benchmarks.cases import ACCELERATOR, CASES, quick
from benchmarks.points import POINTS
from benchmarks.work import Case, Checkpointing, Compiling, Streaming, Training, Work

__all__ = ["Outcome", "families", "run", "smoke", "summary"]

FAMILIES = ("torch", "keras", "sklearn", "machine")
ONE_CORE = "-one-core"
# Ours without what a case is about: what other cases run anyway.
BASELINES = {
    *("ours-without", "ours-in-memory", "ours-unwatched", "ours-unaugmented", "ours-memory", "ours-one-device"),
    *("ours-full", "ours-run", "ours-forward", "ours-ray-1"),
}
PATIENCE = 600.0  # seconds of a process
# Options of the compiler under which small programs are ready soonest.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"


class Outcome(NamedTuple):
    """How a side went.

    Attributes:
        side: ``"CASE SIDE"``.
        kind: ``"ran"``, ``"absent"`` or ``"failed"``.
        reason: why it did not run.
    """

    side: str
    kind: str
    reason: str = ""


def smoke(cases: Mapping[str, Case], backend: str) -> list[Outcome]:
    """Runs each side of the cases once."""
    environment = {"XLA_FLAGS": FLAGS, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | os.environ
    options = ["--cuda"] * (backend == "gpu")

    def process(sides: Sequence[str]) -> list[Outcome]:
        command = [sys.executable, "-m", "benchmarks.smoke", *options, *sides]
        return run(command, sides, environment)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [outcome for part in pool.map(process, families(cases)) for outcome in part]


def families(cases: Mapping[str, Case]) -> list[list[str]]:
    """The sides of the cases, those of a library together: ``"CASE SIDE"``. The most work comes first."""
    groups: dict[str, dict[Any, str]] = {}
    for name, case in cases.items():
        work = quick(case).work
        for side in ("ours", *case.goals, *(["machine"] if case.roofline else [])):
            side = side.removesuffix(ONE_CORE)
            if side in BASELINES:
                continue
            family = next((family for family in FAMILIES if side.startswith(family)), "jax")
            if family == "jax" and not side.startswith("ours"):
                family = "jax, not ours"
            elif family == "jax" and isinstance(work, Training):  # half of the time of ours
                family = "jax, training"
            same = (side, _kind(side, work))
            if isinstance(work, Compiling):  # of so many lanes, blocks or epochs
                same = work.programs.get(side, side).rstrip("0123456789").replace("epochs-", "run")
            groups.setdefault(family, {}).setdefault(same, f"{name} {side}")
    return sorted((list(group.values()) for group in groups.values()), key=len, reverse=True)


def _kind(side: str, work: Work) -> Any:
    """What of the work decides which code runs: not which data, nor how many of them."""
    if side == "machine" or isinstance(work, (Checkpointing, Streaming)):
        return type(work)
    if not isinstance(work, Training):
        return work
    conv = not work.widths and work.lanes == 1
    kind = work._replace(dataset="", widths=conv, batch_size=0, examples=None, validation=False)
    together = None if work.together is None else 1
    eigen = work.eigen and side.startswith("ours")
    return kind._replace(together=together, devices=1, eigen=eigen, batch_norm=work.batch_norm and not work.watch)


def run(command: Sequence[str], sides: Sequence[str], environment: Mapping[str, str]) -> list[Outcome]:
    """A process's outcomes; where it ended early, the side that it was at has failed, and so have the later ones."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        text, errors, ended = done.stdout, done.stderr, f"exit code {done.returncode}"
    except subprocess.TimeoutExpired as expired:
        text, errors = (part.decode() if part else "" for part in (expired.stdout, expired.stderr))
        ended = f"no end in {PATIENCE:g} s"
    outcomes = [Outcome(*json.loads(line)) for line in text.splitlines() if line.startswith("[")]
    last = [line.strip() for line in errors.splitlines() if line.strip()][-1:]
    reason = " ".join([ended, *last])[:300]
    return outcomes + [Outcome(side, "failed", reason) for side in sides[len(outcomes) :]]


def summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    """One line: how many sides ran, and which were absent or failed, and why."""
    parts = [f"{sum(one.kind == 'ran' for one in outcomes)} sides ran in {seconds:.0f} s"]
    for kind in ("absent", "failed"):
        reasons: dict[str, list[str]] = {}
        for one in outcomes:
            if one.kind == kind:
                reasons.setdefault(one.reason, []).append(one.side)
        listed = "; ".join(f"{', '.join(sides)} ({reason})" for reason, sides in reasons.items())
        parts.append(f"{kind}: {listed or 'none'}")
    return "; ".join(parts)


def _outcomes(sides: Sequence[str]) -> Iterator[Outcome]:
    from benchmarks.machine import rates
    from benchmarks.worker import SIDES

    cases = CASES | ACCELERATOR | POINTS
    for named in sides:
        name, side = named.split(" ")
        work: Work = quick(cases[name]).work
        try:
            (rates(work) if side == "machine" else SIDES[type(work)][side](work))()
        except (ImportError, FileNotFoundError) as error:
            yield Outcome(named, "absent", str(error))
        except Exception as error:
            yield Outcome(named, "failed", f"{type(error).__name__}: {error}".splitlines()[0][:300])
        else:
            yield Outcome(named, "ran")


def main() -> None:
    sides = [argument for argument in sys.argv[1:] if argument != "--cuda"]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    with contextlib.suppress(ImportError):
        if any(side.split(" ")[1].startswith("torch") for side in sides):
            _prepare_torch("--cuda" in sys.argv)
        else:
            _prepare_jax()
    for outcome in _outcomes(sides):
        print(json.dumps(outcome), file=answers, flush=True)


def _prepare_torch(cuda: bool) -> None:
    import functools

    import torch

    if cuda:
        torch.set_default_device("cuda")
    # Traced, and not compiled by a C++ compiler, which takes half a minute.
    torch.compile = functools.partial(torch.compile, backend="aot_eager")


def _prepare_jax() -> None:
    import jax

    jax.config.update("jax_num_cpu_devices", 2)  # one process for all: those on one device take the first


if __name__ == "__main__":
    main()
