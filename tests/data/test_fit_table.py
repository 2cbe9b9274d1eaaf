"""Fitted tables beside scikit-learn's own pipeline, and what a person's table may hold."""

import datetime

import jax
import numpy as np
import pytest
from sklearn import compose, impute, pipeline, preprocessing, utils

from jaxopt_nn import data, layers, losses, optimizers, training

pandas = pytest.importorskip("pandas")

ROWS = 60
RNG = np.random.default_rng(0)
FRAME = pandas.DataFrame(
    {
        "age": np.where(RNG.random(ROWS) < 0.2, np.nan, RNG.normal(40, 12, ROWS)),
        "income": RNG.lognormal(8, 1, ROWS),
        "town": RNG.choice(["Bern", "Oslo", "Rome"], ROWS),
        "kind": RNG.choice(["cat", "dog"], ROWS),
    }
)
SCALERS = {
    "standard": preprocessing.StandardScaler,
    "min-max": preprocessing.MinMaxScaler,
    "robust": preprocessing.RobustScaler,
    "quantile": lambda: preprocessing.QuantileTransformer(n_quantiles=40, output_distribution="normal"),
    "power": preprocessing.PowerTransformer,
    None: preprocessing.FunctionTransformer,
}


@pytest.mark.parametrize("scaling", SCALERS)
def test_equals_a_column_transformer(scaling):
    numbers = ["age", "income"]
    reference = compose.ColumnTransformer(
        [
            ("age", pipeline.make_pipeline(impute.SimpleImputer(strategy="median"), SCALERS[scaling]()), ["age"]),
            ("missing", impute.MissingIndicator(), ["age"]),
            ("income", SCALERS[scaling](), ["income"]),
            ("town", preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["town"]),
        ]
    )
    train, other = FRAME[:40], FRAME[40:].assign(income=FRAME.income[40:] * 3)  # beyond what was seen
    fitted = data.fit_table(train, target="kind", scaling=scaling)
    reference.fit(train)
    for frame in (train, other):
        batch = data.transform_table(fitted, frame)
        np.testing.assert_allclose(batch.x[:, :-1], reference.transform(frame), rtol=1e-5, atol=1e-6)
        assert not batch.x[:, -1].any() and batch.x.dtype == np.float32
    back = data.inverse_table(fitted, data.transform_table(fitted, train).x)
    np.testing.assert_allclose(back[numbers], train[numbers], rtol=1e-3)
    assert back.town.tolist() == train.town.tolist()
    labels = data.transform_table(fitted, other).y
    assert data.inverse_target(fitted, labels).tolist() == other.kind.tolist()


