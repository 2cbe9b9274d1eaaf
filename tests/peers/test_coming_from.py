"""The tables of "coming from another library": the lines of Keras and of PyTorch run, with these libraries."""

import re
import warnings
from pathlib import Path

import jax
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "coming_from.md"


@pytest.mark.parametrize("library, module", [("Keras", "keras"), ("PyTorch", "torch")])
def test_the_lines_of_the_tables(library, module, tmp_path, monkeypatch):
    peer = pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    (table,) = re.findall(rf"^\| {library} \| here \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ours, theirs = {}, {}
    for names in (ours, theirs):
        exec(block, names)
    theirs |= {module: peer, "labels": ours["y_train"][:1], "logits": ours["np"].asarray(ours["logits"])}
    for row in table.splitlines():
        left, right = re.findall(r"`([^`]+)`", row)
        with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():  # Keras on JAX needs both
            warnings.simplefilter("ignore")
            exec(left, theirs)
        exec(right, ours)
