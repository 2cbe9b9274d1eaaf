"""A table of words, numbers, dates and gaps as features and targets: fitted to the training rows, then applied."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn._arguments import check_choice
from jaxopt_nn.data._arrays import Task
from jaxopt_nn.data._fitted.columns import (
    IMPUTATIONS,
    KINDS,
    SCALINGS,
    Column,
    feature_names,
    fit_column,
    inverse_column,
    kind_of,
    transform_column,
)
from jaxopt_nn.data._fitted.frames import frame_of, import_pandas
from jaxopt_nn.types import Batch

__all__ = ["FittedTable", "fit_table", "inverse_table", "inverse_target", "transform_table"]


class FittedTable(NamedTuple):
    """What :func:`fit_table` has learned from the training rows: plain values and arrays, which can be saved.

    Attributes:
        columns: the fitted columns, in the order of the table; those that are ignored are left out.
        target: the name of the target column; None if there is none.
        classes: of a classification its classes: label ``i`` stands for ``classes[i]``; otherwise None.
        target_scaling: of a regression the fitted scaling of its targets; otherwise None.
        rows: a hash of each training row, uint64 ``[N]``: to find them among rows that are meant to be unseen.
    """

    columns: tuple[Column, ...]
    target: str | None
    classes: tuple[Any, ...] | None
    target_scaling: Column | None
    rows: NDArray[np.uint64]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features of ``x``, or of ``x["features"]``, in their order."""
        return tuple(name for column in self.columns if column.kind != "index" for name in feature_names(column))

    @property
    def index_sizes(self) -> dict[str, int]:
        """For each column of kind ``"index"`` how many indices there are, the one of unseen values included."""
        return {column.name: len(column.categories) + 1 for column in self.columns if column.kind == "index"}


def fit_table(
    table: Any,
    target: str | None = None,
    *,
    task: Task | None = None,
    columns: Mapping[str, str] | None = None,
    scaling: str | Mapping[str, str | None] | None = "standard",
    impute: str | Mapping[str, str] = "median",
    target_scaling: str | None = None,
    csv: Mapping[str, Any] | None = None,
) -> FittedTable:
    """Learns from the training rows of a table how it becomes features and targets. Scaling is scikit-learn's.

    ==============  ====================================================================================================
    kind            it becomes
    ==============  ====================================================================================================
    numeric         one scaled number; a missing one is imputed, and a second feature, 0 or 1, says where it was missing
    categorical     one-hot: a feature for each value seen in training, missing among them, and one for unseen values
    index           an int32 index for an embedding: that of its value among those of training, the last for unseen ones
    date            three scaled numbers: days (UTC, with their fraction), month (1 to 12), weekday (0 for Monday)
    ignore          nothing
    ==============  ====================================================================================================

    Args:
        table: the **training rows alone**: a pandas or polars data frame, a dictionary of columns, a list of
            dictionaries, an array ``[N, F]`` (its columns are called ``"column 0"``, ...), or the path of a CSV file.
        target: the column to predict; None if there is none.
        task: ``"classification"`` or ``"regression"``. None takes floats for a regression and all else for classes.
            Without ``target_scaling`` floats are classes too if they are two whole numbers, or 0, 1, 2, ... or
            1, 2, 3, ... of which all recur.
        columns: name to kind, where it is not to be read off the values. Numbers and truth values are numeric, dates
            are dates, words are categorical.
        scaling: ``"standard"``, ``"min-max"``, ``"robust"``, ``"quantile"`` (to a normal distribution), ``"power"``
            (Yeo-Johnson, then standard), or None; or name to one of these, then ``"standard"`` for all others.
        impute: ``"median"`` or ``"mean"`` of the training rows; or name to one of them.
        target_scaling: of a regression, one of the scalings.
        csv: options of ``pandas.read_csv``, such as ``{"sep": ";", "encoding": "latin-1"}``, or ``{"header": None}`` of
            a file whose first line is data: its columns are called ``"column 0"``, ...

    Returns:
        The fitted table.

    Raises:
        ValueError: no rows; a column that does not exist, or is the target twice; a column whose every value is
            missing, with an infinite number, with a word among numbers, or with words that are no categories (nearly
            all different); a target that is missing in a row. The message names the column and the row.
        ImportError: pandas or scikit-learn is not installed.

    Example:
        >>> rows = {"age": [20.0, None, 40.0], "town": ["Bern", "Rome", "Bern"], "buys": ["no", "yes", "yes"]}
        >>> fitted = fit_table(rows, target="buys")
        >>> fitted.feature_names
        ('age', 'age is missing', 'town=Bern', 'town=Rome', 'town is unseen')
        >>> batch = transform_table(fitted, {"age": [30.0], "town": ["Oslo"], "buys": ["no"]})
        >>> batch.x.tolist(), batch.y.tolist(), fitted.classes
        ([[0.0, 0.0, 0.0, 0.0, 1.0]], [0], ('no', 'yes'))

    Equal to scikit-learn's ``ColumnTransformer`` of ``SimpleImputer``, its scalers, ``MissingIndicator`` and
    ``OneHotEncoder``, but for the feature of unseen values.
    """
    check_choice("task", task, "classification", "regression", None)
    check_choice("target_scaling", target_scaling, *SCALINGS)
    frame = frame_of("table", table, csv)
    names = list(frame.columns)
    if target is not None and target not in names:
        raise ValueError(f"target: expected one of the columns {names}, got {target!r}")
    kinds = _by_column("columns", columns or {}, names, KINDS)
    scalings = _by_column("scaling", scaling, names, SCALINGS, "standard")
    imputations = _by_column("impute", impute, names, IMPUTATIONS, "median")
    fitted: list[Column] = []
    for name in names:
        if name == target or kinds.get(name) == "ignore":
            continue
        kind = kinds.get(name) or kind_of(name, frame[name])
        fitted.append(fit_column(name, kind, frame[name], scalings[name], imputations[name]))
    if not fitted:
        raise ValueError(f"table: expected a feature column besides the target, got the columns {names}")
    classes = scaled = None
    if target is not None:
        values = frame[target]
        _check_target(target, values)
        if task is None:
            floats = import_pandas().api.types.is_float_dtype(values)
            measured = floats and (target_scaling is not None or not _are_labels(values))
            task = "regression" if measured else "classification"
        if task == "classification":
            classes = fit_column(target, "categorical", values, None, "median").categories
        else:
            scaled = fit_column(target, "numeric", values, target_scaling, "median")
    if task != "regression" and target_scaling is not None:
        raise ValueError(f"target_scaling: expected None without a regression, got {target_scaling!r}")
    return FittedTable(tuple(fitted), target, classes, scaled, _hashes(frame, fitted))


