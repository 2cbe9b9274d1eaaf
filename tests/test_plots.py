"""Plots: what is drawn, and what is left out."""

import builtins
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optax
import pytest
from matplotlib.figure import Figure

from jaxopt_nn import plots, schedules, sweeps

NAN = np.nan


def test_history_has_a_panel_for_each_kind_and_no_epoch_that_was_not_run(tmp_path):
    history = {
        "train_loss": [3.0, 2.0, 1.0, NAN],
        "valid_loss": [3.0, 2.5, 2.6, NAN],
        "penalty": [0.1, 0.2, 0.3, NAN],
        "valid_accuracy": [0.5, 0.6, 0.7, NAN],
        "gradient_norm": [1.0, 0.5, 0.1, NAN],
        "learning_rate": [0.1, 0.1, 0.05, NAN],
    }
    figure = plots.plot_history(history, best_epoch=1, title="digits")
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "metric", "gradient norm", "learning rate"]
    first = figure.axes[0].lines[0]
    assert first.get_xdata().tolist() == [1, 2, 3] and first.get_ydata().tolist() == [3, 2, 1]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "train loss",
        "valid loss",
        "penalty",
        "best epoch",
    ]
    figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_a_result_is_drawn_as_its_history_and_lanes_as_a_band():
    lanes = {"train_loss": np.array([[3.0, 2, 1], [5, 4, NAN]]), "valid_accuracy": np.ones((2, 3))}
    figure = plots.plot_history(SimpleNamespace(history=lanes))  # as a RunResult has one
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "metric"]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [4, 3, 1])
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1 and band[:, 1].max() == 5
    one = plots.plot_history(SimpleNamespace(history={"train_loss": np.ones(3)}))
    assert not one.axes[0].collections


@pytest.mark.parametrize(
    ("history", "error", "message"),
    [
        ([1.0, 2.0], TypeError, r"^history: expected a run's result, or its history, got a list"),
        (None, TypeError, r"^history: expected a run's result, or its history, got a NoneType"),
        ({"x": [1.0]}, ValueError, r"^history: expected a curve to draw, such as train_loss, got \['x'\]"),
        (
            {"train_loss": 1.0},
            ValueError,
            r"^history\['train_loss'\]: expected numbers \[\.\.\., epochs\], got float64\[\]",
        ),
        ({"train_loss": ["a"]}, ValueError, r"^history\['train_loss'\]: expected numbers .* got <U1\[1\]"),
    ],
)
def test_what_is_no_history_is_refused(history, error, message):
    with pytest.raises(error, match=message):
        plots.plot_history(history)


def test_comparison_draws_median_and_range(tmp_path):
    lanes = np.array([[1.0, 2, 3], [2, 3, 4], [9, 9, NAN]])
    figure = plots.plot_comparison({"adam": lanes}, ylabel="loss")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [2, 3, 3.5])
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1 and band[:, 1].max() == 9


def test_a_loss_that_is_not_positive_is_not_drawn_on_a_logarithmic_axis():
    assert plots.plot_history({"train_loss": [1.0, -1.0]}).axes[0].get_yscale() == "linear"
    assert plots.plot_history({"train_loss": [1.0, 0.5]}).axes[0].get_yscale() == "log"