def test_dates_categories_of_numbers_indices_and_what_was_not_seen():
    frame = {
        "when": ["2024-02-29 12:00", None, "2024-03-03"],
        "code": [7, 8, None],
        "word": ["a", None, "b"],
        "on": [True, False, True],
    }
    kinds = {"when": "date", "code": "categorical", "word": "index"}
    fitted = data.fit_table(frame, columns=kinds, scaling=None)
    assert fitted.feature_names == (
        *("when (days)", "when (month)", "when (weekday)", "when is missing"),
        *("code=7", "code=8", "code=(missing)", "code is unseen", "on"),
    )
    assert fitted.index_sizes == {"word": 4}
    x = data.transform_table(fitted, frame).x
    day = (datetime.date(2024, 2, 29) - datetime.date(1970, 1, 1)).days
    np.testing.assert_array_equal(x["features"][0], [day + 0.5, 2, 3, 0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(x["features"][1, 1:], [3, 4, 1, 0, 1, 0, 0, 0])  # the median day, 1 March, a Friday
    assert x["word"].tolist() == [0, 2, 1] and x["word"].dtype == np.int32
    other = data.transform_table(fitted, {"when": ["2025-01-01"], "code": [9], "word": ["c"], "on": [0]})
    assert (
        other.x["word"].tolist() == [3] and other.x["features"][0, 4:].tolist() == [0, 0, 0, 1, 0] and other.y is None
    )
    back = data.inverse_table(fitted, x)
    assert back.when[2] == pandas.Timestamp("2024-03-03") and back.when.isna().tolist() == [False, True, False]
    assert back.word.tolist() == ["a", None, "b"]


def test_any_kind_of_table(tmp_path):
    plain = {"a": [1.5, 2.5, 4.0], "b": ["x", "y", "x"]}
    expected = data.transform_table(data.fit_table(plain), plain).x
    path = tmp_path / "table.csv"
    path.write_bytes("a;b\n1,5;x\n2,5;y\n4,0;x\n".encode("utf-16"))
    csv = {"sep": ";", "decimal": ",", "encoding": "utf-16"}
    for table, options in (
        (pandas.DataFrame(plain, index=[5, 5, 7]), {}),
        ([{"a": a, "b": b} for a, b in zip(*plain.values(), strict=True)], {}),
        (np.array(list(zip(*plain.values(), strict=True)), [("a", float), ("b", "U1")]), {}),
        (path, {"csv": csv}),
    ):
        np.testing.assert_array_equal(
            data.transform_table(data.fit_table(table, **options), table, **options).x, expected
        )
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(plain)
    np.testing.assert_array_equal(data.transform_table(data.fit_table(frame), frame).x, expected)


def test_a_regression_and_its_unit():
    frame = FRAME.assign(price=FRAME.income * 2 + 5)
    fitted = data.fit_table(frame[:40], target="price", target_scaling="standard")
    y = data.transform_table(fitted, frame[:40]).y
    assert abs(y.mean()) < 1e-5 and abs(y.std() - 1) < 1e-5 and fitted.classes is None
    np.testing.assert_allclose(data.inverse_target(fitted, y[:, None]), frame.price[:40], rtol=1e-5)
    assert data.fit_table({"a": [1, 2], "y": [3, 4]}, target="y").classes == (3, 4)
    assert data.fit_table({"a": [1, 2], "y": [3, 4]}, target="y", task="regression").classes is None


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["1.0", "0.0", "1.0"], (0, 1)),  # labels that went through a float
        (["0.0", "1.0", "2.0"] * 2, (0, 1, 2)),
        (["10", "9", "10"], (9, 10)),
        (["1.0", "2.0", "3.0"], None),  # none of which recurs
        (["151.0", "75.0", "141.0"] * 2, None),
        (["1.0", "0.5", "1.0"], None),
        (["1.0", "1.0"], None),
    ],
)
def test_classes_or_a_regression_is_read_off_the_target(tmp_path, cells, classes):
    path = tmp_path / "table.csv"
    path.write_text("x,y\n" + "".join(f"{row},{cell}\n" for row, cell in enumerate(cells)))
    fitted = data.fit_table(path, target="y")
    assert fitted.classes == classes
    if classes is not None:  # 1 and 1.0 are one class
        assert data.transform_table(fitted, {"x": [5], "y": [classes[1]]}).y.tolist() == [1]


