"""IDX files, the format of MNIST and its kin: two zero bytes, a dtype code, rank, sizes and values, big-endian."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_idx"]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 22


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Reads an IDX file of any dtype and rank, gzipped or not (its first bytes tell, not its name).

    Args:
        path: the file.

    Returns:
        Writable NumPy array in native byte order, with the file's dtype and shape.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no IDX file, an unknown dtype, more or fewer bytes than its header says, or broken compression. The
            message names the file, and the bytes expected and found.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = Path(directory) / "labels-idx1-ubyte"
        ...     _ = path.write_bytes(bytes([0, 0, 0x08, 1, 0, 0, 0, 3]) + bytes([7, 2, 1]))
        ...     read_idx(path).tolist()
        [7, 2, 1]

    References:
        Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits, "The IDX file format".
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: expected the path of a file, got {path!r}")
    with Path(path).open("rb") as raw:
        compressed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if compressed else raw
        magic = _read(stream, 4, path)
        if len(magic) < 4:
            raise ValueError(f"{path}: expected an IDX header of at least 4 bytes, found {len(magic)} bytes")
        if magic[0] or magic[1] or magic[2] not in _DTYPES:
            codes = " ".join(f"{code:02x}" for code in _DTYPES)
            raise ValueError(
                f"{path}: expected an IDX file, bytes 00 00 and a dtype code ({codes}); found bytes {magic.hex(' ')}"
            )
        rank, dtype = magic[3], np.dtype(_DTYPES[magic[2]])
        sizes = _read(stream, 4 * rank, path)
        if len(sizes) < 4 * rank:
            raise ValueError(
                f"{path}: expected a header of {4 + 4 * rank} bytes for rank {rank}, found {4 + len(sizes)} bytes"
            )
        shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
        expected = math.prod(shape) * dtype.itemsize
        values = _read(stream, expected, path)
        # Reading on finds surplus bytes, and makes gzip verify its checksum, which stands at the end of the file.
        surplus = _read(stream, 1, path)
    if surplus or len(values) != expected:
        actual = f"more than {expected}" if surplus else f"{len(values)}"
        raise ValueError(f"{path}: expected {expected} bytes of values for {dtype.name}{list(shape)}, found {actual}")
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read(stream: Any, count: int, path: str | os.PathLike[str]) -> bytearray:
    # Piece by piece: a header that promises terabytes must not allocate them, a cut gzip stream tells how far it got.
    content = bytearray()
    try:
        while len(content) < count and (piece := stream.read1(min(_PIECE, count - len(content)))):
            content += piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}: expected an intact gzip file, found an error after {len(content)} of {count} bytes: {error}"
        ) from error
    return content
