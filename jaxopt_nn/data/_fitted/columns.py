"""One column of a table: what it is, fitted to the training rows, and the features that it becomes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.data._fitted.frames import import_pandas, import_sklearn

__all__ = [
    "IMPUTATIONS",
    "KINDS",
    "SCALINGS",
    "Column",
    "feature_names",
    "fit_column",
    "inverse_column",
    "kind_of",
    "transform_column",
]

KINDS = ("numeric", "categorical", "index", "date", "ignore")
SCALINGS = ("standard", "min-max", "robust", "quantile", "power", None)
IMPUTATIONS = ("median", "mean")
_DAY = 86_400e9  # nanoseconds
_MISSING = "(missing)"


class Column(NamedTuple):
    """A fitted column.

    Attributes:
        name: of the column.
        kind: ``"numeric"``, ``"categorical"``, ``"index"`` or ``"date"``.
        fill: what stands for a missing number; NaN for other kinds.
        indicator: whether a feature says where a number was missing.
        scalings: the fitted transformers of scikit-learn, one after the other: name to their fitted attributes.
        categories: the values seen in training, sorted; missing ones last.
    """

    name: str
    kind: str
    fill: float = np.nan
    indicator: bool = False
    scalings: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    categories: tuple[Any, ...] = ()


def kind_of(name: str, values: Any) -> str:
    """What a column is, by its values."""
    pandas = import_pandas()
    types = pandas.api.types
    if types.is_bool_dtype(values) or types.is_numeric_dtype(values):
        return "numeric"
    if types.is_datetime64_any_dtype(values):
        return "date"
    present = values.dropna()
    numbers = pandas.to_numeric(present.astype(str), errors="coerce").notna()
    if len(present) and numbers.mean() >= 0.9 and not isinstance(values.dtype, pandas.CategoricalDtype):
        row = int(present.index[int(np.argmin(numbers.to_numpy()))])
        if not numbers.all():
            raise ValueError(
                f"column {name!r}: expected numbers, as in {int(numbers.sum())} of its rows, got {values[row]!r} in "
                f"row {row}; mend it, or say columns={{{name!r}: 'categorical'}} if these are words"
            )
    different = present.nunique()
    if different > 20 and 2 * different > len(present):
        raise ValueError(
            f"column {name!r}: {different} different texts in {len(present)} rows are no categories; say "
            f"columns={{{name!r}: 'ignore'}}, or 'categorical' if they are"
        )
    return "categorical"


def fit_column(name: str, kind: str, values: Any, scaling: str | None, impute: str) -> Column:
    """The column as the training rows have it."""
    if not values.notna().any():
        raise ValueError(f"column {name!r}: every value is missing; say columns={{{name!r}: 'ignore'}}")
    if kind in ("categorical", "index"):
        return Column(name, kind, categories=_categories(values))
    numbers = _dates(name, values) if kind == "date" else _numbers(name, values)[:, None]
    missing = np.isnan(numbers[:, 0])
    known = numbers[~missing]
    fill = float(np.median(known[:, 0]) if impute == "median" else known[:, 0].mean())
    if kind == "date":  # the other parts are those of the day that stands for a missing one
        fill = float(np.floor(fill))
    filled = _filled(kind, numbers, fill)
    fitted: list[tuple[str, Mapping[str, Any]]] = []
    for step in {"power": ("power", "standard"), None: ()}.get(scaling, (scaling,)):
        transformer = _transformer(step, len(filled)).fit(filled)
        filled = transformer.transform(filled)
        fitted.append((str(step), {key: getattr(transformer, key) for key in _ATTRIBUTES[str(step)]}))
    return Column(name, kind, fill, bool(missing.any()), tuple(fitted))


def transform_column(column: Column, values: Any) -> NDArray[Any]:
    """The features ``[N, F]`` of a column, float64; of kind ``"index"`` its indices ``[N]``, int32."""
    if column.kind in ("categorical", "index"):
        places = {category: index for index, category in enumerate(column.categories)}
        unseen = len(column.categories)
        indices = np.array([places.get(value, unseen) for value in _plain_categories(values)], np.int32)
        return indices if column.kind == "index" else np.eye(unseen + 1)[indices]
    numbers = _dates(column.name, values) if column.kind == "date" else _numbers(column.name, values)[:, None]
    missing = np.isnan(numbers[:, :1])
    features = _filled(column.kind, numbers, column.fill)
    for step, attributes in column.scalings:
        features = _rebuilt(step, attributes).transform(features)
    return np.concatenate([features, missing], axis=1) if column.indicator else features


def inverse_column(column: Column, features: NDArray[Any]) -> Any:
    """The values of a column again: numbers, dates as whole days, categories; missing ones are missing again."""
    pandas = import_pandas()
    if column.kind in ("categorical", "index"):
        indices = features if column.kind == "index" else np.argmax(features, axis=1)
        words = [*column.categories, None]
        return pandas.Series([None if words[int(i)] == _MISSING else words[int(i)] for i in indices], dtype=object)
    missing = features[:, -1] > 0.5 if column.indicator else np.zeros(len(features), bool)
    numbers = np.asarray(features[:, : len(feature_names(column)) - column.indicator], np.float64)
    for step, attributes in reversed(column.scalings):
        numbers = _rebuilt(step, attributes).inverse_transform(numbers)
    values = np.where(missing, np.nan, numbers[:, 0])
    if column.kind == "date":
        return pandas.Series(pandas.to_datetime(np.round(values * _DAY / 1e9), unit="s"))
    return pandas.Series(values)


def feature_names(column: Column) -> tuple[str, ...]:
    """The names of the features of a column."""
    if column.kind == "index":
        return (column.name,)
    if column.kind == "categorical":
        return (*(f"{column.name}={category}" for category in column.categories), f"{column.name} is unseen")
    parts = ("days", "month", "weekday") if column.kind == "date" else ()
    names = tuple(f"{column.name} ({part})" for part in parts) or (column.name,)
    return (*names, f"{column.name} is missing") if column.indicator else names


def _plain_categories(values: Any) -> list[Any]:
    """Text, whole numbers and truth values as Python has them, and a word for missing ones."""
    missing = values.isna().to_numpy()
    items = [value.item() if isinstance(value, np.generic) else value for value in values.tolist()]
    whole = [int(item) if isinstance(item, float) and item.is_integer() else item for item in items]
    return [_MISSING if gone else item for item, gone in zip(whole, missing, strict=True)]


def _categories(values: Any) -> tuple[Any, ...]:
    found = set(_plain_categories(values))
    known = sorted(found - {_MISSING}, key=lambda item: (isinstance(item, str), item))
    return (*known, _MISSING) if _MISSING in found else tuple(known)


def _numbers(name: str, values: Any) -> NDArray[Any]:
    pandas = import_pandas()
    try:
        numbers = pandas.to_numeric(values).to_numpy(np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        bad = pandas.to_numeric(values.astype(str), errors="coerce").isna() & values.notna()
        row = int(np.argmax(bad.to_numpy()))
        raise ValueError(f"column {name!r}: expected a number, got {values.iloc[row]!r} in row {row}") from error
    infinite = np.isinf(numbers)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise ValueError(f"column {name!r}: expected finite numbers, got {numbers[row]} in row {row}")
    return numbers


def _dates(name: str, values: Any) -> NDArray[Any]:
    """Days since 1970, with their fraction, and month and weekday, ``[N, 3]``."""
    pandas = import_pandas()
    text = not pandas.api.types.is_datetime64_any_dtype(values)
    try:
        dates = pandas.to_datetime(values, utc=True, format="ISO8601" if text else None)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"column {name!r}: expected dates as 2024-02-29 or 2024-02-29 12:00; others are for pandas.to_datetime: "
            f"{str(error).splitlines()[0]}"
        ) from error
    days = dates.dt.tz_localize(None).to_numpy("datetime64[ns]")
    gone = np.isnat(days)
    numbers = np.where(gone, np.nan, days.astype(np.int64) / _DAY)
    return np.stack([numbers, dates.dt.month.to_numpy(np.float64), dates.dt.day_of_week.to_numpy(np.float64)], axis=1)


def _filled(kind: str, numbers: NDArray[Any], fill: float) -> NDArray[Any]:
    stand_in = np.array([fill])
    if kind == "date":
        day = np.datetime64(int(fill), "D")
        month = day.astype("datetime64[M]").astype(int) % 12 + 1
        stand_in = np.array([fill, month, (int(fill) + 3) % 7])  # 1970-01-01 was a Thursday
    return np.where(np.isnan(numbers[:, :1]), stand_in, numbers)


_ATTRIBUTES = {
    "standard": ("mean_", "scale_"),
    "min-max": ("min_", "scale_"),
    "robust": ("center_", "scale_"),
    "quantile": ("quantiles_", "references_"),
    "power": ("lambdas_",),
}


def _transformer(step: str | None, rows: int = 1) -> Any:
    preprocessing = import_sklearn()
    match step:
        case "standard":
            return preprocessing.StandardScaler()
        case "min-max":
            return preprocessing.MinMaxScaler()
        case "robust":
            return preprocessing.RobustScaler()
        case "quantile":
            return preprocessing.QuantileTransformer(n_quantiles=min(1000, rows), output_distribution="normal")
        case _:
            return preprocessing.PowerTransformer(standardize=False)


def _rebuilt(step: str, attributes: Mapping[str, Any]) -> Any:
    """A fitted transformer from what it has learned."""
    transformer = _transformer(step)
    for key, value in attributes.items():
        setattr(transformer, key, np.asarray(value))
    transformer.n_features_in_ = np.shape(next(iter(attributes.values())))[-1]
    return transformer
