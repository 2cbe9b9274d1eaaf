"""Weights in files of ``torch.save``, read without PyTorch. Nothing in such a file is executed.

Such a file is a pickle, and a pickle may call any function. Here it may make dictionaries and tensors, nothing else.
"""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

__all__ = ["load_torch"]

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_LEGACY = 0x1950A86A20F9469CFC6C  # the first pickle of a file that is no zip archive


class _Storage(NamedTuple):
    dtype: np.dtype[Any]
    key: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load_torch(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The tensors of a file that ``torch.save`` wrote, such as a ``state_dict``, by their names.

    PyTorch need not be installed. Whatever in the file is no tensor, number, text or collection of them is refused, and
    nothing is executed.

    Args:
        path: the file, of a dictionary of tensors. Dictionaries in it become names with dots.

    Returns:
        NumPy arrays in PyTorch's layouts.

    Raises:
        ValueError: the file is none of PyTorch's, damaged, or asks for anything but tensors (it names what for).
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        content, numbers = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"{path}: expected a file that torch.save wrote: {error}") from error
    found: dict[str, NDArray[Any]] = {}
    _collect(path, "", content, numbers, found)
    if not found:
        raise ValueError(f"{path}: expected a dictionary of tensors, got a {type(content).__name__} without any")
    return found


class _Unpickler(pickle.Unpickler):
    """One that knows the few names that a file of tensors needs."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module_name == "torch" and global_name in _STORAGES:
            return jnp.dtype(_STORAGES[global_name])
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module_name, global_name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which is refused")

    def persistent_load(self, pid: Any, /) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or any(part is not None for part in view):
            raise pickle.UnpicklingError(f"it has a {kind} of an unknown kind")
        return _Storage(np.dtype(dtype), str(key), int(size))


def _tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(shape), tuple(strides))


def _read_zip(path: Path) -> tuple[Any, Mapping[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (described,) = [name for name in names if name.endswith("/data.pkl")] or [None]
        if described is None:
            raise pickle.UnpicklingError("it has no data.pkl")
        folder = described.removesuffix("data.pkl")
        content = _Unpickler(io.BytesIO(archive.read(described))).load()
        data = {name.removeprefix(f"{folder}data/"): archive.read(name) for name in names if "/data/" in name}
    return content, data


def _read_legacy(path: Path) -> tuple[Any, Mapping[str, bytes]]:
    with open(path, "rb") as file:
        if _Unpickler(file).load() != _LEGACY:
            raise pickle.UnpicklingError("its first number is another")
        for _ in range(2):  # the version of the format, and of the machine
            _Unpickler(file).load()
        storages: dict[str, _Storage] = {}

        class Noting(_Unpickler):
            def persistent_load(self, pid: Any, /) -> _Storage:
                storage = super().persistent_load(pid)
                storages[storage.key] = storage
                return storage

        content = Noting(file).load()
        keys = [str(key) for key in _Unpickler(file).load()]
        return content, {key: _legacy_bytes(file, storages[key]) for key in keys}


def _legacy_bytes(file: BinaryIO, storage: _Storage) -> bytes:
    size = int.from_bytes(file.read(8), "little")
    if size != storage.size:
        raise pickle.UnpicklingError(f"a storage has {size} numbers in place of {storage.size}")
    return file.read(size * storage.dtype.itemsize)


def _collect(path: Path, name: str, value: Any, numbers: Mapping[str, bytes], found: dict[str, NDArray[Any]]) -> None:
    if isinstance(value, Mapping):
        for key, each in value.items():
            _collect(path, f"{name}.{key}" if name else str(key), each, numbers, found)
    elif isinstance(value, _Tensor):
        found[name] = _array(path, name, value, numbers)


def _array(path: Path, name: str, tensor: _Tensor, numbers: Mapping[str, bytes]) -> NDArray[Any]:
    """The numbers of a tensor, which may be a part of its storage, in any order."""
    dtype = tensor.storage.dtype
    flat = np.frombuffer(numbers.get(tensor.storage.key, b""), np.uint8)
    flat = flat[: len(flat) // dtype.itemsize * dtype.itemsize].view(dtype)
    last = tensor.offset + sum(stride * (size - 1) for stride, size in zip(tensor.strides, tensor.shape, strict=True))
    empty = 0 in tensor.shape
    if min((tensor.offset, *tensor.strides, *tensor.shape)) < 0 or (not empty and last >= len(flat)):
        raise ValueError(f"{path}: damaged: the tensor {name!r} is larger than its numbers")
    if empty:
        return np.zeros(tensor.shape, dtype)
    strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides).copy()
