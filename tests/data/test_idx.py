import gzip
import math
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxopt_nn import data

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    """The file as LeCun's page describes it, value by value."""
    kind = array.dtype.str[1:]
    letter = {"u1": "B", "i1": "b", "i2": "h", "i4": "i", "f4": "f", "f8": "d"}[kind]
    header = bytes([0, 0, CODES[kind], array.ndim]) + b"".join(struct.pack(">I", size) for size in array.shape)
    return header + b"".join(struct.pack(">" + letter, value) for value in array.ravel().tolist())


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=st.sampled_from(sorted(CODES)).flatmap(
        lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    ),
    compressed=st.booleans(),
)
def test_what_was_written_is_read(tmp_path, array, compressed):
    path = tmp_path / "any name"
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if compressed else content)
    read = data.read_idx(path)
    assert read.dtype == array.dtype and read.dtype.isnative and read.shape == array.shape
    np.testing.assert_array_equal(read, array)
    read[...] = 0  # writable


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("cut", [0, 3, 7, 11, 12, 17, -1])
def test_cut_files_are_refused(tmp_path, cut, compressed):
    content = idx_bytes(np.arange(6, dtype=np.uint8).reshape(2, 3))[:cut]
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content) if compressed else content)
    messages = {0: r"header of at least 4 bytes, found 0", 3: r"header of at least 4 bytes, found 3"}
    messages |= {7: r"header of 12 bytes for rank 2, found 7", 11: r"header of 12 bytes for rank 2, found 11"}
    messages |= {cut: rf"6 bytes of values for uint8\[2, 3\], found {len(content) - 12}" for cut in (12, 17, -1)}
    with pytest.raises(ValueError, match=rf"images: expected (an IDX )?(a )?{messages[cut]}"):
        data.read_idx(path)


def test_surplus_bytes_are_refused(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(np.arange(5, dtype=np.uint8)) + b"!")
    with pytest.raises(ValueError, match=r"labels: expected 5 bytes of values for uint8\[5\], found more than 5"):
        data.read_idx(path)


@pytest.mark.parametrize("start", [b"\x89PNG", b"\0\0\x07\1", b"\0\1\x08\1", b"<htm"])
def test_other_files_are_refused(tmp_path, start):
    path = tmp_path / "labels"
    path.write_bytes(start + bytes(8))
    with pytest.raises(ValueError, match=f"labels: expected an IDX file, .*; found bytes {start.hex(' ')}$"):
        data.read_idx(path)


def test_a_header_that_promises_too_much_allocates_nothing(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(bytes([0, 0, 0x0E, 3]) + b"\xff" * 12 + b"1234")
    expected = math.prod([2**32 - 1] * 3) * 8
    with pytest.raises(ValueError, match=rf"labels: expected {expected} bytes of values .*, found 4$"):
        data.read_idx(path)


def test_broken_compression_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    array = np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)
    intact = gzip.compress(idx_bytes(array))

    for keep in (len(intact) - 1, len(intact) - 8, 60_000, 12, 2):  # also if only the checksum at the end is missing
        path.write_bytes(intact[:keep])
        with pytest.raises(ValueError, match=r"images\.gz: expected an intact gzip file, found an error after \d+ of"):
            data.read_idx(path)
    for position, value in ((-5, intact[-5] ^ 1), (50_000, intact[50_000] ^ 1), (10, 0xFF)):
        broken = bytearray(intact)  # in its checksum, its contents, the code of its compression
        broken[position] = value
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"images\.gz: expected an intact gzip file, found an error after \d+ of"):
            data.read_idx(path)


def test_a_cut_gzip_file_tells_how_far_it_went(tmp_path):
    path = tmp_path / "images.gz"
    array = np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)
    intact = gzip.compress(idx_bytes(array))
    path.write_bytes(intact[: len(intact) // 2])
    with pytest.raises(ValueError, match="found an error after") as raised:
        data.read_idx(path)
    found = int(str(raised.value).split("after ")[1].split(" of 100000")[0])
    assert 40_000 < found < 60_000


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.read_idx(tmp_path / "nowhere")


def test_a_path_is_wanted():
    with pytest.raises(TypeError, match=r"^path: expected the path of a file, got None"):
        data.read_idx(None)
