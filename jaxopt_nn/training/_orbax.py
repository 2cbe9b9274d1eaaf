"""Checkpoints as Orbax writes them: folders by the number of steps, of arrays and a description, complete or not there.

Orbax writes in threads of its own, beside the place, and renames. Two things that it does not do are done here. Arrays
without entries, which it refuses, are left to the description, which has each array's dtype and shape. And not every
flipped bit is an error for it: the description has a checksum of each array, and one of itself.
"""

import logging
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_nn._safetensors import numbers_of
from jaxopt_nn.training._folders import Arrays, fingerprints, sealed, unsealed

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

_NAME = re.compile(r"step_(\d+)")
_ABOUT, _ARRAYS = "about", "arrays"
_PART = "*.orbax-checkpoint-tmp*"


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
        lightweight_initialize=True,  # what is damaged in there is found by reading it
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), Best()]),
    )
    with _without_tracebacks():
        manager = ocp.CheckpointManager(folder, options=options)
        try:
            yield manager
        finally:
            with suppress(Exception):  # it was said when it was waited for
                manager.wait_until_finished()
            manager.close()


def start_writing(manager: Any, step: int, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Hands a checkpoint to the manager, which writes it meanwhile; waits for the one before.

    Raises:
        Exception: what the manager raises, of this checkpoint or of the one before.
    """
    ocp = _import()
    numbers = {path: numbers_of(path, array) for path, array in arrays.items()}
    content = sealed({**about, "arrays": fingerprints(numbers)})
    items = ocp.args.Composite(
        arrays=ocp.args.StandardSave({path: array for path, array in numbers.items() if array.size}),
        about=ocp.args.JsonSave(content),
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
    return (path / _ABOUT / "metadata").is_file()


def read_about(path: Path) -> dict[str, Any]:
    """The description of a checkpoint.

    Raises:
        OSError: there is none.
        ValueError: it is damaged, or of a later version of this library.
    """
    try:
        about = _import().JsonCheckpointHandler().restore(_epath(path / _ABOUT))
    except ValueError as error:
        raise ValueError(f"{path / 'about'}: damaged: {error}") from error
    return unsealed(path / _ABOUT, about)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of a checkpoint.

    Raises:
        OSError: it is none.
        ValueError: it is damaged, or of a later version of this library.
    """
    ocp, about = _import(), read_about(path)
    marks: dict[str, str] = about["arrays"]
    try:
        with _without_tracebacks(), ocp.StandardCheckpointer() as reader:
            arrays = dict(reader.restore(path / _ARRAYS))
    except Exception as error:  # it has no one word for what is damaged
        raise ValueError(f"{path / 'arrays'}: damaged: {str(error).partition(chr(10))[0]}") from error
    for name, mark in marks.items():
        dtype, _, sizes = mark.partition("]")[0].partition("[")
        shape = [int(size) for size in sizes.split(",") if size]
        if 0 in shape:
            arrays[name] = np.zeros(shape, dtype)
    found = fingerprints(arrays)
    for name in sorted(marks.keys() | found.keys()):
        if marks.get(name) != found.get(name):
            raise ValueError(f"{path / 'arrays'}: damaged: the checksum of {name} is another")
    return about, arrays


def _import() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError("checkpoint needs Orbax: pip install 'jaxopt-nn[checkpoint]'") from error
    return ocp


def _epath(path: Path) -> Any:
    from etils import epath

    return epath.Path(path)


@contextmanager
def _without_tracebacks() -> Generator[None]:
    """Leaves out what Orbax logs of errors, with a traceback, and raises besides: they are said once, in a sentence."""
    logger = logging.getLogger("absl")

    def shown(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger.addFilter(shown)
    try:
        yield
    finally:
        logger.removeFilter(shown)
