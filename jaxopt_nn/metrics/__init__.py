"""Metrics of single examples, which are averaged over any batches, and metrics of a whole set of predictions.

The first kind are plain functions ``metric(outputs, targets) -> [N]``, as losses are, so their weighted mean over
padded batches is exact. Set their numbers with ``functools.partial(top_k_accuracy, k=3)``. The first axis counts
examples. A metric is averaged over the axes behind it, and nothing broadcasts. A row with a NaN output or target is
never correct.

The second kind take the truth first, as in scikit-learn, and then the predictions. :func:`whole_set` makes a metric of
a recipe of them, which is computed over the whole validation set after each epoch.

Targets that are no classes (integers out of range, the numbers of a regression) raise ``ValueError``. In a compiled
program such a row is never correct, and a confusion matrix does not count it.
"""

from jaxopt_nn.metrics._confusion import (
    ClassScores,
    confusion_matrix,
    f_beta,
    macro_f1,
    matthews_correlation,
    precision_recall_f1,
)
from jaxopt_nn.metrics._in_runs import unweighted, whole_set
from jaxopt_nn.metrics._per_example import (
    Metric,
    absolute_error,
    absolute_percentage_error,
    accuracy,
    binary_accuracy,
    squared_error,
    top_k_accuracy,
)
from jaxopt_nn.metrics._probabilities import average_precision, calibration_error, log_loss, roc_auc
from jaxopt_nn.metrics._regression import r2_score
from jaxopt_nn.metrics._report import classification_report

__all__ = [
    "ClassScores",
    "Metric",
    "absolute_error",
    "absolute_percentage_error",
    "accuracy",
    "average_precision",
    "binary_accuracy",
    "calibration_error",
    "classification_report",
    "confusion_matrix",
    "f_beta",
    "log_loss",
    "macro_f1",
    "matthews_correlation",
    "precision_recall_f1",
    "r2_score",
    "roc_auc",
    "squared_error",
    "top_k_accuracy",
    "unweighted",
    "whole_set",
]
