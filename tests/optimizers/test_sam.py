"""Sharpness-aware minimization and Sophia: the optimizers that ask for gradients themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers
from tests.optimizers.table import derivatives

STEPS = 30


def _params(dtype=jnp.float64):
    return {"kernel": jnp.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3), "bias": jnp.array([0.5, -2.0], dtype)}


def _loss(params, t=0):
    return jnp.sum(jnp.cos(params["kernel"] + 0.1 * t)) + jnp.sum(params["bias"] ** 4) / 40


def _train(optimizer, dtype=jnp.float64, steps=STEPS):
    params = _params(dtype)

    def step(carry, t):
        params, state = carry
        gradient = jax.grad(lambda params, *_: _loss(params, t))
        updates, state = optimizer.update(gradient(params), state, params, grad_fn=gradient)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))[0]


def _assert_close(a, b, tolerance=1e-12):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


@pytest.mark.parametrize("inner", [optax.sgd(0.1, 0.9), optax.adam(0.05)])
def test_sam_is_that_of_optax(inner):
    theirs = optax.contrib.sam(
        inner, optax.chain(optax.contrib.normalize(), optax.sgd(0.3)), opaque_mode=True, reset_state=False
    )
    with jax.enable_x64(True):
        expected = _train(theirs)[0]
        _assert_close(_train(optimizers.sam(inner, 0.3))[0], expected)
        plain = _train(optimizers.sam(inner, 0.0))[0]
        assert np.abs(expected["kernel"] - plain["kernel"]).max() > 1e-3


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_gradient_is_taken_at_the_distance_rho_uphill(adaptive):
    with jax.enable_x64(True):
        params, gradients, seen = _params(), jax.grad(_loss)(_params()), []

        def gradient(at):
            seen.append(at)
            return jax.tree.map(lambda x: 3.0 * x, at)

        optimizer = optimizers.sam(optax.identity(), 0.25, adaptive=adaptive)
        updates, _ = optimizer.update(gradients, optimizer.init(params), params, grad_fn=gradient)
        (at,) = seen
        _assert_close(updates, jax.tree.map(lambda x: 3.0 * x, at))
        scale = jax.tree.map(jnp.abs, params) if adaptive else jax.tree.map(jnp.ones_like, params)
        step = jax.tree.map(lambda a, p, s: (a - p) / s, at, params, scale)
        np.testing.assert_allclose(optax.tree.norm(step), 0.25, rtol=1e-12)  # ‖e/|θ|‖ = ρ
        uphill = jax.tree.map(lambda g, s: g * s, gradients, scale)
        cosine = optax.tree.vdot(step, uphill) / optax.tree.norm(step) / optax.tree.norm(uphill)
        np.testing.assert_allclose(cosine, 1.0, rtol=1e-12)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_zero_gradient_is_no_perturbation_with_finite_derivatives(adaptive):
    start = jnp.array([0.0, 1.0, -2.0])

    def end(numbers):
        params = start
        optimizer = optimizers.sam(optimizers.adam(numbers["rate"]), numbers["rho"], adaptive=adaptive)
        state = optimizer.init(params)
        for _ in range(3):
            gradient = lambda p: 0.0 * p  # noqa: E731
            updates, state = optimizer.update(gradient(params), state, params, grad_fn=gradient)
            params = optax.apply_updates(params, updates)
        return params

    numbers = {"rate": jnp.float32(0.1), "rho": jnp.float32(0.05)}
    np.testing.assert_array_equal(jax.jit(end)(numbers), start)
    for differentiate in (jax.jacfwd, jax.jacrev):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(differentiate(end))(numbers)))


def test_rho_may_be_traced_swept_and_differentiated():
    def end(rho):
        return _train(optimizers.sam(optimizers.sgd(0.1), rho), steps=5)[0]["kernel"]

    with jax.enable_x64(True):
        rhos = jnp.array([0.0, 0.1, 0.5])
        together = jax.jit(jax.vmap(end))(rhos)
        _assert_close(together, jnp.stack([end(float(rho)) for rho in rhos]))
        above, below = jax.jit(jax.vmap(end))(jnp.array([0.1 + 1e-6, 0.1 - 1e-6]))
        for differentiate in (jax.jacfwd, jax.jacrev):
            slope = jax.jit(differentiate(end))(jnp.array(0.1))
            np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_types_are_those_of_the_parameters(dtype):
    key, params = jax.random.key(0), _params(dtype)
    for optimizer in (optimizers.sam(optimizers.adam(0.1)), optimizers.sophia(0.1, key=key, update_interval=2)):
        state = optimizer.init(params)
        updates, new = jax.eval_shape(
            lambda state, update=optimizer.update: update(params, state, params, grad_fn=jax.grad(_loss)), state
        )
        types = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in (state, new)]
        assert types[0] == types[1]
        assert all(x.dtype == dtype for x in jax.tree.leaves(updates))
        assert all(x.dtype in (jnp.float32, jnp.int32) for x in jax.tree.leaves(new))


def test_both_pass_on_through_wrappers():
    """Look-ahead, averages, masks and chains hand ``grad_fn`` to the optimizer inside, and SAM to its own."""
    key = jax.random.key(0)
    inside = optimizers.sam(optimizers.sophia(0.05, gamma=0.5, key=key), 0.01)
    optimizer = optax.chain(optax.identity(), optimizers.weight_ema(optimizers.lookahead(inside, 4), 0.9))
    params, state = _train(optimizer, jnp.float32)
    averaged = optimizers.evaluation_params(state, params)
    assert _loss(averaged) < _loss(_params(jnp.float32)) - 1.0
    empty = inside.update({}, inside.init({}), {}, grad_fn=lambda params: params)[0]
    assert empty == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_seen(bad):
    gradient = jax.grad(lambda params: jnp.sum(params**2))
    for optimizer in (optimizers.sam(optimizers.sgd(0.1)), optimizers.sophia(0.1, key=jax.random.key(0))):
        params = jnp.ones(3)
        updates, _ = optimizer.update(params.at[1].set(bad), optimizer.init(params), params, grad_fn=gradient)
        assert not np.isfinite(updates[1])


def test_mistakes_are_refused_with_the_name():
    params, key = jnp.ones(3), jax.random.key(0)
    for optimizer in (optimizers.sam(optax.sgd(0.1)), optimizers.sophia(0.1, key=key)):
        state = optimizer.init(params)
        for extra in ({}, {"grad_fn": params}):
            with pytest.raises(
                ValueError, match=r"^grad_fn: expected a function params -> gradients .* needs update\("
            ):
                optimizer.update(params, state, params, **extra)
        with pytest.raises(ValueError, match=r"^params: expected the parameters, got None"):
            optimizer.update(params, state, grad_fn=jnp.sin)
        group = optax.masked(optimizer, {"a": True, "b": False})
        both = {"a": params, "b": params}
        with pytest.raises(ValueError, match=r"^params: expected all parameters, got a part .* put it around"):
            group.update(both, group.init(both), both, grad_fn=jnp.sin)
    with pytest.raises(TypeError, match=r"^updates\[a\]: expected real floating-point numbers, got complex64"):
        turned = {"a": jnp.ones(3, jnp.complex64)}
        optimizers.sam(optax.sgd(0.1)).update(turned, optax.sgd(0.1).init(turned), turned, grad_fn=lambda p: p)
    with pytest.raises(ValueError, match=r"^updates: expected the tree of the parameters"):
        optimizers.sam(optax.sgd(0.1)).update(params, optax.sgd(0.1).init(params), params, grad_fn=lambda p: {"a": p})
    for name, bad, make in [
        ("rho", -0.1, lambda n: optimizers.sam(optax.sgd(0.1), n)),
        ("b1", 1.0, lambda n: optimizers.sophia(0.1, n, key=key)),
        ("b2", 1.0, lambda n: optimizers.sophia(0.1, b2=n, key=key)),
        ("gamma", 0.0, lambda n: optimizers.sophia(0.1, gamma=n, key=key)),
        ("eps", 0.0, lambda n: optimizers.sophia(0.1, eps=n, key=key)),
        ("update_interval", 0, lambda n: optimizers.sophia(0.1, update_interval=n, key=key)),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: expected a finite number in .*, got "):
            make(bad)
    with pytest.raises(ValueError, match=r"^update_interval: expected an integer, got 1.5"):
        optimizers.sophia(0.1, key=key, update_interval=1.5)
    with pytest.raises(TypeError, match=r"^key: expected a PRNG key, got 0"):
        optimizers.sophia(0.1, key=0)


# Sophia


def _hessian_diagonal(params, t):
    return {"kernel": -np.cos(params["kernel"] + 0.1 * t), "bias": 12 * params["bias"] ** 2 / 40}


def test_sophia_is_algorithm_3():
    """The Hessian of this loss is diagonal, so the estimate is it times the probes' squares."""
    key, b1, b2, gamma, lr, decay = jax.random.key(7), 0.9, 0.8, 0.5, 0.05, 0.1
    with jax.enable_x64(True):
        optimizer = optimizers.sophia(lr, b1, b2, gamma, 1e-3, decay, key=key, update_interval=3, mask="*")
        ours, _ = _train(optimizer)
        params = jax.tree.map(np.asarray, _params())
        m = h = dict.fromkeys(params, 0.0)
        for t in range(STEPS):
            g = {"kernel": -np.sin(params["kernel"] + 0.1 * t), "bias": params["bias"] ** 3 / 10}
            m = {k: b1 * m[k] + (1 - b1) * g[k] for k in g}
            if t % 3 == 0:
                keys = jax.random.split(jax.random.fold_in(key, t), 2)  # bias, kernel
                w = {
                    k: np.asarray(jax.random.normal(i, g[k].shape, jnp.float64))
                    for k, i in zip(sorted(g), keys, strict=True)
                }
                h = {k: b2 * h[k] + (1 - b2) * w[k] ** 2 * d for k, d in _hessian_diagonal(params, t).items()}
            u = {k: np.clip(m[k] / np.maximum(gamma * h[k], 1e-3), -1, 1) for k in m}
            params = {k: p - lr * (u[k] + decay * p) for k, p in params.items()}
        _assert_close(ours, params)
        assert 0 < sum((np.abs(leaf) < 1).sum() for leaf in u.values()) < 8  # some are clipped, some not


@pytest.mark.slow
def test_numbers_of_sophia_may_be_swept_and_differentiated():
    numbers = {"learning_rate": 0.05, "b1": 0.9, "b2": 0.8, "gamma": 5.0, "eps": 0.7, "weight_decay": 0.1}

    def end(given, interval=2):
        optimizer = optimizers.sophia(**given, key=jax.random.key(0), update_interval=interval, mask="*")
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(_train(optimizer, steps=6)[0])])

    with jax.enable_x64(True):
        names = list(numbers)
        at = jnp.array([numbers[name] for name in names])
        step = 1e-6 * at

        def of(vector):
            return end(dict(zip(names, vector, strict=True)))

        forward, reverse, difference = derivatives(of, at, step)
        np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(forward, difference, rtol=1e-5, atol=1e-7)
        assert (np.abs(forward).max(axis=0) > 1e-4).all()
        intervals = jnp.array([1, 2, 4])
        together = jax.jit(jax.vmap(lambda k: end(numbers, k)))(intervals)
        _assert_close(together[2], jax.jit(lambda: end(numbers, 4))())
        assert np.abs(together[0] - together[1]).max() > 1e-4
