"""What a gradient check found: one :class:`LeafReport` per leaf, and the :class:`GradientReport` around them.

Verdicts. ``PASS``: an error larger than the stated miss bound would have been seen. ``KINK_OK``: f has a kink at the
point, and the claimed slopes lie between the one-sided ones. ``DEAD``: claimed and numeric gradient are both zero.
``FAIL``: they differ by more than the error bar explains. ``BLOCKED``: they differ, and agree once the outputs of every
``stop_gradient`` in f are constants (pass ``stop_gradient="constant"`` if that is meant). ``INCONCLUSIVE``: the error
bar is too wide to tell. ``NONDETERMINISTIC``: two calls disagree, so there is no function to differentiate. The first
three are ``ok``.
"""

import math
import textwrap
from typing import Any, Literal, NamedTuple, cast

__all__ = ["Coordinate", "Curve", "DtypeVerdict", "GradientReport", "LeafReport", "Verdict", "overall_verdict"]

Verdict = Literal["PASS", "KINK_OK", "DEAD", "BLOCKED", "FAIL", "INCONCLUSIVE", "NONDETERMINISTIC"]


class Coordinate(NamedTuple):
    """One number of a leaf at which claimed and numeric slope differ.

    Attributes:
        place: its indices in the leaf, one per axis.
        claimed: the claimed partial derivative there.
        numeric: the one from differences (at a kink: the nearest one-sided slope).
        sigma: the error bar of ``numeric``.
    """

    place: tuple[int, ...]
    claimed: float
    numeric: float
    sigma: float


DtypeVerdict = Literal["PASS", "FAIL"]


class Curve(NamedTuple):
    """Error of plain differences against step size: what ``report.plot()`` draws.

    Attributes:
        steps: the steps, in the unit of the leaf.
        two_sided: the median over the random lines of the two-sided difference minus the claimed slope, relative.
        one_sided: the same of the forward difference.
        crossed: the share of the lines along which f takes another branch at this step than at the point.
    """

    steps: tuple[float, ...]
    two_sided: tuple[float, ...]
    one_sided: tuple[float, ...]
    crossed: tuple[float, ...]


class LeafReport(NamedTuple):
    """The evidence about one leaf.

    Norms are Euclidean. "Relative" means divided by the larger of claimed and numeric norm; NaN for a DEAD leaf. If a
    leaf passed together with others, ``relative_error``, ``relative_sigma`` and ``curve`` are those of all of them
    together, and ``numeric_norm`` is not known.

    Attributes:
        path: its path in the differentiated arguments, as ``trees.named_leaves`` spells it.
        shape: its shape.
        size: its number of elements.
        dtype: its dtype as the caller passed it (all slopes here are in float64).
        verdict: see the module.
        hypothesis: what is wrong, or why nothing can be said; empty for a plain pass.
        claimed_norm: norm of the claimed gradient, in float64.
        numeric_norm: norm of the numeric gradient, estimated from random directions in this leaf. NaN if the leaf
            passed together with others (then it is ``claimed_norm`` within ``miss_bound``), or if its numbers have
            units of their own.
        relative_error: relative norm of claimed minus numeric, estimated from the random directions.
        relative_sigma: error bar of ``relative_error``.
        miss_bound: an error of a larger relative norm escapes with at most the report's ``miss_probability``.
        step: the step of the differences that were used, in the unit of the leaf.
        directions: how many directions were compared.
        kinks: on how many of them f has a kink at the point, or too close by to tell.
        worst: the worst coordinates, worst first; empty unless the verdict is FAIL.
        dtype_error: norm of the claimed gradient in the caller's dtype minus the one in float64, divided by the norm of
            the latter. None where the two dtypes are the same or f draws random numbers (which depend on the dtype).
        dtype_verdict: FAIL where that error is above the root of the dtype's unit of rounding, and far above what
            rounding the arguments does; None where there was nothing to compare.
        rule_error: relative norm of the claimed gradient minus the one by rule-stripped AD; None if there is no such
            gradient, or if it is the claim itself.
        curve: the error of plain differences against the step.
    """

    path: str
    shape: tuple[int, ...]
    size: int
    dtype: str
    verdict: Verdict
    hypothesis: str
    claimed_norm: float
    numeric_norm: float
    relative_error: float
    relative_sigma: float
    miss_bound: float
    step: float
    directions: int
    kinks: int
    worst: tuple[Coordinate, ...]
    dtype_error: float | None
    dtype_verdict: DtypeVerdict | None = None
    rule_error: float | None = None
    curve: Curve | None = None

    @property
    def ok(self) -> bool:
        """Whether this leaf's gradient can be relied on at this point, in float64 and in its own dtype."""
        return _ORDER.index(self.verdict) < _ORDER.index("INCONCLUSIVE") and self.dtype_verdict != "FAIL"

    def __bool__(self) -> bool:
        """As :attr:`ok`."""
        return self.ok


