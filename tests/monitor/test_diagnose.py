"""Diagnoses: of networks built to have one thing wrong with them, of healthy ones, and of histories by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxopt_nn import monitor, training
from studies.sick_nets import HEALTHY, ILLNESSES, diagnosed


@pytest.mark.slow
@pytest.mark.parametrize("name", ILLNESSES)
def test_the_right_one_is_first_in_19_of_20_seeds(name):
    found = [diagnosis.names[:1] for diagnosis, _ in diagnosed(ILLNESSES[name], range(20))]
    assert found.count((name,)) >= 19, found


@pytest.mark.slow
def test_nothing_is_found_in_50_healthy_networks():
    found = {seed: diagnosis.names for seed, (diagnosis, _) in enumerate(diagnosed(HEALTHY, range(50)))}
    assert {seed: names for seed, names in found.items() if names} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dead ReLUs"])
def test_one_of_them(name):
    ((diagnosis, history),) = diagnosed(ILLNESSES[name][:1], [0])
    assert diagnosis.names[0] == name
    assert f"{history['activation/relu_0/dead'][-1]:.0%} of the units of relu_0" in str(diagnosis)


def _history(**changes):
    """Of a healthy run of two layers."""
    fall = np.array([1.0, 0.5, 0.3, 0.2, 0.15, 0.12])
    base = {"train_loss": fall, "valid_loss": fall + 0.05, "target/entropy": np.full(6, 1.4)}
    for index in range(2):
        for kind, value in (("gradient", 0.1), ("parameter", 5.0), ("update", 0.01), ("ratio", 2e-3)):
            base[f"flow/{kind}/dense_{index}/kernel"] = np.full(6, value)
    base |= {"activation/relu_0/dead": np.full(6, 0.02), "activation/relu_0/position": np.full(6, 1.0)}
    base |= {"activation/tanh_0/saturated": np.full(6, 0.1), "input/largest": np.full(6, 2.0)}
    return {**base, **{name.replace("__", "/"): np.asarray(value, float) for name, value in changes.items()}}


STAYS = [1.4, 1.39, 1.38, 1.38, 1.38, 1.38]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ()),
        ({"input__largest": np.full(6, 250.0)}, ("inputs not scaled",)),
        ({"activation__relu_0__dead": np.full(6, 0.9), "train_loss": STAYS}, ("dead ReLUs",)),
        ({"activation__relu_0__dead": np.full(6, 0.9), **{f"start__dense_{i}": [10.0**-i] * 6 for i in range(5)}},
         ("vanishing",)),
        ({"activation__tanh_0__saturated": np.full(6, 0.8)}, ("saturated",)),
        ({"train_loss": [1, 2, 3, 4, 5, 6]}, ("rate too high",)),
        ({f"flow__ratio__dense_{i}__kernel": np.full(6, 1e-7) for i in range(2)} | {"train_loss": STAYS},
         ("rate too low",)),
        ({"flow__ratio__dense_0__kernel": np.full(6, 1e-6)}, ("first layer starved",)),
        ({"valid_loss": [1.5, 1.5, 1.6, 1.8, 2.0, 2.5]}, ("labels shuffled",)),
        ({"valid_loss": [1.0, 0.6, 0.4, 0.5, 0.7, 0.9]}, ("overfitting",)),
        ({"train_loss": STAYS, "valid_loss": STAYS}, ("underfitting",)),
        ({f"flow__ratio__dense_{i}__kernel": 10.0 ** -np.arange(2, 8) for i in range(2)} | {"train_loss": STAYS},
         ("plateau",)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and value else None,
)  # fmt: skip
def test_histories_by_hand(changes, names):
    assert monitor.diagnose(_history(**changes)).names == names


@pytest.mark.parametrize(("step", "name"), [(0, "exploding"), (7, "rate too high")])
def test_a_run_that_is_not_finite(step, name):
    history = {key: np.full(6, np.nan) for key in _history()}
    result = SimpleNamespace(history=history, status=training.Status.NONFINITE_TRAINING, first_bad_step=step)
    assert monitor.diagnose(result).names == (name,)
    assert monitor.plot({**history, "train_loss": [1.0] + [np.nan] * 5}).axes


def test_what_was_not_recorded_is_said():
    found = monitor.diagnose({"train_loss": [1.0, 0.5, 0.2]})
    assert found.names == () and len(found.unknown) == 4
    assert "not looked for: overfitting" in str(found) and "nothing found" in str(found)


def test_lanes_by_numbers_in_their_names():
    history = _history()
    for index in (2, 10):
        history[f"flow/ratio/dense_{index}/kernel"] = np.full(6, 2e-3)
    history["flow/ratio/dense_10/kernel"] = np.full(6, 1e-6)  # the last layer, not the first
    assert monitor.diagnose(history).names == ()
