"""``python -m benchmarks.tables``: writes the README's table from the results that are committed."""

import json
from pathlib import Path
from typing import Any

from benchmarks.work import CASES

__all__ = ["insert", "results", "table"]

ROOT = Path(__file__).parents[1]
BEGIN = "<!-- benchmarks: written by python -m benchmarks.tables -->\n"
END = "<!-- end of benchmarks -->\n"
PEERS = {
    "torch": "torch, eager, fused Adam",
    "torch-compile": "torch.compile",
    "keras-jax": "Keras on JAX",
    "keras-jax-16": "Keras on JAX, 16 steps per execution",
    "equinox": "equinox and optax, a jitted step",
    "optax": "optax, jitted",
    "optax-loop": "optax, all updates in one compiled loop",
    "ours-loop": "ours, all updates in one compiled loop",
    "sklearn": "scikit-learn",
    "sklearn-2": "scikit-learn, two processes",
    "jax-plain": "flax and optax in a scan, native convolution",
    "ours-single": "ours, one run",
    "ours-stepwise": "ours, a jitted call for each step",
    "ours-without": "ours without dropout",
}


def results() -> list[dict[str, Any]]:
    """The committed results that compare sides, by file name."""
    found = [json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))]
    return [run for run in found if "cases" in run]


def table(runs: list[dict[str, Any]]) -> str:
    """A Markdown table: each case, each peer, how many times faster ours is, and the goal."""
    lines = [
        "| work | peer | theirs, a second | ours is faster by | goal |",
        "|---|---|--:|--:|--:|",
    ]
    for run in runs:
        for name, case in run["cases"].items():
            ours = case["sides"]["ours"]
            lines.append(
                f"| **{name}.** {case['title']}: **{ours['per_second']:,.5g} {case['unit']}/s**, "
                f"{_outcome(ours)}compiled in {ours['compile_seconds']:.1f} s | | | | |"
            )
            for peer, goal in CASES[name].goals.items():
                lines.append(_row(peer, case, goal))
    machines = sorted(
        {f"{run['machine']['processor']}, {run['machine']['cores']} cores, {run['date']}" for run in runs}
    )
    return "\n".join(
        [*lines, "", f"Median and range of {runs[0]['rounds']} or more rounds. Measured on {'; '.join(machines)}.", ""]
    )


def insert(text: str, markdown: str) -> str:
    """``text`` with ``markdown`` between the two marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{markdown}\n{END}{after}"


def _outcome(side: dict[str, Any]) -> str:
    return f"accuracy {side['accuracy']:.1%}, " if "accuracy" in side else ""


def _row(peer: str, case: dict[str, Any], goal: float | None) -> str:
    wanted = "" if goal is None else f"{goal:g}x"
    if peer not in case["sides"]:
        return f"| | {PEERS[peer]} | absent | | {wanted} |"
    side = case["sides"][peer]
    ratio = f"{side['ours_faster']:.2f}x ({side['ours_faster_min']:.2f} to {side['ours_faster_max']:.2f})"
    return f"| | {PEERS[peer]} | {side['per_second']:,.5g} | {ratio} | {wanted} |"


def main() -> None:
    readme = ROOT / "README.md"
    readme.write_text(insert(readme.read_text(), table(results())))


if __name__ == "__main__":
    main()
