"""Maps with paths, bars with intervals and sizes by layer: what is drawn, and what is refused."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import ttest_1samp

from jaxopt_nn import plots

X, Y = np.linspace(-1, 1, 21), np.linspace(-2, 2, 31)
BOWL = X[None] ** 2 + Y[:, None] ** 2


def test_paths_are_lines_in_order_on_the_grid(tmp_path):
    paths = {"one": [[1, 1], [0.5, 0.2], [0, 0]], "two": [[-1, 2], [9, 9]]}
    ax = plots.plot_paths(X, Y, BOWL, paths, minima=[(0, 0)])
    assert [line.get_label() for line in ax.lines] == ["one", "two"]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), paths["one"])
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (-2, 2))  # the path that leaves is cut off
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two", "minimum"]
    ax.lines[0].set_data(*np.array(paths["one"][:2]).T)  # a frame of an animation
    ax.figure.savefig(tmp_path / "paths.png")
    assert (tmp_path / "paths.png").stat().st_size > 5000


def test_a_function_with_holes_and_a_constant_one_are_drawn():
    holes = np.where(BOWL > 3, np.nan, BOWL)
    own = Figure().subplots()
    assert plots.plot_paths(X, Y, holes, ax=own) is own
    plots.plot_paths(X, Y, np.zeros_like(BOWL)).figure.canvas.draw()


@pytest.mark.parametrize("log", [True, False])
def test_contours_lie_closer_near_the_least_value_where_log(log):
    contours = plots.plot_paths(X, Y, BOWL, log=log, levels=10).collections[-1]
    levels = contours.levels
    steps = np.diff(10**levels if log else levels)
    assert (steps.max() / steps.min() > 5) == log


def test_bars_are_means_with_the_interval_of_student():
    values = [20.0, 30.0, 25.0, 27.0]
    ax = plots.plot_bars({"adam": values, "sgd": [60, np.nan, 70], "none": [np.nan]}, xlabel="steps")
    assert [bar.get_width() for bar in ax.patches] == [25.5, 65.0, 0.0]
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    (segment,) = ax.containers[1].lines[2][0].get_segments()
    np.testing.assert_allclose(segment[:, 0], [interval.low, interval.high])
    assert [text.get_text() for text in ax.texts] == ["2 of 3 reached it", "none of 1 reached it"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["adam", "sgd", "none"]
    assert ax.yaxis_inverted() and ax.get_xlabel() == "steps"
    wide = plots.plot_bars({"a": [1.0, 100.0]}, log=True)
    assert wide.get_xscale() == "log" and wide.patches[0].get_x() + wide.patches[0].get_width() == 50.5


def test_layers_are_geometric_means_beside_theory():
    sizes = {"He": [[1.0, 0.5, 4.0], [1.0, 2.0, 1.0]], "zero": [0.0, 0.0, 0.0], "one": [1.0, np.inf, 3.0]}
    ax = plots.plot_by_layer(sizes, {"He": [1.0, 1.0, 2.0]}, ylabel="variance")
    he, theory, zero, one = ax.lines[:4]
    np.testing.assert_allclose(he.get_xydata(), [[1, 1], [2, 1], [3, 2]])
    np.testing.assert_allclose(theory.get_ydata(), [1, 1, 2])
    assert theory.get_linestyle() == "--" and theory.get_color() == he.get_color()
    assert len(zero.get_xdata()) == 0 and one.get_xdata().tolist() == [1, 3]
    assert ax.get_yscale() == "log" and ax.get_legend().get_texts()[-1].get_text() == "theory"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.plot_paths(X, Y, BOWL.T), ValueError, r"^values: expected shape \[31, 21\], got \[21, 31\]"),
        (lambda: plots.plot_paths(X[::-1], Y, BOWL), ValueError, r"^x: expected increasing coordinates"),
        (lambda: plots.plot_paths(X, Y, BOWL, {"a": [1, 2]}), ValueError, r"^paths\['a'\]: expected points \[T, 2\]"),
        (lambda: plots.plot_paths(X, Y, BOWL, [[1, 2]]), TypeError, r"^paths: expected a dictionary"),
        (lambda: plots.plot_paths(X, Y, BOWL * np.nan), ValueError, r"^values: expected a finite number"),
        (lambda: plots.plot_bars([1, 2]), TypeError, r"^values: expected a dictionary with names"),
        (lambda: plots.plot_bars({"a": 1.0}), ValueError, r"^values\['a'\]: expected numbers \[n\], got shape \[\]"),
        (lambda: plots.plot_by_layer({"a": [1.0]}, {"b": [1.0]}), ValueError, r"^theory: expected labels of \['a'\]"),
        (lambda: plots.plot_by_layer({"a": [1.0]}, {"a": [1, 2]}), ValueError, r"^theory\['a'\]: expected \[1\]"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
