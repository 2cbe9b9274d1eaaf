"""Adafactor: algorithm 4 in NumPy, optax's trajectory, rows and columns in the place of matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, trees
from tests.optimizers.table import derivatives

SHAPES = {"cube": (2, 5, 3), "kernel": (4, 3), "bias": (4,)}
GIVEN = {
    "learning_rate": 0.05,
    "decay_exponent": 0.7,
    "eps": 1e-20,
    "clipping_threshold": 0.8,
    "min_scale": 0.01,
    "momentum": 0.6,
    "weight_decay": 0.02,
}


def _ours(**numbers):
    return optimizers.adafactor(**numbers, min_size_to_factor=3, mask=trees.every_leaf)


def _tree(seed, dtype=np.float64, scale=1.0):
    rng = np.random.default_rng(seed)
    return {name: scale * rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def _trajectory(optimizer, dtype, steps=60):
    params = jax.tree.map(jnp.asarray, _tree(0, dtype))
    gradients = [_tree(t + 1, dtype, 10.0 ** (t % 5 - 2)) for t in range(steps)]

    def step(carry, gradients):
        params, state = carry
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    def run(gradients):
        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0][0]

    return jax.jit(run)(jax.tree.map(lambda *leaves: np.stack(leaves), *gradients))


def _rms(x):
    return np.sqrt(np.mean(x**2))


def _numpy_trajectory(lr, c, eps, threshold, least, momentum, decay, steps=60):
    params, rows, columns, squares, averages = _tree(0), {}, {}, {}, dict.fromkeys(SHAPES, 0.0)
    axes = {"cube": (2, 1), "kernel": (1, 0)}  # the second largest, the largest
    for t in range(1, steps + 1):
        beta = 1 - t**-c
        for name, g in _tree(t, scale=10.0 ** ((t - 1) % 5 - 2)).items():
            square = g**2 + eps
            if name in axes:
                second, first = axes[name]
                row = rows[name] = beta * rows.get(name, 0.0) + (1 - beta) * square.mean(first, keepdims=True)
                column = columns[name] = beta * columns.get(name, 0.0) + (1 - beta) * square.mean(second, keepdims=True)
                v = row * column / row.mean(second, keepdims=True)
            else:
                v = squares[name] = beta * squares.get(name, 0.0) + (1 - beta) * square
            u = g / np.sqrt(v)
            u = u / max(1.0, _rms(u) / threshold)
            step = lr * max(_rms(params[name]), least) * u
            averages[name] = momentum * averages[name] + (1 - momentum) * step
            params[name] = params[name] - averages[name] - decay * params[name]
    return params


def _assert_close(a, b, tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def test_the_trajectory_is_that_of_the_formula():
    expected = _numpy_trajectory(*GIVEN.values())
    with jax.enable_x64(True):
        _assert_close(_trajectory(_ours(**GIVEN), np.float64), expected, 1e-12)
    _assert_close(_trajectory(_ours(**GIVEN), np.float32), expected, 1e-5)


@pytest.mark.parametrize("momentum", [None, 0.6])
def test_the_trajectory_is_that_of_optax(momentum):
    theirs = optax.adafactor(
        0.05,
        min_dim_size_to_factor=3,
        decay_rate=0.7,
        clipping_threshold=0.8,
        momentum=momentum,
        weight_decay_rate=0.02,
        eps=1e-20,
    )
    ours = _ours(**GIVEN | {"momentum": momentum, "min_scale": 1e-3})
    _assert_close(_trajectory(ours, np.float32), _trajectory(theirs, np.float32), 2e-5)
    with jax.enable_x64(True):  # optax's β is float32 there too
        _assert_close(_trajectory(ours, np.float64), _trajectory(theirs, np.float64), 1e-6)


def test_a_large_matrix_has_a_row_and_a_column():
    params = {"large": jnp.zeros((128, 200)), "stack": jnp.zeros((3, 130, 128)), "small": jnp.zeros((127, 500))}
    nu = optimizers.scale_by_factored_rms().init(params).nu
    assert (nu["large"].row.shape, nu["large"].column.shape) == ((128,), (200,))
    assert (nu["stack"].row.shape, nu["stack"].column.shape) == ((3, 128), (3, 130))
    assert nu["small"].shape == (127, 500)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_a_factored_state_in_is_state_out(dtype):
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), _tree(0))
    transform = _ours(**GIVEN)
    state = transform.init(params)
    updates, new = transform.update(params, state, params)
    types = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in (state, new)]
    assert types[0] == types[1]
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state[0].nu))
    assert all(x.dtype == dtype for x in jax.tree.leaves(updates))


@pytest.mark.slow
def test_a_factored_leaf_with_zero_gradients_does_not_move_and_has_derivatives():
    params = jax.tree.map(lambda x: np.zeros_like(x, np.float32), _tree(0))

    def end(given):
        transform = _ours(**dict(zip(GIVEN, given, strict=True)))

        def step(carry, _):
            weights, state = carry
            updates, state = transform.update(params, state, weights)
            return (optax.apply_updates(weights, updates), state), None

        start = jax.tree.map(jnp.asarray, params)
        weights = jax.lax.scan(step, (start, transform.init(start)), None, length=3)[0][0]
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(weights)])

    @jax.jit
    @jax.vmap
    def evaluate(given):
        ends, push = jax.linearize(end, given)
        pull = jax.linear_transpose(push, given)
        return ends, jax.vmap(push)(jnp.eye(len(given))), jax.vmap(pull)(jnp.eye(len(ends)))

    ends, *slopes = evaluate(jnp.array([[*(GIVEN | {"eps": eps}).values()] for eps in (1e-30, 0.0)], jnp.float32))
    assert not ends.any()
    assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.slow
def test_derivatives_of_a_factored_leaf_are_those_of_finite_differences():
    with jax.enable_x64(True):
        names = [name for name in GIVEN if name != "min_scale"]
        at = jnp.array([1e-2 if name == "eps" else GIVEN[name] for name in names])

        def end(vector):
            given = dict(zip(names, vector, strict=True)) | {"min_scale": 1e-3}
            return jnp.concatenate(
                [leaf.ravel() for leaf in jax.tree.leaves(_trajectory(_ours(**given), np.float64, 3))]
            )

        step = 1e-6 * at

        forward, reverse, difference = derivatives(end, at, step)
        np.testing.assert_allclose(forward, reverse, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(forward, difference, rtol=1e-5, atol=1e-6)
        assert (np.abs(forward).max(axis=0) > 1e-4).all()


def test_a_step_that_depends_on_the_parameters_needs_them():
    transform = optimizers.adafactor(0.1)
    with pytest.raises(ValueError, match=r"^params: expected the parameters, got None: a relative step needs"):
        transform.update(jnp.ones(2), transform.init(jnp.ones(2)))
    absolute = optimizers.adafactor(0.5, min_scale=None)
    updates, _ = absolute.update(jnp.array([3.0, -2.0]), absolute.init(jnp.ones(2)))
    np.testing.assert_allclose(updates, [-0.5, 0.5], rtol=1e-6)
