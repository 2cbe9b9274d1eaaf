"""A run that is interrupted, and goes on: with the same bits."""

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, optimizers, training, trees
from jaxopt_nn.training import Checkpoint

ROOT = Path(__file__).parents[2]


def _everything(hp):
    """An optimizer with all that has a state of its own."""
    adam = optimizers.store_state(optimizers.adam(hp["learning_rate"]), {"*/mu/*": jnp.bfloat16}, key=jax.random.key(5))
    return optimizers.weight_ema(adam, decay=0.9)


@pytest.fixture(scope="module")
def case(problem):
    """Dropout, BatchNorm, plateau, early stopping, an average, stochastic rounding, micro-batches, a ragged batch."""
    recipe = problem.recipe(
        optimizer=_everything,
        plateau=optimizers.reduce_on_plateau(patience=0, rtol=0.5),
        early_stopping=training.EarlyStopping(patience=4),
        micro_batches=2,
        epochs=4,
    )

    return recipe, *_fits(problem, recipe)


@pytest.fixture(scope="module")
def small(problem):
    """A run that is traced and compiled quickly."""
    parts = {"model": layers.dense(3), "optimizer": optimizers.adam(0.01), "penalty": None, "metrics": {}}
    recipe = problem.recipe(**parts, epochs=4)
    return recipe, *_fits(problem, recipe)


def _fits(problem, recipe):
    """``fit`` of a recipe, to be called with what is other; and its result."""

    def fit(recipe=recipe, **options):
        options = {"key": problem.key, "train": problem.train, "valid": problem.valid, **options}
        return training.fit(recipe, options.pop("hparams", problem.hparams), **options)

    return fit, fit()


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), (_, y) in zip(trees.named_leaves(a), trees.named_leaves(b), strict=True):
        x, y = (jax.random.key_data(z) if jnp.issubdtype(z.dtype, jax.dtypes.prng_key) else z for z in (x, y))
        assert x.dtype == y.dtype, path
        np.testing.assert_array_equal(x, y, err_msg=path)


def done(folder):
    """The epochs and the steps of the next one that each checkpoint has behind it."""
    return [(each.epochs, each.steps) for each in training.checkpoints(folder)]


def until(epoch):
    return [lambda end: end.epoch == epoch]


def test_a_run_in_pieces_is_the_run(case, tmp_path):
    _, fit, whole = case
    checkpoint = Checkpoint(tmp_path / "run", keep=3)
    part = fit(checkpoint=checkpoint, callbacks=until(1))
    assert training.Status(int(part.status)).name == "INTERRUPTED" and int(part.epochs) == 2
    assert done(tmp_path / "run") == [(1, 0), (2, 0)]
    seen = []
    equal(fit(checkpoint=checkpoint, callbacks=[lambda end: seen.append(end.epoch)]), whole)
    assert seen == [2, 3]
    assert done(tmp_path / "run") == [(2, 0), (3, 0), (4, 0)]
    equal(fit(checkpoint=checkpoint), whole)  # a run that has ended is read


def test_a_run_stopped_in_the_middle_of_an_epoch_is_the_run(case, problem, tmp_path, monkeypatch):
    """Five steps an epoch: it is killed after the 7th, with a checkpoint at the 6th."""
    recipe, fit, whole = case
    checkpoint = Checkpoint(tmp_path / "run", every_steps=3)
    store = training.fit.__globals__["Store"]
    save = store.save

    def killed(store, position):
        if (position.epochs, position.steps) > (1, 1):
            raise SystemExit
        save(store, position)

    monkeypatch.setattr(store, "save", killed)
    with pytest.raises(SystemExit):
        fit(checkpoint=checkpoint)
    monkeypatch.undo()
    assert done(tmp_path / "run") == [(0, 3), (1, 1)]
    equal(fit(checkpoint=checkpoint), whole)
    assert done(tmp_path / "run") == [(3, 3), (4, 0)]
    (last,) = training.checkpoints(tmp_path / "run")[-1:]
    with pytest.raises(ValueError, match=r"^path: expected one of training.checkpoints\(.*the folder of them all"):
        training.load(tmp_path / "run", recipe)
    with pytest.raises(ValueError, match=r"^path: expected a new folder, .*step_20, which is none"):
        training.save(last.path, whole, recipe=recipe, hparams=problem.hparams, train=problem.train)
    assert last.metrics["valid_loss"] == float(whole.history["valid_loss"][-1])
    equal(training.load(last.path, recipe).result, whole)