def test_schedules_are_drawn_by_step_or_by_epoch(tmp_path):
    table = np.array([0.4, 0.3, 0.2, 0.1])
    drawn = {
        "ours": schedules.step_decay(0.4, 2, 0.5),
        "theirs": optax.linear_schedule(0.4, 0.0, 4),
        "a number": lambda count: 0.25,
        "a table": lambda count: optax.piecewise_constant_schedule(0.5, {2: 0.5})(count) * table[0],
    }
    figure = plots.plot_schedules(drawn, 4, title="rates")
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(drawn)
    expected = [[0.4, 0.4, 0.2, 0.2], [0.4, 0.3, 0.2, 0.1], [0.25] * 4, [0.2, 0.2, 0.1, 0.1]]
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines], expected, rtol=1e-6)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), range(4))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("step", "learning rate", "linear")
    (ax,) = plots.plot_schedules(drawn, 10_000, steps_per_epoch=100, log=True).axes
    assert (ax.get_xlabel(), ax.get_yscale()) == ("epoch", "log")
    times = ax.lines[0].get_xdata()
    assert len(times) <= 4000 and times[0] == 0 and times[-1] == 99.99
    figure.savefig(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 5000


def test_how_many_steps_to_draw_is_checked():
    with pytest.raises(ValueError, match=r"^steps: expected an int in"):
        plots.plot_schedules({}, 0)
    with pytest.raises(ValueError, match=r"^steps_per_epoch: expected an int in"):
        plots.plot_schedules({}, 1, steps_per_epoch=0)


@pytest.mark.slow
def test_the_documentation_draws_every_schedule(tmp_path):
    path = Path(__file__).parent.parent / "docs" / "schedule_plots.py"
    spec = importlib.util.spec_from_file_location("schedule_plots", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.draw(tmp_path)
    drawn = {file.stem: file.read_text() for file in tmp_path.glob("*.svg")}
    assert drawn.keys() == set(schedules.__all__) - {"Schedule"}
    assert all("</svg>" in text and len(text) < 200_000 for text in drawn.values())


def test_missing_matplotlib_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"jaxopt-nn\[plots\]"):
        plots.plot_history({"train_loss": [1.0]})


def swept(space, value, mode="min"):
    """A sweep whose trials have these values, and histories of three epochs that end there."""
    records = [
        sweeps.Record(trial, "COMPLETED", None, {"loss": v}, {"loss": v + np.array([2.0, 1.0, 0.0])}, 0.1)
        for trial in space
        for v in [float(value(**trial))]
    ]
    return sweeps.Sweep(tuple(records), "loss", mode, False)


SWEPT = swept(
    sweeps.grid(rate=[0.01, 0.1, 1.0], kind=["a", "b"], seed=range(2)),
    lambda rate, kind, seed: abs(np.log10(rate) + 1) + 0.5 * (kind == "b") + 0.1 * seed + 1,
)


def test_each_plot_of_a_sweep_takes_and_returns_axes():
    figure = Figure(figsize=(12, 8))
    for ax, draw in zip(
        figure.subplots(2, 3).ravel(),
        [
            lambda ax: plots.plot_heat_map(SWEPT, "rate", "kind", ax=ax),
            lambda ax: plots.plot_curves(SWEPT, ax=ax),
            lambda ax: plots.plot_isolation(SWEPT, "kind", ax=ax),
            lambda ax: plots.plot_slice(SWEPT, "rate", ax=ax),
            lambda ax: plots.plot_parallel_coordinates(SWEPT, ax=ax),
            lambda ax: plots.plot_slice(SWEPT, "kind", ax=ax),
        ],
        strict=True,
    ):
        assert draw(ax) is ax
    assert plots.plot_slice(SWEPT, "rate").figure is not figure
    for wrong in (
        lambda: plots.plot_slice(SWEPT, "rat"),
        lambda: plots.plot_heat_map(SWEPT, "rate", "rat"),
        lambda: plots.plot_parallel_coordinates(SWEPT, ["rat"]),
    ):
        with pytest.raises(
            ValueError, match=r"^sweep: expected a hyperparameter, one of \['rate', 'kind'\], got 'rat'"
        ):
            wrong()
    with pytest.raises(TypeError, match=r"^sweep: expected what sweeps.sweep returns, got a list"):
        plots.plot_curves([])
    with pytest.raises(TypeError, match=r"^ax: expected matplotlib Axes, got 3"):
        plots.plot_slice(SWEPT, "rate", ax=3)
    with pytest.raises(ValueError, match=r"^metric: expected one of the histories' \['loss'\], got 'accuracy'"):
        plots.plot_curves(SWEPT, "accuracy")


def test_what_the_plots_of_a_sweep_show():
    cells = plots.plot_heat_map(SWEPT, "rate", "kind").images[0].get_array()
    np.testing.assert_allclose(cells, [[2.05, 1.05, 2.05], [2.55, 1.55, 2.55]])
    ax = plots.plot_curves(SWEPT, best=2)
    assert [line.get_label() for line in ax.lines] == ["kind a", "kind b"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [3.05, 2.05, 1.05])
    ax = plots.plot_curves(SWEPT, by="kind")
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    ax = plots.plot_curves(SWEPT, by="rate")
    assert [line.get_label() for line in ax.lines] == ["0.01", "0.1", "1"]
    np.testing.assert_allclose([line.get_ydata()[-1] for line in ax.lines], [2.05, 1.05, 2.05])
    ax = plots.plot_isolation(SWEPT, "rate")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2.05, 1.05, 2.05])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.01", "0.1", "1"]
    ax = plots.plot_isolation(SWEPT, "rate", fixed={"kind": "b"})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2.55, 1.55, 2.55])
    ax = plots.plot_parallel_coordinates(SWEPT)
    best = next(line for line in ax.lines if line.get_label() == "best")
    np.testing.assert_allclose(best.get_ydata(), [0.5, 0.0, 0.0])


def test_a_value_that_explodes_flattens_no_other():
    rates = np.geomspace(1e-4, 1.0, 20).tolist()
    values = swept(sweeps.grid(rate=rates), lambda rate: 1e9 if rate == 1 else 1 + rate)
    ax = plots.plot_slice(values, "rate")
    assert ax.get_xscale() == "log" and ax.get_ylim()[1] < 2
    assert "far worse" in ax.get_legend_handles_labels()[1]
    found = plots.plot_heat_map(values, "rate", "rate").collections[0]
    assert found.norm.vmax < 2
    assert type(found.norm).__name__ == "Normalize"
    decades = swept(sweeps.grid(rate=rates), lambda rate: rate)
    assert type(plots.plot_heat_map(decades, "rate", "rate").collections[0].norm).__name__ == "LogNorm"
