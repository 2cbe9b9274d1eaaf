"""CSV files as data sets: numeric features, one target column, and errors that name the line and the column.

Nothing is guessed about broken data: an empty cell, a ``nan`` or a word among numbers is an error, not a missing value.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.data._arrays import Task, float32_or_64
from jaxopt_nn.types import Batch

__all__ = ["CsvData", "load_csv"]

_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class CsvData(NamedTuple):
    """What :func:`load_csv` reads.

    Attributes:
        batch: NumPy arrays: ``x [N, features]`` float32; ``y [N]`` int32 class indices, or float32 targets. Float64 in
            place of float32 where that would run numbers of a column together, as :func:`from_arrays` has it.
        feature_names: the columns of ``x``.
        classes: the text of each class: label ``i`` stands for ``classes[i]``. None for a regression. Of classes that
            are whole numbers written with a decimal point, ``1.0`` is called ``"1"``.
    """

    batch: Batch
    feature_names: tuple[str, ...]
    classes: tuple[str, ...] | None


class _Row(NamedTuple):
    line: int
    cells: list[str]


def load_csv(
    path: str | os.PathLike[str],
    target: str | int,
    *,
    task: Task | None = None,
    classes: Sequence[str] | None = None,
    ignore: Sequence[str | int] = (),
    header: bool | None = None,
    delimiter: str = ",",
    encoding: str = "utf-8-sig",
) -> CsvData:
    r"""Reads a table of numbers and one target column, which may be text.

    Class labels become ``0..K-1`` in the order of ``classes``: sorted, as numbers where all are whole numbers.

    Whether the target is a class or a number is read off its column, unless ``task`` says it:

    ======================================================================  ==============
    the column holds                                                        it is
    ======================================================================  ==============
    words only                                                              classes
    whole numbers only, all written without a decimal point: ``3``          classes
    whole numbers only, some written with one, ``1.0``, and they are two    classes
    as before, and they are 0, 1, 2, ... or 1, 2, 3, ... without a gap,
    each at least twice                                                     classes
    any other numbers: ``151.0``, ``0.5``                                   a regression
    words and numbers                                                       an error
    ======================================================================  ==============

    Args:
        path: the file.
        target: the target column's name, or its index; ``-1`` is the last.
        task: ``"classification"`` or ``"regression"``; None reads it off the target column, by the table above.
        classes: the classes and their order, to read a second file as the first: ``classes=train.classes``.
        ignore: names or indices of columns to leave out, such as an identifier.
        header: whether the first line names the columns; if not, they are called ``column 0``, ``column 1``, ... None
            stands for True, and is an error if a name is a number: the line may well be data.
        delimiter: one character between the cells.
        encoding: of the file; the default also takes a byte order mark.

    Returns:
        CsvData. Blank lines are skipped, blanks around a cell are stripped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty or not of this encoding, a line has too many or too few cells, a feature is no
            finite number, a column does not exist. The message names the file, the line and the column.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = Path(directory) / "flowers.csv"
        ...     _ = path.write_text("length,width,species\n5.1,3.5,setosa\n6.3,2.5,virginica\n")
        ...     flowers = load_csv(path, target="species")
        >>> flowers.batch.y.tolist(), flowers.feature_names, flowers.classes
        ([0, 1], ('length', 'width'), ('setosa', 'virginica'))
    """
    if task not in (None, "classification", "regression"):
        raise ValueError(f'task: expected "classification", "regression" or None, got {task!r}')
    if classes is not None and task == "regression":
        raise ValueError('classes: expected None with task="regression"')
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: expected the path of a file, got {path!r}")
    names, rows = _read(path, header, delimiter, encoding)
    target_column = _column("target", target, names, path)
    left_out = {target_column, *(_column(f"ignore[{i}]", each, names, path) for i, each in enumerate(ignore))}
    features = [column for column in range(len(names)) if column not in left_out]
    if not features:
        raise ValueError(f"{path}: expected at least one feature column besides the target, got the columns {names}")
    x = _narrow(f"{path}, features", [[_number(row, column, names, path) for column in features] for row in rows])
    y, class_names = _targets(rows, target_column, names, path, task, classes)
    return CsvData(Batch(x, y), tuple(names[column] for column in features), class_names)


def _read(
    path: str | os.PathLike[str], header: bool | None, delimiter: str, encoding: str
) -> tuple[list[str], list[_Row]]:
    with Path(path).open(newline="", encoding=encoding) as file:
        rows = list(_rows(csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True), path, encoding))
    if not rows:
        raise ValueError(f"{path}: expected a table, got an empty file")
    if header is False:
        names = [f"column {i}" for i in range(len(rows[0].cells))]
    else:
        first, rows = rows[0], rows[1:]
        names = first.cells
        numbers = [name for name in names if _parse(name) is not None]
        if header is None and numbers:
            raise ValueError(
                f"{path}, line {first.line}: expected names of columns, got {numbers[0]!r}; "
                f"use header=False if this line is data, header=True if these are names"
            )
        repeated = [name for i, name in enumerate(names) if name in names[:i]]
        if repeated:
            raise ValueError(f"{path}, line {first.line}: expected different column names, got {repeated[0]!r} twice")
        if not rows:
            raise ValueError(f"{path}: expected rows below the header, got none")
    for row in rows:
        if len(row.cells) != len(names):
            raise ValueError(f"{path}, line {row.line}: expected {len(names)} cells, got {len(row.cells)}")
    return names, rows


def _rows(reader: Any, path: str | os.PathLike[str], encoding: str) -> Iterator[_Row]:
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if len(stripped) > 1 or any(stripped):
                yield _Row(reader.line_num, stripped)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, after line {reader.line_num}: expected text in {encoding}, got {error}") from error
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: expected CSV, got a line that is none: {error}") from error


def _column(argument: str, which: str | int, names: list[str], path: str | os.PathLike[str]) -> int:
    if isinstance(which, str):
        if which in names:
            return names.index(which)
    elif isinstance(which, bool) or not isinstance(which, (int, np.integer)):
        raise TypeError(f"{argument}: expected a column's name or index, got {which!r}")
    elif -len(names) <= which < len(names):
        return int(which) % len(names)
    raise ValueError(f"{argument}: expected a column of {path}, which has {names}, got {which!r}")


def _parse(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    # Python reads "1_000" as a number and "nan" as a float; in somebody's table they are mistakes.
    return number if "_" not in cell and abs(number) <= _FLOAT32_MAX else None


def _is_whole(cell: str) -> bool:
    number = _parse(cell)
    return number is not None and number.is_integer()


def _short(whole: str) -> str:
    return str(int(float(whole)))


def _are_labels(numbers: list[float]) -> bool:
    """Whether whole numbers are rather classes than measurements: two, or a count from 0 or 1 of which all recur."""
    counts = Counter(numbers)
    first = int(min(counts))
    are_consecutive = first in (0, 1) and sorted(counts) == list(range(first, first + len(counts)))
    return len(counts) == 2 or (len(counts) > 2 and are_consecutive and min(counts.values()) > 1)


def _narrow(name: str, numbers: Any) -> NDArray[Any]:
    array = np.array(numbers, np.float64)
    return array.astype(float32_or_64(name, array))


def _number(row: _Row, column: int, names: list[str], path: str | os.PathLike[str]) -> float:
    number = _parse(row.cells[column])
    if number is None:
        raise ValueError(
            f'{path}, line {row.line}, column "{names[column]}": expected a finite number, got {row.cells[column]!r}'
        )
    return number


def _targets(
    rows: list[_Row],
    column: int,
    names: list[str],
    path: str | os.PathLike[str],
    task: Task | None,
    classes: Sequence[str] | None,
) -> tuple[Any, tuple[str, ...] | None]:
    cells = [row.cells[column] for row in rows]
    whole, plain = all(_is_whole(cell) for cell in cells), all(_INTEGER.fullmatch(cell) for cell in cells)
    where = f'column "{names[column]}"'
    if task is None and classes is None:
        numeric = [_parse(cell) is not None for cell in cells]
        if any(numeric) and not all(numeric):
            row = rows[numeric.index(not numeric[0])]
            raise ValueError(
                f"{path}, line {row.line}, {where}: expected all numbers or all words, got {row.cells[column]!r} after "
                f'{cells[0]!r}; use task="classification" if these are classes'
            )
        classified = plain or not any(numeric) or (whole and _are_labels([float(cell) for cell in cells]))
        task = "classification" if classified else "regression"
    if task == "regression":
        return _narrow(f"{path}, {where}", [_number(row, column, names, path) for row in rows]), None
    if whole and not plain:
        cells = [_short(cell) for cell in cells]
    class_names = (
        [str(name) for name in classes] if classes is not None else sorted(set(cells), key=int if whole else None)
    )
    index = {name: i for i, name in enumerate(class_names)}
    index = {_short(name): i for name, i in index.items() if _is_whole(name)} | index  # 1 and 1.0 are one class
    for row, cell in zip(rows, cells, strict=True):
        if not cell or cell not in index:
            expected = f"one of the classes {class_names}" if classes is not None else "a class"
            raise ValueError(f"{path}, line {row.line}, {where}: expected {expected}, got {cell!r}")
    return np.array([index[cell] for cell in cells], np.int32), tuple(class_names)