def transform_table(
    fitted: FittedTable, table: Any, *, held_out: bool = False, csv: Mapping[str, Any] | None = None
) -> Batch:
    """The rows of a table as a data set.

    Args:
        fitted: what :func:`fit_table` returned.
        table: rows with the same columns, in any order; what else there is is not looked at. Without the target column
            ``y`` is None: rows to predict.
        held_out: whether these rows are meant to be unseen, as those of validation and test are. Then a row that was
            among those of training is a leak, and an error.
        csv: as for :func:`fit_table`.

    Returns:
        Batch of NumPy arrays: ``x [N, F]`` float32, in the order of ``fitted.feature_names``. With columns of kind
        ``"index"`` a dictionary: ``{"features": [N, F], name: [N] int32, ...}``. ``y [N]`` are int32 labels, or float32
        targets.

    Raises:
        ValueError: a column is missing; a number or a class is none; the rows leak.

    Example:
        >>> fitted = fit_table({"size": [1.0, 3.0], "price": [10.0, 30.0]}, target="price", target_scaling="min-max")
        >>> batch = transform_table(fitted, {"size": [2.0], "price": [25.0]})
        >>> batch.x.tolist(), batch.y.tolist()
        ([[0.0]], [0.75])
    """
    frame = frame_of("table", table, csv)
    missing = [column.name for column in fitted.columns if column.name not in frame.columns]
    if missing:
        raise ValueError(f"table: expected the columns of the fit, missing are {missing}")
    if held_out:
        known = np.isin(_hashes(frame, fitted.columns), fitted.rows)
        if known.any():
            raise ValueError(
                f"table: expected rows that were not fitted on, got {int(known.sum())} of {len(known)} that were, the "
                f"first in row {int(np.argmax(known))}: they leak; split first, then fit to the training rows"
            )
    parts = {column.name: transform_column(column, frame[column.name]) for column in fitted.columns}
    dense = [parts[column.name] for column in fitted.columns if column.kind != "index"]
    features = np.concatenate(dense, axis=1).astype(np.float32) if dense else None
    indices = {name: parts[name] for name in fitted.index_sizes}
    x: Any = features if not indices else indices if features is None else {"features": features, **indices}
    return Batch(x, _targets(fitted, frame) if fitted.target in frame.columns else None)


