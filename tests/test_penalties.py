import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.linear_model

from jaxopt_nn import penalties
from jaxopt_nn.trees import every_leaf

RNG = np.random.default_rng(5)
PARAMS = {
    "dense_0": {"kernel": RNG.normal(size=(4, 3)).astype(np.float32), "bias": np.full(3, 7.0, np.float32)},
    "batch_norm_0": {"scale": np.full(3, 9.0, np.float32), "bias": np.full(3, 8.0, np.float32)},
    "dense_1": {"kernel": RNG.normal(size=(3, 2)).astype(np.float32)},
}
KERNELS = np.concatenate([PARAMS["dense_0"]["kernel"].ravel(), PARAMS["dense_1"]["kernel"].ravel()])
EVERY = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(PARAMS)])

# name, factory, numbers, value and gradient in NumPy
PENALTIES = [
    ("l1", penalties.l1, (0.3,), lambda w: 0.3 * np.abs(w).sum(), lambda w: 0.3 * np.sign(w)),
    ("l2", penalties.l2, (0.3,), lambda w: 0.3 * np.square(w).sum(), lambda w: 0.6 * w),
    (
        "elastic_net",
        penalties.elastic_net,
        (0.3, 0.2),
        lambda w: 0.3 * np.abs(w).sum() + 0.2 * np.square(w).sum(),
        lambda w: 0.3 * np.sign(w) + 0.4 * w,
    ),
]
TABLE = pytest.mark.parametrize(
    ("name", "factory", "numbers", "value", "gradient"), PENALTIES, ids=[row[0] for row in PENALTIES]
)


@TABLE
def test_value_and_gradient_are_the_formulas(name, factory, numbers, value, gradient):
    del name
    got, slope = jax.value_and_grad(factory(*numbers))(PARAMS)
    assert got.shape == () and got.dtype == jnp.float32
    np.testing.assert_allclose(got, value(KERNELS), rtol=1e-6)
    np.testing.assert_allclose(slope["dense_0"]["kernel"], gradient(PARAMS["dense_0"]["kernel"]), rtol=1e-6)
    np.testing.assert_allclose(slope["dense_1"]["kernel"], gradient(PARAMS["dense_1"]["kernel"]), rtol=1e-6)
    for path in (("dense_0", "bias"), ("batch_norm_0", "scale"), ("batch_norm_0", "bias")):
        assert not slope[path[0]][path[1]].any()


@TABLE
def test_a_mask_chooses_the_leaves(name, factory, numbers, value, gradient):
    del name, gradient
    np.testing.assert_allclose(factory(*numbers, every_leaf)(PARAMS), value(EVERY), rtol=1e-6)
    first = factory(*numbers, mask=lambda path, leaf: path.startswith("dense_0") and leaf.ndim == 1)
    np.testing.assert_allclose(first(PARAMS), value(PARAMS["dense_0"]["bias"]), rtol=1e-6)


@TABLE
def test_strengths_may_be_traced_swept_and_differentiated(name, factory, numbers, value, gradient):
    del name, value, gradient
    traces = []

    @jax.jit
    def penalty(*strengths):
        traces.append(1)
        return factory(*strengths)(PARAMS)

    for factor in (1.0, 0.0, 3.0):  # linear in the strengths
        np.testing.assert_allclose(
            penalty(*(factor * n for n in numbers)), factor * factory(*numbers)(PARAMS), rtol=1e-6
        )
    assert len(traces) == 1
    swept = jax.vmap(penalty)(*(jnp.array([n, 2 * n]) for n in numbers))
    np.testing.assert_allclose(swept[1] / swept[0], 2, rtol=1e-6)
    slopes = jax.grad(penalty, argnums=tuple(range(len(numbers))))(*numbers)
    np.testing.assert_allclose(np.dot(slopes, numbers), penalty(*numbers), rtol=1e-6)


@TABLE
def test_the_gradient_at_zero_weights_is_zero(name, factory, numbers, value, gradient):
    del name, value, gradient
    slope = jax.grad(factory(*numbers))({"kernel": jnp.array([0.0, -0.0])})["kernel"]
    assert slope.tolist() == [0, 0]


@TABLE
def test_sums_are_wide_enough(name, factory, numbers, value, gradient):
    del name, gradient
    kernel = jnp.ones((40, 100), jnp.bfloat16)  # added up in bfloat16, ones end at 256
    got = factory(*numbers)({"kernel": kernel})
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, value(np.ones(4000)), rtol=1e-5)
    assert jax.grad(factory(*numbers))({"kernel": kernel})["kernel"].dtype == jnp.bfloat16
    with jax.enable_x64(True):
        wide = jnp.asarray(KERNELS, jnp.float64)
        got = factory(*numbers)({"kernel": wide, "other": {"kernel": jnp.zeros(2, jnp.float32)}})
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, value(KERNELS.astype(np.float64)), rtol=1e-14)
        assert factory(*numbers)(PARAMS).dtype == jnp.float32
        assert factory(*(jnp.float64(n) for n in numbers))(PARAMS).dtype == jnp.float32


@TABLE
def test_a_mask_that_selects_nothing_is_refused(name, factory, numbers, value, gradient):
    del name, value, gradient
    with pytest.raises(
        ValueError, match=r"^mask: expected to select a leaf of \['dense_0/bias', 'dense_0/weight'\], selected none"
    ):
        factory(*numbers)({"dense_0": {"bias": jnp.ones(1), "weight": jnp.ones(1)}})
    with pytest.raises(ValueError, match=r"^params: .* without leaves"):
        factory(*numbers)({})


