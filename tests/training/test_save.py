"""A trained model that outlasts its process."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxopt_nn import data, layers, optimizers, training, trees
from jaxopt_nn.types import Static

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(problem):
    recipe = problem.recipe(epochs=2, optimizer=lambda hp: optimizers.weight_ema(optimizers.adam(0.01), decay=0.9))
    return recipe, training.fit(recipe, problem.hparams, problem.train, problem.valid, key=problem.key)


def _equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), (_, y) in zip(trees.named_leaves(a), trees.named_leaves(b), strict=True):
        assert x.dtype == y.dtype, path
        x, y = (jax.random.key_data(z) if "key" in str(z.dtype) else z for z in (x, y))
        np.testing.assert_array_equal(x, y, err_msg=path)


def test_what_is_loaded_is_what_was_saved(problem, trained, tmp_path):
    recipe, result = trained
    hparams = {**problem.hparams, "width": Static(8), "rates": (jnp.float32(0.1), 2, None), "name": "mine"}
    keys = training.RunKeys(*jax.random.split(problem.key, 3))
    scaler = data.fit_standard_scaler(problem.train.x)
    preprocessing = {"scaler": scaler, "classes": ["a", "b", "c"], "empty": np.zeros((0, 2), np.float32)}
    options = {"recipe": recipe, "hparams": hparams, "train": problem.train}
    training.save(tmp_path / "model", result, **options)
    training.save(tmp_path / "model", result, **options, key=keys, preprocessing=preprocessing)  # replaces it
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
    model = training.load(tmp_path / "model", recipe)
    _equal(model.result, result)
    _equal(model.key, keys)
    assert jax.tree.structure(model.hparams) == jax.tree.structure(hparams)
    assert jax.tree.leaves(model.hparams) == jax.tree.leaves(hparams) and model.hparams["rates"][0].dtype == "float32"
    _equal(model.preprocessing["scaler"], scaler)
    assert model.preprocessing["classes"] == ["a", "b", "c"] and model.preprocessing["empty"].shape == (0, 2)
    assert model.versions["jax"] == jax.__version__
    assert model.data.keys() == {"x", "y"} and model.data["x"].startswith("float32[70, 6] sha256 ")
    x = problem.valid.x
    arguments = (recipe, hparams)
    _equal(training.predict(*arguments, model, x), training.predict(*arguments, result, x))


def test_without_the_state_there_is_less_to_keep(problem, trained, tmp_path):
    recipe, result = trained
    options = {"recipe": recipe, "hparams": problem.hparams, "train": problem.train}
    training.save(tmp_path / "model", result._replace(state=None), **options)
    model = training.load(tmp_path / "model", recipe)
    _equal(model.params, result.params)
    assert model.result.state is None and model.key is None
    assert not any(name.startswith("state/") for name in load_file(tmp_path / "model" / "arrays.safetensors"))


RECIPE = """
import sys
import jax, numpy as np
from jaxopt_nn import layers, losses, optimizers, training

def recipe(hp):
    return training.Recipe(
        model=layers.serial(layers.dense(hp["width"]), jax.nn.relu, layers.dense(3)), batch_size=16, epochs=1,
        loss=losses.softmax_cross_entropy, optimizer=optimizers.adam(hp["learning_rate"]))
