"""The studies of the gradient checker: the guide shows their results, and what was a false alarm once is none."""

import jax
import pytest

from studies import correct_nets, tables
from studies.gradient_checking import check_case


def test_the_tables_of_the_guide():
    text = tables.PAGE.read_text()
    assert tables.insert(text) == text


@pytest.mark.slow
@pytest.mark.parametrize("seed, number", [(50233, 5), (60091, 19), (70124, 11)])
def test_what_was_a_false_alarm_once(seed, number):
    """Of random correct nets that the checker failed: round-off beside a slope that cancels, and kinks that meet."""
    structure = correct_nets.structure(seed)
    with jax.enable_x64(structure.dtype == "float64"):
        point, _ = correct_nets.draw(structure, seed, number)
        report = check_case(jax.jit(correct_nets.loss_of(structure)), structure, point, 20 * seed + number)
    for one in (report, report.second):
        assert one is None or one.verdict in ("PASS", "KINK_OK", "DEAD", "INCONCLUSIVE"), report
