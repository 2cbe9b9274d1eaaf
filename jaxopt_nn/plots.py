"""Pictures of training runs, drawn with matplotlib (the ``plots`` extra).

Every function returns a ``matplotlib.figure.Figure`` that belongs to no global state: save it with
``figure.savefig("curves.png")``, or show it as the last value of a notebook cell.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._arguments import check_bool, check_number, check_positive_int, shown
from jaxopt_nn.trees import takes

__all__ = ["plot_comparison", "plot_history", "plot_range_test", "plot_schedules"]


def plot_history(history: Any, *, best_epoch: int | None = None, title: str = "") -> Any:
    """The curves of a run, or of several in lanes: losses, metrics, and below them what else the history holds.

    Args:
        history: name to values ``[epochs]``, as ``RunResult.history``, or the result itself; epochs that were not run
            (NaN) are left out. Of lanes ``[..., epochs]``, the median is drawn, and minimum to maximum as a band.
        best_epoch: an epoch (from 0) to mark.
        title: a title for the figure.

    Returns:
        A matplotlib figure: training and validation loss in the first panel, validation metrics in the second, gradient
        norm and learning rate in the third and fourth, as far as they are there.

    Raises:
        TypeError: it is no history.
        ValueError: there is nothing to draw in it, or a value is no array ``[..., epochs]`` of numbers.

    >>> figure = plot_history({"train_loss": [3.0, 2.0], "valid_loss": [3.1, 2.4], "learning_rate": [0.1, 0.1]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'learning rate']
    """
    named = getattr(history, "history", history)
    if not isinstance(named, Mapping):
        raise TypeError(f"history: expected a run's result, or its history, got a {type(history).__name__}")
    if best_epoch is not None:
        check_number("best_epoch", best_epoch, -1, whole=True)
    _check_names("history", named)
    values = {name: _values(f"history[{name!r}]", value) for name, value in named.items()}
    losses = [name for name in ("train_loss", "valid_loss", "penalty") if name in values]
    shapes = {values[name].shape for name in losses}
    metrics = [name for name in values if name.startswith(("train_", "valid_")) and name not in losses]
    metrics = [name for name in metrics if not shapes or values[name].shape in shapes]  # no confusion matrices
    panels = [("loss", losses, "log"), ("metric", metrics, "linear")]
    panels += [(name.replace("_", " "), [name], "log") for name in ("gradient_norm", "learning_rate") if name in values]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        raise ValueError(f"history: expected a curve to draw, such as train_loss, got {list(values)}")
    figure, axes = _figure(len(panels), title)
    for ax, (label, names, scale) in zip(axes, panels, strict=True):
        for name in names:
            _draw(ax, values[name], name.replace("_", " "))
        if best_epoch is not None and best_epoch >= 0:
            ax.axvline(best_epoch + 1, color="0.6", linestyle=":", label="best epoch")
        if scale == "log" and all(np.nanmin(values[name], initial=np.inf) > 0 for name in names):
            ax.set_yscale("log")
        ax.set(xlabel="epoch", ylabel=label)
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    return figure


def plot_comparison(curves: Mapping[str, Any], *, ylabel: str, title: str = "", log: bool = False) -> Any:
    """One curve a candidate, with the range of its seeds as a band.

    Args:
        curves: label to values ``[epochs]`` or ``[..., epochs]``, such as ``[seeds, epochs]``.
        ylabel: what the values are.
        title: a title for the figure.
        log: whether the values' axis is logarithmic.

    Returns:
        A matplotlib figure: the median over seeds as a line, minimum to maximum as a band around it.

    >>> figure = plot_comparison({"adam": [[0.5, 0.9], [0.6, 0.8]], "sgd": [[0.4, 0.5]]}, ylabel="accuracy")
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['adam', 'sgd']
    """
    _check_names("curves", curves)
    check_bool("log", log)
    figure, (ax,) = _figure(1, title)
    for label, value in curves.items():
        _draw(ax, _values(f"curves[{label!r}]", value), label)
    if log:
        ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


def plot_schedules(
    schedules: Mapping[str, Callable[[Any], Any]],
    steps: int,
    *,
    steps_per_epoch: int | None = None,
    log: bool = False,
    title: str = "",
) -> Any:
    """Learning rates over time, one line a schedule.

    Args:
        schedules: label to schedule, ``count -> learning rate``: of :mod:`jaxopt_nn.schedules`, or of optax.
        steps: how many updates to draw, >= 1.
        steps_per_epoch: the number of updates in an epoch, to label the axis in epochs; None for steps.
        log: whether the learning rate's axis is logarithmic.
        title: a title for the figure.

    Returns:
        A matplotlib figure. The learning rate of each update is held until the next one; of more than 4,000 updates
        that many are drawn.

    >>> figure = plot_schedules({"half every 10 steps": lambda count: 0.5 ** (count // 10)}, 30)
    >>> figure.axes[0].lines[0].get_ydata()[[0, 9, 10, 29]].tolist()
    [1.0, 1.0, 0.5, 0.25]
    """
    check_positive_int("steps", steps)
    if steps_per_epoch is not None:
        check_positive_int("steps_per_epoch", steps_per_epoch)
    _check_names("schedules", schedules)
    for name, schedule in schedules.items():
        if isinstance(schedule, type) or not callable(schedule) or not takes(schedule, 0):
            raise TypeError(f"schedules[{name!r}]: expected a function of the count alone, got {shown(schedule)}")
    check_bool("log", log)
    counts = np.unique(np.linspace(0, steps - 1, min(steps, 4000)).astype(np.int32))
    figure, (ax,) = _figure(1, title)
    for label, schedule in schedules.items():
        rates = np.asarray(jax.vmap(lambda count, of=schedule: jnp.asarray(of(count)))(counts), np.float64)
        ax.plot(counts / (steps_per_epoch or 1), rates, label=label, drawstyle="steps-post")
    if log:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
    ax.set(xlabel="step" if steps_per_epoch is None else "epoch", ylabel="learning rate")
    ax.grid(alpha=0.3)
    # Above the axes: a schedule may go anywhere in them.
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)
    return figure


def _check_names(name: str, named: Any) -> None:
    if not isinstance(named, Mapping) or not all(isinstance(label, str) for label in named) or not named:
        raise TypeError(f"{name}: expected a dictionary with names, got {shown(named)}")


def plot_range_test(test: Any, *, title: str = "") -> Any:
    """Loss against learning rate: what a learning rate range test saw.

    Args:
        test: of :func:`jaxopt_nn.training.learning_rate_range_test`.
        title: a title for the figure.

    Returns:
        A matplotlib figure: the loss of each batch, its moving average, and the suggested rate. Where the run has
        diverged there is no line; a loss of more than four times the first is cut off.

    Raises:
        TypeError: it is no range test.

    >>> from jaxopt_nn.training import RangeTest
    >>> test = RangeTest(np.array([0.01, 0.1, 1.0]), np.array([2.0, 1.0, 3.0]), np.array([2.0, 1.5, 2.0]), 0.01)
    >>> plot_range_test(test).axes[0].get_xlabel()
    'learning rate'
    """
    if not all(hasattr(test, name) for name in ("learning_rate", "loss", "smooth_loss", "suggestion")):
        raise TypeError(f"test: expected what learning_rate_range_test returns, got a {type(test).__name__}")
    rates, losses, smooth = (np.asarray(each, np.float64) for each in (test.learning_rate, test.loss, test.smooth_loss))
    figure, (ax,) = _figure(1, title)
    ax.plot(rates, losses, color="0.75", linewidth=1, label="loss of the batch")
    ax.plot(rates, smooth, label="moving average")
    ax.axvline(float(test.suggestion), color="tab:orange", linestyle="--", label=f"suggested: {test.suggestion:.2g}")
    low, high = np.nanmin(losses), max(np.nanmax(losses[:1]), np.nanmin(losses))
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
    ax.set_ylim(low - 0.1 * (high - low), min(np.nanmax(losses), 4 * high) + 0.1 * (high - low))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


def _values(name: str, value: Any) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected numbers [..., epochs], got {shown(value)}") from error
    if array.ndim == 0 or array.size == 0 or not jnp.issubdtype(array.dtype, np.number):
        raise ValueError(f"{name}: expected numbers [..., epochs], got {array.dtype}{list(array.shape)}")
    return array.astype(np.float64)


def _draw(ax: Any, values: NDArray[Any], label: str) -> None:
    """The median of lanes ``[..., epochs]`` as a line, the range as a band; epochs that no lane ran are left out."""
    lanes = np.where(np.isfinite(values), values, np.nan).reshape(-1, values.shape[-1])
    run = np.flatnonzero(np.isfinite(lanes).any(0))
    lanes = lanes[:, run]
    (line,) = ax.plot(run + 1, np.nanmedian(lanes, 0), label=label, marker="." if len(run) < 2 else None)
    if len(lanes) > 1:
        ax.fill_between(
            run + 1, np.nanmin(lanes, 0), np.nanmax(lanes, 0), color=line.get_color(), alpha=0.15, linewidth=0
        )


def _figure(panels: int, title: str) -> tuple[Any, list[Any]]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'jaxopt-nn[plots]'") from error
    figure = Figure(figsize=(4.2 * panels if panels > 1 else 6.4, 3.6), layout="constrained")
    figure.suptitle(title)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)  # there is no epoch 2.5
    return figure, axes