"""
PREDICT = """
folder, x, outputs = sys.argv[1:]
model = training.load(folder, recipe)
np.save(outputs, training.predict(recipe, model.hparams, model, np.load(x)))
"""


def test_another_process_predicts_the_same_bits(problem, tmp_path):
    names = {}
    exec(RECIPE, names)
    recipe, hparams = names["recipe"], {"width": Static(8), "learning_rate": 0.01}
    result = training.fit(recipe, hparams, problem.train, key=problem.key)
    training.save(tmp_path / "model", result, recipe=recipe, hparams=hparams, train=problem.train)
    np.save(tmp_path / "x.npy", problem.valid.x)
    files = [str(tmp_path / name) for name in ("model", "x.npy", "outputs.npy")]
    subprocess.run([sys.executable, "-c", RECIPE + PREDICT, *files], cwd=ROOT, check=True)
    expected = training.predict(recipe, hparams, result, problem.valid.x)
    np.testing.assert_array_equal(np.load(files[-1]), expected)


def test_a_model_that_does_not_fit_says_which_path_differs(problem, trained, tmp_path):
    recipe, result = trained
    training.save(tmp_path / "m", result, recipe=recipe, hparams=problem.hparams, train=problem.train)
    wider = problem.recipe(model=layers.serial(layers.dense(9, use_bias=False), layers.batch_norm(), layers.dense(3)))
    with pytest.raises(ValueError, match=r"m: not of this recipe: params/batch_norm_0/bias is float32\[8\], the "):
        training.load(tmp_path / "m", wider)
    longer = problem.recipe(model=lambda hp: layers.serial(recipe(hp).model, layers.dense(3)))
    with pytest.raises(ValueError, match=r"params/.*dense_0/bias is missing; .* more$"):
        training.load(tmp_path / "m", longer)
    with pytest.raises(ValueError, match=r"^result: not of this recipe: params/batch_norm_0/bias is float32\[8\], "):
        training.save(tmp_path / "n", result, recipe=wider, hparams=problem.hparams, train=problem.train)
    lanes = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), result)
    with pytest.raises(ValueError, match=r"is float32\[2, 8\], .*It has lanes: save one, "):
        training.save(tmp_path / "n", lanes, recipe=recipe, hparams=problem.hparams, train=problem.train)
    with pytest.raises(TypeError, match=r"^result: expected a RunResult, .* got a TrainState"):
        training.save(tmp_path / "n", result.state, recipe=recipe, hparams=problem.hparams, train=problem.train)
    assert [each.name for each in tmp_path.iterdir()] == ["m"]


def test_what_is_no_plain_value_has_to_be_said_again(problem, trained, tmp_path):
    recipe, result = trained
    options = {"recipe": recipe, "train": problem.train}
    hparams = {**problem.hparams, "activation": jax.nn.relu}
    training.save(tmp_path / "m", result, hparams=hparams, **options)
    with pytest.raises(ValueError, match=r"^hparams/activation: relu was not saved, .*: pass hparams=... to load"):
        training.load(tmp_path / "m", recipe)
    assert training.load(tmp_path / "m", recipe, hparams).hparams is hparams
    with pytest.raises(TypeError, match=r"^preprocessing/f: expected numbers, text, arrays, .*, got <function"):
        training.save(tmp_path / "n", result, hparams=hparams, **options, preprocessing={"f": lambda x: x})


def _flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _write(file, change):
    file.write_text(change(file.read_text()))


def test_a_damaged_file_is_named(problem, trained, tmp_path):
    recipe, result = trained
    about, arrays = tmp_path / "m" / "about.json", tmp_path / "m" / "arrays.safetensors"
    damages = [
        (lambda: _flip(arrays), r"arrays\.safetensors: damaged: its checksum is another"),
        (lambda: _write(about, lambda text: text[:50]), r"about\.json: damaged: Unterminated string"),
        (lambda: _write(about, lambda text: text.replace("0.2", "0.3")), r"about\.json: damaged: its checksum"),
        (lambda: _write(about, lambda text: "[]"), r"about\.json: damaged, or not written by this library"),
    ]
    for damage, match in damages:
        shutil.rmtree(tmp_path / "m", ignore_errors=True)
        training.save(tmp_path / "m", result, recipe=recipe, hparams=problem.hparams, train=problem.train)
        damage()
        with pytest.raises(ValueError, match=match):
            training.load(tmp_path / "m", recipe)


def test_nothing_of_others_is_overwritten_and_nothing_half_is_left(problem, trained, tmp_path, monkeypatch):
    recipe, result = trained
    options = {"recipe": recipe, "hparams": problem.hparams, "train": problem.train}
    (tmp_path / "thesis").mkdir()
    with pytest.raises(ValueError, match=r"^path: expected a new folder, .* got .*thesis, which is none"):
        training.save(tmp_path / "thesis", result, **options)
    with pytest.raises(FileNotFoundError, match=r"^path: expected a folder that training\.save wrote, .*thesis, which"):
        training.load(tmp_path / "thesis", recipe)
    training.save(tmp_path / "m", result, **options)
    before = (tmp_path / "m" / "about.json").read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="No space left on device"):
        training.save(tmp_path / "m", result._replace(state=None), **options)
    assert (tmp_path / "m" / "about.json").read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m", "thesis"]
