"""``python -m benchmarks.tables``: writes the README's table and ``docs/benchmarks.md`` from the committed results."""

import json
from pathlib import Path
from typing import Any

from benchmarks.cases import ACCELERATOR, CASES
from benchmarks.work import Case, Compiling

__all__ = ["PEERS", "ROOT", "insert", "layer_results", "missing", "number", "ratio", "results", "short_table"]

ROOT = Path(__file__).parents[1]
BEGIN = "<!-- benchmarks: written by python -m benchmarks.tables -->\n"
END = "<!-- end of benchmarks -->\n"
PEERS = {
    "ours": "ours",
    "torch": "torch, eager, fused Adam",
    "torch-compile": "torch.compile",
    "ours-first": "ours, the first check of a function: compiling is part of it",
    "torch-gradcheck": "torch gradcheck, slow mode, one round if it takes more than a minute",
    "torch-gradcheck-fast": "torch gradcheck, fast mode, one direction",
    "keras-jax": "Keras on JAX",
    "keras-jax-16": "Keras on JAX, 16 steps per execution",
    "equinox": "equinox and optax, a jitted step",
    "optax": "optax, jitted",
    "optax-loop": "optax, all updates in one compiled loop",
    "sklearn": "scikit-learn",
    "sklearn-2": "scikit-learn, two processes",
    "flax-scan": "flax and optax, steps in a scan, native convolution",
    "jax-plain": "plain JAX and optax, training only",
    "ours-one-core": "ours, on one core",
    "torch-one-core": "torch, on one core",
    "ours-loop": "ours, all updates in one compiled loop",
    "ours-eigen": "ours, Eigen's matrix products in place of XLA's default",
    "ours-ynnpack": "ours, XLA's default matrix products",
    "ours-leaves": "ours, leaf by leaf",
    "ours-flat": "ours, small leaves as one vector",
    "ours-single": "ours, one run",
    "ours-one-device": "ours, on one device",
    "ours-stepwise": "ours, a jitted call for each step",
    "ours-without": "ours without dropout",
    "ours-validation": "ours, with validation and early stopping too",
    "ours-run": "the compiled run alone",
    "ours-jitted": "the model's forward pass, jitted, without checks",
    "ours-1-lane": "ours, 1 lane",
    "ours-4-blocks": "ours, 4 blocks",
    "ours-10-epochs": "ours, 10 epochs",
    "ours-float32": "ours, moments in float32",
    "machine": "the machine's rates",
}

Results = dict[str, dict[str, Any]]


def results(kind: str = "cases") -> dict[str, Results]:
    """The committed results, by the name of their file: of the cases, or of the ``"scaling"`` curves."""
    found: dict[str, Results] = {}
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        measured = json.loads(path.read_text())
        if "cases" in measured and path.stem.endswith("-scaling") == (kind == "scaling"):
            found[path.stem] = measured["cases"]
    return found


def layer_results() -> dict[str, Any] | None:
    """The committed results of :mod:`benchmarks.layers`."""
    path = ROOT / "benchmarks" / "results" / "cpu-layers.json"
    return json.loads(path.read_text()) if path.is_file() else None


def short_table(files: dict[str, Results]) -> str:
    """A Markdown table of what has a goal: each case, each peer, how many times faster ours is, and the goal."""
    lines = ["| work | beside | ours is faster by | goal |", "|---|---|--:|--:|"]
    for measured in files.values():
        for name, case in (CASES | ACCELERATOR).items():
            if name in measured:
                lines += _goals(name, case, measured[name])
    return "\n".join([*lines, "", *map(about, files.values()), ""])


def about(measured: Results) -> str:
    """On what, when and how often a file's results were measured."""
    machines = {
        f"{result['machine']['processor']}, {result['machine']['cores']} cores"
        + (f", {result['machine']['backend']}" if result["machine"]["backend"] != "cpu" else "")
        for result in measured.values()
    }
    dates, rounds = ({result[key] for result in measured.values()} for key in ("date", "rounds"))
    when = " to ".join(sorted({min(dates), max(dates)}))
    return f"Median and range of {min(rounds)} or more rounds in turn, on {'; '.join(sorted(machines))}, {when}."


def insert(text: str, markdown: str) -> str:
    """``text`` with ``markdown`` between the two marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{markdown}\n{END}{after}"


def ratio(side: dict[str, float]) -> str:
    """How many times faster ours is than a side, with the least and the largest of the rounds."""
    if "ours_faster" not in side:
        return ""
    return f"{side['ours_faster']:.2f}x ({side['ours_faster_min']:.2f} to {side['ours_faster_max']:.2f})"


def number(value: float) -> str:
    """A rate to read: three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def missing(side: str, result: dict[str, Any]) -> str:
    """Why a side has no figures."""
    return next((why for why in ("absent", "failed") if side in result[why]), "not measured")


def _goals(name: str, case: Case, result: dict[str, Any]) -> list[str]:
    ours = result["sides"].get("ours")
    rows: list[tuple[str, str, str]] = []
    for peer, goal in case.goals.items():
        if goal is None:
            continue
        side = result["sides"].get(peer)
        found = ratio(side) if side else missing(peer, result)
        rows.append((PEERS[peer], found, f"{goal:g}x"))
    if ours and case.compile_goal is not None:
        rows.append(("seconds to compile", f"{ours['compile_seconds']:.1f} s", f"{case.compile_goal:g} s"))
    for key, goal, what in (
        ("of_matmul_rate", case.matmul_goal, "the machine's matrix products"),
        ("of_copy_rate", case.copy_goal, "the machine's copies"),
    ):
        if ours and goal is not None and key in ours:
            rows.append((what, f"{ours[key]:.0%} of their rate", f"{goal:.0%}"))
    speed = missing("ours", result)
    if ours and isinstance(case.work, Compiling):
        speed = f"{ours['compile_seconds']:.1f} s"
    elif ours:
        speed = f"{number(ours['per_second'])} {result['unit']}/s"
    titles = [f"**{name}.** {result['title']}: **{speed}**", *[""] * len(rows)]
    return [f"| {title} | {' | '.join(row)} |" for title, row in zip(titles, rows, strict=False)]


def main() -> None:
    from benchmarks import check_tables
    from benchmarks.pages import page  # it needs what is here

    for path, markdown in (
        (ROOT / "README.md", short_table(results())),
        (ROOT / "docs" / "gradient_checking.md", check_tables.tables()),
    ):
        path.write_text(insert(path.read_text(), markdown))
    (ROOT / "docs" / "benchmarks.md").write_text(page(results(), results("scaling"), layer_results()))


if __name__ == "__main__":
    main()
