"""Metrics of a sweep side by side, learning curves, and the gap between training and validation."""

import numpy as np
import pytest

from jaxopt_nn import plots, sweeps

ERRORS = {"valid_error": 1.0, "test_error": 2.0}


def record(seed, *, status="COMPLETED", x, rate):
    """Validation prefers the rate 0.1, the test the other one."""
    base = x + (0.5 if rate == 0.1 else 1.0) + 0.1 * seed
    metrics = {"valid_error": base, "test_error": 10 * x + (3.0 if rate == 0.1 else 1.0) + seed}
    return sweeps.Record({"x": x, "rate": rate, "seed": seed}, status, None, metrics, {}, 0.0)


def sweep_of(**statuses):
    records = [
        record(seed, x=x, rate=rate, status=statuses.get(f"x{x}", "COMPLETED"))
        for x in (1, 2)
        for rate in (0.1, 0.2)
        for seed in range(3)
    ]
    return sweeps.Sweep(tuple(records), "valid_error", "min", False)


def heights(ax):
    return [np.round(container.lines[0].get_ydata(), 6).tolist() for container in ax.containers]


def test_the_objective_chooses_and_another_metric_is_shown():
    ax = plots.plot_metrics(sweep_of(), "x", ["valid_error", "test_error"])
    assert heights(ax) == [[1.6, 2.6], [14.0, 24.0]]  # of the rate 0.1, though the test error of 0.2 is lower
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["valid error", "test error"]
    assert heights(plots.plot_metrics(sweep_of(), "x", "test_error", fixed={"rate": 0.2})) == [[12.0, 22.0]]
    by = plots.plot_metrics(sweep_of(), "x", "test_error", by="rate")
    assert heights(by) == [[14.0, 24.0], [12.0, 22.0]]
    assert by.get_legend().get_title().get_text() == "rate" and by.get_ylabel() == "test error"


def test_the_interval_is_that_of_students_t():
    ax = plots.plot_metrics(sweep_of(), "x", "test_error")
    low, high = ax.containers[0].lines[2][0].get_segments()[0][:, 1]
    np.testing.assert_allclose([low, high], [14 - 2.484138, 14 + 2.484138], rtol=1e-5)  # 4.302653 · 1 / √3


def test_a_configuration_that_diverged_is_a_cross():
    ax = plots.plot_metrics(sweep_of(x2="DIVERGED"), "x", "test_error")
    (values,) = heights(ax)
    assert values[0] == 14.0 and np.isnan(values[1])
    assert any(line.get_marker() == "x" for line in ax.lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": "depth", "metrics": "test_error"}, r"^x: expected a hyperparameter, one of \['x', 'rate', 'seed'\]"),
        ({"x": "x", "metrics": "loss"}, r"^metrics: expected one of \['test_error', 'valid_error'\], got 'loss'"),
        ({"x": "x", "metrics": "test_error", "by": "depth"}, r"^by: expected a hyperparameter"),
        ({"x": "x", "metrics": "test_error", "fixed": {"rate": 7.0}}, r"^fixed: expected values that a configuration"),
    ],
)
def test_what_the_sweep_does_not_have(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_metrics(sweep_of(), **arguments)
    with pytest.raises(TypeError, match=r"^sweep: expected what sweeps.sweep returns, got a dict"):
        plots.plot_metrics({}, **arguments)


def test_a_learning_curve_is_straight_under_a_power_law():
    points = {size: [2.0 * size**-0.5, 4.0 * size**-0.5] for size in (100, 200, 400)}
    train = {100: [0.0], 200: [0.1], 400: [0.2]}
    ax = plots.plot_learning_curve({"test": points, "train": train}, laws={"test": (3.0, 0.5)})
    test, train, law = ax.lines
    np.testing.assert_allclose(test.get_ydata(), 3.0 * test.get_xdata() ** -0.5)
    np.testing.assert_allclose(law.get_ydata(), 3.0 * law.get_xdata() ** -0.5)
    assert law.get_xdata().tolist() == [100, 800] and ax.get_xscale() == ax.get_yscale() == "log"
    assert train.get_xdata().tolist() == [200, 400]  # 0 has no place
    assert test.get_color() == train.get_color() and test.get_linestyle() != train.get_linestyle()
    with pytest.raises(ValueError, match=r"^laws: expected labels of the errors \['test'\], got 'linear'"):
        plots.plot_learning_curve({"test": points}, laws={"linear": (1.0, 1.0)})
    with pytest.raises(ValueError, match=r"^errors\['test'\]: expected sizes above 0, each with values"):
        plots.plot_learning_curve({"test": {10: []}})
    with pytest.raises(TypeError, match=r"^errors\['test'\]: expected a dictionary from sizes to values"):
        plots.plot_learning_curve({"test": [0.1, 0.2]})


def test_the_best_epoch_is_that_of_the_mean_over_lanes():
    history = {
        "train_loss": [[4.0, 2.0, 1.0, np.nan], [4.0, 2.0, 1.0, np.nan]],
        "valid_loss": [[5.0, 1.0, 4.0, np.nan], [5.0, 7.0, 3.0, np.nan]],  # means 5, 4, 3.5
    }
    ax = plots.plot_generalization(history)
    train, valid, best = ax.lines
    assert train.get_ydata().tolist() == [4, 2, 1] and valid.get_ydata().tolist() == [5, 4, 3.5]
    assert best.get_xdata().tolist() == [3] and best.get_label() == "best: epoch 3"
    with pytest.raises(ValueError, match=r"^metric: expected one that the history has as 'valid_error'|'train_error'"):
        plots.plot_generalization(history, metric="error")
    with pytest.raises(TypeError, match=r"^history: expected a run's result, or its history, got a list"):
        plots.plot_generalization([1.0])


def test_errors_of_differences_have_a_place_for_each_step():
    ax = plots.plot_differences([1.0, 0.1], {"two-sided": [0.5, 0.0], "complex": [0.1, 0.2]})
    assert ax.lines[0].get_ydata().tolist() == [0.5, 1e-17] and ax.get_xscale() == ax.get_yscale() == "log"
    left, right = ax.get_xlim()
    assert left > right  # smaller to the right
    with pytest.raises(ValueError, match=r"^errors\['one'\]: expected \[2\], one for each step, got \[1\]"):
        plots.plot_differences([1.0, 0.1], {"one": [1.0]})
    with pytest.raises(ValueError, match=r"^steps: expected numbers above 0, \[n\], got"):
        plots.plot_differences([1.0, 0.0], {"one": [1.0, 1.0]})


def test_an_isolation_shows_the_whole_of_its_intervals():
    ax = plots.plot_isolation(sweep_of(), "x")
    for part in sweep_of().isolate("x"):
        assert ax.get_ylim()[0] < part.best.low and part.best.high < ax.get_ylim()[1]
