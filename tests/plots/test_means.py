"""Means with intervals: the numbers that are drawn, against scipy's, and what did not end well."""

import jax
import numpy as np
import pytest
from scipy.stats import t

from jaxopt_nn import plots, sweeps


def test_points_are_means_and_bars_the_intervals_of_student():
    values = [0.5, 0.7, 0.9]
    ax = plots.plot_means({"a": {10: values, 100: [0.4]}})
    (container,) = ax.containers
    line, caps, _ = container
    np.testing.assert_allclose(line.get_ydata(), [0.7, 0.4])
    low, high = (cap.get_ydata()[0] for cap in caps)
    expected = t.interval(0.95, 2, loc=np.mean(values), scale=np.std(values, ddof=1) / np.sqrt(3))
    np.testing.assert_allclose([low, high], expected)
    assert caps[0].get_ydata()[1] == 0.4  # of a single value there is none


def test_what_did_not_end_well_is_a_cross_at_the_border():
    ax = plots.plot_means({"a": {1: [0.5], 2: []}, "b": {1: [np.nan], 2: [0.3]}})
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert [round(float(line.get_xdata()[0])) for line in crosses] == [1, 0]
    assert "× a run did not end well" in [text.get_text() for text in ax.get_legend().get_texts()]


def parabola(key, hp):
    noise = 0.01 * jax.random.normal(key)
    return {"loss": (hp["x"] - {"left": 1.0, "right": 3.0}[hp["side"]]) ** 2 + hp["extra"] + noise}


@pytest.fixture(scope="module")
def swept():
    space = sweeps.grid(x=[1.0, 2.0, 3.0], side=["right", "left"], extra=[5.0, 0.0], seed=range(3))
    return sweeps.sweep_function(parabola, space, key=jax.random.key(0), objective="loss")


def test_a_response_is_the_best_over_the_rest_in_the_order_of_the_space(swept):
    ax = plots.plot_response(swept, "x", "side")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["right", "left"]
    right, left = (container[0].get_ydata() for container in ax.containers)
    np.testing.assert_allclose(right, [4, 1, 0], atol=0.05)  # with extra = 0, never 5
    np.testing.assert_allclose(left, [0, 1, 4], atol=0.05)
    assert "lower is better" in ax.get_ylabel()


def test_what_cannot_be_drawn_is_refused(swept):
    with pytest.raises(ValueError, match=r"sweep: expected a hyperparameter, one of \['x', .* got 'y'"):
        plots.plot_response(swept, "y")
    with pytest.raises(TypeError, match=r"sweep: expected what sweeps\.sweep returns, got a dict"):
        plots.plot_response({}, "x")
    with pytest.raises(TypeError, match=r"lines\['a'\]: expected a dictionary from places to values"):
        plots.plot_means({"a": [1.0]})
    with pytest.raises(ValueError, match=r"lines\['a'\]\[1\]: expected the values of seeds"):
        plots.plot_means({"a": {1: "many"}})


def test_values_may_have_labels_of_their_own(swept):
    ax = plots.plot_response(swept, "x", "side", labels={"left": "to the left"})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["right", "to the left"]


def test_between_names_there_is_no_line():
    ax = plots.plot_means({"a": {"adam": [1.0], "sgd": [2.0]}, "b": {1: [1.0], 2: [2.0]}})
    assert [container[0].get_linestyle() for container in ax.containers] == ["None", "-"]
