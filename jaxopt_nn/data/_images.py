"""Images from a folder with a folder for each class, read by Pillow: all at once, or batch by batch.

Images stay uint8 until they are on the device: a quarter of the memory of float32.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._arguments import check_choice, check_key, check_positive_int, shown
from jaxopt_nn.data._splitting import permutation
from jaxopt_nn.types import Batch, Key

__all__ = ["ImageData", "ImageFiles", "find_images", "load_images", "stream_images"]

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class ImageFiles(NamedTuple):
    """The images of a folder, not read yet; made by :func:`find_images`.

    Attributes:
        paths: a NumPy array ``[N]`` of their paths, as text.
        labels: ``[N]`` int32 class indices.
        classes: the name of each class: label ``i`` stands for ``classes[i]``.
    """

    paths: NDArray[Any]
    labels: NDArray[np.int32]
    classes: tuple[str, ...]


class ImageData(NamedTuple):
    """What :func:`load_images` reads.

    Attributes:
        batch: NumPy arrays: ``x [N, height, width, channels]`` uint8, ``y [N]`` int32 class indices.
        classes: the name of each class: label ``i`` stands for ``classes[i]``.
        paths: ``[N]`` the file of each row.
    """

    batch: Batch
    classes: tuple[str, ...]
    paths: NDArray[Any]


Folder = str | os.PathLike[str] | ImageFiles


def find_images(folder: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> ImageFiles:
    """The images in a folder that has a folder for each class. Reads no image.

    Args:
        folder: its folders are the classes, in the order of their names, or of numbers if all are numbers. An image is
            a file in one of them, or below, with the ending of an image; hidden files are none.
        classes: the classes and their order, to read a second folder as the first: ``classes=train.classes``. A class
            may be missing there.

    Returns:
        :class:`ImageFiles`. A part of them is ``ImageFiles(files.paths[rows], files.labels[rows], files.classes)``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no folders, a folder without an image, or one that is none of ``classes``.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder: expected the path of a folder, got {shown(folder)}")
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"folder: expected a folder with a folder for each class, found none at {root}")
    names = [each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith(".")]
    if not names:
        raise ValueError(f"folder: expected a folder for each class in {root}, found none")
    if classes is None:
        numbers = all(name.isdecimal() for name in names)
        order = tuple(sorted(names, key=(lambda name: (int(name), name)) if numbers else None))
    else:
        order = _check_classes(classes)
        if unknown := sorted(set(names) - set(order)):
            raise ValueError(f"classes: expected the folders of {root} to be among {list(order)}, found {unknown}")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(order):
        files = sorted(str(path) for path in (root / name).rglob("*") if _is_image(path, root))
        if not files and name in names:
            raise ValueError(f"folder: expected images in the folder of each class, found none in {root / name}")
        paths += files
        labels += [label] * len(files)
    return ImageFiles(np.array(paths, dtype=np.str_), np.array(labels, np.int32), order)


def load_images(
    folder: Folder,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    classes: Sequence[str] | None = None,
) -> ImageData:
    """Reads the images of a folder with a folder for each class.

    Args:
        folder: its path, or :class:`ImageFiles`.
        size: height and width of the images, or one number for both: an image is scaled until it covers this, and its
            middle is taken. None if all have the same size already.
        channels: 3 for red, green and blue, 1 for grey; images of the other kind are converted.
        classes: as in :func:`find_images`.

    Returns:
        :class:`ImageData`. Files that are no image, or broken, are left out, with a warning that names them. A photo is
        turned as its EXIF data say.

    Raises:
        ImportError: Pillow is missing.
        FileNotFoundError, ValueError: as :func:`find_images`; sizes differ and none is given; an image has 16 or 32
            bits a channel; no image of a class can be read.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, colour in (("ants", "black"), ("bees", "yellow")):
    ...         Path(folder, name).mkdir()
    ...         Image.new("RGB", (6, 4), colour).save(Path(folder, name, "1.png"))
    ...     images = load_images(folder)
    >>> images.batch.x.shape, images.batch.x.dtype.name, images.batch.y.tolist(), images.classes
    ((2, 4, 6, 3), 'uint8', [0, 1], ('ants', 'bees'))
    """
    files = _files(folder, classes)
    kept: list[int] = []
    x: NDArray[np.uint8] | None = None
    for row, image in _readable(files, range(len(files.paths)), _Form(_check_size(size), _check_channels(channels))):
        if x is None:
            x = np.empty((len(files.paths), *image.shape), np.uint8)
        elif image.shape != x.shape[1:]:
            first = files.paths[kept[0]]
            raise ValueError(
                f"{files.paths[row]}: expected the height and width {list(x.shape[1:3])} of {first}, got "
                f"{list(image.shape[:2])}; choose one for all with size="
            )
        x[len(kept)] = image
        kept.append(row)
    missing = sorted({*files.labels.tolist()} - {*files.labels[kept].tolist()})
    if x is None or missing:
        raise ValueError(f"folder: no image can be read of the classes {[files.classes[label] for label in missing]}")
    return ImageData(Batch(x[: len(kept)], files.labels[kept]), files.classes, files.paths[kept])