def test_more_epochs_may_be_asked_for(small, problem, tmp_path):
    recipe, fit, whole = small
    short, checkpoint = lambda hp: recipe(hp)._replace(epochs=2), Checkpoint(tmp_path / "run")
    assert int(fit(short, checkpoint=checkpoint).epochs) == 2
    equal(fit(checkpoint=checkpoint), whole)
    with pytest.raises(ValueError, match=r"^epochs: expected 4 or more, which .*step_20 has behind it, got 2"):
        fit(short, checkpoint=checkpoint)


@pytest.mark.slow
def test_the_best_is_kept_with_the_last(small, problem, tmp_path):
    _, fit, _ = small
    rising = problem.recipe(epochs=5, model=layers.dense(3), optimizer=optax.sgd(-0.1))  # each epoch is worse
    fit(rising, checkpoint=Checkpoint(tmp_path / "run", every_epochs=4, keep=1, keep_best="valid_loss"))
    infos = training.checkpoints(tmp_path / "run")
    assert done(tmp_path / "run") == [(1, 0), (5, 0)]
    assert min(infos, key=lambda info: info.metrics["valid_loss"]).epochs == 1
    with pytest.raises(ValueError, match=r"^checkpoint.keep_best: expected one of \[.*'valid_loss'\], got 'valid_auc'"):
        fit(rising, checkpoint=Checkpoint(tmp_path / "other", keep_best="valid_auc"))


@pytest.fixture
def stopped(small, tmp_path):
    """A run of two epochs, and how to go on with something else."""
    _, fit, whole = small
    checkpoint = Checkpoint(tmp_path / "run", keep=3)
    fit(checkpoint=checkpoint, callbacks=until(1))
    return tmp_path / "run", lambda **options: fit(**{"checkpoint": checkpoint, **options}), whole


def _flip(file):
    content = bytearray(file.read_bytes())
    content[-100] ^= 4
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(stopped, capfd):
    folder, fit, whole = stopped
    arrays = max((folder / "step_10" / "arrays" / "d").iterdir(), key=lambda each: each.stat().st_size)
    _flip(arrays)
    with pytest.warns(UserWarning, match=rf"step_10/arrays/d/{arrays.name}: damaged: .* goes on from step_5, before"):
        equal(fit(), whole)
    assert any(each.name.startswith("damaged-step_10") for each in folder.iterdir())
    for each in training.checkpoints(folder):
        about = each.path / "about.json"
        about.write_text(about.read_text()[:-20])
    with pytest.raises(ValueError, match=r"^checkpoint.path: none of its checkpoints is whole: .*about.json: damaged"):
        fit()
    assert capfd.readouterr().err == ""


def test_another_run_is_refused_by_what_differs(stopped, problem, small):
    recipe, _, _ = small
    folder, fit, _ = stopped
    other = problem.train._replace(x=problem.train.x.at[3, 2].add(1e-6))
    weighted = problem.valid._replace(weight=np.ones(40, np.float32))
    hparams, key = {**problem.hparams, "l2": 0.5}, jax.random.key(9)

    def changed(**parts):
        return lambda hp: recipe(hp)._replace(**{name: value(hp) for name, value in parts.items()})

    wider = changed(model=lambda hp: layers.serial(layers.dense(9), layers.dense(3)))
    sgd = changed(optimizer=lambda hp: optimizers.sgd(0.1, momentum=0.9))
    cases = [
        ({"train": other}, r"^train/x: expected float32\[70, 6\] sha256 \w+, as in the run that .* got float32"),
        ({"valid": weighted}, r"^valid/weight: expected none, .* got float32\[40\]"),
        ({"hparams": hparams}, r"^hparams/l2: expected 0.001, as in the run .*, got 0.5\. "),
        ({"key": key}, r"^key: expected uint32\[2\] sha256"),
        ({"recipe": changed(batch_size=lambda hp: 8)}, r"^batch_size: expected 16, as in the run .*, got 8\. "),
        ({"recipe": wider}, r"run/state/params/dense_0/bias is missing; .* more$"),
        ({"recipe": sgd}, r"run/state/opt_state/.* is not in the recipe|run/state/opt_state/.* is missing"),
    ]
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    for options, match in cases:
        with pytest.raises(ValueError, match=match):
            fit(**options)
    assert done(folder) == [(1, 0), (2, 0)]
    assert compiled == []
    doubled = changed(loss=lambda hp: lambda outputs, targets: 2 * recipe(hp).loss(outputs, targets))
    with pytest.raises(UserWarning, match=r"^checkpoint: the recipe is not the one that .* was written with"):
        fit(recipe=doubled)  # in a test a warning is an error


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_what_is_done(small, tmp_path, name):
    """SIGTERM then goes to whom it was meant for."""
    _, fit, whole = small
    seen, before = [], signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    checkpoint = Checkpoint(tmp_path / "run", every_epochs=10)
    try:
        part = fit(checkpoint=checkpoint, callbacks=[lambda end: os.kill(os.getpid(), getattr(signal, name))])
    finally:
        assert signal.signal(signal.SIGTERM, before) != before
    assert training.Status(int(part.status)).name == "INTERRUPTED" and done(tmp_path / "run") == [(1, 0)]
    assert seen == [signal.SIGTERM] * (name == "SIGTERM")
    equal(fit(checkpoint=checkpoint), whole)


