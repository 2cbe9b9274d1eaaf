"""LAMB, LARS and the trust ratio: optax's trajectories, the papers' formulas in NumPy, and where a norm is 0."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, trees

STEPS = 60


def _params(dtype=jnp.float64):
    rng = np.random.default_rng(0)
    return {
        "dense_0": {"bias": jnp.zeros(3, dtype), "kernel": jnp.asarray(rng.normal(size=(4, 3)), dtype)},
        "scale": jnp.asarray(rng.normal(size=3), dtype),
    }


def _gradients(dtype=np.float64):
    """Of many sizes, stacked."""
    rng = np.random.default_rng(1)
    sizes = 10.0 ** (np.arange(STEPS) % 5 - 2)
    return jax.tree.map(
        lambda p: (rng.normal(size=(STEPS, *p.shape)) * sizes.reshape(-1, *[1] * p.ndim)).astype(dtype), _params(dtype)
    )


def _trajectory(optimizer, dtype=jnp.float64):
    def step(carry, gradients):
        params, state = carry
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (_params(dtype), optimizer.init(_params(dtype)))
    return jax.lax.scan(step, start, jax.tree.map(jnp.asarray, _gradients(dtype)))[0][0]


def _numpy_trajectory(step):
    """``step(path, gradient, weights, memory, t) -> weights``, leaf by leaf."""
    params = {path: np.asarray(leaf) for path, leaf in trees.named_leaves(_params())}
    memory = {path: {} for path in params}
    for t in range(STEPS):
        for path, gradients in trees.named_leaves(_gradients()):
            params[path] = step(path, gradients[t], params[path], memory[path], t + 1)
    return params


def _assert_equal(params, expected, tolerance=1e-12):
    for (path, leaf), other in zip(trees.named_leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=tolerance, atol=tolerance, err_msg=path)


PAIRS = [
    (
        "lamb",
        lambda: optimizers.lamb(0.02, 0.8, 0.9, 1e-4, 0.1, mask=trees.every_leaf),
        lambda: optax.lamb(0.02, 0.8, 0.9, 1e-4, weight_decay=0.1),
    ),
    ("lamb_plain", lambda: optimizers.lamb(0.02), lambda: optax.lamb(0.02)),
    (
        "lamb_kernels",
        lambda: optimizers.lamb(0.02, weight_decay=0.1),
        lambda: optax.lamb(0.02, weight_decay=0.1, mask=lambda params: trees.map_with_path(trees.kernels_only, params)),
    ),
    (
        "lars",
        lambda: optimizers.lars(0.1, 0.1, 0.2, 1e-3, 0.7, mask=trees.every_leaf),
        lambda: optax.lars(0.1, 0.1, trust_coefficient=0.2, eps=1e-3, momentum=0.7),
    ),
    (
        "lars_nesterov",
        lambda: optimizers.lars(0.1, momentum=0.7, nesterov=True),
        lambda: optax.lars(0.1, momentum=0.7, nesterov=True),
    ),
    (
        "lars_masked",
        lambda: optimizers.lars(0.1, trust_ratio_mask="*/kernel"),
        lambda: optax.lars(0.1, trust_ratio_mask=lambda params: trees.map_with_path(trees.kernels_only, params)),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_the_trajectory_is_that_of_optax(ours, theirs):
    with jax.enable_x64(True):
        _assert_equal(_trajectory(ours()), _trajectory(theirs()))
    _assert_equal(_trajectory(ours(), dtype=jnp.float32), _trajectory(theirs(), dtype=jnp.float32), 2e-4)


def test_lamb_is_algorithm_2():
    def step(path, g, p, memory, t):
        m = memory["m"] = 0.8 * memory.get("m", 0.0) + 0.2 * g
        v = memory["v"] = 0.9 * memory.get("v", 0.0) + 0.1 * g**2
        u = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-6) + (0.3 * p if "kernel" in path else 0.0)
        norms = np.linalg.norm(p), np.linalg.norm(u)
        return p - 0.02 * (norms[0] / norms[1] if all(norms) else 1.0) * u

    with jax.enable_x64(True):
        _assert_equal(_trajectory(optimizers.lamb(0.02, 0.8, 0.9, weight_decay=0.3)), _numpy_trajectory(step))


@pytest.mark.parametrize("decay", [None, 0.3])
def test_lars_is_equation_6(decay):
    def step(path, g, p, memory, t):
        rate = decay if decay and "kernel" in path else 0.0
        norms = np.linalg.norm(p), np.linalg.norm(g) + rate * np.linalg.norm(p)
        ratio = 0.1 * norms[0] / norms[1] if all(norms) else 1.0
        memory["v"] = 0.9 * memory.get("v", 0.0) + 0.5 * ratio * (g + rate * p)
        return p - memory["v"]

    with jax.enable_x64(True):
        optimizer = optimizers.lars(0.5, decay, trust_coefficient=0.1, convention="paper")
        _assert_equal(_trajectory(optimizer), _numpy_trajectory(step))


def test_the_conventions_of_lars_differ_where_weights_decay():
    with jax.enable_x64(True):
        ends = [_trajectory(optimizers.lars(0.1, 0.3, 0.1, convention=convention)) for convention in ("optax", "paper")]
        assert np.abs(ends[0]["dense_0"]["kernel"] - ends[1]["dense_0"]["kernel"]).max() > 1e-4


@pytest.mark.parametrize(("params", "update"), [(0.0, 2.0), (3.0, 0.0), (0.0, 0.0), (3.0, np.inf), (1e30, 2.0)])
def test_an_update_passes_where_a_norm_is_zero_or_not_finite(params, update):
    transform = optimizers.scale_by_trust_ratio(0.1)
    params, update = jnp.full(2, params, jnp.float32), jnp.full(2, update, jnp.float32)
    scaled, _ = transform.update(update, transform.init(params), params)
    np.testing.assert_array_equal(scaled, update)


def test_leaves_out_of_the_mask_pass():
    transform = optimizers.scale_by_trust_ratio(0.1, mask=trees.kernels_only)
    params = {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}
    updates, _ = transform.update(params, transform.init(params), params)
    np.testing.assert_array_equal(updates["bias"], jnp.ones(2))
    np.testing.assert_allclose(updates["kernel"], jnp.full((2, 2), 0.1), rtol=1e-6)


def test_mistakes_are_refused_with_the_name():
    with pytest.raises(ValueError, match=r"^convention: expected .optax. or .paper., got 'torch'"):
        optimizers.lars(0.1, convention="torch")
    transform = optimizers.scale_by_trust_ratio()
    with pytest.raises(ValueError, match=r"^params: expected the parameters, got None: a trust ratio needs"):
        transform.update(jnp.ones(2), transform.init(jnp.ones(2)))
    params = {"kernel": jnp.ones(2)}
    for name, optimizer in {
        "mask": optimizers.lamb(0.1, weight_decay=0.1, mask="*bias"),
        "trust_ratio_mask": optimizers.lars(0.1, trust_ratio_mask="*bias"),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: expected a pattern that matches one of"):
            optimizer.init(params)
    with pytest.raises(ValueError, match=r"^mask: expected a pattern that matches one of"):
        optimizers.lars(0.1, 0.1, mask="*bias", convention="paper").init(params)
    with pytest.raises(ValueError, match=r"^mask: expected a pattern that matches one of"):
        optimizers.scale_by_trust_ratio(mask="*bias").init(params)
