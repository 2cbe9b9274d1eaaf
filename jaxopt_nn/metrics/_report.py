"""The scores of all classes as a table."""

from collections.abc import Sequence

import numpy as np

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.metrics._confusion import precision_recall_f1
from jaxopt_nn.types import ArrayLike

__all__ = ["classification_report"]


def classification_report(confusion: ArrayLike, names: Sequence[str] | None = None, *, digits: int = 2) -> str:
    """Precision, recall, F1 and support of each class, the accuracy, and the averages, as scikit-learn prints them.

    Args:
        confusion: ``[C, C]``, from :func:`confusion_matrix`: rows are true classes. Not traced.
        names: one name a class; None for 0, 1, …
        digits: behind the point.

    Returns:
        The table, to print.

    Raises:
        ValueError: not a square matrix, or another number of names.

    >>> import jax.numpy as jnp
    >>> print(classification_report(jnp.array([[1, 1], [0, 2]]), ["cat", "dog"]))
                  precision    recall  f1-score   support
    <BLANKLINE>
             cat       1.00      0.50      0.67         2
             dog       0.67      1.00      0.80         2
    <BLANKLINE>
        accuracy                           0.75         4
       macro avg       0.83      0.75      0.73         4
    weighted avg       0.83      0.75      0.73         4
    <BLANKLINE>
    """
    check_positive_int("digits", digits)
    scores = precision_recall_f1(confusion)
    support = np.asarray(scores.support)
    labels = [str(index) for index in range(len(support))] if names is None else [str(name) for name in names]
    if len(labels) != len(support):
        raise ValueError(f"names: expected one a class, {len(support)}, got {len(labels)}")
    columns = np.stack([np.asarray(score, np.float64) for score in (scores.precision, scores.recall, scores.f1)], 1)
    total = support.sum()
    accuracy = np.diagonal(np.asarray(confusion)).sum() / total if total else 0.0
    weighted = (columns * support[:, None]).sum(0) / total if total else np.zeros(3)
    width = max(len("weighted avg"), digits, *map(len, labels))

    def row(label: str, values: Sequence[float], count: float) -> str:
        return f"{label:>{width}} " + "".join(f" {value:>9.{digits}f}" for value in values) + f" {count:>9g}\n"

    head = f"{'':>{width}} " + "".join(f" {name:>9}" for name in ("precision", "recall", "f1-score", "support")) + "\n"
    body = "".join(row(label, each, count) for label, each, count in zip(labels, columns, support, strict=True))
    single = f"{'accuracy':>{width}} " + f" {'':>9}" * 2 + f" {accuracy:>9.{digits}f} {total:>9g}\n"
    averages = row("macro avg", columns.mean(0).tolist(), total) + row("weighted avg", weighted.tolist(), total)
    return f"{head}\n{body}\n{single}{averages}"
