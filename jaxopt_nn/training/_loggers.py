"""Callbacks of ``fit`` that write its metrics: to CSV, JSON lines, TensorBoard and MLflow.

Each is ``EpochEnd -> None``. In a run that goes on from a checkpoint, what was written of the epochs that are run again
is replaced, so that each epoch stands there once.
"""

import csv
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxopt_nn.training._records import EpochEnd

__all__ = ["log_csv", "log_json_lines", "log_mlflow", "log_tensorboard"]

Logger = Callable[["EpochEnd"], None]


def log_csv(path: str | os.PathLike[str]) -> Logger:
    """A callback of :func:`fit` that writes a table: a row for each epoch, a column for each metric.

    Args:
        path: the file; its folder is made. In a run that begins with epoch 0, a file that is there is replaced.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from jaxopt_nn.training import EpochEnd
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = log_csv(folder + "/metrics.csv")
    ...     for epoch in range(2):
    ...         log(EpochEnd(epoch, {"train_loss": 1 / (1 + epoch)}, None))
    ...     print(Path(folder, "metrics.csv").read_text())
    epoch,train_loss
    0,1.0
    1,0.5
    """

    def text(row: dict[str, Any]) -> tuple[str, str]:
        lines = [io.StringIO(), io.StringIO()]
        csv.writer(lines[0], lineterminator="\n").writerow(row)
        csv.writer(lines[1], lineterminator="\n").writerow(row.values())
        return lines[0].getvalue(), lines[1].getvalue()

    return _log_lines(Path(path), text, lambda line: int(line.partition(",")[0]))


def log_json_lines(path: str | os.PathLike[str]) -> Logger:
    """A callback of :func:`fit` that writes a line of JSON for each epoch; NaN and infinite metrics are null.

    Args:
        path: as in :func:`log_csv`.
    """

    def text(row: dict[str, Any]) -> tuple[str, str]:
        plain = {name: value if math.isfinite(value) else None for name, value in row.items()}
        return "", json.dumps(plain) + "\n"

    return _log_lines(Path(path), text, lambda line: json.loads(line)["epoch"])


def log_tensorboard(folder: str | os.PathLike[str]) -> Logger:
    """A callback of :func:`fit` that writes the finite metrics as scalars, by epoch, for TensorBoard.

    Args:
        folder: the folder of this run, as for ``tensorboard --logdir``.

    Raises:
        ImportError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError("log_tensorboard needs tensorboardX: pip install 'jaxopt-nn[tensorboard]'") from error
    writers: list[Any] = []

    def log(end: "EpochEnd") -> None:
        if not writers:
            writers.append(SummaryWriter(os.fspath(folder), purge_step=end.epoch, flush_secs=1))
        for name, value in _finite(end.metrics).items():
            writers[0].add_scalar(name, value, end.epoch)

    return log


def log_mlflow() -> Logger:
    """A callback of :func:`fit` that logs the finite metrics to MLflow, by epoch, in the run that is active.

    Where they go is said to MLflow: by ``mlflow.set_tracking_uri``, and ``with mlflow.start_run():`` around ``fit``.

    Raises:
        ImportError: MLflow is not installed.
    """
    try:
        import mlflow  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("log_mlflow needs MLflow: pip install mlflow-skinny") from error

    def log(end: "EpochEnd") -> None:
        mlflow.log_metrics(_finite(end.metrics), step=end.epoch)

    return log


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _log_lines(path: Path, text: Callable[[dict[str, Any]], tuple[str, str]], epoch_of: Callable[[str], int]) -> Logger:
    """A callback that appends a line to a file, and at its first call what comes before all lines."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    begun: list[bool] = []

    def log(end: "EpochEnd") -> None:
        head, line = text({"epoch": end.epoch, **end.metrics})
        if not begun:
            begun.append(True)
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if end.epoch and path.exists() else []
            rows = lines[1:] if head else lines
            earlier = [row for row in rows if row.endswith("\n") and epoch_of(row) < end.epoch]
            path.write_text(head + "".join(earlier) + line, encoding="utf-8")
        else:
            with open(path, "r+", encoding="utf-8") as file:  # not one that is made anew, without what was in it
                file.seek(0, os.SEEK_END)
                file.write(line)

    return log
