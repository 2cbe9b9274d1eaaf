"""The documentation's page on benchmarks: every figure of the results, and what they say."""

from typing import Any

from benchmarks.cases import ACCELERATOR, CASES
from benchmarks.figures import PEERS, Results, about, missing, number, ratio
from benchmarks.points import CURVES
from benchmarks.work import Case

__all__ = ["page", "where_ours_is_slower"]

HEAD = """# Benchmarks

<!-- Written by python -m benchmarks.tables from benchmarks/results. -->

`make bench` measures all of this: ours beside other libraries, on the same data, network and number of steps. Each side
runs in a process of its own. They take turns, round by round, so that whatever else the machine does affects all of
them. "Ours is faster by" is the median of the rounds' ratios, with the smallest and the largest. Compile time is not
part of it and has a column of its own (for torch, Keras and equinox, the first step or epoch). Memory is the peak of
the process. One more column shows that the faster side did not do less: validation accuracy, the mean size of the
parameters, evaluations of the function, or the number of compiled instructions.

Two columns say how much of the machine is used: the floating-point operations of the matrix products, and the bytes
that the optimizer reads and writes, as shares of the rates that the machine reached in the same rounds with products
alone, and with copies alone. Both are counted by hand in `benchmarks/roofline.py`. Activations are left out, so they
are lower bounds. [Decisions about speed](decisions.md) says what was done to come closer, and what is left.
"""

SCALING = """## Where ours is the better choice, and where it is not

Steps a second of a network with 64 inputs, two hidden layers of 64 units and 10 outputs, at batch size 32 with Adam.
One size at a time is changed. Steps of all lanes are added up. Ours is called faster only if it was so in every round.
"""


LAYERS = """## How layers are computed

XLA's own convolution and pooling beside those of `layers` (patches times a matrix, reshapes), forward and backward
inside of a compiled loop, in processor time of all cores: `python -m benchmarks.layers`. The last row is the drawing of
dropout's masks, beside `jax.random.bernoulli`.
"""


def page(files: dict[str, Results], scaling: dict[str, Results], layers: dict[str, Any] | None) -> str:
    """The whole page, as Markdown."""
    parts = [HEAD]
    for measured in files.values():
        parts += [f"## {_machine(measured)}\n", about(measured) + "\n", _versions(measured)]
        parts += [_case(name, case, measured[name]) for name, case in (CASES | ACCELERATOR).items() if name in measured]
    for stem, measured in scaling.items():
        parts += [SCALING, about(measured) + "\n"]
        parts += [_curve(stem, curve, measured) for curve in CURVES]
    if layers is not None:
        parts += [LAYERS, f"Median of {layers['rounds']} rounds in turn, {layers['date']}.\n", _layers(layers)]
    return "\n".join(part for part in parts if part)


def where_ours_is_slower(curve: str, measured: Results) -> list[str]:
    """A sentence for each peer. Ours is called faster where it was so in every round."""
    found: list[str] = []
    for peer in CURVES[curve].peers:
        sides = {value: measured.get(f"{curve}-{value}", {}).get("sides", {}) for value in CURVES[curve].values}
        rows = {value: side[peer] for value, side in sides.items() if "ours_faster" in side.get(peer, {})}
        faster = {value: row["ours_faster"] for value, row in rows.items() if row["ours_faster_min"] > 1}
        others = {value: row for value, row in rows.items() if value not in faster}
        if not rows:
            continue
        if not others:
            text = f"ours is faster at each point measured, {_range(faster)}"
        else:
            points = ", ".join(f"at {value:,}: {ratio(row)}" for value, row in others.items())
            text = f"ours is **not** the better choice {points}"
            text += f"; elsewhere it is faster, {_range(faster)}" if faster else "; which is everywhere"
        found.append(f"Beside {PEERS[peer]}: {text}.")
    return found


def _range(ratios: dict[int, float]) -> str:
    low, high = min(ratios.values()), max(ratios.values())
    return f"{low:.1f}x" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f}x to {high:.1f}x"


def _machine(measured: Results) -> str:
    machine = next(iter(measured.values()))["machine"]
    if machine["backend"] == "cpu":
        return f"{machine['processor']}, {machine['cores']} cores"
    return f"An accelerator ({machine['backend']})"


