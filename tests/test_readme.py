"""The README's examples run as they stand and print what it shows; its table says what the results say."""

import re
from pathlib import Path

import pytest

from benchmarks import figures, tables

README = Path(__file__).parent.parent / "README.md"


def _numbers(text):
    return [float(number) for number in re.findall(r"([\d.]+)%", text)]


@pytest.mark.slow
def test_the_examples(capsys):
    blocks = re.findall(r"```python\n(.*?)```\n.*?\n```\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for example, shown in blocks:
        exec(example, names)
        printed = capsys.readouterr().out
        assert re.sub(r"[\d.]+%", "%", printed) == re.sub(r"[\d.]+%", "%", shown)
        # A percent is a digit or two of the test set: the last bits of a run depend on the machine.
        assert _numbers(printed) == pytest.approx(_numbers(shown), abs=3.0)


def test_the_table_of_benchmarks():
    text = README.read_text()
    assert tables.insert(text, tables.short_table(figures.results())) == text
