import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import preprocessing

from jaxopt_nn import data
from jaxopt_nn.types import Batch

FITS = [
    ("standard", data.fit_standard_scaler, {}, preprocessing.StandardScaler, {}),
    ("minmax", data.fit_minmax_scaler, {}, preprocessing.MinMaxScaler, {}),
    ("minmax to [-1, 2]", data.fit_minmax_scaler, {"low": -1, "high": 2.0}, preprocessing.MinMaxScaler, (-1, 2)),
    ("robust", data.fit_robust_scaler, {}, preprocessing.RobustScaler, {}),
]
each_fit = pytest.mark.parametrize(
    ("fit", "options"), [pytest.param(fit, options, id=name) for name, fit, options, _, _ in FITS]
)


def _random(rows: int = 200, dtype: type = np.float64) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 5)) * [1.0, 1e-3, 1e4, 3.0, 1.0] + [0.0, 5.0, -1e5, 1e2, 0.0]
    x[:, 4] = rng.integers(0, 3, rows)
    return x.astype(dtype)


@pytest.mark.parametrize(
    ("fit", "options", "reference"),
    [
        pytest.param(fit, options, peer(feature_range=args) if args else peer(), id=name)
        for name, fit, options, peer, args in FITS
    ],
)
def test_equals_scikit_learn_in_float64(fit, options, reference):
    train, other = _random(200), _random(37) + 1.5
    scaler = fit(train, **options)
    reference.fit(train)
    np.testing.assert_allclose(data.transform(scaler, train), reference.transform(train), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(data.transform(scaler, other), reference.transform(other), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(data.inverse_transform(scaler, other), reference.inverse_transform(other), rtol=1e-11)
    assert data.transform(scaler, train).dtype == np.float64


def test_statistics_of_float32_are_exact_far_from_zero():
    x = np.random.default_rng(1).normal(1e4, 0.1, (50_000, 1)).astype(np.float32)
    scaler = data.fit_standard_scaler(x)
    exact = x.astype(np.float64)
    # E[x^2] - E[x]^2 in float32 has no correct digit here.
    assert abs(np.mean(x**2) - np.mean(x) ** 2 - exact.var()) > 0.5 * exact.var()
    np.testing.assert_allclose(scaler.scale, exact.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scaler.shift, exact.mean(axis=0), rtol=1e-7)
    assert scaler.shift.dtype == scaler.scale.dtype == np.float32
    # What rounding the mean to float32 costs: half a unit in its last place.
    assert abs(data.transform(scaler, x).astype(np.float64).mean()) < np.spacing(np.float32(1e4)) / 2 / 0.1


@each_fit
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e8, 1e-30])
def test_a_constant_column_becomes_exactly_the_offset_and_comes_back(fit, options, dtype, value):
    x = np.full((7, 2), value, dtype)
    x[:, 1] = np.arange(7)
    scaler = fit(x, **options)
    z = data.transform(scaler, x)
    np.testing.assert_array_equal(z[:, 0], options.get("low", 0.0))
    np.testing.assert_array_equal(data.inverse_transform(scaler, z)[:, 0], x[:, 0])
    assert np.isfinite(z).all()
    jitted = jax.jit(data.transform)(scaler, x)
    np.testing.assert_array_equal(jitted[:, 0], options.get("low", 0.0))


def test_rounding_noise_is_not_blown_up():
    x = np.full((1000, 1), 1e8)
    x[::2] += np.spacing(1e8)
    assert preprocessing.StandardScaler().fit(x).scale_ == [1.0]
    for _, fit, options, _, _ in FITS:
        scaler = fit(x, **options)
        np.testing.assert_array_equal(scaler.scale, 1.0 / (options.get("high", 1.0) - options.get("low", 0.0)))
        z = data.transform(scaler, x)
        assert np.abs(z - options.get("low", 0.0)).max() < 1e-6
        np.testing.assert_allclose(data.inverse_transform(scaler, z), x, rtol=1e-15)


