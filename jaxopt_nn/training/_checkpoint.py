"""What a person says of checkpoints and asks of them."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from jaxopt_nn._arguments import check_number, check_positive_int
from jaxopt_nn.training._folders import is_folder, read_description
from jaxopt_nn.training._orbax import check_installed, numbered
from jaxopt_nn.training._own_folder import is_ours
from jaxopt_nn.training._stopping import infer_mode

__all__ = ["Checkpoint", "CheckpointInfo", "check_checkpoint", "checkpoints"]


class Checkpoint(NamedTuple):
    """Where and when :func:`fit` keeps what it takes to go on; the same call again goes on where it stood.

    A checkpoint is written when any of the cadences says so, at the end of the run, and when Ctrl-C or SIGTERM ends it.
    None of the three is the same as ``every_epochs=1``. Orbax writes it while the run goes on; it waits for the one
    before.

    Attributes:
        path: a folder of its own, new or of the same run.
        every_epochs: after so many epochs.
        every_steps: after so many steps, in the middle of an epoch too.
        every_seconds: after so many seconds, in the middle of an epoch too.
        keep: how many of the last checkpoints stay; 2 or more, so that there is one before one that is damaged.
        keep_best: the name of a history entry, such as ``"valid_loss"``: an epoch that is the best so far is kept too;
            of equal ones the first.
    """

    path: str | os.PathLike[str]
    every_epochs: int | None = None
    every_steps: int | None = None
    every_seconds: float | None = None
    keep: int = 2
    keep_best: str | None = None


class CheckpointInfo(NamedTuple):
    """One checkpoint of a run.

    Attributes:
        path: its folder, for :func:`load`.
        epochs: the epochs done.
        steps: the steps done of the next one.
        metrics: the history's entries of the last epoch done.
    """

    path: Path
    epochs: int
    steps: int
    metrics: dict[str, float]


def check_checkpoint(checkpoint: Any) -> None:
    """Raises ``TypeError`` or ``ValueError`` that names the field that is wrong."""
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(f'checkpoint: expected training.Checkpoint("folder"), got {checkpoint!r}')
    if not isinstance(checkpoint.path, (str, os.PathLike)) or not os.fspath(checkpoint.path):
        raise TypeError(f"checkpoint.path: expected the path of a folder, got {checkpoint.path!r}")
    for name in ("every_epochs", "every_steps"):
        value = getattr(checkpoint, name)
        if value is not None:
            check_positive_int(f"checkpoint.{name}", value)
    if checkpoint.every_seconds is not None:
        check_number("checkpoint.every_seconds", checkpoint.every_seconds, 0, open_low=True)
    check_positive_int("checkpoint.keep", checkpoint.keep)
    best = checkpoint.keep_best
    if best is not None and (not isinstance(best, str) or infer_mode(best) is None):
        raise ValueError(
            f"checkpoint.keep_best: expected the name of a history entry with a loss, an error or a metric in it, as "
            f'"valid_loss" or "valid_accuracy", got {best!r}'
        )
    check_installed()


def checkpoints(path: str | os.PathLike[str]) -> list[CheckpointInfo]:
    """The checkpoints in the folder of a :class:`Checkpoint`, from the first to the last.

    The best of them is ``min(checkpoints(path), key=lambda each: each.metrics["valid_loss"]).path``.

    Raises:
        ValueError: the folder is another, or the description of one is damaged.
    """
    folder = Path(path)
    if not folder.is_dir() or not is_ours(folder):
        raise ValueError(f"path: expected the folder of a training.Checkpoint, got {path}")
    infos: list[CheckpointInfo] = []
    for each in numbered(folder).values():
        if is_folder(each):  # and not one that is being removed
            about = read_description(each)
            infos.append(CheckpointInfo(each, about["epochs"], about["steps"], about["metrics"]))
    return infos
