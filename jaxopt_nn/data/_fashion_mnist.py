"""Fashion-MNIST from files that are on the machine: this library downloads nothing."""

import os
from pathlib import Path
from typing import Literal

import numpy as np

from jaxopt_nn._arguments import check_choice, shown
from jaxopt_nn.data._idx import read_idx
from jaxopt_nn.types import Batch

__all__ = ["load_fashion_mnist"]

_DEBIAN_DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
_PREFIX = {"train": "train", "test": "t10k"}


def load_fashion_mnist(
    directory: str | os.PathLike[str] | None = None, split: Literal["train", "test"] = "train"
) -> Batch:
    """70,000 grey images of clothing in 10 classes: ``x [N, 28, 28, 1]`` float32 in [0, 1], ``y [N]`` int32.

    ``x = bytes / 255``. N is 60,000 in the training and 10,000 in the test split, with equally many of each class.

    Args:
        directory: where the four IDX files are, gzipped or not. With None: the directory in the environment variable
            ``JAXOPT_NN_DATA``, its subdirectory ``fashion-mnist``, then where Debian's package
            ``dataset-fashion-mnist`` puts them.
        split: ``"train"`` or ``"test"``.

    Returns:
        Batch of NumPy arrays.

    Raises:
        FileNotFoundError: the files are in none of these places; the message lists them.
        ValueError: a file is truncated, corrupt or holds something else; the message names it.

    References:
        H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
        Algorithms, 2017.
    """
    check_choice("split", split, *_PREFIX)
    if not (directory is None or isinstance(directory, (str, os.PathLike))):
        raise TypeError(f"directory: expected a path, got {shown(directory)}")
    image_path, label_path = _find(_places(directory), _PREFIX[split])
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or len(images) == 0:
        raise ValueError(f"{image_path}: expected images uint8[N, 28, 28], found {images.dtype}{list(images.shape)}")
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{label_path}: expected uint8[{len(images)}], a label an image, found {labels.dtype}{list(labels.shape)}"
        )
    if labels.max() > 9:
        row = int(np.argmax(labels > 9))
        raise ValueError(f"{label_path}: expected labels in [0, 10), found {labels[row]} in row {row}")
    return Batch(images[..., None] / np.float32(255), labels.astype(np.int32))


def _places(directory: str | os.PathLike[str] | None) -> list[Path]:
    if directory is not None:
        return [Path(directory)]
    named = os.environ.get("JAXOPT_NN_DATA")
    return [*([Path(named), Path(named) / "fashion-mnist"] if named else []), _DEBIAN_DIRECTORY]


def _find(places: list[Path], prefix: str) -> tuple[Path, Path]:
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    for place in places:
        images, labels = (_existing(place / f"{name}.gz", place / name) for name in names)
        if images and labels:
            return images, labels
    raise FileNotFoundError(
        f"Fashion-MNIST: expected the files {names[0]} and {names[1]}, gzipped (.gz) or not, in one of: "
        f"{', '.join(map(str, places))}. Get them with: apt install dataset-fashion-mnist; "
        f"or pass their directory, or name it in JAXOPT_NN_DATA"
    )


def _existing(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
