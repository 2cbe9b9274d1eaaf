"""Runs the algorithms in torch, keras and optax, in float64, and writes what they did to ``trajectories.json``.

``python tests/optimizers/golden/make.py``, in an environment that has all three (``make golden``). The runs themselves
are used by the tests in tests/peers as well: each takes many settings at once.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).with_name("trajectories.json")
SETTINGS, STEPS, SIZE = 4, 24, 6
SHOWN = [0, 1, 4, 5, 6, 23]  # the steps that the file has: the first ones, and around the start of RAdam


class Algorithm(NamedTuple):
    """One algorithm in each of the libraries.

    Attributes:
        ours: the name of our factory; our other arguments are ``static`` and the numbers.
        numbers: the numbers that may be chosen, besides the learning rate.
        optax: the name there, "" if there is none; so are ``torch`` and ``keras``.
        static: flags, of the same name everywhere.
    """

    ours: str
    numbers: str = ""
    optax: str = ""
    torch: str = ""
    keras: str = ""
    static: dict[str, bool] = {}  # noqa: RUF012 (never changed)


NESTEROV, CENTERED, AMSGRAD = {"nesterov": True}, {"centered": True}, {"amsgrad": True}
ALGORITHMS = {
    "sgd": Algorithm("sgd", "", "sgd", "SGD", "SGD"),
    "momentum": Algorithm("sgd", "momentum", "sgd", "SGD", "SGD"),
    "nesterov": Algorithm("sgd", "momentum", "sgd", "SGD", "SGD", NESTEROV),
    "dampening": Algorithm("sgd", "momentum dampening", "", "SGD"),
    "adagrad": Algorithm("adagrad", "initial_accumulator_value eps", "adagrad", "Adagrad", "Adagrad"),
    "adagrad_lr_decay": Algorithm("adagrad", "initial_accumulator_value eps lr_decay", "", "Adagrad"),
    "adadelta": Algorithm("adadelta", "decay eps", "adadelta", "Adadelta", "Adadelta"),
    "rmsprop": Algorithm("rmsprop", "decay eps", "rmsprop", "RMSprop", "RMSprop"),
    "rmsprop_centered": Algorithm("rmsprop", "decay eps", "rmsprop", "RMSprop", "RMSprop", CENTERED),
    "rmsprop_momentum": Algorithm("rmsprop", "decay eps momentum", "rmsprop", "RMSprop", "RMSprop"),
    "rmsprop_centered_momentum": Algorithm("rmsprop", "decay eps momentum", "rmsprop", "RMSprop", "RMSprop", CENTERED),
    "rmsprop_nesterov": Algorithm("rmsprop", "decay eps momentum", "rmsprop", "", "", NESTEROV),
    "adam": Algorithm("adam", "b1 b2 eps", "adam", "Adam", "Adam"),
    "amsgrad": Algorithm("adam", "b1 b2 eps", "amsgrad", "Adam", "Adam", AMSGRAD),
    "adamw": Algorithm("adamw", "b1 b2 eps weight_decay", "adamw", "AdamW", "AdamW"),
    "adamw_amsgrad": Algorithm("adamw", "b1 b2 eps weight_decay", "", "AdamW", "AdamW", AMSGRAD),
    "nadam": Algorithm("nadam", "b1 b2 eps", "nadam", "", "Nadam"),
    "nadam_momentum_decay": Algorithm("nadam", "b1 b2 eps momentum_decay", "", "NAdam"),
    "adamax": Algorithm("adamax", "b1 b2 eps", "adamax", "Adamax", "Adamax"),
    "radam": Algorithm("radam", "b1 b2 eps", "radam", "RAdam"),
    "lion": Algorithm("lion", "b1 b2 weight_decay", "lion", "", "Lion"),
}
CASES = [
    (name, library)
    for name, algorithm in ALGORITHMS.items()
    for library in ("optax", "torch", "keras")
    if getattr(algorithm, library)
]
# Where a library's default numbers are not those of our factory, with its convention if it takes one.
OTHER_DEFAULTS = {("adadelta", "keras"), ("lion", "keras")}


def draw(algorithm: Algorithm, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """``count`` values of each of the algorithm's numbers, where the libraries themselves keep twelve digits.

    With β nearer to 1 their ``1 - βᵗ`` cancels, and with β₂ or ρ = 0 ``v + (g² - v)`` and ``v - m²`` do.
    """

    def near_one(low: float, high: float, zeros: float = 0.0) -> np.ndarray:
        return np.where(rng.random(count) < zeros, 0.0, 1.0 - 10.0 ** -rng.uniform(low, high, count))

    kinds = {
        "momentum": lambda: 1.0 - 10.0 ** -rng.uniform(0.1, 2.5, count),
        "dampening": lambda: rng.uniform(0.0, 1.0, count),
        "initial_accumulator_value": lambda: rng.choice([0.0, 0.1, 3.0], count),
        "eps": lambda: 10.0 ** -rng.uniform(2, 10, count),
        "lr_decay": lambda: 10.0 ** -rng.uniform(0, 3, count),
        "decay": lambda: near_one(0.2, 3),
        "b1": lambda: near_one(0.2, 3, zeros=0.05),
        "b2": lambda: near_one(0.2, 3.5),
        "weight_decay": lambda: 10.0 ** -rng.uniform(0, 4, count),
        "momentum_decay": lambda: 10.0 ** -rng.uniform(-1, 4, count),
    }
    return {name: _short(kinds[name]()) for name in algorithm.numbers.split()}


def problem(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Learning rates ``[STEPS, count]``, gradients ``[STEPS, count, SIZE]`` and a start ``[count, SIZE]``.

    The learning rates rise and fall. The gradients have many sizes, and a mean; of the last two elements one begins
    after some steps, the other has none at all.
    """
    curve = 1.0 + 0.8 * np.sin(np.arange(STEPS))
    rates = curve[:, None] * 10.0 ** rng.uniform(-3, -1, count)
    sizes = 10.0 ** rng.uniform(-3, 1.5, (count, SIZE))
    gradients = (rng.normal(size=(STEPS, count, SIZE)) + 0.5) * sizes
    gradients[:3, :, -2] = gradients[:, :, -1] = 0.0
    return _short(rates), _short(gradients), _short(rng.normal(size=(count, SIZE)))


