import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxopt_nn import data
from jaxopt_nn.types import Batch

KEY_SEEDS = st.integers(0, 2**31 - 1)


def _batch(labels) -> Batch:
    """Rows that know their own number, so that a split can be traced back."""
    n = len(labels)
    return Batch(np.arange(n, dtype=np.float32)[:, None], np.asarray(labels), np.arange(n, dtype=np.float32) + 1)


def _rows(batch: Batch) -> list[int]:
    rows = batch.x[:, 0].astype(int)
    np.testing.assert_array_equal(batch.weight, rows + 1)  # x, y and weight stay together
    return rows.tolist()


@st.composite
def _splits(draw):
    labels = draw(st.lists(st.integers(0, 7), min_size=4, max_size=120))
    shares = draw(st.lists(st.integers(1, 20), min_size=1, max_size=6))
    return np.array(labels), np.array(shares) / sum(shares), draw(KEY_SEEDS), draw(st.booleans())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_splits())
def test_parts_are_disjoint_cover_all_and_have_their_sizes(case):
    labels, fractions, seed, stratify = case
    batch, quotas = _batch(labels), len(labels) * fractions
    try:
        parts = data.split(jax.random.key(seed), batch, tuple(fractions), stratify=stratify)
    except ValueError as error:
        assert "would be empty" in str(error) and quotas.min() < 1
        return
    rows = [_rows(part) for part in parts]
    assert sorted(row for own in rows for row in own) == list(range(len(labels)))
    for part, own in zip(parts, rows, strict=True):
        np.testing.assert_array_equal(part.y, labels[own])
    sizes = np.array([len(own) for own in rows])
    remainders = quotas - np.floor(quotas + 1e-9)
    rounded_up = sizes > quotas + 1e-9
    np.testing.assert_array_equal(sizes, np.floor(quotas + 1e-9) + rounded_up)
    if rounded_up.any() and not rounded_up.all():
        assert remainders[rounded_up].min() >= remainders[~rounded_up].max() - 1e-9
    if stratify:
        for label in np.unique(labels):
            share = sizes * (labels == label).mean()
            got = np.array([(part.y == label).sum() for part in parts])
            assert (np.abs(got - share) <= 1 + 1e-9).all()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(2, 7), KEY_SEEDS, st.booleans())
def test_folds_are_disjoint_cover_all_and_are_even(labels, k, seed, stratify):
    k = min(k, len(labels))
    folds = list(data.kfold(jax.random.key(seed), _batch(labels), k, stratify=stratify))
    assert len(folds) == k
    for train, valid in folds:
        assert sorted(_rows(train) + _rows(valid)) == list(range(len(labels)))
    assert sorted(row for _, valid in folds for row in _rows(valid)) == list(range(len(labels)))
    assert np.ptp([len(valid.y) for _, valid in folds]) <= 1
    if stratify:
        for label in set(labels):
            assert np.ptp([(valid.y == label).sum() for _, valid in folds]) <= 1


def test_real_data_keeps_its_class_proportions():
    digits = data.load_digits()
    parts = data.split(jax.random.key(0), digits, (0.7, 0.15, 0.15))
    assert [len(part.y) for part in parts] == [1258, 270, 269]
    overall = np.bincount(digits.y) / 1797
    for part in parts:
        assert np.abs(np.bincount(part.y) - overall * len(part.y)).max() <= 1
        assert part.x.dtype == np.float32 and part.y.dtype == np.int32 and part.weight is None
    # In random order, not class by class.
    assert (np.diff(parts[0].y) == 0).mean() < 0.2


def test_equal_fractions_favour_the_earlier_part():
    parts = data.split(jax.random.key(0), _batch(np.zeros(5, int)), (1 / 3, 1 / 3, 1 / 3))
    assert [len(part.y) for part in parts] == [2, 2, 1]


def test_the_key_decides():
    batch = _batch(np.arange(50) % 3)
    first = _rows(data.split(jax.random.key(1), batch, (0.5, 0.5))[0])
    assert first == _rows(data.split(jax.random.key(1), batch, (0.5, 0.5))[0])
    assert first == _rows(data.split(jax.random.PRNGKey(1), batch, (0.5, 0.5))[0])
    assert first != _rows(data.split(jax.random.key(2), batch, (0.5, 0.5))[0])
    assert first != _rows(data.split(jax.random.fold_in(jax.random.key(1), 0), batch, (0.5, 0.5))[0])
    assert data.split(jax.random.key(1, impl="rbg"), batch, (0.5, 0.5))[0].x.shape == (25, 1)
    a, b = (list(data.kfold(jax.random.key(1), batch, 3)) for _ in range(2))
    assert [_rows(valid) for _, valid in a] == [_rows(valid) for _, valid in b]


def test_the_order_is_the_same_on_every_machine_and_version():
    parts = data.split(jax.random.key(7), _batch(np.zeros(8, int)), (0.5, 0.5))
    assert [_rows(part) for part in parts] == [[6, 0, 5, 2], [1, 3, 7, 4]]


