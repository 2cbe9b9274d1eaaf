import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxopt_nn import initializers

KEY = jax.random.key(7)
SHAPE = (4, 6)  # one for all that do not care: each new shape compiles anew
SQRT3 = 3**0.5

# name, initializer, the same in jax.nn.initializers
SAME_AS_JAX = [
    ("zeros", initializers.zeros(), jax.nn.initializers.zeros),
    ("constant", initializers.constant(0.3), jax.nn.initializers.constant(0.3)),
    ("normal", initializers.normal(0.3), jax.nn.initializers.normal(0.3)),
    ("xavier_uniform", initializers.xavier_uniform(), jax.nn.initializers.xavier_uniform()),
    ("xavier_normal", initializers.xavier_normal(), jax.nn.initializers.xavier_normal()),
    ("he_uniform", initializers.he_uniform(), jax.nn.initializers.he_uniform()),
    ("he_normal", initializers.he_normal(), jax.nn.initializers.he_normal()),
    ("lecun_uniform", initializers.lecun_uniform(), jax.nn.initializers.lecun_uniform()),
    ("lecun_normal", initializers.lecun_normal(), jax.nn.initializers.lecun_normal()),
    (
        "variance_scaling",
        initializers.variance_scaling(0.7, "fan_out", "normal"),
        jax.nn.initializers.variance_scaling(0.7, "fan_out", "normal"),
    ),
    ("orthogonal", initializers.orthogonal(gain=0.5), jax.nn.initializers.orthogonal(0.5)),
]

# name, initializer, shape, distribution, standard deviation from the field's formula written out
FAN_IN, FAN_OUT = 150, 250
CONV = (3, 5, 12, 20)  # HWIO: fan_in 180, fan_out 300
DISTRIBUTIONS = [
    ("normal", initializers.normal(0.3), (FAN_IN, FAN_OUT), "normal", 0.3),
    ("normal_truncated", initializers.normal(0.3, truncated=True), (FAN_IN, FAN_OUT), "truncated", 0.3),
    ("uniform", initializers.uniform(0.3), (FAN_IN, FAN_OUT), "uniform", 0.3 / SQRT3),
    ("xavier_uniform", initializers.xavier_uniform(), (FAN_IN, FAN_OUT), "uniform", (2 / 400) ** 0.5),
    ("xavier_uniform_gain", initializers.xavier_uniform(gain=5 / 3), CONV, "uniform", 5 / 3 * (2 / 480) ** 0.5),
    ("xavier_normal", initializers.xavier_normal(), (FAN_IN, FAN_OUT), "truncated", (2 / 400) ** 0.5),
    (
        "xavier_normal_untruncated",
        initializers.xavier_normal(gain=2.0, truncated=False),
        CONV,
        "normal",
        2 * (2 / 480) ** 0.5,
    ),
    ("he_uniform", initializers.he_uniform(), CONV, "uniform", (2 / 180) ** 0.5),
    ("he_normal", initializers.he_normal(), (FAN_IN, FAN_OUT), "truncated", (2 / 150) ** 0.5),
    ("he_normal_out", initializers.he_normal(mode="fan_out", truncated=False), CONV, "normal", (2 / 300) ** 0.5),
    (
        "he_normal_leaky",
        initializers.he_normal(negative_slope=0.5),
        (FAN_IN, FAN_OUT),
        "truncated",
        (1.6 / 150) ** 0.5,
    ),
    (
        "he_uniform_leaky_average",
        initializers.he_uniform(negative_slope=0.5, mode="fan_avg"),
        CONV,
        "uniform",
        (1.6 / 240) ** 0.5,
    ),
    ("lecun_uniform", initializers.lecun_uniform(), (FAN_IN, FAN_OUT), "uniform", (1 / 150) ** 0.5),
    (
        "torch_linear",
        initializers.lecun_uniform(gain=3**-0.5),
        (FAN_IN, FAN_OUT),
        "uniform",
        (1 / 150) ** 0.5 / SQRT3,
    ),
    ("torch_default", initializers.torch_default(), CONV, "uniform", (1 / 180) ** 0.5 / SQRT3),
    ("torch_default_bias", initializers.torch_default_bias(180), (40_000,), "uniform", (1 / 180) ** 0.5 / SQRT3),
    ("keras_default", initializers.keras_default(), CONV, "uniform", (2 / 480) ** 0.5),
    ("lecun_normal", initializers.lecun_normal(gain=0.5), CONV, "truncated", 0.5 * (1 / 180) ** 0.5),
    ("lecun_normal_untruncated", initializers.lecun_normal(truncated=False), CONV, "normal", (1 / 180) ** 0.5),
]

