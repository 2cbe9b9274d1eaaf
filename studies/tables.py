"""``python -m studies.tables``: writes the tables of ``docs/gradient_checking.md`` from the committed results."""

import json
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "insert", "tables"]

PAGE = Path(__file__).parents[1] / "docs" / "gradient_checking.md"
RESULTS = Path(__file__).parent / "results" / "gradient-checking.json"
BEGIN = "<!-- tables: written by python -m studies.tables -->\n"
END = "<!-- end of tables -->\n"
CHECKERS = {
    "ours": "ours",
    "check_grads": "`check_grads`",
    "check_grads x64": "in float64",
    "check_grads tight": "in float64, tight",
    "torch slow": "torch, slow",
    "torch fast": "torch, fast",
}
ROUND_OFF = "E[x²]-E[x]² in float32"  # a bug in float32, and hardly one in float64


def tables() -> str:
    """Of each bug how many wrong gradients passed each checker; then nets, then random correct cases."""
    found = json.loads(RESULTS.read_text())
    hard = [_hard(found["hard"])] if "hard" in found else []
    return "\n\n".join([_bugs(found["bugs"]), _nets(found["nets"]), *hard, _correct(found["correct"])])


def _bugs(bugs: dict[str, Any]) -> str:
    lines = [f"| bug | {' | '.join(CHECKERS.values())} |", f"|---{'|--:' * len(CHECKERS)}|"]
    for name, row in bugs.items():
        lines.append(f"| {name} | {' | '.join(_share([row], 'bug', 'passed', checker) for checker in CHECKERS)} |")
    others = [row for name, row in bugs.items() if name != ROUND_OFF]
    for title, rows, who, what in (
        ("**all but the one in float32 alone**", others, "bug", "passed"),
        ("correct twins that fail", list(bugs.values()), "twin", "failed"),
        ("neither: another exception", list(bugs.values()), "bug", "errors"),
    ):
        lines.append(f"| {title} | {' | '.join(_share(rows, who, what, checker) for checker in CHECKERS)} |")
    caught = sum(row["bug runs"] - row["bug passed: ours"] for row in bugs.values())
    leaf, cause = (sum(row[f"right {what}"] for row in bugs.values()) for what in ("leaf", "hypothesis"))
    spent = [row["twin evaluations: ours"] / row["twin runs"] for row in bugs.values()]
    first, last = next(iter(bugs.values()))["seeds"]
    sizes = " and ".join(str(size) for size in next(iter(bugs.values()))["sizes"])
    return "\n".join(lines) + (
        f"\n\nLeaves of {sizes} numbers; ours on seeds {first} to {last}, the others on the first. Of {caught:,} bugs "
        f"that ours caught it named the right leaf in {leaf:,} and the right cause in {cause:,}. A correct twin took "
        f"{min(spent):.0f} to {max(spent):.0f} evaluations of f on average."
    )


def _share(rows: list[dict[str, Any]], who: str, what: str, checker: str) -> str:
    runs = f"{who} runs" if checker == "ours" else f"{who} runs: {checker}"
    total = sum(row.get(runs, 0) for row in rows)
    passed, errors = (sum(row.get(f"{who} {key}: {checker}", 0) for row in rows) for key in ("passed", "errors"))
    return f"{ {'passed': passed, 'errors': errors, 'failed': total - passed - errors}[what] }/{total}" if total else ""


def _nets(nets: dict[str, Any]) -> str:
    head = ("backpropagation by hand", "wrong ones that pass", "exactly the wrong leaves named", "right ones that fail")
    lines = [f"| {' | '.join(head)} |", "|---|--:|--:|--:|"]
    for name in ("ours", "ours, differences alone"):
        row = nets[name]
        right = row["right runs"] - row["right passed"]
        lines.append(
            f"| {name} | {row['bug passed']}/{row['bug runs']} | {row['bug right leaves']}/{row['bug runs']} "
            f"| {right}/{row['right runs']} |"
        )
    return "\n".join(lines)


def _hard(hard: dict[str, Any]) -> str:
    head = ("where differences have a hard time", "wrong ones that pass", "right ones that fail", "INCONCLUSIVE")
    lines = [f"| {' | '.join(head)} |", "|---|--:|--:|--:|"]
    for family, found in hard["families"].items():
        for name, note in (("ours", ""), ("ours, differences alone", ", differences alone")):
            row = found[name]
            passed = sum(row.get(f"bug {verdict}", 0) for verdict in ("PASS", "KINK_OK", "DEAD"))
            shares = [f"{row.get(f'right {verdict}', 0)}/{row['right runs']}" for verdict in ("FAIL", "INCONCLUSIVE")]
            lines.append(f"| {family}{note} | {passed}/{row['bug runs']} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _correct(correct: dict[str, Any]) -> str:
    lines = [f"| {correct['cases']:,} random correct cases of {correct['structures']} structures | |", "|---|--:|"]
    reports = correct["reports"]
    for title, key in (
        ("ok", "ok"),
        ("INCONCLUSIVE", "inconclusive"),
        ("ok in float64, more than half of the digits lost in their own dtype", "digits lost"),
        ("false alarms", "false alarm"),
    ):
        lines.append(f"| {title} | {reports.get(key, 0):,} |")
    return "\n".join(lines)


def insert(text: str) -> str:
    """The page's text with the tables of the results between its two marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(insert(PAGE.read_text()))
