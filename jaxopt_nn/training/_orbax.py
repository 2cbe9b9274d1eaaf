"""Checkpoints: folders of arrays, as Orbax writes them, and a description; each is complete or not there.

Orbax writes in threads of its own, beside the place, and renames. Two things that it does not do are done here. Arrays
without entries, which it refuses, are left to the description. And not every flipped bit is an error for it: the
description has the checksums of its files.
"""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxopt_nn._safetensors import numbers_of
from jaxopt_nn.training._folders import Arrays, checksum_of_file, read_description, write_description

__all__ = ["Writer", "check_installed", "numbered", "read_checkpoint", "writer_of"]

_NAME = re.compile(r"step_(\d+)")
_PART = "step_*.orbax-checkpoint-tmp*"
_BESIDE = 2**16
"""Bytes for what is written besides the arrays; not exact."""
_ARRAYS = "arrays"


def check_installed() -> None:
    """Raises ``ImportError`` that names the extra."""
    _import()


class Writer:
    """Writes checkpoints to a folder, one at a time and while the run goes on.

    What a process that was killed left behind is removed. After an error it is as if the checkpoint had never begun.
    """

    def __init__(self, folder: Path, keep: int, worth: Mapping[int, float]) -> None:
        """Takes a folder that is there.

        Args:
            folder: of its own.
            keep: how many of the last checkpoints stay.
            worth: steps to how good a checkpoint is; the best stays too, of equal ones the first.
        """
        self._folder, self._keep, self._worth = folder, keep, worth
        self._about: Mapping[str, Any] = {}
        self._manager = self._open()

    def start(self, step: int, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Begins to write a checkpoint. Raises what goes wrong with it, or with the one before."""
        numbers = {path: numbers_of(path, array) for path, array in arrays.items()}
        empty = {path: [str(array.dtype), *array.shape] for path, array in numbers.items() if not array.size}
        args = _import().args
        items = {_ARRAYS: args.StandardSave({path: array for path, array in numbers.items() if array.size})}
        _check_room(self._folder, sum(array.nbytes for array in numbers.values()))
        self.wait()
        self._about = {**about, "empty": empty}
        with self._removed_if_it_fails():
            self._manager.save(step, args=args.Composite(**items), force=True)

    def wait(self) -> None:
        """Waits until the last checkpoint is complete. Raises what went wrong with it."""
        with self._removed_if_it_fails():
            self._manager.wait_until_finished()

    def reload(self) -> None:
        """Looks at what is in the folder."""
        self._manager.reload()

    def close(self) -> None:
        """Waits, and ends the threads."""
        with suppress(Exception):  # who waited for it was told
            self._manager.wait_until_finished()
        self._manager.close()

    def _open(self) -> Any:
        ocp = _import()
        policies = ocp.checkpoint_managers
        options = ocp.CheckpointManagerOptions(
            step_prefix="step",
            create=False,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # what is damaged in there is found by its checksum
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(self._keep), _Best(self._worth)]),
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._describe,
                create_directories_asynchronously=False,  # takes longer than to create them
            ),
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def _describe(self) -> None:
        """Called by Orbax, in its own thread, when the arrays are written and before the checkpoint appears."""
        (path,) = self._folder.glob(_PART)
        files = (each for each in (path / _ARRAYS).rglob("*") if each.is_file())
        checksums = {each.relative_to(path).as_posix(): checksum_of_file(each) for each in files}
        write_description(path, {**self._about, "files": checksums})

    @contextmanager
    def _removed_if_it_fails(self) -> Generator[None]:
        """Another manager after an error: the one that failed may still be writing what is going to be removed."""
        try:
            yield
        except Exception:
            with suppress(Exception):
                self._manager.close()
            for each in self._folder.glob(_PART):
                shutil.rmtree(each, ignore_errors=True)
            self._manager = self._open()
            raise


class _Best(NamedTuple):
    """The policy that keeps the best checkpoint."""

    worth: Mapping[int, float]

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Whether each of these stays; asked by Orbax."""
        del context
        steps = [each.step for each in checkpoints]
        best = max((step for step in steps if step in self.worth), key=lambda step: self.worth[step], default=None)
        return [step == best for step in steps]


@contextmanager
def writer_of(folder: Path, keep: int, worth: Mapping[int, float]) -> Generator[Writer]:
    """A :class:`Writer`, closed in the end."""
    with _without_tracebacks():
        writer = Writer(folder, keep, worth)
        try:
            yield writer
        finally:
            writer.close()


def numbered(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by their steps, from the first to the last."""
    found = ((_NAME.fullmatch(each.name), each) for each in folder.iterdir())
    return dict(sorted((int(match[1]), each) for match, each in found if match))


def read_checkpoint(path: Path) -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of a checkpoint.

    Raises:
        OSError: it is none.
        ValueError: it is damaged, or of a later version of this library.
    """
    about = read_description(path)
    for name, checksum in about["files"].items():
        if not (path / name).is_file() or checksum_of_file(path / name) != checksum:
            raise ValueError(f"{path / name}: damaged: its checksum is another")
    with _without_tracebacks(), _import().StandardCheckpointer() as reader:
        arrays: Arrays = dict(reader.restore(path / _ARRAYS))
    for name, (dtype, *shape) in about["empty"].items():
        arrays[name] = np.zeros(shape, dtype)
    return about, arrays


def _check_room(folder: Path, size: int) -> None:
    """Raises ``OSError`` unless there is room for so many bytes; Orbax would print a traceback for each array."""
    if hasattr(os, "posix_fallocate"):  # not everywhere
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size + _BESIDE)


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
