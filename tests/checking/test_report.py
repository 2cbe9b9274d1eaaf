"""The report: a table to read, a dictionary to keep, an assertion to fail."""

import json
import math

import pytest

from jaxopt_nn.checking import Coordinate, GradientReport, LeafReport
from jaxopt_nn.checking._report import overall_verdict

LEAF = LeafReport(
    path="dense_0/kernel",
    shape=(3, 2),
    size=6,
    dtype="float32",
    verdict="PASS",
    hypothesis="",
    claimed_norm=2.0,
    numeric_norm=2.0,
    relative_error=1e-10,
    relative_sigma=2e-10,
    miss_bound=3e-9,
    step=1e-4,
    directions=8,
    kinks=0,
    worst=(),
    dtype_error=1e-7,
)
BAD = LEAF._replace(
    path="dense_1/bias",
    shape=(),
    verdict="FAIL",
    hypothesis="claimed/numeric is constant: ratio 2.0000",
    miss_bound=math.inf,
    dtype_error=None,
    worst=(Coordinate((), 2.0, 1.0, 1e-9),),
)


def report(*leaves: LeafReport) -> GradientReport:
    return GradientReport(
        overall_verdict([leaf.verdict for leaf in leaves]), leaves, ("step (int32)",), (), 0.5, 26, 1e-3
    )


def test_the_table_is_aligned_and_says_what_is_wrong_under_the_leaf():
    text = str(report(LEAF, BAD))
    assert text == repr(report(LEAF, BAD))
    assert text.splitlines() == [
        "gradient check: FAIL (1 FAIL, 1 PASS); f = 0.5, 26 evaluations in float64",
        "  leaf            shape   verdict  |claimed|  rel. error  ± sigma  miss bound  own dtype",
        "  dense_0/kernel  3x2     PASS       2.0e+00     1.0e-10  2.0e-10     3.0e-09    1.0e-07",
        "  dense_1/bias    scalar  FAIL       2.0e+00     1.0e-10  2.0e-10           -          -",
        "      claimed/numeric is constant: ratio 2.0000",
        "skipped: step (int32)",
    ]


@pytest.mark.parametrize(
    ("verdict", "ok"),
    [
        ("PASS", True),
        ("KINK_OK", True),
        ("DEAD", True),
        ("FAIL", False),
        ("INCONCLUSIVE", False),
        ("NONDETERMINISTIC", False),
    ],
)
def test_ok_and_assert_ok(verdict, ok):
    one = report(LEAF._replace(verdict=verdict))
    assert one.ok is ok
    if ok:
        one.assert_ok()
    else:
        with pytest.raises(AssertionError, match=f"gradient check: {verdict}"):
            one.assert_ok()


def test_lines_fit_and_the_worse_verdict_is_first():
    long = LEAF._replace(path="/".join(["encoder_block"] * 9), hypothesis="word " * 60, dtype_verdict="FAIL")
    text = str(report(long)._replace(verdict="FAIL", notes=("word " * 60,), skipped=("word",) * 60))
    assert text.splitlines()[0] == "gradient check: FAIL (1 FAIL in float32); f = 0.5, 26 evaluations in float64"
    assert max(map(len, text.splitlines())) <= 120 and "…" in text
    second = report(BAD)
    assert "(1 PASS; second order FAIL)" in str(report(LEAF)._replace(verdict="FAIL", second=second))


def test_the_gravest_leaf_decides():
    assert overall_verdict(["PASS", "KINK_OK", "DEAD"]) == "KINK_OK"
    assert overall_verdict(["KINK_OK", "INCONCLUSIVE"]) == "INCONCLUSIVE"
    assert overall_verdict(["INCONCLUSIVE", "FAIL"]) == "FAIL"
    assert overall_verdict(["DEAD", "DEAD"]) == "DEAD"


def test_the_dictionary_survives_strict_json():
    data = json.loads(json.dumps(report(LEAF, BAD).to_dict(), allow_nan=False))
    assert (data["verdict"], data["ok"], data["skipped"]) == ("FAIL", False, ["step (int32)"])
    assert data["leaves"][0]["shape"] == [3, 2]
    assert data["leaves"][1]["miss_bound"] is None
    assert data["leaves"][1]["worst"] == [{"place": [], "claimed": 2.0, "numeric": 1.0, "sigma": 1e-9}]


def test_a_report_is_true_where_it_is_ok():
    bad = report(BAD)
    assert report(LEAF) and not bad and report(LEAF).leaves[0] and not bad.leaves[0]
    with pytest.raises(AssertionError, match="gradient check: FAIL"):
        assert bad, bad
    assert not report(LEAF._replace(dtype_verdict="FAIL"))
