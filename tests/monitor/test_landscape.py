"""Planes of the parameter space against closed forms, and a network that computes the same when it is rescaled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import monitor

RNG = np.random.default_rng(0)


def _tree(*lead):
    return {
        "conv": {"kernel": jnp.float32(RNG.normal(size=(*lead, 3, 3, 2, 4))), "bias": jnp.zeros((*lead, 4))},
        "dense": {"kernel": jnp.float32(RNG.normal(size=(*lead, 5, 2)))},
    }


def test_a_filter_of_a_direction_has_the_norm_of_its_own():
    params = _tree()
    directions = monitor.random_plane(jax.random.key(0), params).directions
    for name in ("conv", "dense"):
        kernel, own = (np.asarray(tree[name]["kernel"]) for tree in (directions, params))
        wanted = np.linalg.norm(own.reshape(-1, own.shape[-1]), axis=0)
        for direction in kernel:
            np.testing.assert_allclose(np.linalg.norm(direction.reshape(-1, own.shape[-1]), axis=0), wanted, rtol=1e-5)
        assert abs(kernel[0] - kernel[1]).max() > 0.1
    assert not directions["conv"]["bias"].any()


@pytest.mark.slow
def test_a_rescaled_network_has_the_same_slice():
    """W₁ · 8 and W₂ / 8 compute the same through a ReLU. The slice by filters is the same, the plain one is not."""
    x, y = (jnp.float32(RNG.normal(size=shape)) for shape in ((20, 3), (20, 1)))
    params = {"a": jnp.float32(RNG.normal(size=(3, 6))), "b": jnp.float32(RNG.normal(size=(6, 1)))}
    scaled = {"a": 8 * params["a"], "b": params["b"] / 8}

    def loss(p):
        return jnp.mean((jax.nn.relu(x @ p["a"]) @ p["b"] - y) ** 2)

    grid = jnp.linspace(-1, 1, 5)
    slices = [
        monitor.plane_losses(loss, monitor.random_plane(jax.random.key(1), p), grid, grid) for p in (params, scaled)
    ]
    np.testing.assert_allclose(*slices, rtol=1e-4)
    plain = [monitor.Plane(p, monitor.random_plane(jax.random.key(1), params).directions) for p in (params, scaled)]
    first, second = (monitor.plane_losses(loss, plane, grid, grid) for plane in plain)
    assert abs(first / second - 1).max() > 0.5


def test_the_plane_of_a_path_in_a_plane_is_that_one():
    center = _tree()
    basis = monitor.random_plane(jax.random.key(2), center)
    t = jnp.linspace(0, 1, 7)
    coordinates = jnp.stack([jnp.cos(3 * t), 2 * t], 1)
    path = jax.tree.map(lambda c, d: c[None] + jnp.tensordot(coordinates, d, 1), center, basis.directions)
    plane, shares = monitor.principal_plane(path, center)
    assert shares[0] > shares[1] > 0 and abs(shares.sum() - 1) < 1e-5
    rows = np.concatenate([np.asarray(leaf).reshape(2, -1) for leaf in jax.tree.leaves(plane.directions)], 1)
    np.testing.assert_allclose(rows @ rows.T, np.eye(2), atol=1e-5)
    found = monitor.project(plane, path)
    again = jax.tree.map(lambda c, d: c[None] + jnp.tensordot(found, d, 1), center, plane.directions)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), again, path)
    np.testing.assert_allclose(monitor.project(basis, path), coordinates, atol=1e-4)  # not orthonormal


def test_shares_are_those_of_numpy():
    path = {"w": jnp.float32(RNG.normal(size=(9, 4, 3)))}
    _, shares = monitor.principal_plane(path, {"w": jnp.ones((4, 3))})
    sizes = np.linalg.svd(np.asarray(path["w"], np.float64).reshape(9, 12) - 1, compute_uv=False)
    np.testing.assert_allclose(shares, (sizes**2 / (sizes**2).sum())[:2], rtol=1e-5)


def test_a_plane_through_a_paraboloid_is_a_paraboloid():
    center, x, y = {"w": jnp.array([1.0, -2.0, 3.0])}, np.linspace(-1, 2, 4), np.linspace(0, 1, 3)
    directions = np.array([[1.0, 0, 2], [0, 1, -1]])
    plane = monitor.Plane(center, {"w": jnp.float32(directions)})
    found = jax.jit(lambda p: monitor.plane_losses(lambda q: jnp.sum(q["w"] ** 2), p, x, y, batch_size=5))(plane)
    points = np.asarray(center["w"]) + x[None, :, None] * directions[0] + y[:, None, None] * directions[1]
    np.testing.assert_allclose(found, (points**2).sum(-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda p: monitor.random_plane(jax.random.key(0), {"b": jnp.ones(3)}),
            ValueError,
            r"^params: expected a leaf",
        ),
        (lambda p: monitor.principal_plane({"w": jnp.ones((1, 2, 2))}, p.center), ValueError, r"^path: .* got 1"),
        (lambda p: monitor.project(p, {"w": jnp.ones((3, 2))}), ValueError, r"^path\[w\]: expected shape \[T, 2, 2\]"),
        (lambda p: monitor.project(p, {"v": jnp.ones((3, 2, 2))}), ValueError, r"^path"),
        (lambda p: monitor.project(p.center, p.center), TypeError, r"^plane: expected one of random_plane"),
        (lambda p: monitor.plane_losses(3, p, [0.0], [0.0]), TypeError, r"^loss: expected a function"),
        (lambda p: monitor.plane_losses(lambda q: q["w"], p, [0.0], [0.0]), ValueError, r"^loss: expected a scalar"),
        (lambda p: monitor.plane_losses(lambda q: 0.0, p, 0.0, [0.0]), ValueError, r"^x: expected coordinates \[n\]"),
    ],
)
def test_what_is_refused(call, error, message):
    plane = monitor.Plane({"w": jnp.ones((2, 2))}, {"w": jnp.ones((2, 2, 2))})
    with pytest.raises(error, match=message):
        call(plane)
