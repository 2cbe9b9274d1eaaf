"""The folder of a run's checkpoints: ours alone while it is open."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxopt_nn.training._folders import is_folder

__all__ = ["is_ours", "own_folder"]

_LOCK = "lock"


@contextmanager
def own_folder(path: str | os.PathLike[str]) -> Generator[Path]:
    """The folder, made if it is not there, and ours until the end.

    Raises:
        ValueError: it holds something else.
        OSError: it cannot be written to, or another process uses it.
    """
    folder = Path(path).absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"checkpoint.path: expected a folder, got the file {folder}")
    if folder.is_dir() and not is_ours(folder):
        if is_folder(folder):
            raise ValueError(f"checkpoint.path: expected a folder of its own, got {folder}, which training.save wrote")
        some = ", ".join(sorted(each.name for each in folder.iterdir())[:3])
        raise ValueError(f"checkpoint.path: expected a folder of its own, got {folder}, which has other files: {some}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / _LOCK, "a+", encoding="utf-8")  # noqa: SIM115, closed below
    except OSError as error:
        raise OSError(error.errno, f"checkpoint.path: cannot write to {folder}: {error.strerror}") from error
    with lock:
        _take(lock, folder)
        yield folder


def is_ours(folder: Path) -> bool:
    """Whether it is the folder of a checkpoint, or empty."""
    names = {each.name for each in folder.iterdir()}
    return not names or _LOCK in names


def _take(lock: Any, folder: Path) -> None:
    """Locks the folder for as long as the file is open; the system lets go of it when a process is killed."""
    try:
        import fcntl
    except ImportError:  # there is none on Windows
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        raise BlockingIOError(
            error.errno, f"checkpoint.path: {folder} is in use by {holder}: one run at a time can write to it"
        ) from error
    except OSError:  # a file system without locks
        return
    lock.truncate(0)
    lock.write(f"process {os.getpid()}")
    lock.flush()
