import gzip
from pathlib import Path

import numpy as np
import pytest

from jaxopt_nn import data

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def _write(
    directory: Path, prefix: str = "train", n: int = 3, compressed: bool = False, size: int = 28, label: int = 9
) -> None:
    directory.mkdir(exist_ok=True)
    pixels = (np.arange(n * size * size) % 256).astype(np.uint8).tobytes()
    images = bytes([0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, size, 0, 0, 0, size]) + pixels
    labels = bytes([0, 0, 8, 1, 0, 0, 0, n]) + bytes([label] * n)
    for name, content in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
        if compressed:
            (directory / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (directory / name).write_bytes(content)


@pytest.fixture(autouse=True)
def _no_other_places(monkeypatch, tmp_path):
    monkeypatch.delenv("JAXOPT_NN_DATA", raising=False)
    monkeypatch.setattr("jaxopt_nn.data._fashion_mnist._DEBIAN_DIRECTORY", tmp_path / "debian")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_images_and_labels(tmp_path, compressed, split, prefix):
    _write(tmp_path, prefix, compressed=compressed)
    batch = data.load_fashion_mnist(tmp_path, split)
    assert batch.x.shape == (3, 28, 28, 1) and batch.x.dtype == np.float32
    np.testing.assert_allclose(batch.x.ravel(), np.arange(3 * 784) % 256 / 255.0, rtol=1e-6)
    assert batch.x.min() == 0 and batch.x.max() == 1
    assert batch.y.dtype == np.int32 and batch.y.tolist() == [9, 9, 9]
    data.check_batch("train", batch, 10)


def test_places_in_order(tmp_path, monkeypatch):
    _write(tmp_path / "debian", n=1)
    assert len(data.load_fashion_mnist().y) == 1
    named = tmp_path / "named"
    monkeypatch.setenv("JAXOPT_NN_DATA", str(named))
    assert len(data.load_fashion_mnist().y) == 1
    named.mkdir()
    _write(named / "fashion-mnist", n=2)
    assert len(data.load_fashion_mnist().y) == 2
    _write(named, n=3)
    assert len(data.load_fashion_mnist().y) == 3
    _write(tmp_path / "argument", n=4)
    assert len(data.load_fashion_mnist(str(tmp_path / "argument")).y) == 4


def test_a_missing_data_set_says_where_it_was_looked_for_and_how_to_get_it(tmp_path, monkeypatch):
    named = tmp_path / "named"
    monkeypatch.setenv("JAXOPT_NN_DATA", str(named))
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte.*apt install dataset-fashion-mnist") as raised:
        data.load_fashion_mnist(split="test")
    for place in (named, named / "fashion-mnist", tmp_path / "debian"):
        assert str(place) in str(raised.value)


def test_a_directory_that_was_named_has_no_substitute(tmp_path):
    _write(tmp_path / "debian")
    _write(tmp_path / "half")
    (tmp_path / "half" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="half") as raised:
        data.load_fashion_mnist(tmp_path / "half")
    assert "debian" not in str(raised.value)


def test_wrong_files_are_named(tmp_path):
    _write(tmp_path, size=27)
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte: expected images uint8\[N, 28, 28\], found uint8\[3, 27, 27\]"
    ):
        data.load_fashion_mnist(tmp_path)
    _write(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 1]))
    with pytest.raises(
        ValueError, match=r"train-labels-idx1-ubyte: expected uint8\[3\], a label an image, found uint8\[2\]"
    ):
        data.load_fashion_mnist(tmp_path)
    _write(tmp_path, label=10)
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte: expected labels in \[0, 10\), found 10 in row 0"):
        data.load_fashion_mnist(tmp_path)
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"train-labels-idx1-ubyte: expected 3 bytes of values for uint8\[3\], found 2"
    ):
        data.load_fashion_mnist(tmp_path)


def test_a_wrong_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^split: expected \"train\" or \"test\", got 'valid'"):
        data.load_fashion_mnist(tmp_path, "valid")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
@pytest.mark.parametrize(("split", "n"), [("train", 60_000), ("test", 10_000)])
def test_the_real_data_set(split, n):
    batch = data.load_fashion_mnist(DEBIAN, split)
    assert batch.x.shape == (n, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(batch.y), n // 10)
    if split == "train":
        # The published mean and standard deviation of the training pixels.
        assert abs(batch.x.mean(dtype=np.float64) - 0.2860) < 1e-4
        assert abs(batch.x[::10].std(dtype=np.float64) - 0.3530) < 1e-2
        assert batch.y[:5].tolist() == [9, 0, 0, 3, 0]
