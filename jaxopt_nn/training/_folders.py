"""A folder of arrays and a description: ``arrays.safetensors`` and ``about.json``, each with its checksum.

It is written beside its place and then renamed, so that no half of it is ever found there. Nothing in it is executed.
What stands in the description are plain values: numbers, text, lists, dictionaries. What JSON does not have is marked
by a name that begins with ``$``; arrays stand in the other file.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast
from uuid import uuid4

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._safetensors import impl_of, is_key, like, numbers_of, read_arrays, write_arrays
from jaxopt_nn.data import FittedTable, Scaler
from jaxopt_nn.data._fitted.columns import Column
from jaxopt_nn.training._programs import as_arrays
from jaxopt_nn.trees import map_with_path, named_leaves
from jaxopt_nn.types import PyTree, Static

__all__ = [
    "check_fits",
    "checksum_of_file",
    "decode",
    "encode",
    "fingerprints",
    "is_folder",
    "read_description",
    "read_folder",
    "tree_of",
    "write_description",
    "write_folder",
]

_ABOUT, _ARRAYS = "about.json", "arrays.safetensors"
_FORMAT = 1
_RECORDS: dict[str, Any] = {"$scaler": Scaler, "$table": FittedTable, "$column": Column}

Arrays = dict[str, NDArray[Any]]


def write_folder(path: Path, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Writes the folder ``path``; one that this function wrote is replaced.

    Raises:
        OSError: it cannot be written; what was there before is still there.
        TypeError: an array has a dtype that no such file holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside, old = (path.with_name(f".{path.name}.{uuid4().hex[:8]}.{word}") for word in ("new", "old"))
    try:
        beside.mkdir()
        write_arrays(beside / _ARRAYS, arrays)
        write_description(beside, {**about, "arrays": checksum_of_file(beside / _ARRAYS)})
        _sync(beside)
        if path.exists():
            os.replace(path, old)
            os.replace(beside, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(beside, path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def read_folder(path: Path) -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of a folder.

    Raises:
        OSError: it is no such folder.
        ValueError: it is damaged, or of a later version of this library.
    """
    about = read_description(path)
    if checksum_of_file(path / _ARRAYS) != about["arrays"]:
        raise ValueError(f"{path / _ARRAYS}: damaged: its checksum is another")
    return about, read_arrays(path / _ARRAYS)


def write_description(path: Path, about: Mapping[str, Any]) -> None:
    """Writes the description alone, with its checksum."""
    content = {"format": _FORMAT, **about}
    with open(path / _ABOUT, "w", encoding="utf-8") as file:
        json.dump({"checksum": _checksum(content), **content}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read_description(path: Path) -> dict[str, Any]:
    """The description alone."""
    try:
        about: Any = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path / _ABOUT}: damaged: {error}") from error
    if not isinstance(about, dict) or "format" not in about:
        raise ValueError(f"{path / _ABOUT}: damaged, or not written by this library")
    content = {name: value for name, value in cast("dict[str, Any]", about).items() if name != "checksum"}
    if about.get("checksum") != _checksum(content):
        raise ValueError(f"{path / _ABOUT}: damaged: its checksum is another")
    if content["format"] != _FORMAT:
        raise ValueError(f"{path / _ABOUT}: expected format {_FORMAT}, got {content['format']}, of another version")
    return content


def is_folder(path: Path) -> bool:
    """Whether it has a description, and so looks like a saved model or a checkpoint."""
    return (path / _ABOUT).is_file()