def inverse_table(fitted: FittedTable, x: Any) -> Any:
    """The columns again, as a pandas data frame, from features as :func:`transform_table` makes them.

    Numbers are those of float32. Dates come back as moments; unseen values as missing ones.

    Example:
        >>> fitted = fit_table({"age": [20.0, None, 40.0], "town": ["Bern", "Rome", "Bern"]})
        >>> rows = inverse_table(fitted, transform_table(fitted, {"age": [25.0], "town": ["Rome"]}).x)
        >>> rows["town"].tolist(), rows["age"].round(3).tolist()
        (['Rome'], [25.0])
    """
    pandas = import_pandas()
    dense, found, begin = (x.get("features") if isinstance(x, Mapping) else x), dict[str, Any](), 0
    for column in fitted.columns:
        if column.kind == "index":
            found[column.name] = inverse_column(column, np.asarray(x[column.name]))
        else:
            end = begin + len(feature_names(column))
            found[column.name], begin = inverse_column(column, np.asarray(dense)[:, begin:end]), end
    return pandas.DataFrame(found)


def inverse_target(fitted: FittedTable, y: Any) -> NDArray[Any]:
    """Labels ``[N]`` as the names of their classes, or scaled targets in their unit.

    Example:
        >>> fitted = fit_table({"size": [1.0, 3.0], "kind": ["cat", "dog"]}, target="kind")
        >>> inverse_target(fitted, np.array([1, 0])).tolist()
        ['dog', 'cat']
    """
    if fitted.classes is not None:
        labels = np.asarray(y)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"y: expected labels [N], got {labels.dtype}{list(labels.shape)}; take the argmax first")
        return np.array(fitted.classes, object)[labels]
    if fitted.target_scaling is None:
        raise ValueError("fitted: expected one that was fitted with a target")
    return inverse_column(fitted.target_scaling, np.asarray(y, np.float64).reshape(-1, 1)).to_numpy()


def _targets(fitted: FittedTable, frame: Any) -> NDArray[Any]:
    name, values = str(fitted.target), frame[fitted.target]
    _check_target(name, values)
    if fitted.classes is None:
        assert fitted.target_scaling is not None
        return transform_column(fitted.target_scaling, values)[:, 0].astype(np.float32)
    labels = transform_column(Column(name, "index", categories=fitted.classes), values)
    unseen = labels == len(fitted.classes)
    if unseen.any():
        row = int(np.argmax(unseen))
        raise ValueError(
            f"column {name!r}: expected one of the classes {list(fitted.classes)}, got {values.iloc[row]!r} in row "
            f"{row}"
        )
    return labels


def _are_labels(numbers: Any) -> bool:
    """Whether floats are rather classes than measurements."""
    different, counts = np.unique(numbers, return_counts=True)
    if not np.all(np.mod(different, 1) == 0) or len(different) < 2:
        return False
    consecutive = different[0] in (0, 1) and different[-1] - different[0] == len(different) - 1
    return len(different) == 2 or bool(consecutive and counts.min() > 1)


def _check_target(name: str, values: Any) -> None:
    missing = values.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"column {name!r}: expected a target in each row, missing in {int(missing.sum())}, the first of them "
            f"row {int(np.argmax(missing))}; leave these rows out"
        )


def _hashes(frame: Any, columns: Any) -> NDArray[np.uint64]:
    """What tells rows apart by all of their features."""
    rows = frame[[column.name for column in columns]].astype(str)
    return import_pandas().util.hash_pandas_object(rows, index=False).to_numpy(np.uint64)


def _by_column(
    argument: str, given: Any, names: list[str], choices: tuple[str | None, ...], default: str | None = None
) -> dict[str, Any]:
    """One choice for each column."""
    if not isinstance(given, Mapping):
        check_choice(argument, given, *choices)
        return dict.fromkeys(names, given)
    for name, choice in given.items():
        if name not in names:
            raise ValueError(f"{argument}: expected names among {names}, got {name!r}")
        check_choice(f"{argument}[{name!r}]", choice, *choices)
    return {name: given.get(name, default) for name in names}
