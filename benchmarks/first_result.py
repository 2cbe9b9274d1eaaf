"""The sides of the first result, and ``python -m benchmarks.first_result SIDE``: what a person waits for at a keyboard.

``cold`` and ``cached`` start a process a round and time all of it, from its start to its end: imports, data, compiling,
training, the accuracy on test data. ``again`` is a second call in the same process with another learning rate, and
``predict`` a thousand predictions of one row each.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import CASES, quick
from benchmarks.training import report
from benchmarks.work import FirstResult, Training, load

__all__ = ["FIRST_RESULT"]

Round = Callable[[], dict[str, float]]
CALLS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_result", description="Trains and evaluates once.")
    parser.add_argument("side", choices=list(PROCESSES))
    print(json.dumps(PROCESSES[parser.parse_args().side](_work(little=False))))


def _work(*, little: bool) -> Training:
    work = (quick(CASES["1"]) if little else CASES["1"]).work
    assert isinstance(work, Training)
    return work


def ours(case: Training) -> dict[str, float]:
    import jax

    compiled: list[float] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    recipe, train, test = _ours(case)
    from jaxopt_nn import training

    result = training.fit(recipe, case.learning_rate, train, key=jax.random.key(0))
    accuracy = float(training.evaluate(recipe, case.learning_rate, result, test)["accuracy"])
    return {"accuracy": accuracy, "programs": len(compiled), "compile_seconds": sum(compiled)}


def _ours(case: Training) -> tuple[Any, Any, Any]:
    import jax

    from jaxopt_nn import layers, losses, metrics, optimizers, training
    from jaxopt_nn.types import Batch

    x, y, tx, ty = load(case)

    def recipe(learning_rate: Any) -> training.Recipe:
        hidden = [part for width in case.widths[1:-1] for part in (layers.dense(width), jax.nn.relu)]
        return training.Recipe(
            model=layers.serial(*hidden, layers.dense(case.widths[-1])),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.adam(learning_rate),
            metrics={"accuracy": metrics.accuracy},
            batch_size=case.batch_size,
            epochs=case.epochs,
        )

    return recipe, Batch(x, y), Batch(tx, ty)


def sklearn(case: Training) -> dict[str, float]:
    import warnings

    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")  # it says that it has not converged: it is not to
    x, y, tx, ty = load(case)
    net = MLPClassifier(
        case.widths[1:-1],
        alpha=0.0,
        batch_size=case.batch_size,
        learning_rate_init=case.learning_rate,
        max_iter=case.epochs,
        n_iter_no_change=case.epochs + 1,
        random_state=0,
    ).fit(x, y)
    return {"accuracy": float((net.predict(tx) == ty).mean())}


def torch(case: Training) -> dict[str, float]:
    import torch

    x, y, tx, ty = (torch.from_numpy(part) for part in load(case))
    net = _torch_net(case)
    optimizer = torch.optim.Adam(net.parameters(), lr=case.learning_rate, fused=True)
    for _ in range(case.epochs):
        for rows in torch.randperm(len(x)).split(case.batch_size):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows].long()).backward()
            optimizer.step()
    with torch.no_grad():
        return {"accuracy": float((net(tx).argmax(1) == ty).float().mean())}


def _torch_net(case: Training) -> Any:
    import torch

    modules: list[Any] = []
    for fan_in, width in zip(case.widths[:-1], case.widths[1:], strict=True):
        modules += [torch.nn.Linear(fan_in, width), torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])


def keras(case: Training) -> dict[str, float]:
    x, y, tx, ty = load(case)
    model = _keras_model(case)
    model.fit(x, y, batch_size=case.batch_size, epochs=case.epochs, verbose=0)
    return {"accuracy": float(model.evaluate(tx, ty, verbose=0)[1])}


def _keras_model(case: Training) -> Any:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    hidden = [keras.layers.Dense(width, activation="relu") for width in case.widths[1:-1]]
    model = keras.Sequential([keras.Input((case.widths[0],)), *hidden, keras.layers.Dense(case.widths[-1])])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(case.learning_rate), loss, metrics=["accuracy"])
    return model


PROCESSES: dict[str, Callable[[Training], dict[str, float]]] = {
    "ours": ours,
    "sklearn": sklearn,
    "torch": torch,
    "keras-jax": keras,
}


def _whole_process(side: str, work: FirstResult) -> Round:
    """A process from its start to its end; what is little is not measured, and needs none of its own."""
    environment = os.environ
    environment["KERAS_BACKEND"] = "jax"  # which Keras reads when it is imported
    __import__({"keras-jax": "keras", "ours": "jax"}.get(side, side))  # whether it is there
    if work.little:
        return lambda: {"per_second": 1.0, "compile_seconds": 0.0, **PROCESSES[side](_work(little=True))}
    if work.program == "cached":  # of all programs, the small ones too
        environment = environment | {
            "JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp(),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def once() -> dict[str, float]:
        command = [sys.executable, "-m", "benchmarks.first_result", side]
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - started
        return {"per_second": 1 / seconds, "compile_seconds": 0.0, **json.loads(done.stdout.splitlines()[-1])}

    once()  # what is read from disk is read by all; a cache is filled
    return once


def _again(work: FirstResult) -> Round:
    """``fit`` with another learning rate each time."""
    import jax

    from jaxopt_nn import training

    case = _work(little=work.little)
    recipe, train, valid = _ours(case)
    rates = iter(np.geomspace(1e-4, 1e-2, 1000))

    def once() -> dict[str, float]:
        started = time.perf_counter()
        result = training.fit(recipe, float(next(rates)), train, valid, key=jax.random.key(0))
        jax.block_until_ready(result)
        return report(time.perf_counter() - started, 1, float(result.history["valid_accuracy"][-1]), 0.0)

    once()
    return once


def _run(work: FirstResult) -> Round:
    """The compiled run of the same recipe."""
    import jax
    import jax.numpy as jnp

    from jaxopt_nn import training

    case = _work(little=work.little)
    recipe, train, valid = _ours(case)
    train, valid = jax.tree.map(jnp.asarray, (train, valid))
    run, rates = jax.jit(training.make_run(recipe)), iter(np.geomspace(1e-4, 1e-2, 1000))

    def once() -> dict[str, float]:
        started = time.perf_counter()
        result = jax.block_until_ready(run(jax.random.key(0), float(next(rates)), train, valid))
        return report(time.perf_counter() - started, 1, float(result.history["valid_accuracy"][-1]), 0.0)

    once()
    return once


def _predictions(make: Callable[[Training], Callable[[Any], Any]], work: FirstResult) -> Round:
    """Predictions of one row each, as NumPy arrays in the end."""
    case = _work(little=work.little)
    rows = load(case)[2][:1]
    predict = make(case)
    np.asarray(predict(rows))

    def once() -> dict[str, float]:
        started = time.perf_counter()
        for _ in range(2 if work.little else CALLS):
            np.asarray(predict(rows))
        return {"per_second": CALLS / (time.perf_counter() - started), "compile_seconds": 0.0}

    return once


def _our_predict(made: bool, case: Training) -> Callable[[Any], Any]:
    import jax

    from jaxopt_nn import training

    recipe, train, _ = _ours(case)
    result = training.fit(
        lambda rate: recipe(rate)._replace(epochs=1), case.learning_rate, train, key=jax.random.key(0)
    )
    return (
        training.make_predict(recipe, case.learning_rate, result)
        if made
        else (lambda rows: training.predict(recipe, case.learning_rate, result, rows))
    )


def _jitted(case: Training) -> Callable[[Any], Any]:
    """The least that a call can cost: a jitted forward pass, and no checks."""
    import jax

    recipe, train, _ = _ours(case)
    model = recipe(case.learning_rate).model
    params, state = model.init(jax.random.key(0), train.x[:1])
    apply = jax.jit(lambda params, x: model.apply(params, state, x, train=False, key=None, weight=None)[0])
    return lambda rows: apply(params, rows)


def _torch_predict(case: Training) -> Callable[[Any], Any]:
    import torch

    net = _torch_net(case)

    def predict(rows: Any) -> Any:
        with torch.no_grad():
            return net(torch.from_numpy(rows)).numpy()

    return predict


def _keras_predict(case: Training) -> Callable[[Any], Any]:
    model = _keras_model(case)
    return lambda rows: model.predict(rows, verbose=0)


def _sklearn_predict(case: Training) -> Callable[[Any], Any]:
    import warnings

    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    x, y, *_ = load(case)
    return MLPClassifier(case.widths[1:-1], max_iter=1).fit(x, y).predict_proba


_PREDICT: dict[str, Callable[[Training], Callable[[Any], Any]]] = {
    "ours": functools.partial(_our_predict, True),
    "ours-traced-anew": functools.partial(_our_predict, False),
    "ours-jitted": _jitted,
    "torch": _torch_predict,
    "keras-jax": _keras_predict,
    "sklearn": _sklearn_predict,
}


def _side(side: str, work: FirstResult) -> Round:
    if work.program == "predict":
        return _predictions(_PREDICT[side], work)
    if work.program == "again":
        return _again(work) if side == "ours" else _run(work)
    return _whole_process(side, work)


FIRST_RESULT: dict[str, Callable[[FirstResult], Round]] = {
    side: functools.partial(_side, side)
    for side in ("ours", "ours-run", "ours-jitted", "ours-traced-anew", "sklearn", "torch", "keras-jax")
}


if __name__ == "__main__":
    main()
