"""Learning rates: schedules over time, and what a range test saw."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_bool, check_positive_int, shown
from jaxopt_nn.plots._panels import COLOURS, check_names, make_figure
from jaxopt_nn.trees import takes

__all__ = ["plot_range_test", "plot_schedules"]


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
    check_names("schedules", schedules)
    for name, schedule in schedules.items():
        if isinstance(schedule, type) or not callable(schedule) or not takes(schedule, 0):
            raise TypeError(f"schedules[{name!r}]: expected a function of the count alone, got {shown(schedule)}")
    check_bool("log", log)
    counts = np.unique(np.linspace(0, steps - 1, min(steps, 4000)).astype(np.int32))
    figure, (ax,) = make_figure(1, title)
    ax.set_prop_cycle(color=COLOURS)
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
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, ncols=3)
    return figure


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
    figure, (ax,) = make_figure(1, title)
    ax.plot(rates, losses, color="0.75", linewidth=1, label="loss of the batch")
    ax.plot(rates, smooth, label="moving average")
    ax.axvline(float(test.suggestion), color="tab:orange", linestyle="--", label=f"suggested: {test.suggestion:.2g}")
    low, high = np.nanmin(losses), max(np.nanmax(losses[:1]), np.nanmin(losses))
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
    ax.set_ylim(low - 0.1 * (high - low), min(np.nanmax(losses), 4 * high) + 0.1 * (high - low))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure
