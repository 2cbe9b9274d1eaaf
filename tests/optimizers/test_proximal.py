"""Proximal steps and constraints: exact zeros, scikit-learn's solutions, Keras's formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.linear_model

from jaxopt_nn import optimizers, penalties, schedules, trees

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 8)).astype("f")
Y = (X[:, 0] - 2 * X[:, 1] + 0.1 * RNG.normal(size=60)).astype("f")


def half_mean_square(params):
    return 0.5 * jnp.mean(jnp.square(jnp.asarray(X) @ params["kernel"] - Y))


def fitted(optimizer, steps=800, penalty=lambda params: 0.0):
    params = {"kernel": jnp.ones(8)}

    def step(carry, _):
        params, state = carry
        gradient = jax.grad(lambda p: half_mean_square(p) + penalty(p))(params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[0])((params, optimizer.init(params)))[0]


@pytest.mark.parametrize("rate", [0.3, schedules.exponential_decay(0.3, 800, 0.3)], ids=["constant", "schedule"])
def test_proximal_l1_is_the_lasso_with_its_zeros(rate):
    theirs = (
        sklearn.linear_model.Lasso(alpha=0.1, fit_intercept=False, tol=1e-10)
        .fit(X.astype(float), Y.astype(float))
        .coef_
    )
    ours = np.asarray(fitted(optimizers.proximal_l1(optimizers.sgd(rate), 0.1))["kernel"])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_array_equal(ours == 0, theirs == 0)
    assert 3 <= (ours == 0).sum() < 8
    through_the_gradient = fitted(optimizers.sgd(0.3), penalty=penalties.l1(0.1))["kernel"]
    assert not (np.asarray(through_the_gradient) == 0).any()  # what the proximal step is for


def test_proximal_elastic_net_is_that_of_scikit_learn():
    theirs = (
        sklearn.linear_model.ElasticNet(alpha=0.4, l1_ratio=0.5, fit_intercept=False, tol=1e-10)
        .fit(X.astype(float), Y.astype(float))
        .coef_
    )
    ours = fitted(optimizers.proximal_elastic_net(optimizers.sgd(0.3), 0.2, 0.1))["kernel"]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_array_equal(ours == 0, theirs == 0)


def test_through_adam_the_step_is_decoupled():
    params, gradients = {"kernel": jnp.array([1.0, -1.0])}, {"kernel": jnp.array([1e3, 1e-3])}
    adam, proximal = optimizers.adam(0.1), optimizers.proximal_l1(optimizers.adam(0.1), 2.0)
    plain, _ = adam.update(gradients, adam.init(params), params)
    shrunk, state = proximal.update(gradients, proximal.init(params), params)
    np.testing.assert_allclose(shrunk["kernel"] - plain["kernel"], [-0.2, 0.2], rtol=1e-5)
    assert jax.tree.structure(state) == jax.tree.structure(adam.init(params))
    np.testing.assert_allclose(optimizers.current_learning_rate(state), 0.1)


PARAMS = {"a": {"kernel": jnp.full((2, 3), 0.5), "bias": jnp.full(3, 0.5)}, "b": {"kernel": jnp.full((3, 1), 0.5)}}
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda n, **kw: optimizers.proximal_l1(optimizers.sgd(0.1), n, **kw), -0.1),
        (lambda n, **kw: optimizers.proximal_elastic_net(optimizers.sgd(0.1), n, n, **kw), 0.4 / 1.2 - 0.5),
        (lambda n, **kw: optimizers.constrain_max_norm(n / 5, **kw), 0.2 / 3**0.5 - 0.5),
    ],
    ids=["proximal_l1", "proximal_elastic_net", "constrain_max_norm"],
)
def test_masks_choose_and_numbers_are_traced(make, change):
    traces = []

    @jax.jit
    def update(n):
        traces.append(1)
        optimizer = make(n)
        return optimizer.update(ZEROS, optimizer.init(PARAMS), PARAMS)[0]

    for number in (2.0, 1.0):
        got = update(number)
    assert len(traces) == 1
    np.testing.assert_allclose(got["b"]["kernel"], change, rtol=1e-5)
    assert not got["a"]["bias"].any()
    only = make(1.0, mask="a/kernel")
    got = only.update(ZEROS, only.init(PARAMS), PARAMS)[0]
    assert got["a"]["kernel"].any() and not got["b"]["kernel"].any()
    lanes = jax.vmap(update)(jnp.array([1.0, 0.5]))["b"]["kernel"]
    np.testing.assert_allclose(lanes[0], change, rtol=1e-5)
    assert not np.allclose(lanes[0], lanes[1])
    slope = jax.grad(lambda n: jnp.sum(update(n)["b"]["kernel"]))(1.0)
    assert np.isfinite(slope) and slope != 0
    for dtype in (jnp.bfloat16, jnp.float16):
        params = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), PARAMS)
        optimizer = make(jnp.bfloat16(1.0))
        low = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)[0]
        assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype(dtype)}
        np.testing.assert_allclose(low["b"]["kernel"].astype("f"), change, rtol=1e-2)
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), ZEROS)
    updates = make(1.0).update(bad, make(1.0).init(PARAMS), PARAMS)[0]
    assert np.isnan(updates["a"]["kernel"]).all()
    with pytest.raises(ValueError, match=r"^params: expected the parameters, got None"):
        make(1.0).update(ZEROS, make(1.0).init(PARAMS))
    with pytest.raises(ValueError, match=r"^mask: expected a pattern that matches one of"):
        make(1.0, mask="nothing").init(PARAMS)


def test_max_norm_is_the_formula_of_keras_and_holds_while_training():
    """`w · clip(‖w‖, 0, max) / (1e-7 + ‖w‖)` over all axes but the last; units within the norm keep their bits."""
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 2, 5)) * np.array([0.01, 0.1, 1, 2, 3]), jnp.float32)
    chain = optax.chain(optimizers.sgd(0.1), optimizers.constrain_max_norm(1.5))
    params = {"kernel": kernel}
    updates, _ = chain.update({"kernel": jnp.zeros_like(kernel)}, chain.init(params), params)
    norm = np.sqrt(np.square(np.asarray(kernel, np.float64)).sum((0, 1, 2)))
    np.testing.assert_allclose(
        kernel + updates["kernel"], np.asarray(kernel) * (np.clip(norm, 0, 1.5) / norm), rtol=1e-5, atol=1e-6
    )
    inside = norm < 1.5
    assert 1 <= inside.sum() < 5
    assert not updates["kernel"][..., inside].any()
    outwards = {"kernel": -kernel}  # a gradient that pushes all units out
    state = chain.init(params)
    for _ in range(3):
        updates, state = chain.update(outwards, state, params)
        params = optax.apply_updates(params, updates)
        assert np.sqrt(np.square(params["kernel"]).sum((0, 1, 2))).max() <= 1.5 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: optimizers.proximal_l1(optimizers.sgd(0.1), -1.0), r"^strength: expected a finite number in \[0, inf"),
        (lambda: optimizers.proximal_elastic_net(optimizers.sgd(0.1), -1.0, 0.0), r"^l1_strength: "),
        (lambda: optimizers.proximal_elastic_net(optimizers.sgd(0.1), 1.0, np.nan), r"^l2_strength: "),
        (lambda: optimizers.proximal_l1(optimizers.sgd(0.1), 1.0, learning_rate=-1.0), r"^learning_rate: "),
        (lambda: optimizers.proximal_l1(optax.sgd(0.1), 1.0).init(PARAMS), r"^learning_rate: .* records none"),
        (lambda: optimizers.constrain_max_norm(0.0), r"^max_norm: expected a finite number in \(0, inf\), got 0"),
        (
            lambda: optimizers.constrain_max_norm(1.0, mask=trees.every_leaf).init(PARAMS),
            r"^mask: expected leaves of two axes or more, whose last counts units, got \(3,\)",
        ),
    ],
)
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_an_optimizer_without_a_record_is_told_its_learning_rate():
    ours, theirs = (
        optimizers.proximal_l1(inner, 1.0, learning_rate=rate)
        for inner, rate in ((optimizers.sgd(0.1), None), (optax.sgd(0.1), 0.1))
    )
    for one, two in zip(
        *(jax.tree.leaves(each.update(PARAMS, each.init(PARAMS), PARAMS)[0]) for each in (ours, theirs)), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-6)
