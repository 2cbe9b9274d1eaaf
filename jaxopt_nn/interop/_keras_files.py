"""Files of Keras 3, read without Keras. Nothing in them is executed: of a model only the arrays are read."""

import io
import os
import shutil
import zipfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

__all__ = ["load_keras", "save_keras"]

_INSIDE = "model.weights.h5"


def load_keras(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The arrays of a file of Keras 3, ``.keras`` or ``.weights.h5``, by their names in it.

    Keras need not be installed, h5py has to be. The configuration in a ``.keras`` file is not looked at, so no code of
    it can run. Links to other files are refused.

    Args:
        path: what ``model.save`` or ``model.save_weights`` wrote. Files of older versions of Keras (``.h5``) are read
            too, with the names that they have.

    Returns:
        NumPy arrays: ``{"layers/dense/vars/0": ..., "layers/dense/vars/1": ...}``. Keras names a layer here by its
        class and counts: the second dense layer is ``dense_1``, whatever its ``name``.

    Raises:
        ImportError: without h5py.
        ValueError: the file is none of Keras's, is damaged, has no arrays, or links to another file.
        OSError: the file cannot be read.
    """
    path = Path(path)
    found: dict[str, NDArray[Any]] = {}
    with _opened(path) as file:
        for name, dataset in _datasets(path, file, ""):
            array = np.asarray(dataset)
            stored = dataset.attrs.get("dtype")  # HDF5 has no bfloat16
            found[name] = array.astype(jnp.bfloat16) if stored == "bfloat16" else array
    if not found:
        raise ValueError(f"{path}: expected a file of Keras with arrays, got one without any")
    return found


def save_keras(path: str | os.PathLike[str], weights: Mapping[str, Any], *, like: str | os.PathLike[str]) -> None:
    """Writes a file of Keras with other weights.

    Args:
        path: the file to write, of the same kind as ``like``.
        weights: names to arrays, as :func:`to_keras_weights` makes them.
        like: a file that Keras wrote for this model. All that is not in ``weights`` is copied from it.

    Raises:
        ImportError: without h5py.
        ValueError: a name is not in ``like``, or its array has another shape there; nothing is written.
        OSError: a file cannot be read or written.
    """
    path, like = Path(path), Path(like)
    if path.suffixes[-1:] != like.suffixes[-1:]:
        raise ValueError(f"path: expected a file {''.join(like.suffixes)!r}, as {like} is, got {path}")
    shapes = {name: array.shape for name, array in load_keras(like).items()}
    for name, array in weights.items():
        if name not in shapes:
            raise ValueError(f"weights: {name} is not in {like}, which has {sorted(shapes)[:4]} and others")
        if shapes[name] != np.shape(array):
            raise ValueError(f"weights: {name} is {list(shapes[name])} in {like}, got {list(np.shape(array))}")
    partial = path.with_name(path.name + ".partial")
    if zipfile.is_zipfile(like):
        with zipfile.ZipFile(like) as old, zipfile.ZipFile(partial, "w") as new:
            for entry in old.infolist():
                content = old.read(entry)
                new.writestr(entry, _replaced(content, weights) if entry.filename == _INSIDE else content)
    else:
        shutil.copyfile(like, partial)
        partial.write_bytes(_replaced(partial.read_bytes(), weights))
    os.replace(partial, path)


def _replaced(content: bytes, weights: Mapping[str, Any]) -> bytes:
    """An HDF5 file with other numbers."""
    buffer = io.BytesIO(content)
    with _h5py().File(buffer, "r+") as file:
        for name, array in weights.items():
            file[name][...] = np.asarray(array)
    return buffer.getvalue()


def _h5py() -> Any:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("files of Keras need h5py: pip install h5py") from error
    return h5py


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    h5py, source = _h5py(), str(path)
    with open(path, "rb"):  # the operating system's own error, if it cannot be read
        pass
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                source = io.BytesIO(archive.read(_INSIDE))
        file = h5py.File(source, "r")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: expected a file that Keras 3 wrote (.keras or .weights.h5): {error}") from error
    with file:
        yield file


def _datasets(path: Path, group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    h5py = _h5py()
    if prefix.count("/") > 100:
        raise ValueError(f"{path}: damaged: groups within groups without end, {prefix[:60]}...")
    for key in group:
        name = f"{prefix}/{key}" if prefix else key
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise ValueError(f"{path}: {name} is a link, which is refused")
        try:
            entry = group[key]
        except (KeyError, OSError, RuntimeError) as error:
            raise ValueError(f"{path}: damaged: {name} cannot be read: {error}") from error
        if isinstance(entry, h5py.Group):
            yield from _datasets(path, entry, name)
        elif isinstance(entry, h5py.Dataset):
            if entry.external or entry.is_virtual:
                raise ValueError(f"{path}: {name} has its numbers in another file, which is refused")
            if entry.dtype.kind in "fiub":
                yield name, entry