def _short(numbers: np.ndarray) -> np.ndarray:
    """Rounded to float32: the same in either precision, so that what differs is the arithmetic."""
    return numbers.astype(np.float32).astype(np.float64)


def run_optax(algorithm: Algorithm, numbers: dict[str, Any], rates: Any, gradients: Any, start: Any) -> np.ndarray:
    """The parameters after each step, ``[STEPS, count, SIZE]``; each of ``numbers`` is an array ``[count]``."""
    import jax
    import jax.numpy as jnp
    import optax

    static = {} if algorithm.optax == "amsgrad" else algorithm.static
    names = {"decay": "rho"} if algorithm.optax == "adadelta" else {}

    def alone(numbers: dict[str, Any], rates: Any, gradients: Any, start: Any) -> Any:
        given = {names.get(name, name): number for name, number in numbers.items()}
        optimizer = getattr(optax, algorithm.optax)(lambda count: rates[count], **given, **static)

        def step(carry: Any, gradient: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (start, optimizer.init(start)), gradients)[1]

    with jax.enable_x64(True):
        arguments = jax.tree.map(jnp.asarray, (numbers, rates, gradients, start))
        return np.asarray(jax.jit(jax.vmap(alone, in_axes=(0, 1, 1, 0), out_axes=1))(*arguments))


