"""Search: Optuna's samplers choose, the lanes train, and the study is an ordinary one."""

import jax
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, sweeps, training
from jaxopt_nn.sweeps import _execute
from jaxopt_nn.types import Batch

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)
X = np.random.default_rng(0).standard_normal((24, 3)).astype("f")
TRAIN = Batch(X, X[:, :1])
KEY = jax.random.key(0)
VALUES = {
    "rate": sweeps.log_uniform(1e-4, 0.3),
    "kind": sweeps.choice({"sgd": {"momentum": sweeps.uniform(0.0, 0.5)}, "adam": {}}),
    "seed": range(2),
}


def recipe(hp):
    optimizer = optimizers.sgd(hp["rate"], hp["momentum"]) if hp["kind"] == "sgd" else optimizers.adam(hp["rate"])
    return training.Recipe(
        model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizer, batch_size=8, epochs=3
    )


def test_a_sampler_drives_the_lanes_and_its_study_goes_on(tmp_path, monkeypatch):
    compiled, compile_lane = [], _execute.compile_lane
    monkeypatch.setattr(_execute, "compile_lane", lambda *part: compiled.append(part[2]) or compile_lane(*part))
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db")
    options = {"train": TRAIN, "key": KEY, "store": tmp_path / "sweep.sqlite", "lanes": 8}

    def study():
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=4)
        return optuna.create_study(storage=storage, study_name="s", sampler=sampler, load_if_exists=True)

    result = sweeps.search(recipe, VALUES, number=8, study=study(), **options)
    trials = study().trials
    assert len(trials) == 8 and len(result.records) == 16 and {t.state.name for t in trials} == {"COMPLETE"}
    assert set(compiled) <= {2, 4, 8} and len(compiled) <= 4  # powers of two for each of two optimizers
    for trial in trials:  # what the study says is what the lanes found
        own = [r for r in result.records if {k: v for k, v in r.trial.items() if k != "seed"} == trial.params]
        assert trial.value == pytest.approx(np.mean([r.metrics["train_loss"] for r in own])) and len(own) == 2
    assert study().best_params == result.best().hparams
    assert optuna.importance.get_param_importances(study(), params=["rate", "kind"])["rate"] >= 0
    more = sweeps.search(recipe, VALUES, number=9, study=study(), **options)
    assert len(study().trials) == 9 and len(more.records) == 18 and str(more.records[:16]) == str(result.records)
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.slow
def test_what_diverges_is_told_as_failed_and_ctrl_c_leaves_nothing_open(monkeypatch):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    wild = {"rate": sweeps.choice([0.1, 1e30]), "kind": "adam"}
    result = sweeps.search(
        recipe,
        {"rate": sweeps.choice([0.1, 1e30]), "kind": "sgd", "momentum": 0.0},
        TRAIN,
        key=KEY,
        number=6,
        study=study,
        lanes=3,
    )
    assert {t.state.name for t in study.trials} == {"COMPLETE", "FAIL"} and len(result.records) == 2
    assert study.best_params == {"rate": 0.1}

    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(_execute, "advance", interrupted)
    partial = sweeps.search(recipe, wild, TRAIN, key=KEY, number=9, study=study, lanes=3)
    assert partial.interrupted and all(trial.state.is_finished() for trial in study.trials)


@pytest.mark.parametrize(
    ("values", "changes", "error", "message"),
    [
        ({"kind": sweeps.choice([(1, 2)])}, {}, TypeError, r"^kind: expected choices that Optuna can store .*\(1, 2\)"),
        ({"rate": [0.1]}, {}, TypeError, r"^rate: expected a distribution or one value"),
        ({"rat": 0.1}, {}, ValueError, r"^space: the recipe reads 'rate'.*did you mean 'rat'\?"),
        ({}, {"study": 1}, TypeError, r"^study: expected one of optuna.create_study, got 1"),
        ({}, {"number": 0}, ValueError, r"^number: expected an int in \[1"),
        (
            {},
            {"study": optuna.create_study(direction="maximize")},
            ValueError,
            r'^study: expected direction="minimize" for mode="min", got \[\'maximize\'\]',
        ),
    ],
)
def test_bad_searches_are_named(values, changes, error, message):
    values = VALUES | values if "rat" not in values else values | {"kind": "sgd", "momentum": 0.0}
    with pytest.raises(error, match=message):
        sweeps.search(recipe, values, TRAIN, **{"key": KEY, "number": 2} | changes)
