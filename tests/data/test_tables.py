import csv

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes

from jaxopt_nn import data

FLOWERS = "length,width,species\n5.1,3.5,setosa\n6.3,2.5,virginica\n4.9,3,setosa\n"


@pytest.fixture
def write(tmp_path):
    def write(content, name="flowers.csv", **options):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, **options)
        return path

    return write


def test_names_classes_and_numbers(write):
    flowers = data.load_csv(write(FLOWERS), target="species")
    assert flowers.feature_names == ("length", "width") and flowers.classes == ("setosa", "virginica")
    assert flowers.batch.x.dtype == np.float32 and flowers.batch.y.dtype == np.int32
    np.testing.assert_allclose(flowers.batch.x, [[5.1, 3.5], [6.3, 2.5], [4.9, 3]], rtol=1e-6)
    assert flowers.batch.y.tolist() == [0, 1, 0]
    data.check_batch("flowers", flowers.batch, 2)


@pytest.mark.parametrize("target", [1, -2, "width"])
def test_the_target_may_stand_anywhere(write, target):
    table = data.load_csv(write(FLOWERS), target=target, ignore=["species"])
    assert table.feature_names == ("length",) and table.classes is None
    assert table.batch.y.dtype == np.float32 and table.batch.y.tolist() == [3.5, 2.5, 3]


@pytest.mark.parametrize(
    ("cells", "task", "labels", "classes"),
    [
        (["10", "9", "10"], None, [1, 0, 1], ("9", "10")),
        (["b", "a", "b"], None, [1, 0, 1], ("a", "b")),
        (["1.5", "2", "1.5"], None, [1.5, 2, 1.5], None),
        (["10", "9", "10"], "regression", [10, 9, 10], None),
        (["1.5", "2", "n/a"], "classification", [0, 1, 2], ("1.5", "2", "n/a")),
        (["1.0", "0.0", "1.0"], None, [1, 0, 1], ("0", "1")),  # labels that went through a float
        (["1.0", "-1", "-1.0"], None, [1, 0, 0], ("-1", "1")),
        (["4.", "2e0"], None, [1, 0], ("2", "4")),
        (["0.0", "1.0", "2.0"] * 2, None, [0, 1, 2] * 2, ("0", "1", "2")),
        (["10.0", "9.0", "9"], "classification", [1, 0, 0], ("9", "10")),
        (["1.0", "0.0", "1.0"], "regression", [1, 0, 1], None),
        (["1.0", "2.0", "3.0"], None, [1, 2, 3], None),  # none of which recurs
        (["151.0", "75.0", "141.0"] * 2, None, [151, 75, 141] * 2, None),
        (["1.0", "0.5", "1.0"], None, [1, 0.5, 1], None),
        (["1.0", "1.0"], None, [1, 1], None),
    ],
)
def test_the_task_is_read_off_the_target_or_given(write, cells, task, labels, classes):
    path = write("x,y\n" + "".join(f"0,{cell}\n" for cell in cells))
    table = data.load_csv(path, target="y", task=task)
    assert table.batch.y.tolist() == labels and table.classes == classes


def test_a_second_file_is_read_as_the_first(write):
    first = data.load_csv(write(FLOWERS), target="species")
    second = write("length,width,species\n1,2,virginica\n", "second.csv")
    assert data.load_csv(second, target="species").batch.y.tolist() == [0]
    table = data.load_csv(second, target="species", classes=first.classes)
    assert table.batch.y.tolist() == [1] and table.classes == first.classes
    third = write("length,width,species\n1,2,virginica\n1,2,rosa\n", "third.csv")
    with pytest.raises(
        ValueError, match=r'third\.csv, line 3, column "species": expected one of .*setosa.*, got \'rosa\''
    ):
        data.load_csv(third, target="species", classes=first.classes)
    whole = write("x,y\n0,2\n0,1\n", "whole.csv")
    assert data.load_csv(whole, target="y", classes=[0, 1, 2]).batch.y.tolist() == [2, 1]


def test_one_and_one_point_zero_are_one_class(write):
    first = data.load_csv(write("x,y\n0,0.0\n0,1.0\n"), target="y")
    second = write("x,y\n0,1\n0,0\n", "second.csv")
    assert data.load_csv(second, target="y", classes=first.classes).batch.y.tolist() == [1, 0]
    table = data.load_csv(write("x,y\n0,1.0\n0,1\n0,0.0\n"), target="y", classes=["0.0", "1.0"])
    assert table.batch.y.tolist() == [1, 1, 0] and table.classes == ("0.0", "1.0")


def test_numbers_that_float32_would_run_together_stay_float64(write):
    path = write("time,y\n" + "".join(f"{1_700_000_000 + 5 * i},{i / 3}\n" for i in range(40)))
    table = data.load_csv(path, target="y")
    assert table.batch.x.dtype == np.float64 and len(np.unique(table.batch.x)) == 40
    assert table.batch.y.dtype == np.float32
    assert data.load_csv(path, target="time", task="regression").batch.y.dtype == np.float64


def test_a_regression_with_whole_numbers_stays_one(write):
    target = load_diabetes().target  # 25.0 to 346.0
    path = write("x,y\n" + "".join(f"0,{value}\n" for value in target))
    np.testing.assert_array_equal(data.load_csv(path, target="y").batch.y, target)


def test_without_a_header(write):
    table = data.load_csv(write("1,2,0\n3,4,1\n"), target=-1, header=False)
    assert table.feature_names == ("column 0", "column 1") and table.batch.x.tolist() == [[1, 2], [3, 4]]