def _versions(measured: Results) -> str:
    versions = {
        f"{name} {version}"
        for result in measured.values()
        for name, version in result["versions"].items()
        if version != "absent"
    }
    return f"Versions: {', '.join(sorted(versions))}.\n"


def _case(name: str, case: Case, result: dict[str, Any]) -> str:
    sides = result["sides"]
    shown = [title for key, title in _SHARES.items() if any(key in side for side in sides.values())]
    outcome = next((label for key, label in _OUTCOMES.items() if any(key in side for side in sides.values())), "result")
    heads = [f"{result['unit']}/s", "ours is faster by", "goal", outcome, "compile", "memory", *shown]
    lines = [f"### {name}. {result['title']}\n", f"| side | {' | '.join(heads)} |", f"|---|{'--:|' * len(heads)}"]
    for side in ("ours", *case.goals):
        goal = case.goals.get(side)
        cells = [PEERS[side], "", "", "" if goal is None else f"{goal:g}x"]
        if side in sides:
            row = sides[side]
            cells[1] = number(row["per_second"])
            cells[2] = "" if side == "ours" else ratio(row)
            cells += [
                _outcome(row),
                f"{row['compile_seconds']:.1f} s" if row["compile_seconds"] else "",
                f"{row['peak_memory_mib']:,.0f} MiB",
            ]
            cells += [f"{row[key]:.0%}" if key in row else "" for key, title in _SHARES.items() if title in shown]
        else:
            cells[1] = missing(side, result)
        lines.append(f"| {' | '.join(cells + [''] * (len(heads) + 1 - len(cells)))} |")
    notes: list[str] = []
    if rates := result.get("machine_rates"):
        products, copies = rates["matmul_gflops"], rates["copy_gbytes"]
        notes.append(f"The machine: {products:,.0f} GFLOP/s in products, {copies:,.1f} GB/s in copies.")
    for goal, what in ((case.matmul_goal, "products"), (case.copy_goal, "copies")):
        notes += [] if goal is None else [f"Goal: {goal:.0%} of the {what}."]
    notes += [] if case.compile_goal is None else [f"Goal: compiled in {case.compile_goal:g} s."]
    notes += [f"{PEERS[side]} failed: {reason}." for side, reason in result["failed"].items()]
    notes += ["Interrupted."] if result.get("interrupted") else []
    return "\n".join([*lines, "", *([" ".join(notes), ""] if notes else [])])


_SHARES = {"of_matmul_rate": "products", "of_copy_rate": "copies"}
_OUTCOMES = {
    "accuracy": "accuracy",
    "mean_size": "mean size",
    "evaluations": "evaluations",
    "instructions": "instructions",
    "programs": "programs",
}


def _outcome(row: dict[str, float]) -> str:
    if "accuracy" in row:
        return f"{row['accuracy']:.1%}"
    return next((f"{row[key]:,.5g}" for key in _OUTCOMES if key in row), "")


def _curve(stem: str, curve: str, measured: Results) -> str:
    points = {value: measured[f"{curve}-{value}"] for value in CURVES[curve].values if f"{curve}-{value}" in measured}
    if not points:
        return ""
    label, sides = CURVES[curve].label, ("ours", *CURVES[curve].peers)
    lines = [f"### {label[0].upper()}{label[1:]}\n"]
    lines.append(f"![Steps a second against {label}](api/benchmarks/{stem}-{curve}.svg)\n")  # drawn by docs/conf.py
    lines += [f"- {sentence}" for sentence in where_ours_is_slower(curve, measured)]
    lines += ["", f"| {label} | {' | '.join(PEERS[side] for side in sides)} |", f"|--:|{'--:|' * len(sides)}"]
    for value, result in points.items():
        speeds = [
            number(result["sides"][side]["per_second"]) if side in result["sides"] else missing(side, result)
            for side in sides
        ]
        lines.append(f"| {value:,} | {' | '.join(speeds)} |")
    return "\n".join([*lines, ""])


def _layers(measured: dict[str, Any]) -> str:
    lines = ["| layer | XLA's | ours | ours is faster by |", "|---|--:|--:|--:|"]
    for title, row in measured["layers"].items():
        times = " | ".join(f"{number(microseconds)} µs" for microseconds in row["microseconds"].values())
        lines.append(
            f"| {title} | {times} | {row['faster']:.2f}x ({row['faster_min']:.2f} to {row['faster_max']:.2f}) |"
        )
    return "\n".join([*lines, ""])
