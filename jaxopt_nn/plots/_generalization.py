"""Under- and overfitting: training and validation loss of a run, and the gap between them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxopt_nn.plots._panels import COLOURS, axes_or_new, check_names, plain_values

__all__ = ["plot_generalization"]


def plot_generalization(history: Any, *, metric: str = "loss", log: bool = False, ax: Any = None) -> Any:
    """Training and validation loss over epochs, with the gap between them, and where validation was best.

    Both curves high: the model underfits. Training falls and validation rises: it overfits, from the
    marked epoch on.

    Args:
        history: name to values ``[epochs]``, as ``RunResult.history``, or the result itself; of lanes
            ``[..., epochs]``, the mean is drawn.
        metric: what is drawn: ``train_<metric>`` and ``valid_<metric>``. Less of it has to be better.
        log: whether the values' axis is logarithmic.
        ax: matplotlib ``Axes``; None for those of a new figure, which is ``ax.figure``.

    Returns:
        The axes. Epochs that no lane ran are left out.

    Raises:
        TypeError: it is no history.
        ValueError: it has no such metric of training and of validation.

    >>> ax = plot_generalization({"train_loss": [3.0, 2.0, 1.0], "valid_loss": [3.2, 2.5, 2.8]})
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['training', 'validation', 'gap', 'best: epoch 2']
    """
    named = getattr(history, "history", history)
    if not isinstance(named, Mapping):
        raise TypeError(f"history: expected a run's result, or its history, got a {type(history).__name__}")
    check_names("history", named)
    curves: list[np.ndarray[Any, Any]] = []
    for name in (f"train_{metric}", f"valid_{metric}"):
        if name not in named:
            raise ValueError(f"metric: expected one that the history has as {name!r}, which has {list(named)}")
        values = plain_values(f"history[{name!r}]", named[name])
        curves.append(np.where(np.isfinite(values), values, np.nan).reshape(-1, values.shape[-1]))
    epochs = np.flatnonzero(np.isfinite(curves[0]).any(0) & np.isfinite(curves[1]).any(0))
    if not len(epochs):
        raise ValueError("history: expected an epoch with finite values, got none")
    train, valid = (np.nanmean(curve[:, epochs], 0) for curve in curves)
    ax = axes_or_new(ax)
    ax.plot(epochs + 1, train, "--", color=COLOURS[0], label="training")
    ax.plot(epochs + 1, valid, "-", color=COLOURS[5], label="validation")
    ax.fill_between(epochs + 1, train, valid, color="0.6", alpha=0.2, linewidth=0, label="gap")
    best = int(valid.argmin())
    ax.plot([epochs[best] + 1], [valid[best]], "o", color=COLOURS[5], label=f"best: epoch {epochs[best] + 1}")
    if log:
        ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel=metric.replace("_", " "))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small")
    return ax