# name, factory of one number
NUMBERS = [
    ("constant", initializers.constant),
    ("normal", initializers.normal),
    ("normal_truncated", functools.partial(initializers.normal, truncated=True)),
    ("uniform", initializers.uniform),
    ("xavier_uniform", lambda g: initializers.xavier_uniform(gain=g)),
    ("xavier_normal", lambda g: initializers.xavier_normal(gain=g)),
    ("he_uniform", lambda s: initializers.he_uniform(negative_slope=s)),
    ("he_normal", lambda s: initializers.he_normal(negative_slope=s)),
    ("lecun_uniform", lambda g: initializers.lecun_uniform(gain=g)),
    ("lecun_normal", lambda g: initializers.lecun_normal(gain=g)),
    ("orthogonal", lambda g: initializers.orthogonal(gain=g)),
    ("variance_scaling", lambda s: initializers.variance_scaling(s, "fan_in", "normal")),
]


def names(table):
    return [row[0] for row in table]


@pytest.mark.parametrize(("name", "ours", "theirs"), SAME_AS_JAX, ids=names(SAME_AS_JAX))
def test_same_numbers_as_jax(name, ours, theirs):
    del name
    shape = (2, 1, 3, 4)
    got = ours(KEY, shape)
    assert got.shape == shape and got.dtype == jnp.float32
    # The same draws and formula; compiled for another shape, the last digit may be rounded otherwise.
    np.testing.assert_array_max_ulp(got, theirs(KEY, shape, jnp.float32), 2)


def test_uniform_is_symmetric_with_the_bits_of_jax_random():
    np.testing.assert_array_equal(
        initializers.uniform(0.25)(KEY, SHAPE), 0.25 * jax.random.uniform(KEY, SHAPE, minval=-1.0)
    )


@pytest.mark.parametrize(("name", "init", "shape", "kind", "stddev"), DISTRIBUTIONS, ids=names(DISTRIBUTIONS))
def test_values_follow_the_distribution(name, init, shape, kind, stddev):
    """Mean and variance within 5 standard errors, and no evidence against the distribution (Kolmogorov-Smirnov)."""
    del name
    w = np.asarray(init(KEY, shape), np.float64).ravel()
    cut = scipy.stats.truncnorm(-2, 2)
    unit = {
        "normal": scipy.stats.norm(),
        "uniform": scipy.stats.uniform(-SQRT3, 2 * SQRT3),
        "truncated": scipy.stats.truncnorm(-2, 2, scale=1 / cut.std()),
    }[kind]
    kurtosis = float(unit.stats("k")) + 3
    assert abs(w.mean()) < 5 * stddev / w.size**0.5
    assert abs(w.var() / stddev**2 - 1) < 5 * ((kurtosis - 1) / w.size) ** 0.5
    assert scipy.stats.kstest(w / stddev, unit.cdf).pvalue > 1e-3
    low, high = unit.support()
    assert np.abs(w).max() <= stddev * high * (1 + 1e-6) and low == -high
    if kind != "normal":
        assert np.abs(w).max() > 0.99 * stddev * high  # the whole support is used