def test_every_row_is_equally_likely_in_every_part():
    batch, counts = _batch([0, 0, 0, 1, 1, 2]), np.zeros(6)
    for seed in range(600):
        counts[_rows(data.split(jax.random.key(seed), batch, (0.5, 0.5))[0])] += 1
    # 600 draws of probability 1/2: a standard deviation of 12. The classes 0 and 2 have odd sizes: their extra row goes
    # to one part or the other, so each row of a class has the class's share, and rows of a class are exchangeable.
    assert np.ptp(counts[:3]) < 75 and np.ptp(counts[3:5]) < 75
    assert counts.sum() == 1800


def test_pytrees_and_jax_arrays_are_split_as_arrays():
    batch = Batch({"a": jax.numpy.arange(6.0), "b": np.ones((6, 2))}, jax.numpy.array([0, 1] * 3))
    one, two = data.split(jax.random.key(0), batch, [0.5, 0.5])
    assert isinstance(one.x["a"], np.ndarray) and one.x["b"].shape == (3, 2)
    assert sorted([*one.x["a"], *two.x["a"]]) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("y", [np.linspace(0, 1, 10), np.eye(10, dtype=int), {"a": np.zeros(10, int)}])
def test_targets_that_are_no_labels(y):
    batch = Batch(np.ones((10, 1)), y)
    assert [len(part.x) for part in data.split(jax.random.key(0), batch, (0.7, 0.3))] == [7, 3]
    assert len(list(data.kfold(jax.random.key(0), batch, 5))) == 5
    with pytest.raises(TypeError, match=r"^stratify: expected integer labels batch\.y \[N\] to stratify by, got"):
        data.split(jax.random.key(0), batch, (0.7, 0.3), stratify=True)


def test_not_stratified_looks_at_no_label():
    batch = _batch([0] * 20 + [1] * 20)
    held = [
        int((data.split(jax.random.key(seed), batch, (0.5, 0.5), stratify=False)[0].y == 0).sum()) for seed in range(20)
    ]
    assert len(set(held)) > 1
    assert {int((data.split(jax.random.key(s), batch, (0.5, 0.5))[0].y == 0).sum()) for s in range(20)} == {10}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": 0}, TypeError, r"^key: expected a PRNG key, got 0 of type int; make one with jax\.random\.key\(0\)"),
        ({"fractions": (0.8, 0.1)}, ValueError, r"^fractions: expected a sum of 1, got 0\.9 from \(0\.8, 0\.1\)"),
        ({"fractions": (0.8, 0.2, 0.0)}, ValueError, r"^fractions\[2\]: expected a finite number in \(0, 1\], got 0"),
        ({"fractions": (1.5, -0.5)}, ValueError, r"^fractions\[0\]: expected a finite number in \(0, 1\], got 1\.5"),
        ({"fractions": (0.5, np.nan)}, ValueError, r"^fractions\[1\]: expected a finite number"),
        ({"fractions": (0.5, "half")}, TypeError, r"^fractions\[1\]: expected a number, got 'half'"),
        ({"fractions": 0.8}, TypeError, r"^fractions: expected a sequence of numbers such as \(0\.8, 0\.2\), got 0\.8"),
        ({"fractions": ()}, ValueError, r"^fractions: expected a sum of 1, got 0"),
        (
            {"fractions": (0.98, 0.02)},
            ValueError,
            r"^fractions\[1\]: part 1 of 2 would be empty: 0\.02 of 10 examples is 0 rows",
        ),
        ({"batch": (np.ones((3, 1)), np.ones(3))}, TypeError, r"^batch: expected a Batch\(x, y, weight\), got a tuple"),
        (
            {"batch": Batch(np.ones((3, 1)), np.ones(4))},
            ValueError,
            r"^batch\.y: expected 3 rows as batch\.x has, got 4",
        ),
        ({"batch": Batch(np.ones((0, 1)), np.ones(0))}, ValueError, r"^batch\.x: expected at least one row"),
        ({"stratify": "yes"}, ValueError, r"^stratify: expected True, False or \"auto\", got 'yes'"),
    ],
)
def test_bad_splits_are_refused(options, error, message):
    arguments = {"key": jax.random.key(0), "batch": _batch([0, 1] * 5), "fractions": (0.5, 0.5)} | options
    with pytest.raises(error, match=message):
        data.split(**arguments)


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (1, ValueError, "^k: expected at least 2 folds, got 1"),
        (11, ValueError, r"^k: expected an int in \[1, 10\], got 11"),
        (2.0, TypeError, r"^k: expected a positive int, got 2\.0"),
    ],
)
def test_bad_folds_are_refused_at_the_call(k, error, message):
    with pytest.raises(error, match=message):
        data.kfold(jax.random.key(0), _batch([0, 1] * 5), k)


def test_splitting_needs_values():
    key = jax.random.key(0)
    with pytest.raises(TypeError, match=r"^split: key: expected concrete values, got a traced array"):
        jax.jit(lambda key: data.split(key, _batch([0, 1]), (0.5, 0.5)))(key)
    with pytest.raises(TypeError, match=r"^split: batch: expected concrete values, got a traced array"):
        jax.jit(lambda batch: data.split(key, batch, (0.5, 0.5)))(_batch([0, 1]))
