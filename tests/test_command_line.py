"""The command line: what it prints and writes, and that mistakes are one line."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxopt_nn import __main__ as command_line
from jaxopt_nn import data, layers, losses, optimizers, sweeps, training
from jaxopt_nn.types import Static

KEY = jax.random.key(3)
TRAIN = data.from_arrays(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32))


def recipe(hp):
    return training.Recipe(
        model=layers.serial(layers.dense(hp["width"]), layers.dense(1)), loss=losses.mean_squared_error,
        optimizer=optimizers.sgd(hp["rate"]), batch_size=2, epochs=2)  # fmt: skip


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2 and not said.out and said.err.count("\n") == 1
    return said.err


@pytest.fixture
def studies(tmp_path, monkeypatch):
    folder = tmp_path / "examples"
    folder.mkdir()
    (folder / "first.py").write_text(
        '"""\nThe first\n=========\n\nWhat is asked.\n"""\nimport sys\nprint(sys.argv[1:])\n'
    )
    (folder / "second.py").write_text('"""\nThe second\n==========\n"""\nimport no_such_library\n')
    (folder / "third.py").write_text('"""\nThe third\n=========\n"""\nraise ValueError("of the study")\n')
    monkeypatch.setattr(command_line, "EXAMPLES", folder)
    return folder


def test_it_lists_and_runs_studies(studies, capsys):
    assert command_line.main(["studies"]) == 0
    assert capsys.readouterr().out.splitlines() == ["first   The first", "second  The second", "third   The third"]
    before = sys.argv
    assert command_line.main(["study", "first", "--quick"]) == 0
    assert capsys.readouterr().out == "['--quick']\n" and sys.argv is before
    assert "expected one of first, second, third, got 'four'" in refused(capsys, "study", "four")
    assert "study second: needs no_such_library, which is not installed" in refused(capsys, "study", "second")
    with pytest.raises(ValueError, match="of the study"):
        command_line.main(["study", "third"])


def test_without_a_clone_there_are_no_studies(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command_line, "EXAMPLES", tmp_path / "examples")
    assert "the folder examples/ of a clone" in refused(capsys, "study", "first")


def test_the_studies_of_this_repository_have_titles(capsys):
    command_line.main(["studies"])
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(len(line.split(maxsplit=1)) == 2 for line in lines)


def test_it_explains_a_saved_model(tmp_path, capsys):
    hparams = {"rate": 0.1, "width": Static(3)}
    result = training.make_run(recipe)(KEY, hparams, TRAIN)
    training.save(
        tmp_path / "model", result, recipe=recipe, hparams=hparams, train=TRAIN, key=KEY,
        preprocessing={"classes": ["a", "b"], "scaler": data.fit_standard_scaler(TRAIN.x)},
    )  # fmt: skip
    assert command_line.main(["explain", str(tmp_path / "model")]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    found = dict(line for line in lines if len(line) == 2)
    assert found["dense_0/kernel"] == "float32[2, 3]" and found["dense_1/bias"] == "float32[1]"
    assert found["parameters"] == "(13 numbers, 52 bytes)"
    assert (found["rate"], found["width"], found["status"]) == ("0.1", "3", "COMPLETED")
    assert found["train_loss"] == f"{float(result.history['train_loss'][1]):.4g}"
    assert found["key"] == "threefry2x32 [0, 3]" and found["classes/1"] == "b" and found["jax"] == jax.__version__
    assert found["x"].startswith("float32[4, 2] sha256 ")
    arrays = tmp_path / "model" / "arrays.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-1] + b"!")
    assert "damaged" in refused(capsys, "explain", str(tmp_path / "model"))
    assert "expected a folder that training.save wrote" in refused(capsys, "explain", str(tmp_path))


def test_it_reports_a_sweep_from_its_store(tmp_path, capsys):
    store = tmp_path / "digits.sqlite"
    result = sweeps.sweep_function(
        lambda key, hp: {"loss": (hp["rate"] - 2) ** 2, "accuracy": hp["rate"]},
        sweeps.grid(rate=[1.0, 2.0, 3.0], seed=range(2)), key=KEY, objective="loss", store=store, progress=False,
    )  # fmt: skip
    assert "expected one of ['loss', 'accuracy'], got None" in refused(capsys, "report", str(store)).replace(
        "['accuracy', 'loss']", "['loss', 'accuracy']"
    )
    assert command_line.main(["report", str(store), "--objective", "loss"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'digits.html'}\n"
    assert "the best of 3" in (tmp_path / "digits.html").read_text()
    read = sweeps.read_store(store, "accuracy")
    assert read.mode == "max" and read.best().hparams == {"rate": 3.0}
    assert sweeps.read_store(store, "loss").records == result.records
    (tmp_path / "text").write_text("no database")
    assert "is none" in refused(capsys, "report", str(tmp_path / "text"))
    assert "is none" in refused(capsys, "report", str(tmp_path / "missing"))
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("arguments", [["studie"], ["report"], ["explain", "a", "b"], ["report", "a", "--mode", "x"]])
def test_mistakes_are_one_line(arguments, capsys):
    refused(capsys, *arguments)


@pytest.mark.slow
def test_it_runs_as_a_module(tmp_path):
    done = subprocess.run([sys.executable, "-m", "jaxopt_nn"], capture_output=True, text=True, check=True)
    assert "studies" in done.stdout and "explain" in done.stdout and not done.stderr
