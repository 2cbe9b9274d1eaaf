"""Muon: each library's formula in NumPy, optax's trajectory, and what it does to singular values."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers
from tests.optimizers.table import derivatives

STEPS = 30
SHAPES = {"wide": (2, 5), "tall": (5, 2), "bias": (5,)}
NUMBERS = {"learning_rate": 0.05, "momentum": 0.8, "eps": 1e-3, "weight_decay": 0.1}


def _tree(steps=None, dtype=np.float64):
    rng = np.random.default_rng(0 if steps is None else 1)
    lead = () if steps is None else (steps,)
    return {name: rng.normal(size=(*lead, *shape)).astype(dtype) for name, shape in SHAPES.items()}


def _trajectory(optimizer, dtype=np.float64, steps=STEPS, scale=1.0):
    params = jax.tree.map(jnp.asarray, _tree(dtype=dtype))

    def step(carry, gradients):
        params, state = carry
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    gradients = jax.tree.map(lambda g: jnp.asarray(scale * g, dtype), _tree(steps))
    return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0][0]


def _orthogonal(u, eps, clamp):
    x = u.T if u.shape[0] > u.shape[1] else u
    norm = np.linalg.norm(x)
    x = x / (max(norm, eps) if clamp else norm + eps)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if u.shape[0] > u.shape[1] else x


def _numpy_trajectory(name, convention, nesterov, lr, momentum, eps, decay, rms):
    p, m = _tree()[name], 0.0
    for t, g in enumerate(_tree(STEPS)[name], start=1):
        new = 1.0 if convention == "keras" else 1 - momentum
        m = momentum * m + new * g
        if convention == "optax":
            ahead, now = 1 - momentum ** (t + 1), 1 - momentum**t
            u = momentum * m / ahead + (1 - momentum) * g / now if nesterov else m / now
        else:
            u = momentum * m + new * g if nesterov else m
        fan_in, fan_out = p.shape
        scale = np.sqrt(max(1, fan_out / fan_in)) if rms is None else rms * np.sqrt(max(fan_in, fan_out))
        p = p - lr * (scale * _orthogonal(u, eps, convention == "torch") + decay * p)
    return p


def _assert_close(a, b, tolerance=1e-12):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("convention", "rms"), [("optax", None), ("torch", None), ("torch", 0.2), ("keras", 0.2)])
def test_the_trajectory_is_that_of_the_formula(convention, rms, nesterov):
    with jax.enable_x64(True):
        ours = _trajectory(optimizers.muon(**NUMBERS, rms=rms, nesterov=nesterov, convention=convention))
        for name in ("wide", "tall"):
            expected = _numpy_trajectory(name, convention, nesterov, *NUMBERS.values(), rms)
            np.testing.assert_allclose(ours[name], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.skipif(
    "consistent_rms" not in inspect.signature(optax.contrib.muon).parameters, reason="this optax has another muon"
)
@pytest.mark.parametrize("rms", [None, 0.3])
def test_the_trajectory_is_that_of_optax(rms):
    theirs = optax.contrib.muon(0.05, beta=0.8, weight_decay=0.1, adam_weight_decay=0.0, consistent_rms=rms)
    ours = optimizers.muon(0.05, 0.8, weight_decay=0.1, rms=rms, others=optax.nadam(0.05))
    with jax.enable_x64(True):
        _assert_close(_trajectory(ours), _trajectory(theirs), 1e-11)
    _assert_close(_trajectory(ours, np.float32), _trajectory(theirs, np.float32), 1e-4)


def test_each_convention_has_its_own_epsilon_and_momentum():
    """For tiny gradients ε counts: 1e-8 in optax, 1e-7 in the others, each with its own norm."""
    with jax.enable_x64(True):
        ends = [
            _trajectory(optimizers.muon(0.1, convention=convention), scale=1e-7)["wide"]
            for convention in ("optax", "torch", "keras")
        ]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert np.abs(ends[i] - ends[j]).max() > 1e-3


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (1, 5), (3, 3, 2, 8)])
def test_singular_values_become_about_one(shape):
    transform = optimizers.scale_by_muon(rms=1.0)
    gradients = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    updates, _ = transform.update(gradients, transform.init(gradients))
    matrix = np.asarray(updates).reshape(-1, shape[-1])
    values = np.linalg.svd(matrix / np.sqrt(max(matrix.shape)), compute_uv=False)
    assert ((values > 0.6) & (values < 1.3)).all()


def test_the_mask_says_what_is_a_matrix_and_the_rest_goes_to_adam():
    params = {"conv": jnp.ones((3, 3, 2, 4)), "embedding": jnp.ones((5, 4)), "bias": jnp.ones(4)}
    gradients = jax.tree.map(lambda p: p * jnp.arange(1.0, p.size + 1).reshape(p.shape), params)
    adam = optimizers.adam(0.1)
    rest, _ = adam.update(gradients, adam.init(params), params)
    muon = optimizers.muon(0.1, matrices="conv")
    updates, _ = muon.update(gradients, muon.init(params), params)
    for name in ("embedding", "bias"):
        np.testing.assert_allclose(updates[name], rest[name], rtol=1e-6)
    assert np.abs(updates["conv"] - rest["conv"]).max() > 0.01
    default = optimizers.muon(0.1, others=optax.set_to_zero())
    updates, _ = default.update(gradients, default.init(params), params)
    assert [bool(updates[name].any()) for name in ("conv", "embedding", "bias")] == [False, True, False]
    np.testing.assert_allclose(optimizers.current_learning_rate(muon.init(params)), 0.1)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_state_in_is_state_out(dtype):
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), _tree())
    transform = optimizers.muon(**NUMBERS)
    state = transform.init(params)
    updates, new = jax.eval_shape(lambda state: transform.update(params, state, params), state)
    types = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in (state, new)]
    assert types[0] == types[1]
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in jax.tree.leaves(state))
    assert all(x.dtype == dtype for x in jax.tree.leaves(updates))
    for tree in ({}, {"frozen": None}):
        assert transform.update(tree, transform.init(tree), tree)[0] == tree


@pytest.mark.slow
def test_numbers_may_be_swept_and_differentiated():
    numbers = NUMBERS | {"rms": 0.2, "a": 3.4, "b": -4.8, "c": 2.0}

    def end(vector):
        rate, momentum, eps, decay, rms, *coefficients = vector
        transform = optax.chain(
            optimizers.scale_by_muon(momentum, eps, rms=rms, coefficients=tuple(coefficients)),
            optimizers.add_decayed_weights(decay, mask="*"),
            optimizers.scale_by_learning_rate(rate),
        )
        params = {name: jnp.asarray(_tree()[name]) for name in ("wide", "tall")}

        def step(carry, gradients):
            params, state = carry
            updates, state = transform.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        gradients = {name: jnp.asarray(_tree(STEPS)[name][:3]) for name in params}
        params = jax.lax.scan(step, (params, transform.init(params)), gradients)[0][0]
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])

    with jax.enable_x64(True):
        at = jnp.array(list(numbers.values()))
        step = 1e-6 * jnp.abs(at)

        forward, reverse, difference = derivatives(end, at, step)
        np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(forward, difference, rtol=1e-5, atol=1e-6)
        assert (np.abs(forward).max(axis=0) > 1e-4).all()


@pytest.mark.parametrize("convention", ["torch", "keras"])  # optax's is a row of test_every_number
def test_a_zero_gradient_is_no_update_with_finite_derivatives(convention):
    def end(vector):
        params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
        transform = optimizers.muon(**dict(zip(numbers, vector, strict=True)), convention=convention)

        def step(carry, _):
            params, state = carry
            updates, state = transform.update(jax.tree.map(jnp.zeros_like, params), state, params)
            return (optax.apply_updates(params, updates), state), None

        params = jax.lax.scan(step, (params, transform.init(params)), None, length=3)[0][0]
        return jnp.concatenate([params["kernel"].ravel(), params["bias"]])

    numbers = NUMBERS | {"eps": 1e-8}

    @jax.jit
    def evaluate(vector):
        ends, push = jax.linearize(end, vector)
        pull = jax.linear_transpose(push, vector)
        return ends, jax.vmap(push)(jnp.eye(len(vector))), jax.vmap(pull)(jnp.eye(len(ends)))

    ends, *slopes = evaluate(jnp.array([*numbers.values()], jnp.float32))
    assert not ends.any()
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_mistakes_are_refused_with_the_name():
    for name, bad in (("momentum", 1.0), ("eps", 0.0), ("rms", -0.1)):
        with pytest.raises(ValueError, match=f"^{name}: expected a finite number in .*, got "):
            optimizers.scale_by_muon(**{name: bad})
    with pytest.raises(ValueError, match=r"^convention: expected .*, got 'jax'"):
        optimizers.muon(0.1, convention="jax")
    with pytest.raises(TypeError, match=r"^steps: expected a positive int, got 2.5"):
        optimizers.muon(0.1, steps=2.5)
    with pytest.raises(ValueError, match=r"^params\[bias\]: expected a matrix, two axes or more, got shape \(3,\)"):
        optimizers.scale_by_muon().init({"bias": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"^matrices: expected a pattern that matches"):
        optimizers.muon(0.1, matrices="conv*").init({"bias": jnp.ones(3)})
