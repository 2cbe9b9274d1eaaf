"""Plots: what is drawn, and what is left out."""

import builtins

import numpy as np
import pytest

from jaxopt_nn import plots

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


def test_comparison_draws_median_and_range(tmp_path):
    lanes = np.array([[1.0, 2, 3], [2, 3, 4], [9, 9, NAN]])
    figure = plots.plot_comparison({"adam": lanes}, ylabel="loss")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [2, 3, 3.5])
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1 and band[:, 1].max() == 9


def test_a_loss_that_is_not_positive_is_not_drawn_on_a_logarithmic_axis():
    assert plots.plot_history({"train_loss": [1.0, -1.0]}).axes[0].get_yscale() == "linear"
    assert plots.plot_history({"train_loss": [1.0, 0.5]}).axes[0].get_yscale() == "log"


def test_missing_matplotlib_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"jaxopt-nn\[plots\]"):
        plots.plot_history({"train_loss": [1.0]})