@each_fit
def test_a_small_spread_far_from_zero_is_no_noise(fit, options):
    x = 1e6 + np.random.default_rng(0).normal(size=(100, 1)) * 1e-3
    assert 1e-4 < fit(x, **options).scale.item() < 1e-2


def test_tiny_features_are_no_constants():
    x = np.linspace(1e-20, 2e-20, 11)[:, None]
    for fit in (data.fit_standard_scaler, data.fit_minmax_scaler, data.fit_robust_scaler):
        assert np.ptp(data.transform(fit(x), x)) > 0.9


def test_a_spread_below_the_smallest_normal_number_is_not_divided_by():
    x = np.array([[0.0], [1e-40]], np.float32)
    for fit in (data.fit_standard_scaler, data.fit_minmax_scaler, data.fit_robust_scaler):
        assert fit(x).scale == [1.0]


def test_minmax_reaches_its_bounds():
    x = _random(dtype=np.float32)
    z = data.transform(data.fit_minmax_scaler(x), x)
    np.testing.assert_array_equal(z.min(axis=0), 0.0)
    np.testing.assert_array_equal(z.max(axis=0), 1.0)


def test_robust_scaling_ignores_an_outlier():
    x = np.arange(101.0)[:, None]
    x[-1] = 1e15
    scaler = data.fit_robust_scaler(x)
    assert (scaler.shift.item(), scaler.scale.item()) == (50.0, 50.0)


@each_fit
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    x=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=6),
        elements=st.floats(-1e6, 1e6, allow_subnormal=False),
    )
)
def test_inverse_undoes_transform(fit, options, x):
    scaler = fit(x, **options)
    back = data.inverse_transform(scaler, data.transform(scaler, x))
    # What 1 ulp of z means in x: |z - offset| * scale = |x - shift|, plus the rounding of adding the offset.
    size = np.abs(x).max(axis=0) + np.abs(scaler.shift) + np.abs(scaler.offset) * scaler.scale
    assert (np.abs(back - x) <= 8 * np.finfo(np.float64).eps * size).all()


def test_blocks_do_not_change_the_statistics(monkeypatch):
    x = _random(dtype=np.float32)
    whole = [fit(x, **options) for _, fit, options, _, _ in FITS]
    monkeypatch.setattr("jaxopt_nn.data._scaling._BLOCK_VALUES", 2 * len(x))
    for (_, fit, options, _, _), expected in zip(FITS, whole, strict=True):
        jax.tree.map(np.testing.assert_array_equal, fit(x, **options), expected)


def test_images_are_scaled_pixel_by_pixel():
    x = np.random.default_rng(0).random((20, 4, 3, 1))
    scaler = data.fit_standard_scaler(x)
    assert scaler.shift.shape == (4, 3, 1)
    np.testing.assert_allclose(data.transform(scaler, x).std(axis=0), 1.0)