@TABLE
def test_leaves_that_are_no_floats_are_refused(name, factory, numbers, value, gradient):
    del name, value, gradient
    with pytest.raises(TypeError, match=r"^params\[dense_0/kernel\]: expected a float dtype to penalize, got int32"):
        factory(*numbers)({"dense_0": {"kernel": jnp.ones(3, jnp.int32)}})


@TABLE
@pytest.mark.parametrize("bad", [-1e-3, float("nan"), float("inf")])
def test_strengths_out_of_range_are_refused(name, factory, numbers, value, gradient, bad):
    del value, gradient
    for index in range(len(numbers)):
        wrong = [bad if i == index else n for i, n in enumerate(numbers)]
        argument = "strength" if name != "elastic_net" else ["l1_strength", "l2_strength"][index]
        with pytest.raises(ValueError, match=rf"^{argument}: expected a finite number in \[0, inf\)"):
            factory(*wrong)


def test_the_stated_relation_to_scikit_learn_holds():
    """At scikit-learn's solution the subgradient of half the mean squared error plus our penalty contains 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4))
    y = x[:, 0] - x[:, 1] + 0.1 * rng.normal(size=50)
    alpha, ratio = 0.2, 0.5
    fitted = sklearn.linear_model.ElasticNet(alpha=alpha, l1_ratio=ratio, fit_intercept=False, tol=1e-10).fit(x, y)
    penalty = penalties.elastic_net(alpha * ratio, alpha * (1 - ratio) / 2)

    def loss(w):
        return 0.5 * jnp.mean(jnp.square(jnp.asarray(x) @ w - y)) + penalty({"kernel": w})

    with jax.enable_x64(True):
        w = jnp.asarray(fitted.coef_)
        slope = np.asarray(jax.grad(loss)(w))
    active = fitted.coef_ != 0
    assert 0 < active.sum() < 4
    np.testing.assert_allclose(slope[active], 0, atol=1e-8)
    assert (np.abs(slope[~active]) <= alpha * ratio).all()


def _distance(w):
    w = w.reshape(-1, w.shape[-1])
    gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    return np.square(gram - np.eye(len(gram))).sum()


def test_orthogonality_is_the_formula_with_its_gradient():
    """The gradient is 4·strength·W(WᵀW - I)."""
    wide, tall = PARAMS["dense_1"]["kernel"].T.copy(), PARAMS["dense_0"]["kernel"]
    conv = RNG.normal(size=(2, 2, 3, 5)).astype(np.float32)
    params = {"a": {"kernel": wide}, "b": {"kernel": tall}, "c": {"kernel": conv, "bias": np.ones(5)}}
    penalty = penalties.orthogonality(0.3)
    value, slope = jax.jit(jax.value_and_grad(penalty))(params)
    np.testing.assert_allclose(value, 0.3 * sum(_distance(w.astype(float)) for w in (wide, tall, conv)), rtol=1e-5)
    np.testing.assert_allclose(slope["b"]["kernel"], 1.2 * tall @ (tall.T @ tall - np.eye(3)), rtol=1e-4, atol=1e-4)
    assert not slope["c"]["bias"].any()
    one = jax.jit(penalties.orthogonality(0.3, "b/*"))(params)
    np.testing.assert_allclose(one, 0.3 * _distance(tall.astype(float)), rtol=1e-5)
    for rows, columns in ((6, 3), (3, 6)):
        q = np.linalg.qr(RNG.normal(size=(6, 3)))[0]
        orthonormal = q if rows == 6 else q.T
        assert jax.jit(penalty)({"kernel": orthonormal.astype("f").reshape(-1, 3, columns)}) < 1e-10


def test_orthogonality_takes_a_traced_strength_and_names_bad_input():
    swept = jax.vmap(lambda n: penalties.orthogonality(n)(PARAMS))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(swept[1] / swept[0], 2, rtol=1e-6)
    half = penalties.orthogonality(1.0)({"kernel": jnp.ones((3, 2), jnp.bfloat16)})
    assert half.dtype == jnp.float32
    with pytest.raises(ValueError, match=r"^params\[batch_norm_0/bias\]: expected two axes or more, got shape \[3\]"):
        penalties.orthogonality(1.0, every_leaf)(PARAMS)
    with pytest.raises(ValueError, match=r"^strength: expected a finite number in \[0, inf\), got -1"):
        penalties.orthogonality(-1.0)


@pytest.mark.parametrize("make", [penalties.l1, penalties.l2, penalties.orthogonality])
def test_what_is_no_strength_or_no_mask_is_refused_at_once(make):
    with pytest.raises(ValueError, match=r"^strength: expected one number, got an array of shape \(2,\)"):
        make(np.ones(2))
    for bad in ("0.1", np.str_("0.1"), 1j, True):
        with pytest.raises(TypeError, match=r"^strength: expected a number, got "):
            make(bad)
    with pytest.raises(TypeError, match=r"^params\[name\]: expected a float dtype to penalize, got 'dense'"):
        make(0.1, mask="name")({"name": "dense"})
    with pytest.raises(ValueError, match=r"^mask: expected a pattern of paths, got none"):
        make(0.1, mask=[])
    with pytest.raises(TypeError, match=r"^mask: expected a pattern of paths, several"):
        make(0.1, mask=0.5)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_promotions_are_said_where_jax_asks_for_that(dtype):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), PARAMS)
    with jax.numpy_dtype_promotion("strict"):
        for penalty in (penalties.l1(0.1), penalties.elastic_net(0.1, 0.2), penalties.orthogonality(0.1)):
            assert jax.eval_shape(penalty, params).dtype == jnp.float32