def stream_images(
    folder: Folder,
    batch_size: int,
    *,
    size: int | tuple[int, int],
    channels: int = 3,
    classes: Sequence[str] | None = None,
    key: Key | None = None,
) -> Callable[[int], Iterator[Batch]]:
    """Batches of images that are read when they are needed, for folders that do not fit the memory.

    Args:
        folder: its path, or :class:`ImageFiles`.
        batch_size: images in a batch; the last of an epoch may have fewer.
        size, channels, classes: as in :func:`load_images`.
        key: with which the order is drawn, anew in each epoch; None for the order of the classes.

    Returns:
        ``epoch -> iterator of batches``, each as in :func:`load_images`: the same epoch gives the same batches. An
        image that cannot be read is left out, with a warning that names it, and the next one takes its place.

    Raises:
        ImportError, FileNotFoundError, ValueError: as :func:`load_images`.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, count in (("ants", 3), ("bees", 2)):
    ...         Path(folder, name).mkdir()
    ...         for index in range(count):
    ...             Image.new("L", (8, 8)).save(Path(folder, name, f"{index}.png"))
    ...     batches = stream_images(folder, 2, size=4, channels=1)
    ...     [(batch.x.shape, batch.y.tolist()) for batch in batches(0)]
    [((2, 4, 4, 1), [0, 0]), ((2, 4, 4, 1), [0, 1]), ((1, 4, 4, 1), [1])]
    """
    check_positive_int("batch_size", batch_size)
    if key is not None:
        check_key("key", key)
    files, channels = _files(folder, classes), _check_channels(channels)
    form = _Form(_check_size(size), channels)
    if form.size is None:
        raise TypeError("size: expected the height and width of the images, got None")

    def batches(epoch: int) -> Iterator[Batch]:
        count = len(files.paths)
        order = np.arange(count) if key is None else permutation(key, count, epoch)
        rows: list[int] = []
        images: list[NDArray[np.uint8]] = []
        for row, image in _readable(files, order.tolist(), form):
            rows.append(row)
            images.append(image)
            if len(rows) == batch_size:
                yield Batch(np.stack(images), files.labels[rows])
                rows, images = [], []
        if rows:
            yield Batch(np.stack(images), files.labels[rows])

    return batches


class _Form(NamedTuple):
    """What images become: height and width, or None for those that they have, and channels."""

    size: tuple[int, int] | None
    channels: int


def _files(folder: Folder, classes: Sequence[str] | None) -> ImageFiles:
    _pillow()
    if not isinstance(folder, ImageFiles):
        return find_images(folder, classes=classes)
    if classes is not None:
        raise ValueError("classes: expected None with ImageFiles, which have their own")
    if len(folder.paths) == 0 or len(folder.paths) != len(folder.labels):
        raise ValueError(
            f"folder: expected as many labels as paths, and at least one, got {len(folder.labels)} and "
            f"{len(folder.paths)}"
        )
    return folder


def _check_classes(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise TypeError(f"classes: expected a list of names, got {shown(classes)}")
    names = tuple(cast("Sequence[Any]", classes))
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ValueError(f"classes: expected different names, at least one, got {shown(names)}")
    return names


def _check_size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    both = tuple(cast("Sequence[Any]", pair))
    if len(both) != 2:
        raise ValueError(f"size: expected height and width, got {shown(size)}")
    for each in both:
        check_positive_int("size", each)
    return int(both[0]), int(both[1])


def _check_channels(channels: int) -> int:
    check_choice("channels", channels, 1, 3)
    return channels


def _is_image(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in _SUFFIXES and not hidden and path.is_file()


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'jaxopt-nn[images]'") from error
    return Image


def _readable(files: ImageFiles, rows: Sequence[int], form: _Form) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The rows whose image can be read, and the images; at the end a warning names the others."""
    broken: list[str] = []
    for row in rows:
        path = str(files.paths[row])
        try:
            image = _read(path, form)
        except (OSError, SyntaxError, EOFError) as error:  # what Pillow raises for a file that is no image, or cut off
            broken.append(f"{path} ({str(error) or type(error).__name__})")
            continue
        yield row, image
    if broken:
        named = ", ".join(broken[:10]) + (f", and {len(broken) - 10} more" if len(broken) > 10 else "")
        warnings.warn(
            f"left out {len(broken)} of {len(files.paths)} images, which cannot be read: {named}", stacklevel=3
        )


def _read(path: str, form: _Form) -> NDArray[np.uint8]:
    from PIL import ImageOps

    pillow = _pillow()
    with pillow.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"{path}: expected 8 bits a channel, got an image of Pillow's mode {image.mode}")
        image = image.convert("L" if form.channels == 1 else "RGB")
        if form.size is not None and (image.height, image.width) != form.size:
            image = ImageOps.fit(image, (form.size[1], form.size[0]), pillow.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(image.height, image.width, form.channels)