@each_fit
def test_transform_is_the_same_under_jit_and_vmap(fit, options):
    x = _random(12, np.float32)
    scaler = fit(x, **options)
    for function in (data.transform, data.inverse_transform):
        expected = function(scaler, x)
        assert isinstance(expected, np.ndarray)
        np.testing.assert_allclose(jax.jit(function)(scaler, x), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(jax.vmap(function, (None, 0))(scaler, x), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(function(scaler, jnp.asarray(x)), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(function(scaler, x[None]), expected[None], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(function(scaler, x[3]), expected[3], rtol=1e-6, atol=1e-6)


def test_transform_is_differentiable():
    x = _random(12, np.float32)
    scaler = data.fit_standard_scaler(x)
    gradient = jax.jit(jax.grad(lambda x: data.transform(scaler, x).sum()))(jnp.asarray(x))
    np.testing.assert_allclose(gradient, np.broadcast_to(1 / scaler.scale, x.shape), rtol=1e-6)
    gradient = jax.grad(lambda scaler: data.transform(scaler, jnp.asarray(x)).sum())(scaler)
    np.testing.assert_allclose(gradient.offset, 12.0)
    np.testing.assert_allclose(gradient.shift, -12 / scaler.scale, rtol=1e-6)


def test_dtypes_are_kept():
    scaler = data.fit_standard_scaler(_random(12, np.float32))
    for dtype in (np.float16, np.float32, np.float64, jnp.bfloat16):
        assert data.transform(scaler, np.ones((2, 5), dtype)).dtype == dtype
    assert data.transform(scaler, np.ones((2, 5), np.int64)).dtype == np.float32
    assert data.transform(scaler, jnp.ones((2, 5), jnp.bfloat16)).dtype == jnp.bfloat16
    wide = data.fit_standard_scaler(_random(12, np.float64))
    assert wide.scale.dtype == np.float64
    assert jax.jit(lambda x: data.transform(wide, x))(jnp.ones((2, 5))).dtype == jnp.float32
    with jax.enable_x64(True):
        assert jax.jit(data.transform)(wide, jnp.ones((2, 5))).dtype == jnp.float64


def test_a_batch_keeps_its_targets_and_weights():
    batch = Batch(_random(6, np.float32), np.arange(6), np.ones(6, np.float32))
    scaler = data.fit_minmax_scaler(batch)
    scaled = data.transform(scaler, batch)
    assert scaled.y is batch.y and scaled.weight is batch.weight
    np.testing.assert_array_equal(scaled.x, data.transform(scaler, batch.x))
    np.testing.assert_allclose(data.inverse_transform(scaler, scaled).x, batch.x, rtol=1e-5)


def test_rows_of_weight_zero_do_not_count():
    x = _random(8, np.float32)
    padded = Batch(np.concatenate([x, np.full((2, 5), 1e9, np.float32)]), np.zeros(10), np.array([1.0] * 8 + [0.0] * 2))
    for _, fit, options, _, _ in FITS:
        jax.tree.map(np.testing.assert_array_equal, fit(padded, **options), fit(x, **options))


def test_pytrees_are_scaled_leaf_by_leaf():
    x = {"a": _random(9), "b": (_random(9)[:, :2] * 7,)}
    scaler = data.fit_standard_scaler(x)
    z = data.transform(scaler, x)
    np.testing.assert_array_equal(z["b"][0], data.transform(data.fit_standard_scaler(x["b"][0]), x["b"][0]))
    with pytest.raises(ValueError, match=r"^x: transform expected the tree the scaler was fitted on"):
        data.transform(scaler, {"a": x["a"]})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.array([[1.0, np.nan]]), ValueError, r"^x: expected finite numbers, got nan in row 0 \(at \[0, 1\]\)"),
        ({"a": np.array([[1.0], [np.inf]])}, ValueError, r"^x\[a\]: expected finite numbers, got inf in row 1"),
        (np.ones((0, 3)), ValueError, r"^x: expected at least one row, got the shape \[0, 3\]"),
        (np.float32(3), ValueError, r"^x: expected at least one row, got the shape \[\]"),
        ([[1.0, 2.0]], TypeError, r"^x\[0/0\]: expected a NumPy or JAX array, got a float"),
        (np.array([["a"]]), TypeError, r"^x: expected an array of real numbers, got dtype <U1"),
        ({}, TypeError, r"^x: expected an array, got \{\}"),
        (
            np.array([[-3e38], [3e38]], np.float32),
            ValueError,
            r"^x: expected features whose spread fits float32.*\[0\]",
        ),
        (Batch(np.ones((2, 1)), None, np.zeros(2)), ValueError, r"^x: expected at least one row of positive weight"),
        (Batch(np.ones((2, 1)), None, np.ones(3)), ValueError, r"^x\.weight: expected 2 rows as x\.x has, got 3"),
    ],
)
def test_bad_features_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        data.fit_minmax_scaler(x)


def test_fitting_needs_values():
    with pytest.raises(TypeError, match=r"^x: expected concrete values, got a traced array"):
        jax.jit(data.fit_standard_scaler)(jnp.ones((3, 2)))


def test_other_features_are_refused():
    scaler = data.fit_standard_scaler(np.ones((3, 4)))
    for shape in ((3, 5), (5,), (4, 3), ()):
        with pytest.raises(ValueError, match=r"^x: expected features \[4\] as the scaler was fitted on, got the shape"):
            data.transform(scaler, np.ones(shape))
    with pytest.raises(TypeError, match=r"^x: expected a NumPy or JAX array, got a float"):
        data.transform(scaler, 1.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"low": 1.0, "high": 1.0}, ValueError, "^low: expected a number below high = 1, got 1"),
        ({"low": np.nan}, ValueError, "^low: expected a finite number"),
        ({"high": "2"}, TypeError, "^high: expected a number, got '2'"),
    ],
)
def test_bad_ranges_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        data.fit_minmax_scaler(np.ones((3, 2)), **options)


