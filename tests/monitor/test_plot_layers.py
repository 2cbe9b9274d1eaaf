"""Sizes by layer: the order of the layers, what is left out, and what is refused."""

import numpy as np
import pytest

from jaxopt_nn import monitor


def history(sizes, parameters, epochs=2):
    """Of gradients that are twice as large in the second epoch."""
    grow = np.arange(1.0, epochs + 1)
    flow = {"gradient": sizes, "parameter": parameters}
    return {"train_loss": np.ones(epochs)} | {
        f"flow/{kind}/dense_{index}/{leaf}": size * (grow if kind == "gradient" else np.ones(epochs))
        for kind, own in flow.items()
        for index, size in own.items()
        for leaf in ("kernel", "bias")
    }


def test_kernels_in_their_order_relative_to_their_size():
    one = history({10: 6.0, 2: 0.0, 0: 1.0}, {10: 2.0, 2: 1.0, 0: 4.0})
    for epoch, factor in ((0, 1), (1, 2), (-1, 2)):
        (line,) = monitor.plot_layers({"one": one}, epoch=epoch).lines
        np.testing.assert_allclose(line.get_ydata(), [0.25 * factor, np.nan, 3.0 * factor])  # 0 has no logarithm
        assert line.get_xdata().tolist() == [1, 2, 3]


def test_what_is_no_history_with_records_is_refused():
    with pytest.raises(ValueError, match=r"results\['a'\]: expected a history of monitor.watch\(\)"):
        monitor.plot_layers({"a": {"train_loss": [1.0]}})
    with pytest.raises(TypeError, match=r"results\['a'\]: expected the result of one run"):
        monitor.plot_layers({"a": {"train_loss": np.ones((2, 3))}})
    with pytest.raises(ValueError, match="epoch: expected one of the 2 of 'a', got 2"):
        monitor.plot_layers({"a": history({0: 1.0}, {0: 1.0})}, epoch=2)


def test_some_layers_by_a_pattern():
    one = history({10: 6.0, 2: 1.0, 0: 1.0}, {10: 2.0, 2: 1.0, 0: 4.0})
    (line,) = monitor.plot_layers({"one": one}, match="*_?/kernel").lines
    np.testing.assert_allclose(line.get_ydata(), [0.25, 1.0])
    with pytest.raises(ValueError, match="match: expected a pattern of the paths of layers of 'one', got 'conv'"):
        monitor.plot_layers({"one": one}, match="conv")
