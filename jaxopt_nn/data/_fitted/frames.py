"""A person's table, whatever it is, as a pandas data frame."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["frame_of", "import_pandas", "import_sklearn"]


def import_pandas() -> Any:
    """The module pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("tables need pandas: pip install 'jaxopt-nn[tables]'") from error
    return pandas


def import_sklearn() -> Any:
    """scikit-learn's preprocessing."""
    try:
        from sklearn import preprocessing
    except ImportError as error:
        raise ImportError("tables need scikit-learn: pip install 'jaxopt-nn[tables]'") from error
    return preprocessing


def frame_of(name: str, table: Any, csv: Mapping[str, Any] | None = None) -> Any:
    """A data frame with text for names of columns, and rows 0, 1, 2, ...

    Args:
        name: what it is called in an error.
        table: a pandas or polars data frame, a dictionary of columns, a list of dictionaries, an array ``[N, F]``, or
            the path of a CSV file.
        csv: for ``pandas.read_csv``.
    """
    pandas = import_pandas()
    if isinstance(table, (str, os.PathLike)):
        frame = _read_csv(pandas, Path(table), csv or {})
    elif csv is not None:
        raise ValueError(f"csv: expected None for a {type(table).__name__}; it is for the path of a file")
    elif isinstance(table, pandas.DataFrame):
        frame = table
    elif hasattr(table, "to_dict") and hasattr(table, "schema"):  # polars; by columns it needs nothing else installed
        frame = pandas.DataFrame(table.to_dict(as_series=False))
    elif isinstance(table, (Mapping, list)):
        frame = pandas.DataFrame(table)
    elif isinstance(table, np.ndarray) or hasattr(table, "__array__"):
        array = np.asarray(table)
        if array.dtype.names is None and array.ndim != 2:
            raise ValueError(f"{name}: expected a table [rows, columns], got the shape {list(array.shape)}")
        frame = pandas.DataFrame(array)
    else:
        raise TypeError(
            f"{name}: expected a data frame, a dictionary of columns, an array [rows, columns] or the path of a CSV "
            f"file, got a {type(table).__name__}"
        )
    frame = frame.reset_index(drop=True)
    names = [column if isinstance(column, str) else f"column {column}" for column in frame.columns]
    frame.columns = names
    repeated = [name for index, name in enumerate(names) if name in names[:index]]
    if repeated:
        raise ValueError(f"{name}: expected different names of columns, got {repeated[0]!r} twice")
    if not len(frame):
        raise ValueError(f"{name}: expected at least one row, got none")
    return frame


def _read_csv(pandas: Any, path: Path, options: Mapping[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():  # one that cells are dropped
            warnings.filterwarnings("error", "Length of header", pandas.errors.ParserWarning)
            frame = pandas.read_csv(path, **{"index_col": False, **options})
    except pandas.errors.EmptyDataError as error:
        raise ValueError(f"{path}: expected a table, got an empty file") from error
    except (pandas.errors.ParserError, pandas.errors.ParserWarning, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: it cannot be read: {error}; csv={{...}} are options of pandas.read_csv") from error
    numbers = [name for name in frame.columns if isinstance(name, str) and _is_number(name)]
    if numbers and not options.keys() & {"header", "names"}:
        raise ValueError(
            f"{path}: expected names of columns in the first line, got {numbers[0]!r}; use csv={{'header': None}} if "
            f"it is data, csv={{'header': 0}} if these are names"
        )
    return frame


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