TIMES = 1_700_000_000 + np.arange(0, 200, 5)
WIDE = np.stack([TIMES, -TIMES[::-1] - 2, np.full(40, 1_700_000_001), np.arange(40), TIMES % 7 * 300_000_000], axis=1)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
@pytest.mark.parametrize(
    ("fit", "reference"),
    [
        (data.fit_standard_scaler, preprocessing.StandardScaler),
        (data.fit_minmax_scaler, preprocessing.MinMaxScaler),
        (data.fit_robust_scaler, preprocessing.RobustScaler),
    ],
)
def test_integers_that_float32_cannot_tell_apart_keep_their_differences(fit, reference, dtype):
    x = (WIDE if dtype != np.uint32 else abs(WIDE)).astype(dtype)
    scaler, expected = fit(x), reference().fit_transform(x.astype(np.float64))
    z = data.transform(scaler, x)
    assert z.dtype == np.float32 and scaler.scale.dtype == scaler.offset.dtype == np.float32
    assert len(np.unique(z[:, 0])) == 40
    np.testing.assert_allclose(z, expected, rtol=1e-6, atol=2e-7)
    np.testing.assert_array_equal(z[:, 2], 0)  # a constant
    if fit is data.fit_minmax_scaler:
        np.testing.assert_array_equal([z.min(), z.max()], [0, 1])
    for compiled in (jax.jit(data.transform), jax.vmap(data.transform, (None, 0))):
        np.testing.assert_allclose(compiled(scaler, jnp.asarray(x)), expected, rtol=1e-6, atol=3e-7)
    np.testing.assert_allclose(data.transform(scaler, x.astype(np.float64)), expected, rtol=1e-6, atol=2e-7)
    back = data.inverse_transform(scaler, expected)
    np.testing.assert_allclose(back, x, atol=3e-7 * np.ptp(x.astype(float), axis=0).max())


def test_integers_too_large_for_float64_and_too_far_apart_for_integers():
    nanoseconds = TIMES[:, None] * 1_000_000_000 + np.arange(40)[:, None]
    nanoseconds = nanoseconds.min() + np.arange(40)[:, None] * 3
    steps = np.arange(40.0)[:, None]
    np.testing.assert_allclose(
        data.transform(data.fit_standard_scaler(nanoseconds), nanoseconds), (steps - 19.5) / steps.std(), rtol=1e-6
    )
    ends = np.array([[-(2**31)], [2**31 - 1], [5]], np.int32)
    scaler = data.fit_minmax_scaler(ends)
    for transform in (data.transform, jax.jit(data.transform)):
        np.testing.assert_allclose(transform(scaler, ends).ravel(), [0, 1, 0.5], rtol=1e-6)