def run_torch(algorithm: Algorithm, numbers: dict[str, Any], rates: Any, gradients: Any, start: Any) -> np.ndarray:
    """The same with torch: a group of parameters for each setting."""
    import torch

    def given(index: int) -> dict[str, Any]:
        chosen = {name: float(values[index]) for name, values in numbers.items()}
        if "b1" in chosen:
            chosen["betas"] = (chosen.pop("b1"), chosen.pop("b2"))
        if "decay" in chosen:
            chosen["rho" if algorithm.torch == "Adadelta" else "alpha"] = chosen.pop("decay")
        return chosen

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # NAdam keeps its product of momenta in this
    try:
        params = [torch.tensor(row) for row in start]
        groups = [{"params": [param], **given(index)} for index, param in enumerate(params)]
        lasting = {"momentum": 0.5} if algorithm.static == NESTEROV else {}  # torch wants one beside the groups' own
        optimizer = getattr(torch.optim, algorithm.torch)(groups, foreach=False, **lasting, **algorithm.static)
        if "initial_accumulator_value" in numbers:  # nor are its groups asked for this
            for param, value in zip(params, numbers["initial_accumulator_value"], strict=True):
                optimizer.state[param]["sum"].fill_(float(value))
        path = []
        for rate, gradient in zip(rates, torch.tensor(gradients), strict=True):
            for index, (param, group) in enumerate(zip(params, optimizer.param_groups, strict=True)):
                param.grad, group["lr"] = gradient[index], float(rate[index])
            optimizer.step()
            path.append(torch.stack(params).numpy().copy())
        return np.stack(path)
    finally:
        torch.set_default_dtype(before)


class _Positive(np.ndarray):
    """Numbers of many settings at once, where Keras asks whether its one number is positive."""

    def __gt__(self, other: object) -> bool:
        return True

    __ne__ = __gt__


def run_keras(algorithm: Algorithm, numbers: dict[str, Any], rates: Any, gradients: Any, start: Any) -> np.ndarray:
    """The same with keras on jax: its arithmetic is by element, so all settings are rows of one variable."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import jax
    import keras

    assert keras.backend.backend() == "jax"
    names = {"b1": "beta_1", "b2": "beta_2", "eps": "epsilon", "decay": "rho"}
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        with jax.enable_x64(True):
            optimizer = getattr(keras.optimizers, algorithm.keras)(**algorithm.static)
            for name, values in numbers.items():
                rows = np.asarray(values)[:, None]
                setattr(optimizer, names.get(name, name), rows.view(_Positive) if name == "momentum" else rows)
            variable = keras.Variable(start, dtype="float64")
            optimizer.build([variable])
            if algorithm.keras == "Nadam":
                optimizer._u_product = keras.Variable(np.ones((len(start), 1)), dtype="float64")
            path = []
            for rate, gradient in zip(rates, gradients, strict=True):
                optimizer._learning_rate = rate[:, None]
                optimizer.apply([jax.numpy.asarray(gradient)], [variable])
                path.append(np.asarray(variable.value))
            return np.stack(path)
    finally:
        keras.config.set_floatx(before)


RUNS = {"optax": run_optax, "torch": run_torch, "keras": run_keras}


def golden() -> dict[str, Any]:
    """Each algorithm in each library with its defaults, where they are ours too, and with some settings drawn."""
    rng = np.random.default_rng(3)
    rates, gradients, start = problem(1, rng)
    cases = []
    for name, library in CASES:
        algorithm = ALGORITHMS[name]
        optional = not {"momentum", "dampening", "lr_decay"} & set(algorithm.numbers.split())
        settings: list[dict[str, float]] = [{}] if optional and (name, library) not in OTHER_DEFAULTS else []
        if algorithm.numbers:
            drawn = draw(algorithm, SETTINGS - len(settings), rng)
            settings += [
                dict(zip(drawn, map(float, values), strict=True)) for values in zip(*drawn.values(), strict=True)
            ]
        for numbers in settings:
            arrays = {key: np.array([number]) for key, number in numbers.items()}
            path = RUNS[library](algorithm, arrays, rates, gradients, start)[SHOWN, 0]
            assert path.dtype == np.float64 and np.isfinite(path).all()
            cases.append(
                {
                    "algorithm": name,
                    "library": library,
                    "ours": algorithm.ours,
                    "static": algorithm.static,
                    "numbers": numbers,
                    "path": path.tolist(),
                }
            )
    shared = {"rates": rates[:, 0], "gradients": gradients[:, 0], "start": start[0]}
    return {
        "made_with": _versions(),
        "shown": SHOWN,
        **{key: value.tolist() for key, value in shared.items()},
        "cases": cases,
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {library: version(library).split("+")[0] for library in RUNS}


def main() -> None:
    made = golden()
    cases = ",\n".join(json.dumps(case) for case in made.pop("cases"))
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in made.items())
    FILE.write_text("{\n" + head + ',\n"cases": [\n' + cases + "\n]}\n")
    print(f"wrote {FILE.name}: {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
