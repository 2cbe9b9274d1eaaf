"""The benchmarks' own machinery, with sides that are a line of Python: nothing is measured here."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from benchmarks import figures, pages, plots, smoke, tables
from benchmarks.__main__ import keep
from benchmarks.cases import ACCELERATOR, CASES, quick
from benchmarks.measure import measure
from benchmarks.points import CURVES, POINTS
from benchmarks.roofline import count, shares
from benchmarks.work import Case, LargeUpdate, Training, Update
from jaxopt_nn import losses, optimizers, training
from jaxopt_nn.types import Batch

ROOT = Path(__file__).parent.parent
ROW = "'per_second': {speed}, 'accuracy': 0.5, 'compile_seconds': 0.1, 'peak_memory_mib': 1.0"
WORKER = """
import json, sys
print(json.dumps({{{first}}}), flush=True)
for turn, _ in enumerate(sys.stdin):
    {then}
    print(json.dumps({{{row}}}), flush=True)
"""


def scripted(**sides):
    """A command for each side: a worker that says ``first``, then runs ``then`` and answers in each round."""

    def command(side):
        speed, first, then = sides[side]
        row = ROW.format(speed=speed)
        return [sys.executable, "-S", "-c", WORKER.format(first=first, then=then, row=row)]

    return command


READY = "'ready': True"


def case(*peers):
    return Case("a case", "steps", Training("made", (4, 3, 2), 8, 1, 1e-3), dict.fromkeys(peers, 2.0))


def test_a_median_of_rounds_and_ratios():
    result = measure("x", case("peer"), 3, scripted(ours=("10 + turn", READY, ""), peer=("5", READY, "")))
    assert (result["rounds"], result["absent"], result["failed"]) == (3, {}, {})
    assert result["sides"]["ours"]["per_second"] == 11 and result["sides"]["peer"]["per_second"] == 5
    row = result["sides"]["peer"]
    assert (row["ours_faster"], row["ours_faster_min"], row["ours_faster_max"]) == (2.2, 2.0, 2.4)


def test_who_is_absent_or_crashes_is_a_row_and_the_others_go_on():
    sides = {
        "ours": ("10", READY, ""),
        "peer": ("5", READY, ""),
        "gone": ("1", "'absent': 'No module named gone'", ""),
        "wrong": ("1", READY + ", **1", ""),
        "later": ("1", READY, "if turn: raise ValueError('too much')"),
        "killed": ("1", READY, "import os; os.kill(os.getpid(), 9)"),
    }
    names = [name for name in sides if name != "ours"]
    result = measure("x", case(*names), 3, scripted(**sides))
    assert list(result["sides"]) == ["ours", "peer"] and result["rounds"] == 3
    assert result["absent"] == {"gone": "No module named gone"}
    failed = result["failed"]
    assert failed["wrong"].startswith("exit code 1 TypeError") and failed["later"] == "exit code 1 ValueError: too much"
    assert failed["killed"] == "exit code -9"


def test_who_hangs_has_failed():
    sleeping = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    result = measure("x", case(), 3, lambda side: sleeping, patience=0.2)
    assert result["failed"] == {"ours": "no answer in 0.2 s"} and result["sides"] == {}


def test_ours_may_fail_too():
    result = measure("x", case("peer"), 2, scripted(ours=("10", READY, "1 / 0"), peer=("5", READY, "")))
    assert result["failed"] == {"ours": "exit code 1 ZeroDivisionError: division by zero"}
    assert "ours_faster" not in result["sides"]["peer"] and result["sides"]["peer"]["per_second"] == 5


def test_an_interruption_keeps_the_rounds_that_there_are(monkeypatch):
    asked = []

    def interrupted(worker):
        asked.append(worker)
        if len(asked) == 6:  # in the third round, with ours done and the peer not
            raise KeyboardInterrupt
        return original(worker)

    kind = measure.__globals__["_Worker"]
    original = kind.round
    monkeypatch.setattr(kind, "round", interrupted)
    result = measure("x", case("peer"), 9, scripted(ours=("10 + turn", READY, ""), peer=("5", READY, "")))
    assert result["interrupted"] and result["rounds"] == 2
    assert result["sides"]["peer"]["ours_faster"] == 2.1


def test_after_an_interrupted_answer_nothing_is_waited_for(monkeypatch):
    timers = []
    kind = threading.Timer
    monkeypatch.setattr(threading, "Timer", lambda *args: timers.append(kind(*args)) or timers[-1])

    def interrupted(*args):
        raise KeyboardInterrupt

    process = SimpleNamespace(stdout=SimpleNamespace(readline=interrupted))
    worker = SimpleNamespace(_process=process, _patience=600.0, _kill=lambda: None)
    with pytest.raises(KeyboardInterrupt):
        measure.__globals__["_Worker"].read(worker)
    timers[0].join(5.0)
    assert not timers[0].is_alive()


def test_results_gather_in_a_file(tmp_path):
    path = tmp_path / "new" / "cpu.json"
    for name, value in (("1", 1), ("2", 2), ("1", 3)):
        keep(path, name, {"value": value})
    assert json.loads(path.read_text()) == {"cases": {"1": {"value": 3}, "2": {"value": 2}}}
    assert [file.name for file in path.parent.iterdir()] == ["cpu.json"]


def test_a_worker_says_who_is_absent_and_what_is_printed_is_no_answer(tmp_path):
    for name, text in (("torch", "raise ImportError('no torch here')"), ("sklearn", "print('noise')\nraise OSError")):
        (tmp_path / f"{name}.py").write_text(text)

    def ask(side):
        command = [sys.executable, "-m", "benchmarks.worker", "1", side]
        path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
        return subprocess.run(command, cwd=ROOT, env=path, input="", capture_output=True, text=True)

    assert json.loads(ask("torch").stdout) == {"absent": "no torch here"}
    assert ask("sklearn").stdout == ""


def test_quick_runs_each_side_once_and_libraries_apart():
    groups = smoke.families({name: CASES[name] for name in ("1", "2", "2-eigen", "8-run")})
    sides = [side for group in groups for side in group]
    assert len(sides) == len(set(sides)) and "1 ours" in sides
    assert "1 torch-one-core" not in sides and "1 ours-one-core" not in sides  # the same side, quickly
    for group in groups:
        assert len({name.split(" ")[1].split("-")[0] for name in group} & {"ours", "torch", "keras", "sklearn"}) <= 1


def test_quick_says_in_one_line_what_ran_was_absent_and_failed():
    lines = [["1 ours", "ran", ""], ["1 torch", "absent", "No module named 'torch'"]]
    script = f"import json\nfor line in {lines}: print(json.dumps(line), flush=True)\n1 / 0"
    outcomes = smoke.run([sys.executable, "-S", "-c", script], ["1 ours", "1 torch", "2 ours", "2 torch"], {})
    assert smoke.summary(outcomes, 2.4) == (
        "1 sides ran in 2 s; absent: 1 torch (No module named 'torch');"
        " failed: 2 ours, 2 torch (exit code 1 ZeroDivisionError: division by zero)"
    )
    assert smoke.summary(outcomes[:1], 2.4) == "1 sides ran in 2 s; absent: none; failed: none"


@pytest.mark.parametrize("name", [*CASES, *ACCELERATOR, *POINTS])
def test_every_side_is_known(name):
    from benchmarks.worker import ONE_CORE, SIDES

    case = (CASES | ACCELERATOR | POINTS)[name]
    assert {side.removesuffix(ONE_CORE) for side in ("ours", *case.goals)} <= SIDES[type(case.work)].keys()
    assert {"ours", *case.goals} <= figures.PEERS.keys()
    assert type(quick(case).work) is type(case.work) and quick(case).goals == case.goals
    if case.roofline:
        assert count(case.work).bytes > 0


def test_counts_by_hand():
    row_2 = count(CASES["2"].work)
    assert round(row_2.flops / 1e6, 1) == 64.5 and round(row_2.bytes / 1e6, 1) == 6.6
    assert count(Update(((3, 4), (5,)), 1)) == (0, 28 * 17)
    assert count(LargeUpdate(2, 10, 1)).bytes == 28 * 20 and count(LargeUpdate(2, 10, 1, "bfloat16")).bytes == 20 * 20
    rates = {"matmul_gflops": 2e-6 * row_2.flops, "copy_gbytes": 4e-6 * row_2.bytes}  # of 1,000 steps: half, a quarter
    assert shares(CASES["2"].work, 1000.0, rates) == pytest.approx({"of_matmul_rate": 0.5, "of_copy_rate": 0.25})


@pytest.mark.parametrize("name", ["2", "5"])
def test_counts_are_those_of_the_compiler(name):
    """XLA counts every operation: ours are most of them, and no more."""
    from benchmarks.training import model_of

    work = CASES[name].work
    model, optimizer = model_of(work, lowering="native"), optimizers.adam(1e-3)
    x = jax.ShapeDtypeStruct((work.batch_size, *((784,) if work.widths else (28, 28, 1))), jnp.float32)
    batch = Batch(x, jax.ShapeDtypeStruct((work.batch_size,), jnp.int32))

    params, state = jax.eval_shape(model.init, jax.random.key(0), x)

    def gradient(params, batch):
        def loss(params):
            outputs = model.apply(params, state, batch.x, train=True, key=None, weight=None)[0]
            return jnp.mean(losses.softmax_cross_entropy(outputs, batch.y))

        return jax.grad(loss)(params)

    counted = jax.jit(gradient).lower(params, batch).cost_analysis()["flops"]

    assert 0.85 < count(work).flops / counted <= 1.0
    state = jax.eval_shape(lambda p, key: training.init_state(p, optimizer, key), params, jax.random.key(0))
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert moments == 2 * numbers and count(work).bytes == 28 * numbers


def test_the_page_says_what_the_results_say():
    page = pages.page(figures.results(), figures.results("scaling"), figures.layer_results())
    assert (ROOT / "docs" / "benchmarks.md").read_text() == page


def _point(**ratios):
    sides = {"ours": {"per_second": 100.0}}
    for side, ratio in ratios.items():
        rounds = {"ours_faster": ratio, "ours_faster_min": ratio - 0.1, "ours_faster_max": ratio + 0.1}
        sides[side] = {"per_second": 100.0 / ratio, **rounds}
    return {"sides": sides}


def test_where_ours_is_slower_is_said():
    ratios = {8: (4.0, 3.0, 0.5), 32: (2.0, 1.05, 0.9), 128: (1.5, 0.9, 0.8)}
    measured = {
        f"batch-{value}": _point(**dict(zip(("torch", "keras-jax-16", "equinox"), row, strict=True)))
        for value, row in ratios.items()
    }
    assert pages.where_ours_is_slower("batch", measured) == [
        "Beside torch, eager, fused Adam: ours is faster at each point measured, 1.5x to 4.0x.",
        "Beside Keras on JAX, 16 steps per execution: ours is **not** the better choice at 32: 1.05x (0.95 to 1.15),"
        " at 128: 0.90x (0.80 to 1.00); elsewhere it is faster, 3.0x.",
        "Beside equinox and optax, a jitted step: ours is **not** the better choice at 8: 0.50x (0.40 to 0.60),"
        " at 32: 0.90x (0.80 to 1.00), at 128: 0.80x (0.70 to 0.90); which is everywhere.",
    ]


def test_tables_have_a_row_for_whom_is_not_there():
    result = {
        **{"title": "work", "unit": "steps", "date": "2026-01-01", "rounds": 5, "sides": _point(torch=3.0)["sides"]},
        **{"absent": {"keras-jax": "no"}, "failed": {"keras-jax-16": "it broke", "equinox": "too", "sklearn": "too"}},
        **{"machine": {"processor": "P", "cores": 2, "backend": "cpu"}, "versions": {"jax": "1"}},
    }
    for row in result["sides"].values():
        row |= {"ours_faster": 3.0, "ours_faster_min": 2.0, "ours_faster_max": 4.0}
        row |= {"accuracy": 0.5, "compile_seconds": 1.0, "peak_memory_mib": 2.0}
    short = tables.short_table({"cpu": {"1": result}})
    assert "<br>Keras on JAX: absent<br>Keras on JAX, 16 steps per execution: failed<br>" in short
    whole = pages.page({"cpu": {"1": result}}, {}, None)
    assert "| Keras on JAX | absent |" in whole and "16 steps per execution failed: it broke." in whole


def test_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    measured = {f"width-{value}": _point(torch=value / 100) for value in CURVES["width"].values}
    plots.draw("width", measured, tmp_path / "width.svg")
    assert (tmp_path / "width.svg").read_text().count("<use ") >= 2 * len(CURVES["width"].values)  # the marks