@pytest.mark.parametrize("shape", [(8, 8), (8, 3), (3, 8), (2, 3, 4, 5)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    w = np.asarray(initializers.orthogonal(gain=2.0)(KEY, shape)).reshape(-1, shape[-1])
    gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(gram, 4 * np.eye(min(w.shape)), atol=1e-5)


def test_orthogonal_is_uniformly_distributed():
    """Entries under the Haar measure have mean 0 and variance 1/n; QR alone, without the signs of R, fails the mean."""
    n, trials = 3, 4000
    w = np.asarray(jax.vmap(lambda k: initializers.orthogonal()(k, (n, n)))(jax.random.split(KEY, trials)))
    assert np.abs(w.mean(0)).max() < 5 * (1 / n / trials) ** 0.5
    assert np.abs(w.var(0) - 1 / n).max() < 5 * (1 / trials) ** 0.5


@pytest.mark.parametrize(("name", "factory"), NUMBERS, ids=names(NUMBERS))
def test_numbers_may_be_traced_and_swept(name, factory):
    del name
    values = jnp.array([0.25, 0.5, 1.5])
    swept = jax.jit(jax.vmap(lambda v: factory(v)(KEY, SHAPE)))(values)
    for got, value in zip(swept, [0.25, 0.5, 1.5], strict=True):
        np.testing.assert_allclose(got, factory(value)(KEY, SHAPE), rtol=1e-6, atol=1e-7)
    assert not np.array_equal(swept[0], swept[1])
    slope = jax.grad(lambda v: jnp.sum(factory(v)(KEY, SHAPE) ** 2))(0.5)
    assert np.isfinite(slope) and slope != 0


@pytest.mark.parametrize(("name", "factory"), NUMBERS, ids=names(NUMBERS))
def test_low_precision_is_the_rounded_float32(name, factory):
    dtype = jnp.float16 if "uniform" in name else jnp.bfloat16
    got = factory(0.5)(KEY, SHAPE, dtype)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, factory(0.5)(KEY, SHAPE).astype(dtype))


DRAWS = [row for row in NUMBERS if not row[0].startswith(("xavier", "he_", "lecun"))]


@pytest.mark.parametrize(("name", "factory"), DRAWS, ids=names(DRAWS))
def test_float64_is_drawn_in_float64(name, factory):
    with jax.enable_x64(True):
        w = factory(0.3)(KEY, SHAPE, jnp.float64)
        assert w.dtype == jnp.float64
        assert (name == "constant") == (len(np.unique(w)) == 1)
        if name == "constant":
            assert w[0, 0] == 0.3  # not 0.3 rounded to float32
        else:
            assert not np.array_equal(w, w.astype(jnp.float32))
        assert factory(0.3)(KEY, SHAPE).dtype == jnp.float32


@pytest.mark.parametrize(("name", "factory"), NUMBERS, ids=names(NUMBERS))
def test_one_key_one_value(name, factory):
    first = factory(0.5)(KEY, SHAPE)
    np.testing.assert_array_equal(first, factory(0.5)(KEY, SHAPE))
    np.testing.assert_array_equal(first, factory(0.5)(jax.random.PRNGKey(7), SHAPE))
    if name != "constant":
        assert not np.array_equal(first, factory(0.5)(jax.random.key(8), SHAPE))


@pytest.mark.parametrize(("name", "factory"), NUMBERS, ids=names(NUMBERS))
def test_numbers_out_of_range_are_refused(name, factory):
    with pytest.raises(ValueError, match=r"expected a finite number in .*, got nan"):
        factory(float("nan"))
    with pytest.raises(ValueError, match=r"expected a finite number in .*, got inf"):
        factory(float("inf"))
    with pytest.raises(TypeError, match="expected a number, got 'wide'"):
        factory("wide")
    if name not in {"constant", "orthogonal", "he_uniform", "he_normal"}:
        argument = {"normal": "stddev", "normal_truncated": "stddev", "uniform": "bound", "variance_scaling": "scale"}
        with pytest.raises(ValueError, match=rf"^{argument.get(name, 'gain')}: .* got -1"):
            factory(-1.0)
    if name.startswith(("xavier", "lecun", "variance")):
        with pytest.raises(ValueError, match=r"in \(0, inf\), got 0"):
            factory(0.0)


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (5, 0)])
@pytest.mark.parametrize(("name", "factory"), NUMBERS[4:], ids=names(NUMBERS[4:]))
def test_a_shape_without_fans_is_refused(name, factory, shape):
    del name
    with pytest.raises(ValueError, match=r"^shape: expected \[\.\.\., fan_in, fan_out\] .* got \["):
        factory(0.5)(KEY, shape)


@pytest.mark.parametrize(("name", "factory"), NUMBERS[1:], ids=names(NUMBERS[1:]))
def test_wrong_key_or_dtype_is_refused(name, factory):
    del name
    with pytest.raises(TypeError, match=r"^key: expected a PRNG key, got 0 .*jax\.random\.key\(0\)"):
        factory(0.5)(0, (4, 4))
    with pytest.raises(TypeError, match=r"^key: expected one PRNG key, got an array"):
        factory(0.5)(jax.random.split(KEY, 3), (4, 4))
    with pytest.raises(TypeError, match=r"^dtype: expected a floating dtype, got int32"):
        factory(0.5)(KEY, (4, 4), jnp.int32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: initializers.variance_scaling(1.0, "fan", "normal"),
            r'^mode: expected "fan_in", .*got \'fan\'',
        ),
        (lambda: initializers.variance_scaling(1.0, "fan_in", "gauss"), r"^distribution: expected .*got 'gauss'"),
        (lambda: initializers.he_normal(mode="out"), r"^mode: .*got 'out'"),
        (lambda: initializers.he_uniform(mode="out"), r"^mode: .*got 'out'"),
        (lambda: initializers.torch_default_bias(0), r"^fan_in: expected an int in \[1, inf\), got 0"),
    ],
)
def test_unknown_choices_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_vectors_need_no_fan():
    shape = (4,)
    for init in (initializers.zeros(), initializers.constant(1.0), initializers.normal(1.0), initializers.uniform(1.0)):
        assert init(KEY, shape).shape == shape


@pytest.mark.parametrize("factory", [lambda: initializers.uniform(0.1), initializers.orthogonal, initializers.zeros])
@pytest.mark.parametrize("shape", [5, "ab", (2.0, 3)])
def test_a_shape_is_a_sequence_of_ints(factory, shape):
    with pytest.raises(TypeError, match=r"^shape: expected a sequence of ints such as \(4, 3\), got "):
        factory()(jax.random.key(0), shape)
    assert factory()(jax.random.key(0), [np.int64(4), 3]).shape == (4, 3)


@pytest.mark.parametrize(
    "factory",
    [lambda truncated: initializers.normal(0.1, truncated=truncated)]
    + [
        functools.partial(lambda factory, truncated: factory(truncated=truncated), factory)
        for factory in (initializers.he_normal, initializers.xavier_normal, initializers.lecun_normal)
    ],
)
def test_truncated_is_true_or_false(factory):
    with pytest.raises(TypeError, match=r"^truncated: expected True or False, got 'no' of type str"):
        factory("no")
