"""A confusion matrix as a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxopt_nn.plots._panels import axes_or_new

__all__ = ["plot_confusion_matrix"]

_WRITTEN = 20  # classes up to which each count is written


def plot_confusion_matrix(confusion: Any, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """How often each true class (row) was predicted as each class (column).

    Args:
        confusion: ``[C, C]`` counts, from :func:`jaxopt_nn.metrics.confusion_matrix`.
        names: one name a class; None for 0, 1, …
        ax: matplotlib ``Axes``; None for those of a new figure, which is ``ax.figure``.

    Returns:
        The axes. The colour is the share of the true class, so that rare classes are seen too; the counts are written
        in the cells, with up to 20 classes.

    Raises:
        ValueError: not a square matrix of counts, or another number of names.

    >>> ax = plot_confusion_matrix([[8, 2], [1, 9]], names=["cat", "dog"])
    >>> [text.get_text() for text in ax.texts]
    ['8', '2', '1', '9']
    """
    counts = np.asarray(confusion)
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] > 0
    if not square or counts.dtype.kind not in "iuf" or not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError(f"confusion: expected counts [C, C], got {counts.dtype}{list(counts.shape)}")
    labels = [str(index) for index in range(len(counts))] if names is None else [str(name) for name in names]
    if len(labels) != len(counts):
        raise ValueError(f"names: expected one a class, {len(counts)}, got {len(labels)}")
    ax = axes_or_new(ax, (5.2, 4.4))
    totals = counts.sum(1, keepdims=True)
    shares = np.where(totals > 0, counts / np.maximum(totals, 1e-38), 0.0)
    drawn = ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    if len(counts) <= _WRITTEN:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.6 else "black" if count else "0.7"
            size = 9 if len(counts) <= 10 else 6
            ax.text(column, row, f"{count:g}", ha="center", va="center", color=colour, fontsize=size)
        ax.set_xticks(range(len(labels)), labels, rotation=45 if max(map(len, labels)) > 3 else 0)
        ax.set_yticks(range(len(labels)), labels)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.figure.colorbar(drawn, ax=ax, label="share of the true class")
    return ax