def test_a_first_line_that_is_data(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("5.1,3.5,setosa\n6.3,2.5,virginica\n")
    with pytest.raises(ValueError, match=r"expected names of columns in the first line, got '5\.1'; use csv="):
        data.fit_table(path)
    fitted = data.fit_table(path, target="column 2", csv={"header": None})
    assert fitted.classes == ("setosa", "virginica") and fitted.feature_names == ("column 0", "column 1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"table\.csv: expected a table, got an empty file"),
        ("a,b\n1,2,3\n4,5,6\n", r"table\.csv: it cannot be read: Length of header or names does not match"),
        ("a,b\n1,2\n4,5,6\n", r"table\.csv: it cannot be read: .*Expected 2 fields in line 3, saw 3"),
        ("a,b\n1,\xff\n", r"table\.csv: it cannot be read: .*can't decode byte 0xff.*csv=\{\.\.\.\} are options"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        data.fit_table(path)


def test_rows_that_were_fitted_on_are_no_test_rows():
    fitted = data.fit_table(FRAME, target="kind")
    with pytest.raises(ValueError, match=r"got 1 of 3 that were, the first in row 2: they leak"):
        data.transform_table(fitted, pandas.concat([FRAME[:2].assign(income=1.0), FRAME[5:6]]), held_out=True)
    data.transform_table(data.fit_table(FRAME[:30], target="kind"), FRAME[30:], held_out=True)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ({"a": [1.0]}, {"target": "b"}, r"^target: expected one of the columns \['a'\], got 'b'"),
        ({"a": [1.0]}, {"target": "a"}, r"^table: expected a feature column besides the target"),
        ({"a": [1.0]}, {"columns": {"b": "date"}}, r"^columns: expected names among \['a'\], got 'b'"),
        ({"a": [1.0]}, {"columns": {"a": "dates"}}, r"^columns\['a'\]: expected .*\"date\".*got 'dates'"),
        ({"a": [1.0]}, {"scaling": "minmax"}, r"^scaling: expected .*\"min-max\".*'minmax'"),
        ({"a": [1.0]}, {"csv": {}}, r"^csv: expected None for a dict"),
        ({"a": [1.0], "y": [2]}, {"target": "y", "target_scaling": "power"}, r"^target_scaling: expected None without"),
        ({"a": [None, np.nan]}, {}, r"^column 'a': every value is missing"),
        ({"a": [1.0, np.inf]}, {}, r"^column 'a': expected finite numbers, got inf in row 1"),
        ({"a": ["1"] * 10 + ["x"]}, {}, r"^column 'a': expected numbers, as in 10 of its rows, got 'x' in row 10"),
        ({"a": ["1", "x"]}, {"columns": {"a": "numeric"}}, r"^column 'a': expected a number, got 'x' in row 1"),
        ({"a": [f"name {i}" for i in range(30)]}, {}, r"^column 'a': 30 different texts in 30 rows are no categories"),
        ({"a": ["soon"]}, {"columns": {"a": "date"}}, r"^column 'a': expected dates"),
        ({"a": [1, 2], "y": ["u", None]}, {"target": "y"}, r"^column 'y': expected a target in each row, missing in 1"),
        ({"a": []}, {}, r"^table: expected at least one row"),
        (np.ones(3), {}, r"^table: expected a table \[rows, columns\], got the shape \[3\]"),
    ],
)
def test_bad_tables_are_named(table, options, message):
    with pytest.raises(ValueError, match=message):
        data.fit_table(table, **options)


def test_bad_rows_are_named():
    fitted = data.fit_table({"a": [1.0, 2.0], "b": ["x", "y"], "y": ["u", "v"]}, target="y")
    with pytest.raises(ValueError, match=r"missing are \['b'\]"):
        data.transform_table(fitted, {"a": [1.0]})
    with pytest.raises(ValueError, match=r"column 'y': expected one of the classes \['u', 'v'\], got 'w' in row 0"):
        data.transform_table(fitted, {"a": [1.0], "b": ["x"], "y": ["w"]})
    with pytest.raises(ValueError, match=r"^y: expected labels \[N\], got float64\[1, 2\]; take the argmax first"):
        data.inverse_target(fitted, np.ones((1, 2)))
    with pytest.raises(TypeError, match="expected a data frame"):
        data.fit_table(3)


def test_class_weights_are_scikit_learns():
    labels = RNG.integers(0, 3, 50)
    expected = utils.class_weight.compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(data.class_weights(labels), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="expected rows of each of 4 classes, got none of 3"):
        data.class_weights(labels, 4)


def test_saved_with_the_model_it_is_the_same(tmp_path):
    fitted = data.fit_table(
        FRAME, target="kind", scaling={"income": "power", "age": "quantile"}, columns={"town": "index"}
    )
    train = data.transform_table(fitted, FRAME)

    def model(x):
        return x["features"]

    def recipe(hp):
        return training.Recipe(
            model=layers.serial(model, layers.dense(2)),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.sgd(hp),
            epochs=1,
        )

    result = training.fit(recipe, 0.1, train, key=jax.random.key(0))
    training.save(tmp_path / "model", result, recipe=recipe, hparams=0.1, train=train, preprocessing=fitted)
    loaded = training.load(tmp_path / "model", recipe).preprocessing
    again = data.transform_table(loaded, FRAME)
    jax.tree.map(np.testing.assert_array_equal, again, train)
    assert loaded._replace(rows=fitted.rows).feature_names == fitted.feature_names and loaded.classes == fitted.classes
    with pytest.raises(ValueError, match="they leak"):
        data.transform_table(loaded, FRAME[:1], held_out=True)
