import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import data
from jaxopt_nn.types import Batch

X = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


@pytest.mark.parametrize(
    "x", [X, tuple(map(tuple, X)), np.array(X), np.array(X, np.float16), jnp.array(X), np.array(X, int)]
)
def test_features_become_float32(x):
    batch = data.from_arrays(x, [0, 1, 2])
    assert isinstance(batch.x, np.ndarray) and batch.x.dtype == np.float32
    np.testing.assert_array_equal(batch.x, X)


@pytest.mark.parametrize(
    ("y", "task", "dtype"),
    [
        ([0, 5, 900], None, np.int32),
        (np.array([0, 5, 255], np.uint8), None, np.int32),
        (jnp.array([0, 1, 1]), "classification", np.int32),
        ([True, False, True], None, np.int32),
        ([0.0, 1.0, 2.0], None, np.float32),
        (np.array([0.5, -1.0, 2.0]), "regression", np.float32),
        ([0, -5, 9], "regression", np.float32),
        ([[0, 1], [1, 2], [2, 0]], None, np.int32),
    ],
)
def test_targets_become_labels_or_floats(y, task, dtype):
    batch = data.from_arrays(X, y, task=task)
    assert isinstance(batch.y, np.ndarray) and batch.y.dtype == dtype
    np.testing.assert_array_equal(batch.y, y)


def test_what_has_its_dtype_is_not_copied():
    x, y, weight = np.ones((2, 3), np.float32), np.array([0, 1], np.int32), np.ones(2, np.float32)
    batch = data.from_arrays(x, y, weight)
    assert batch.x is x and batch.y is y and batch.weight is weight


def test_weights_become_float32():
    assert data.from_arrays(X, [0, 1, 2]).weight is None
    weight = data.from_arrays(X, [0, 1, 2], [1, 0, 2]).weight
    assert weight.dtype == np.float32 and weight.tolist() == [1, 0, 2]


def test_dictionaries_of_features():
    batch = data.from_arrays({"image": np.ones((3, 2, 2)), "meta": {"age": [1, 2, 3]}}, [0, 1, 2])
    assert batch.x["image"].shape == (3, 2, 2) and batch.x["meta"]["age"].dtype == np.float32