def check_fits(what: str, expected: PyTree, found: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` with the paths at which ``found``, arrays by their paths, differs from a tree of shapes."""

    def numbers(leaf: Any) -> Any:
        return jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf

    wanted, differences = dict(named_leaves(expected)), list[str]()
    for path, leaf in wanted.items():
        shape, got = numbers(leaf), numbers(found.get(path))
        if got is None:
            differences.append(f"{path} is missing")
        elif got.shape != shape.shape or got.dtype != shape.dtype:
            here, there = (f"{each.dtype}{list(each.shape)}" for each in (shape, got))
            differences.append(f"{path} is {there}, the recipe has {here}")
    differences += [f"{path} is not in the recipe" for path in found if path not in wanted]
    if differences:
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(f"{what}: not of this recipe: " + "; ".join(differences[:3]) + more)


def tree_of(shapes: PyTree, arrays: Mapping[str, NDArray[Any]]) -> PyTree:
    """The tree of these shapes, of the arrays with its paths, on the device."""
    return as_arrays(map_with_path(lambda path, leaf: like(path, leaf, arrays[path]), shapes))


def fingerprints(tree: PyTree) -> dict[str, str]:
    """What is the same for the same arrays only: of each leaf, by its path, the dtype, the shape and a checksum."""
    marks: dict[str, str] = {}
    for path, leaf in named_leaves(tree):
        numbers = numbers_of(path, leaf)
        digest = hashlib.sha256(memoryview(numbers.reshape(-1).view(np.uint8))).hexdigest()[:32]
        marks[path] = f"{numbers.dtype}{list(numbers.shape)} sha256 {digest}"
    return marks


def encode(name: str, value: Any, arrays: dict[str, Any], *, opaque: bool = False) -> Any:
    """A plain value as JSON has it; its arrays go to ``arrays``. With ``opaque``, of others their text is left."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Static):
        return {"$static": encode(name, value.value, arrays, opaque=opaque)}
    for mark, kind in _RECORDS.items():
        if isinstance(value, kind):
            fields = value._asdict().items()
            return {mark: {field: encode(f"{name}/{field}", each, arrays) for field, each in fields}}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return {key: encode(f"{name}/{key}", each, arrays, opaque=opaque) for key, each in items}
    elif type(value) in (list, tuple):
        each = [encode(f"{name}/{index}", one, arrays, opaque=opaque) for index, one in enumerate(value)]
        return {"$tuple": each} if isinstance(value, tuple) else each
    elif isinstance(value, (np.ndarray, np.generic, jax.Array)):
        numbers_of(name, value)  # raises for those that no file holds
        arrays[name] = value
        return {"$key": [name, str(impl_of(value))]} if is_key(value) else {"$array": name}
    if opaque:
        return {"$opaque": getattr(value, "__name__", repr(value))}
    raise TypeError(
        f"{name}: expected numbers, text, arrays, a data.Scaler or FittedTable, and lists, tuples and dictionaries "
        f"(with text for keys) of them, got {value!r}"
    )


def decode(name: str, value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """What :func:`encode` was given. Raises ``ValueError`` where only a text is left of it."""
    if isinstance(value, list):
        return [decode(f"{name}/{index}", each, arrays) for index, each in enumerate(cast("list[Any]", value))]
    if not isinstance(value, dict):
        return value
    entries = cast("dict[str, Any]", value)
    kind = next(iter(entries), "")
    if not kind.startswith("$"):
        return {key: decode(f"{name}/{key}", each, arrays) for key, each in entries.items()}
    inner = entries[kind]
    match kind:
        case "$static":
            return Static(decode(name, inner, arrays))
        case "$tuple":
            return tuple(decode(name, inner, arrays))
        case "$scaler" | "$table" | "$column":
            return _RECORDS[kind](**{field: decode(f"{name}/{field}", each, arrays) for field, each in inner.items()})
        case "$array":
            return arrays[inner]
        case "$key":
            return jax.random.wrap_key_data(jnp.asarray(arrays[inner[0]]), impl=inner[1])
        case _:
            _not_saved(name, inner)


def _not_saved(name: str, text: str) -> NoReturn:
    raise ValueError(f"{name}: {text} was not saved, as it is no plain value: pass hparams=... to load")


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def checksum_of_file(path: Path) -> str:
    """Of all its bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Makes what was written to a folder outlast a power failure; not every system lets one."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
