"""``python -m benchmarks.tables``: writes the README's table and ``docs/benchmarks.md`` from the committed results."""

from typing import Any

from benchmarks.cases import CASES
from benchmarks.figures import PEERS, ROOT, Results, about, layer_results, missing, number, ratio, results
from benchmarks.pages import page

__all__ = ["insert", "short_table"]

BEGIN = "<!-- benchmarks: written by python -m benchmarks.tables -->\n"
END = "<!-- end of benchmarks -->\n"
SHOWN = {
    "1": ("training a small network (64-64-32-10) on the digits, batches of 32", "{} steps a second"),
    "3": ("64 such runs as lanes of one program", "{} steps a second"),
    "10": ("checking the gradient of a network with 99,530 parameters", "{} checks a second"),
}
"""The cases in the README, in words for those who see them for the first time."""


def short_table(files: dict[str, Results]) -> str:
    """The README's table, in Markdown: a row for each case in it, ours beside every other library."""
    lines = ["| work | ours | times as fast as |", "|---|---|---|"]
    for measured in files.values():
        lines += [_row(name, measured[name]) for name in SHOWN if name in measured]
    return "\n".join([*lines, "", *map(about, files.values()), ""])


def insert(text: str, markdown: str) -> str:
    """``text`` with ``markdown`` between the two marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{markdown}\n{END}{after}"


def _row(name: str, result: dict[str, Any]) -> str:
    work, speed = SHOWN[name]
    sides, peers = result["sides"], [peer for peer in CASES[name].goals if not peer.startswith("ours")]
    ours = speed.format(number(sides["ours"]["per_second"])) if "ours" in sides else missing("ours", result)
    found = [f"{PEERS[peer]}: {ratio(sides[peer]) if peer in sides else missing(peer, result)}" for peer in peers]
    return f"| {work} | {ours} | {'<br>'.join(found)} |"


def main() -> None:
    readme = ROOT / "README.md"
    readme.write_text(insert(readme.read_text(), short_table(results())))
    (ROOT / "docs" / "benchmarks.md").write_text(page(results(), results("scaling"), layer_results()))


if __name__ == "__main__":
    main()
