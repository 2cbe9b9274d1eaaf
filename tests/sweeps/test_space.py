"""Spaces: what is in them, and what is no space."""

import numpy as np
import pytest
from scipy.stats import kstest

from jaxopt_nn import sweeps
from jaxopt_nn.sweeps._space import as_trials


def test_a_grid_has_every_combination_and_conditional_ones_where_they_exist():
    space = sweeps.grid(
        rate=np.array([0.1, 0.2]), optimizer={"adam": {}, "sgd": {"momentum": [0.0, 0.9]}}, seed=range(2)
    )
    assert len(space) == 2 * 3 * 2
    assert {"rate": 0.2, "optimizer": "sgd", "momentum": 0.9, "seed": 1} in space
    assert all(("momentum" in trial) == (trial["optimizer"] == "sgd") for trial in space)


@pytest.mark.parametrize("draw", [sweeps.random, sweeps.sobol, sweeps.halton])
def test_draws_have_their_distributions_and_are_the_same_again(draw):
    values = {
        "a": sweeps.uniform(-1.0, 3.0),
        "b": sweeps.log_uniform(1e-4, 1.0),
        "c": sweeps.integers(1, 4),
        "d": sweeps.choice(["x", "y"]),
        "e": 7,
        "f": sweeps.choice({"p": {}, "q": {"g": sweeps.uniform(0.0, 1.0)}}),
        "h": sweeps.integers(1, 1000, log=True),
    }
    space = draw(512, draw=3, **values)
    assert space == draw(512, draw=3, **values) != draw(512, draw=4, **values)
    column = {name: np.array([trial[name] for trial in space]) for name in "abcdeh"}
    assert kstest((column["a"] + 1) / 4, "uniform").pvalue > 1e-3
    assert kstest(np.log10(column["b"]) / 4 + 1, "uniform").pvalue > 1e-3
    assert [abs((column["c"] == i).mean() - 0.25) < 0.07 for i in (1, 2, 3, 4)] == [True] * 4
    assert abs((column["d"] == "x").mean() - 0.5) < 0.1 and set(column["e"]) == {7}
    assert abs((column["h"] <= 31).mean() - 0.5) < 0.1 and column["h"].max() <= 1000
    chosen = [trial["g"] for trial in space if trial["f"] == "q"]
    assert abs(len(chosen) - 256) < 60 and kstest(chosen, "uniform").pvalue > 1e-3
    assert all("g" not in trial for trial in space if trial["f"] == "p")


def test_quasi_random_draws_fill_the_space_evenly():
    for draw in (sweeps.sobol, sweeps.halton):
        points = np.array(
            [[trial["a"], trial["b"]] for trial in draw(64, a=sweeps.uniform(0.0, 1.0), b=sweeps.uniform(0.0, 1.0))]
        )
        cells = {tuple((point * 4).astype(int)) for point in points}
        assert len(cells) == 16


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sweeps.grid(rate=[]), ValueError, r"^rate: expected at least one value, got none"),
        (lambda: sweeps.grid(rate=sweeps.uniform(0, 1)), TypeError, r"^rate: expected values, got a distribution"),
        (
            lambda: sweeps.random(3, rate=[0.1, 0.2]),
            TypeError,
            r"^rate: expected a distribution .*choice",
        ),
        (lambda: sweeps.random(0, rate=0.1), ValueError, r"^number: expected an int in \[1"),
        (lambda: sweeps.random(2), ValueError, r"^values: expected at least one hyperparameter"),
        (lambda: sweeps.zipped(a=[1, 2], b=[1]), ValueError, r"^zipped: expected sequences of equal length, got"),
        (lambda: sweeps.uniform(1, 1), ValueError, r"^high: expected a finite number above low = 1, got 1"),
        (lambda: sweeps.log_uniform(0, 1), ValueError, r"^low: expected a number > 0, got 0"),
        (lambda: sweeps.integers(1.0, 2), TypeError, r"^low: expected an int, got 1.0"),
        (lambda: sweeps.choice([]), ValueError, r"^values: expected at least one, got none"),
        (lambda: as_trials({"rate": 0.1}), TypeError, r"^space: expected a list of dictionaries"),
        (lambda: as_trials([{"seed": 1.5}]), ValueError, r"^space\[0\]\['seed'\]: expected an int in \[0, 2\*\*31\)"),
        (lambda: as_trials([]), ValueError, r"^space: expected at least one trial, got none"),
        (lambda: as_trials([{"rate": [1]}]), TypeError, r"^space\[0\]\['rate'\]: expected a hashable value"),
        (lambda: as_trials([{"rate": float("nan")}]), ValueError, r"^space\[0\]\['rate'\]: expected a finite number"),
    ],
)
def test_what_is_no_space_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