def test_token_ids_stay_integers():
    batch = data.from_arrays([[5, 2**24 + 1]], [0], dtype=np.int32)
    assert batch.x.dtype == np.int32 and batch.x.tolist() == [[5, 2**24 + 1]]
    assert data.from_arrays(X, [0, 1, 2], dtype=np.float64).x.dtype == np.float64
    with pytest.raises(TypeError, match=r"^x: expected integers for dtype int32, got dtype float64"):
        data.from_arrays(X, [0, 1, 2], dtype=np.int32)
    with pytest.raises(ValueError, match=r"^x: expected numbers that fit int8, got 128 in row 1 \(at \[1, 0\]\)"):
        data.from_arrays([[1], [128]], [0, 1], dtype=np.int8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"y": [0, 1]}, ValueError, "y: expected 3 rows as x has, got 2"),
        ({"y": None}, TypeError, "y: expected an array of real numbers, got None"),
        ({"x": [], "y": []}, ValueError, r"x: expected at least one row, got the shape \[0\]"),
        ({"x": [[1.0, 2.0], [3.0]]}, ValueError, "x: expected rows of equal shape, got something that makes no array"),
        ({"x": [[1.0], [2.0], [np.nan]]}, ValueError, r"x: expected finite numbers, got nan in row 2 \(at \[2, 0\]\)"),
        ({"x": {"a": [1.0, 2.0, np.inf]}}, ValueError, r"x\[a\]: expected finite numbers, got inf in row 2"),
        ({"x": [[1.0], [1e39], [0.0]]}, ValueError, r"x: expected numbers that fit float32, got 1e\+39 in row 1"),
        ({"x": np.array([[1], ["a"], [2]], object)}, TypeError, "x: .* got dtype object: numbers mixed with text"),
        ({"x": [["a"], ["b"], ["c"]]}, TypeError, r"x: expected an array of real numbers, got text \(dtype <U1\)$"),
        ({"x": np.ones((3, 1)) * 1j}, TypeError, "x: expected an array of real numbers, got dtype complex128"),
        ({"x": 1.0}, ValueError, r"x: expected an array \[N, \.\.\.\] with the rows first, got a scalar"),
        (
            {"y": ["a", "b", "c"]},
            TypeError,
            r"y: .*got text \(dtype <U1\); map .* numpy\.unique\(y, return_inverse=True\)",
        ),
        ({"y": [0, -2, 1]}, ValueError, r"y: .*\[0, 2147483648\), got -2 in row 1; .* use task=\"regression\""),
        ({"y": [0, -2, 1], "task": "classification"}, ValueError, r"y: .*\[0, 2147483648\), got -2 in row 1$"),
        ({"y": [0, 2**31, 1]}, ValueError, r"y: .*\[0, 2147483648\), got 2147483648 in row 1"),
        ({"y": [0, 3, 1], "num_classes": 3}, ValueError, r"y: expected integer labels in \[0, 3\), got 3 in row 1"),
        ({"y": [0.0, 1.0, 2.0], "task": "classification"}, TypeError, r"y: .*got dtype float64; .* y\.astype\(int\)"),
        ({"y": [0.0, 1.5, 2.0], "task": "classification"}, TypeError, "y: .*got dtype float64; y holds fractions"),
        (
            {"y": [0.0, np.nan, 2.0], "task": "classification"},
            ValueError,
            "y: expected finite numbers, got nan in row 1",
        ),
        ({"y": [0.0, np.nan, 2.0]}, ValueError, "y: expected finite numbers, got nan in row 1"),
        ({"y": [0.5, 1.0, 2.0], "num_classes": 3}, ValueError, "num_classes: expected None as y holds targets"),
        ({"num_classes": 0}, ValueError, r"num_classes: expected an int in \[1, inf\), got 0"),
        ({"weight": [1, -1, 1]}, ValueError, r"weight: expected finite weights >= 0, got -1\.0 in row 1"),
        ({"weight": [0, 0, 0]}, ValueError, "weight: expected a positive sum"),
        ({"weight": [1, 1]}, ValueError, "weight: expected 3 rows as x has, got 2"),
        ({"weight": [[1], [1], [1]]}, ValueError, r"weight: expected one weight a row, .* got the shape \[3, 1\]"),
        ({"task": "cluster"}, ValueError, 'task: expected "classification", "regression" or None, got \'cluster\''),
    ],
)
def test_bad_arrays_are_refused(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        data.from_arrays(**({"x": X, "y": [0, 1, 2]} | arguments))


def test_traced_arrays_are_refused():
    with pytest.raises(TypeError, match=r"^y: expected concrete values, got a traced array"):
        jax.jit(lambda y: data.from_arrays(X, y))(jnp.array([0, 1, 2]))


TIMES = 1_700_000_000 + np.arange(0, 200, 5)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float64])
def test_numbers_that_float32_would_run_together_stay_float64(dtype):
    x = np.stack([np.arange(40), TIMES], axis=1).astype(dtype)
    batch = data.from_arrays({"a": x, "b": np.arange(40)}, TIMES, task="regression")
    assert batch.x["a"].dtype == batch.y.dtype == np.float64 and batch.x["b"].dtype == np.float32
    np.testing.assert_array_equal(batch.x["a"], x)
    with pytest.raises(
        ValueError,
        match=r"^x: .* apart in float32, got .* in feature \[1\], of which float32 leaves 3 of 40 .* dtype=None",
    ):
        data.from_arrays(x, np.arange(40), dtype=np.float32)
    # The whole way of a newcomer: read, fit, scale, train.
    batch = data.from_arrays(x, np.arange(40))
    with pytest.raises(ValueError, match=r"^train\.x: .* stay apart in float32, got .*3 of 40.*fit_standard_scaler"):
        data.check_batch("train", batch)
    scaled = data.transform(data.fit_standard_scaler(batch), batch)
    data.check_batch("train", scaled)
    np.testing.assert_allclose(scaled.x[:, 0], scaled.x[:, 1], rtol=1e-6)


@pytest.mark.parametrize(
    "x",
    [
        np.random.default_rng(0).normal(size=(1000, 3)) + np.array([300, 0, 1e4]),
        np.full((9, 1), 0.1) + np.arange(9)[:, None] % 2 * 1e-17,
        1e8 * (1 + np.arange(9)[:, None] % 2 * np.finfo(float).eps),  # the noise of a computation
        1_700_000_000 + np.arange(0, 10**7, 10**6)[:, None],  # a thousandth of the range is 9,000, a step 128
        np.full((9, 1), 1_700_000_001),
        2**30 + np.arange(9)[:, None] * 2**10,  # which float32 has
    ],
)
def test_ordinary_numbers_become_float32(x):
    assert data.from_arrays(x, np.arange(len(x))).x.dtype == np.float32
    if x.dtype == np.float64:
        data.check_batch("train", Batch(x, np.arange(len(x))))


def test_nanoseconds_are_too_large_for_float64():
    with pytest.raises(ValueError, match=r"^x: .*of which float64 leaves 9 of 40 .*: subtract the smallest first"):
        data.from_arrays(1_700_000_000 * 10**9 + np.arange(0, 2000, 50)[:, None], np.arange(40))


def test_hidden_values_are_refused_and_other_byte_orders_converted():
    x, y = np.arange(6.0).reshape(3, 2), np.arange(3)
    for name, arguments in (("x", (np.ma.array(x, mask=x > 4), y)), ("y", (x, np.ma.array(y, mask=y > 1)))):
        with pytest.raises(TypeError, match=rf"^{name}: expected an array without hidden values, got a masked array"):
            data.from_arrays(*arguments)
    batch = data.from_arrays(x.astype(">f4"), y.astype(">i4"), np.ones(3, ">f8"))
    assert all(leaf.dtype.isnative for leaf in batch)
    np.testing.assert_array_equal(batch.x, x)
