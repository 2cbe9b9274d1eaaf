"""Checkpoints as Orbax writes them: folders by the number of steps, of arrays and a description, complete or not there.

Orbax writes in threads of its own, beside the place, and renames. Two things that it does not do are done here. Arrays
without entries, which it refuses, are left to the description. And not every flipped bit is an error for it: each
checkpoint has the checksums of its files, without which it counts as damaged.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_nn._safetensors import numbers_of
from jaxopt_nn.training._folders import Arrays

__all__ = [
    "check_installed",
    "is_checkpoint",
    "manager_of",
    "numbered",
    "read_about",
    "read_checkpoint",
    "remove_parts",
    "start_writing",
]

_FORMAT = 1
_NAME = re.compile(r"step_(\d+)")
_PART = "step_*.orbax-checkpoint-tmp*"
_ABOUT, _ARRAYS, _CHECKSUMS = "about", "arrays", "checksums.json"


def check_installed() -> None:
    """Raises ``ImportError`` that names the extra."""
    _import()


@contextmanager
def manager_of(folder: Path, keep: int, worth: Mapping[int, float]) -> Generator[Any]:
    """Orbax's manager of the checkpoints in a folder. What a process that was killed left behind is removed.

    Args:
        folder: it is there.
        keep: how many of the last stay.
        worth: steps to how good a checkpoint is; the best stays too, of equal ones the first.
    """
    ocp = _import()
    policies = ocp.checkpoint_managers

    class Best:
        def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
            del context
            steps = [each.step for each in checkpoints]
            best = max((step for step in steps if step in worth), key=lambda step: worth[step], default=None)
            return [step == best for step in steps]

    options = ocp.CheckpointManagerOptions(
        step_prefix="step",
        create=False,
        cleanup_tmp_directories=True,
        lightweight_initialize=True,  # what is damaged in there is found by its checksum
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), Best()]),
        async_options=ocp.AsyncOptions(post_finalization_callback=lambda: _write_checksums(folder)),
    )
    with _without_tracebacks():
        manager = ocp.CheckpointManager(folder, options=options)
        try:
            yield manager
        finally:
            with suppress(Exception):  # who waited for it was told
                manager.wait_until_finished()
            manager.close()


def start_writing(manager: Any, step: int, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Hands a checkpoint to the manager, which writes it meanwhile; waits for the one before.

    Raises:
        Exception: what the manager raises, of this checkpoint or of the one before.
    """
    ocp = _import()
    numbers = {path: numbers_of(path, array) for path, array in arrays.items()}
    empty = {path: [str(array.dtype), *array.shape] for path, array in numbers.items() if not array.size}
    items = ocp.args.Composite(
        arrays=ocp.args.StandardSave({path: array for path, array in numbers.items() if array.size}),
        about=ocp.args.JsonSave({"format": _FORMAT, **about, "empty": empty}),
    )
    manager.save(step, args=items, force=True)


def remove_parts(folder: Path) -> None:
    """Removes what is left of a checkpoint that could not be written."""
    for each in folder.glob(_PART):
        shutil.rmtree(each, ignore_errors=True)


def numbered(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by their steps, from the first to the last."""
    found = ((_NAME.fullmatch(each.name), each) for each in folder.iterdir())
    return dict(sorted((int(match[1]), each) for match, each in found if match))


def is_checkpoint(path: Path) -> bool:
    """Whether it looks like a checkpoint."""
    return (path / _CHECKSUMS).is_file() and (path / _ABOUT).is_dir()


def read_about(path: Path) -> dict[str, Any]:
    """The description of a checkpoint.

    Raises:
        ValueError: it is damaged, or of a later version of this library.
    """
    _check(path, _ABOUT)
    ocp = _import()
    from etils import epath

    about = dict(ocp.JsonCheckpointHandler().restore(epath.Path(path / _ABOUT)))
    if about["format"] != _FORMAT:
        raise ValueError(f"{path}: expected format {_FORMAT}, got {about['format']}, of another version")
    return about


def read_checkpoint(path: Path) -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of a checkpoint.

    Raises:
        ValueError: it is damaged, or of a later version of this library.
    """
    about = read_about(path)
    _check(path, "")
    with _without_tracebacks(), _import().StandardCheckpointer() as reader:
        arrays: Arrays = dict(reader.restore(path / _ARRAYS))
    for name, (dtype, *shape) in about["empty"].items():
        arrays[name] = np.zeros(shape, dtype)
    return about, arrays


def _write_checksums(folder: Path) -> None:
    """Orbax calls it in its own thread when the files of a checkpoint are complete, and before they appear."""
    (path,) = folder.glob(_PART)
    files = (each for item in (_ABOUT, _ARRAYS) for each in (path / item).rglob("*") if each.is_file())
    with open(path / _CHECKSUMS, "w", encoding="utf-8") as file:
        json.dump({str(each.relative_to(path).as_posix()): _checksum(each) for each in files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _check(path: Path, item: str) -> None:
    """Raises ``ValueError`` unless the files of an item are those that were written."""
    try:
        checksums: dict[str, str] = json.loads((path / _CHECKSUMS).read_text(encoding="utf-8"))
        damaged = [name for name in checksums if name.startswith(item) and _checksum(path / name) != checksums[name]]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    if damaged:
        raise ValueError(f"{path / damaged[0]}: damaged: its checksum is another")


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _import() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError("checkpoint needs Orbax: pip install 'jaxopt-nn[checkpoint]'") from error
    return ocp


@contextmanager
def _without_tracebacks() -> Generator[None]:
    """Leaves out what Orbax logs of an error that it raises besides: it is said once, in a sentence."""
    logger = logging.getLogger("absl")

    def shown(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger.addFilter(shown)
    try:
        yield
    finally:
        logger.removeFilter(shown)