def test_a_callback_that_raises_leaves_the_result_and_the_checkpoint(small, tmp_path):
    _, fit, whole = small

    def callback(end):
        if end.epoch == 1:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as caught:
        fit(checkpoint=Checkpoint(tmp_path / "run", every_epochs=10), callbacks=[callback])
    assert int(caught.value.result.epochs) == 2 and "is in this error's .result" in caught.value.__notes__[0]
    assert done(tmp_path / "run") == [(2, 0)]
    equal(fit(checkpoint=Checkpoint(tmp_path / "run")), whole)


def test_a_disk_that_is_full_ends_no_run(small, tmp_path, capfd):
    _, fit, whole = small
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))  # of any file, in bytes
    try:
        with pytest.warns(UserWarning, match=r"^checkpoint: cannot write to .*run: File too large. The run goes on"):
            equal(fit(checkpoint=Checkpoint(tmp_path / "run")), whole)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["lock"]
    assert capfd.readouterr().err == ""
    fit(checkpoint=Checkpoint(tmp_path / "run"))  # there is room again
    assert done(tmp_path / "run") == [(3, 0), (4, 0)]


def test_folders_that_are_no_place_for_a_checkpoint(small, problem, tmp_path):
    recipe, fit, whole = small
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    training.save(tmp_path / "model", whole, recipe=recipe, hparams=problem.hparams, train=problem.train)
    for path, error, match in [
        (tmp_path / "thesis", ValueError, r"^checkpoint.path: expected a folder of its own, .*: chapter.tex"),
        (tmp_path / "thesis" / "chapter.tex", ValueError, r"^checkpoint.path: expected a folder, got the file"),
        (tmp_path / "model", ValueError, r"^checkpoint.path: expected a folder of its own, .*training.save wrote"),
        (Path("/proc/nothing"), OSError, r"checkpoint.path: cannot write to /proc/nothing"),
    ]:
        with pytest.raises(error, match=match):
            fit(checkpoint=Checkpoint(path))
    entered = []

    def callback(end):
        if not entered:
            entered.append(end)
            with pytest.raises(BlockingIOError, match=r"run is in use by process \d+: one run at a time"):
                fit(checkpoint=Checkpoint(tmp_path / "run"))

    fit(checkpoint=Checkpoint(tmp_path / "run"), callbacks=[callback])
    assert entered


def test_a_checkpoint_is_looked_at_before_the_run(problem):
    for checkpoint, error, match in [
        ("folder", TypeError, r'^checkpoint: expected training.Checkpoint\("folder"\), got'),
        (Checkpoint(""), TypeError, r"^checkpoint.path: expected the path of a folder, got ''"),
        (
            Checkpoint("a", every_epochs=0),
            ValueError,
            r"^checkpoint.every_epochs: expected an int in \[1, .* got 0",
        ),
        (Checkpoint("a", every_steps=0.5), TypeError, r"^checkpoint.every_steps: expected a positive int, got 0.5"),
        (Checkpoint("a", every_seconds=0), ValueError, r"^checkpoint.every_seconds: expected a finite number in \(0, "),
        (Checkpoint("a", keep=0), ValueError, r"^checkpoint.keep: expected an int in \[1, inf\), got 0"),
        (Checkpoint("a", keep_best="x"), ValueError, r"^checkpoint.keep_best: expected the name of a history entry"),
    ]:
        with pytest.raises(error, match=match):
            training.fit(None, problem.hparams, problem.train, key=problem.key, checkpoint=checkpoint)