class GradientReport(NamedTuple):
    """The outcome of ``check_gradients``; printing it prints the table.

    Attributes:
        verdict: the gravest verdict of a leaf, of its gradient in its own dtype too, and of the second order.
        leaves: one report per float leaf, in tree order.
        skipped: leaves that were not differentiated, with the reason.
        notes: what concerns all leaves.
        value: f at the point in float64; for an array output its product with a random cotangent.
        evaluations: how often f was evaluated for the differences.
        miss_probability: the probability that ``miss_bound`` is exceeded unseen.
        second: of ``order=2``, the report on products of the Hessian with a random vector; else None.
    """

    verdict: Verdict
    leaves: tuple[LeafReport, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    value: float
    evaluations: int
    miss_probability: float
    second: "GradientReport | None" = None

    @property
    def dtype_verdict(self) -> DtypeVerdict | None:
        """The verdict on the gradient in the caller's own dtype: FAIL if a leaf fails, None if none was compared."""
        verdicts = {leaf.dtype_verdict for leaf in self.leaves}
        return "FAIL" if "FAIL" in verdicts else "PASS" if "PASS" in verdicts else None

    @property
    def ok(self) -> bool:
        """Whether the gradient can be relied on at this point.

        PASS, KINK_OK or DEAD, of the second order too where it was asked for, and no FAIL in the caller's own dtype.
        """
        first = _ORDER.index(self.verdict) < _ORDER.index("INCONCLUSIVE") and self.dtype_verdict != "FAIL"
        return first and (self.second is None or self.second.ok)

    def __bool__(self) -> bool:
        """As :attr:`ok`, so that ``assert check_gradients(...)`` means what it says."""
        return self.ok

    def assert_ok(self) -> None:
        """Raises ``AssertionError`` with the table unless :attr:`ok`."""
        __tracebackhide__ = True
        if not self.ok:
            raise AssertionError(str(self))

    def plot(self) -> Any:
        """Error against step size, one panel a leaf: what the steps of the differences showed (needs matplotlib).

        The two-sided difference falls with h², the one-sided one with h, until round-off makes both rise again. The
        dashed line is the step that was chosen, a red band the steps at which f takes another branch along a line.
        """
        from jaxopt_nn.checking._plot import draw

        return draw(self.verdict, self.leaves)

    def to_dict(self) -> dict[str, Any]:
        """The report as dictionaries, lists, strings and numbers, ready for ``json.dumps``; NaN and inf become None."""
        return {**_plain(self._asdict()), "ok": self.ok}

    def __str__(self) -> str:
        """The table."""
        kinds = [_verdict(leaf) for leaf in self.leaves]
        order = sorted(dict.fromkeys(kinds), key=lambda kind: -_ORDER.index(cast(Verdict, kind.split(" ")[0])))
        summary = ", ".join(f"{kinds.count(kind)} {kind}" for kind in order)
        if self.second is not None:
            summary += f"; second order {self.second.verdict}"
        effort = f"f = {self.value:.6g}, {self.evaluations} evaluations in float64"
        lines = [f"gradient check: {self.verdict} ({summary}); {effort}"]
        header = ("leaf", "shape", "verdict", "|claimed|", "rel. error", "± sigma", "miss bound", "own dtype")
        rows = [header, *(_row(leaf) for leaf in self.leaves)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        for position, row in enumerate(rows):
            cells = [
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  " + "  ".join(cells).rstrip())
            if position and (hypothesis := self.leaves[position - 1].hypothesis):
                lines += _wrapped(hypothesis, "      ")
            if position and self.leaves[position - 1].dtype_verdict == "FAIL":
                lines.append(f"      in {self.leaves[position - 1].dtype} more than half of the digits are lost")
        if self.skipped:
            lines += _wrapped("skipped: " + ", ".join(self.skipped))
        for note in self.notes:
            lines += _wrapped(f"note: {note}")
        if self.second is not None:
            lines.append("second order: " + str(self.second))
        return "\n".join(lines)

    def __repr__(self) -> str:
        """The table."""
        return str(self)


def overall_verdict(verdicts: list[Verdict]) -> Verdict:
    """The gravest of the leaves' verdicts; DEAD only if every leaf is dead.

    >>> overall_verdict(["PASS", "DEAD", "FAIL"]), overall_verdict(["PASS", "DEAD"]), overall_verdict(["DEAD"])
    ('FAIL', 'PASS', 'DEAD')
    """
    return max(verdicts, key=_ORDER.index)


_COLUMNS = 120  # of the longest line
_PATH = 32  # of the longest path in the table
_ORDER: tuple[Verdict, ...] = (
    "DEAD",
    "PASS",
    "KINK_OK",
    "INCONCLUSIVE",
    "BLOCKED",
    "FAIL",
    "NONDETERMINISTIC",
)


def _row(leaf: LeafReport) -> tuple[str, ...]:
    # What escapes a check that found something is of no interest.
    bound = leaf.miss_bound if leaf.verdict in ("PASS", "KINK_OK", "INCONCLUSIVE") else None
    numbers = (leaf.claimed_norm, leaf.relative_error, leaf.relative_sigma, bound, leaf.dtype_error)
    path = leaf.path if len(leaf.path) <= _PATH else "…" + leaf.path[1 - _PATH :]
    shape = "x".join(str(length) for length in leaf.shape) or "scalar"
    return (path, shape, _verdict(leaf), *(_short(number) for number in numbers))


def _verdict(leaf: LeafReport) -> str:
    """The worse one of the leaf's two verdicts."""
    fails_in_dtype = leaf.dtype_verdict == "FAIL" and leaf.verdict in ("PASS", "KINK_OK", "DEAD")
    return f"FAIL in {leaf.dtype}" if fails_in_dtype else leaf.verdict


def _wrapped(text: str, indent: str = "") -> list[str]:
    lines = textwrap.TextWrapper(_COLUMNS, indent, indent + "  ", break_long_words=False, break_on_hyphens=False)
    return lines.wrap(text)


def _short(number: float | None) -> str:
    return "-" if number is None or math.isnan(number) else f"{number:.1e}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, GradientReport):
        return value.to_dict()
    if isinstance(value, (LeafReport, Coordinate, Curve)):
        return _plain(value._asdict())
    if isinstance(value, tuple):
        return [_plain(item) for item in cast(tuple[Any, ...], value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
