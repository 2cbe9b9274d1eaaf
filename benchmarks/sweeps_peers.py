"""The peers of sweeps: the same trials, one after the other or in two processes, as their guides write them.

A round of theirs takes many minutes and differs from the next one by little: it is run once, of a part of the trials
where all of them take long, and ``rounds`` says so. The rate counts.
"""

import os
import time
from typing import Any

import numpy as np

from benchmarks.sweeps import Round, configurations
from benchmarks.work import Sweep, Training, load

__all__ = ["SWEEP_PEERS"]

_PART = 40  # trials of a round, evenly from all


def _some(work: Sweep) -> tuple[list[dict[str, Any]], tuple[Any, Any, Any, Any]]:
    trials = configurations(work)
    data = load(Training(work.dataset, (784,), work.batch_size, 1, 0.0, examples=work.examples))
    return trials[:: max(1, len(trials) // _PART)], data


def _once(run: Any, trials: int) -> Round:
    last: dict[str, float] = {}

    def once() -> dict[str, float]:
        if not last:
            started = time.perf_counter()
            accuracy = run()
            seconds = time.perf_counter() - started
            last.update(per_second=trials / seconds, accuracy=accuracy, compile_seconds=0.0, rounds=1)
        return last

    return once


def _train_torch(hp: dict[str, Any], data: Any, work: Sweep) -> float:
    import torch

    torch.manual_seed(hp["seed"])
    x, y, vx, vy = (torch.from_numpy(part) for part in data)
    modules: list[Any] = []
    for fan_in, width in ((x.shape[1], hp["width"]), (hp["width"], hp["width"])):
        modules += [torch.nn.Linear(fan_in, width), torch.nn.ReLU(), torch.nn.Dropout(hp["drop_rate"])]
    net = torch.nn.Sequential(*modules, torch.nn.Linear(hp["width"], 10))
    if hp["optimizer"] == "adam":
        optimizer: Any = torch.optim.Adam(net.parameters(), hp["learning_rate"], weight_decay=hp["l2"], fused=True)
    else:
        optimizer = torch.optim.SGD(net.parameters(), hp["learning_rate"], momentum=0.9, weight_decay=hp["l2"])
    accuracy = 0.0
    for _ in range(work.epochs):
        net.train()
        for rows in torch.randperm(len(x))[: len(x) // work.batch_size * work.batch_size].split(work.batch_size):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows].long()).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            accuracy = float((net(vx).argmax(1) == vy).float().mean())
    return accuracy


def _train_keras(hp: dict[str, Any], data: Any, work: Sweep) -> float:
    import keras

    keras.utils.set_random_seed(hp["seed"])
    x, y, vx, vy = data
    l2 = keras.regularizers.L2(hp["l2"])
    hidden: list[Any] = []
    for _ in range(2):
        hidden += [keras.layers.Dense(hp["width"], activation="relu", kernel_regularizer=l2)]
        hidden += [keras.layers.Dropout(hp["drop_rate"])]
    model = keras.Sequential([keras.Input((x.shape[1],)), *hidden, keras.layers.Dense(10)])
    rate = hp["learning_rate"]
    optimizer = keras.optimizers.Adam(rate) if hp["optimizer"] == "adam" else keras.optimizers.SGD(rate, 0.9)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    fitted = model.fit(x, y, work.batch_size, work.epochs, verbose=0, validation_data=(vx, vy))
    return float(fitted.history["val_accuracy"][-1])


def _optuna(train: Any, work: Sweep) -> Round:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials, data = _some(work)
    choices = {name: sorted({trial[name] for trial in trials}) for name in trials[0]}

    def run() -> float:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        for hp in trials:
            study.enqueue_trial(hp)

        def objective(trial: Any) -> float:
            hp = {name: trial.suggest_categorical(name, values) for name, values in choices.items()}
            return train(hp, data, work)

        study.optimize(objective, n_trials=len(trials))
        study.trials_dataframe()
        return study.best_value

    return _once(run, len(trials))


def optuna_torch(work: Sweep) -> Round:
    import torch  # noqa: F401, whether it is there

    return _optuna(_train_torch, work)


def optuna_keras(work: Sweep) -> Round:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras  # noqa: F401, whether it is there

    return _optuna(_train_keras, work)


def sklearn_2(work: Sweep) -> Round:
    """``RandomizedSearchCV`` with two processes. It knows neither drop rates nor, in place of seeds, the same split."""
    import warnings

    from sklearn.model_selection import PredefinedSplit, RandomizedSearchCV
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # of its processes
    trials, (x, y, vx, vy) = _some(work)
    space = {
        "learning_rate_init": sorted({t["learning_rate"] for t in trials}),
        "alpha": sorted({t["l2"] for t in trials}),
        "hidden_layer_sizes": [(width, width) for width in sorted({t["width"] for t in trials})],
        "solver": sorted({t["optimizer"] for t in trials}),
        "random_state": list(range(work.seeds)),
    }
    number = min(len(trials), int(np.prod([len(values) for values in space.values()])))
    net = MLPClassifier(batch_size=work.batch_size, max_iter=work.epochs, n_iter_no_change=work.epochs + 1)
    split = PredefinedSplit(np.r_[np.full(len(x), -1), np.zeros(len(vx), int)])
    search = RandomizedSearchCV(net, space, n_iter=number, n_jobs=2, cv=split, random_state=0, refit=False)

    def run() -> float:
        return float(search.fit(np.concatenate([x, vx]), np.concatenate([y, vy])).best_score_)

    return _once(run, number)


def ray_tune(work: Sweep) -> Round:
    """Ray Tune with torch, two trials at a time."""
    import torch  # noqa: F401, its workers need it
    from ray import init, shutdown, tune

    shutdown()
    init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    trials, data = _some(work)

    def run() -> float:
        def trainable(config: dict[str, Any]) -> dict[str, float]:
            return {"accuracy": _train_torch(config["trial"], data, work)}

        tuner = tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search(trials)},
            tune_config=tune.TuneConfig(metric="accuracy", mode="max"),
            run_config=tune.RunConfig(verbose=0),
        )
        results = tuner.fit()
        results.get_dataframe()
        return float(results.get_best_result().metrics["accuracy"])

    return _once(run, len(trials))


SWEEP_PEERS = {
    "optuna-torch": optuna_torch,
    "optuna-keras": optuna_keras,
    "sklearn-search": sklearn_2,
    "torch-ray-tune": ray_tune,
}