def test_a_run_starts_from_parameters_or_a_state(problem):
    """Without noise and shuffling, four epochs are two and two from the state."""
    parts = {"shuffle": False, "optimizer": optimizers.adam(0.01), "model": layers.dense(3), "penalty": None}
    recipe, arguments = problem.recipe(epochs=2, **parts), (problem.hparams, problem.train)
    whole = training.fit(problem.recipe(epochs=4, **parts), *arguments, key=problem.key)
    first = training.fit(recipe, *arguments, key=problem.key)
    second = training.fit(recipe, *arguments, key=jax.random.key(8), init_from=first.state)
    equal(second.state, whole.state)
    still = problem.recipe(epochs=1, **parts | {"optimizer": optimizers.sgd(0.0)})
    equal(training.fit(still, *arguments, key=problem.key, init_from=first).params, first.params)
    run = jax.jit(training.make_run(still))
    equal(run(problem.key, *arguments, None, first.params).params, first.params)
    for init_from, match in [
        ({"kernel": jnp.ones((6, 4)), "bias": jnp.ones(3)}, r"^init_from.params\[kernel\]: expected float32\[6, 3\]"),
        ({"kernel": jnp.ones((6, 3))}, r"^init_from.params: the tree does not match: missing \['bias'\]"),
        (first.state._replace(opt_state=()), r"^init_from: the tree does not match: missing \['opt_state/"),
    ]:
        with pytest.raises(ValueError, match=match):
            training.fit(still, *arguments, key=problem.key, init_from=init_from)
    with pytest.raises(TypeError, match=r"^init_from: expected parameters, a TrainState, .* got 'model'"):
        training.fit(still, *arguments, key=problem.key, init_from="model")


RUN = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.types import Batch

def recipe(hp):
    return training.Recipe(
        model=layers.serial(layers.dense(4), layers.dropout(0.5), layers.dense(1)), loss=losses.mean_squared_error,
        optimizer=optimizers.adam(hp), batch_size=4, epochs=int(epochs))

folder, results, epochs, *steps = sys.argv[1:]
cadence = {"every_steps": int(steps[0])} if steps else {"every_epochs": 1}
x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(32, 2)
result = training.fit(
    recipe, 1e-2, Batch(x, x[:, :1] ** 2), key=jax.random.key(0), checkpoint=training.Checkpoint(folder, **cadence),
    callbacks=[lambda end: print(end.epoch, flush=True)])
np.savez(results, *jax.tree.leaves(result._replace(state=result.state.params)))
"""


def run(folder, results, *arguments):
    environment = {**os.environ, "PYTHONHASHSEED": "random"}
    command = [sys.executable, "-W", "error", "-c", RUN, str(folder), str(results), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(), (3,)], ids=["epochs", "steps"])
def test_a_run_that_is_killed_loses_one_interval_at_the_most(tmp_path, steps):
    """Each time at a random moment, most of the time while it writes: it saves all the time."""
    kills, epochs = int(os.environ.get("KILLS", "4")), int(os.environ.get("EPOCHS", "400"))
    random, done = np.random.default_rng(0), 0
    assert run(tmp_path / "whole", tmp_path / "whole.npz", epochs, *steps).communicate()
    for _ in range(kills):
        process = run(tmp_path / "run", tmp_path / "run.npz", epochs, *steps)
        lines = [process.stdout.readline()]  # it has begun
        threading.Timer(random.uniform(0, 2), process.kill).start()
        lines += process.communicate()[0].splitlines()
        begun = [int(line) for line in lines if line.strip()]
        if begun:
            assert done - 1 <= begun[0] <= done + 1  # one is written while the next epoch runs
            done = begun[-1] + 1
    process = run(tmp_path / "run", tmp_path / "run.npz", epochs, *steps)
    process.communicate()
    assert process.returncode == 0
    files = [np.load(tmp_path / name) for name in ("whole.npz", "run.npz")]
    for name in files[0]:
        np.testing.assert_array_equal(*(file[name] for file in files))