def test_a_header_of_numbers_is_doubtful(write):
    path = write("5.1,3.5,setosa\n6.3,2.5,virginica\n")
    with pytest.raises(ValueError, match=r"line 1: expected names of columns, got '5\.1'; use header=False"):
        data.load_csv(path, target=-1)
    assert len(data.load_csv(path, target=-1, header=False).batch.y) == 2
    assert data.load_csv(path, target=-1, header=True).feature_names == ("5.1", "3.5")


def test_dialects(write):
    content = '\ufeff"a;b"; "c";y \r\n 1;2 ;"two\r\nlines"\r\n\r\n3;4;x\r\n'
    table = data.load_csv(write(content.encode()), target="y", delimiter=";")
    assert table.feature_names == ("a;b", "c") and table.classes == ("two\r\nlines", "x")
    assert table.batch.x.tolist() == [[1, 2], [3, 4]]
    assert data.load_csv(write("ä,y\n1,2.5\n".encode("latin-1")), "y", encoding="latin-1").feature_names == ("ä",)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), st.text("ab,\"'\n ", min_size=1)),
        min_size=1,
    )
)
def test_what_the_csv_module_writes_is_read(tmp_path, rows):
    path = tmp_path / "any.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("x", "y"), *((x, f"<{label}>") for x, label in rows)])
    table = data.load_csv(path, target="y")
    assert table.batch.x[:, 0].tolist() == [x for x, _ in rows]
    assert [table.classes[i] for i in table.batch.y] == [f"<{label}>" for _, label in rows]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, r"flowers\.csv: expected a table, got an empty file"),
        ("\n\n", {}, r"flowers\.csv: expected a table, got an empty file"),
        ("a,species\n", {}, r"flowers\.csv: expected rows below the header, got none"),
        ("a,species\n1,x\nabc,y\n", {}, r"line 3, column \"a\": expected a finite number, got 'abc'"),
        ("a,species\n1,x\n\n,y\n", {}, r"line 4, column \"a\": expected a finite number, got ''"),
        ("a,species\nnan,x\n", {}, r"line 2, column \"a\": expected a finite number, got 'nan'"),
        ("a,species\n1,x\n-inf,y\n", {}, r"line 3, column \"a\": expected a finite number, got '-inf'"),
        ("a,species\n1e39,x\n", {}, r"line 2, column \"a\": expected a finite number, got '1e39'"),
        ("a,species\n1_000,x\n", {}, r"line 2, column \"a\": expected a finite number, got '1_000'"),
        ("a,species\n1,x\n2\n", {}, r"line 3: expected 2 cells, got 1"),
        ("a,species\n1,x\n2,y,z\n", {}, r"line 3: expected 2 cells, got 3"),
        ('a,species\n1,"x\nx"\nb,y\n', {}, r"line 4, column \"a\": expected a finite number, got 'b'"),
        ("a,species\n1,x\n,\n", {}, r"line 3, column \"a\": expected a finite number, got ''"),
        ("a,species\n1,\n", {}, r"line 2, column \"species\": expected a class, got ''"),
        (
            "a,species\n1,2\n1,3\n1,x\n",
            {},
            r"line 4, column \"species\": .* all numbers or all words, got 'x' after '2'",
        ),
        (
            "a,species\n1,2\n1,x\n",
            {"task": "regression"},
            r"line 3, column \"species\": expected a finite number, got 'x'",
        ),
        (
            "a,kind\n1,x\n",
            {},
            r"^target: expected a column of .*flowers\.csv, which has \['a', 'kind'\], got 'species'",
        ),
        ("a,b\n1,x\n", {"target": 2}, r"^target: expected a column of .*, got 2"),
        ("a,species\n1,x\n", {"ignore": ["id"]}, r"^ignore\[0\]: expected a column of .*, got 'id'"),
        ("a,species\n1,x\n", {"ignore": [0]}, r"flowers\.csv: expected at least one feature column besides the target"),
        ("a,a,species\n1,2,x\n", {}, r"line 1: expected different column names, got 'a' twice"),
        ("a,species\n1,2\n", {"task": "ranking"}, r"^task: expected \"classification\", .* got 'ranking'"),
        (
            "a,species\n1,2\n",
            {"task": "regression", "classes": ["x"]},
            r"^classes: expected None with task=\"regression\"",
        ),
        (b"a,species\n1,\xff\n", {}, r"flowers\.csv, after line \d: expected text in utf-8-sig, got"),
        ('a,species\n1,"x\n', {}, r"flowers\.csv, line 2: expected CSV, got a line that is none"),
    ],
)
def test_broken_tables_are_refused(write, content, options, message):
    with pytest.raises(ValueError, match=message):
        data.load_csv(write(content), **({"target": "species"} | options))


def test_a_target_of_another_type_is_refused(write):
    with pytest.raises(TypeError, match=r"^target: expected a column's name or index, got None"):
        data.load_csv(write(FLOWERS), target=None)
    with pytest.raises(TypeError, match=r"^target: expected a column's name or index, got True"):
        data.load_csv(write(FLOWERS), target=True)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        data.load_csv(tmp_path / "nowhere.csv", target="species")


def test_a_path_is_wanted():
    for read in (lambda: data.load_csv(None, target="y"), lambda: data.read_idx(None)):
        with pytest.raises(TypeError, match=r"^path: expected the path of a file, got None"):
            read()
