"""Planes through a point of the parameter space, and the loss on them: slices of a loss landscape."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_key, check_positive_int, plain_array, shown
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.trees import map_with_path, named_leaves
from jaxopt_nn.types import Array, ArrayLike, Key, Params, PyTree

__all__ = ["Plane", "plane_losses", "principal_plane", "project", "random_plane", "share_in_plane"]


class Plane(NamedTuple):
    """The points ``center + a · directions[0] + b · directions[1]`` of the parameter space.

    Attributes:
        center: parameters; the point (0, 0).
        directions: like ``center``, each leaf with an axis of 2 in front.
    """

    center: Params
    directions: PyTree


def random_plane(key: Key, params: Params) -> Plane:
    """A plane of two random directions, filter-normalized: each filter has the norm that it has in ``params``.

    ``d_f ← d_f · ‖θ_f‖ / ‖d_f‖`` for each filter f of a Gaussian direction d. A filter is what makes one output: the
    entries of a leaf with the same index of its last axis. Without this a network with large weights looks flat, and
    one with small weights sharp, though a ReLU network computes the same when its layers are rescaled. Leaves of fewer
    than two axes (biases, scales of normalizations) have the direction 0.

    Args:
        key: a PRNG key.
        params: a pytree of float arrays, the centre.

    Returns:
        The plane. In high dimensions its two directions are nearly at a right angle, and a path of training has hardly
        any extent in it: see :func:`principal_plane`.

    Raises:
        ValueError: no leaf has two axes.

    References:
        Li, Xu, Taylor, Studer and Goldstein, "Visualizing the loss landscape of neural nets", NeurIPS 2018, section 4.

    >>> plane = random_plane(jax.random.key(0), {"kernel": jnp.array([[3.0, 0.0], [4.0, 1.0]]), "bias": jnp.ones(2)})
    >>> jnp.linalg.norm(plane.directions["kernel"], axis=1).round(4).tolist(), plane.directions["bias"].tolist()
    ([[5.0, 1.0], [5.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]])
    """
    check_key("key", key)
    leaves = named_leaves(params)
    if not any(jnp.ndim(leaf) > 1 for _, leaf in leaves):
        raise ValueError(f"params: expected a leaf of two axes or more, got {[path for path, _ in leaves]}")
    keys = jax.tree.unflatten(jax.tree.structure(params), list(jax.random.split(key, len(leaves))))

    def direction(leaf: Array, own: Key) -> Array:
        if leaf.ndim < 2:
            return jnp.zeros((2, *leaf.shape), leaf.dtype)
        drawn = jax.random.normal(own, (2, *leaf.shape), compute_dtype(leaf))
        inputs = tuple(range(1, leaf.ndim))
        sizes = jnp.sqrt(jnp.sum(jnp.square(drawn), inputs, keepdims=True))
        own_sizes = jnp.sqrt(jnp.sum(jnp.square(leaf.astype(drawn.dtype)), tuple(range(leaf.ndim - 1)), keepdims=True))
        return (drawn / sizes * own_sizes[None]).astype(leaf.dtype)

    return Plane(params, jax.tree.map(direction, params, keys))


def principal_plane(path: PyTree, center: Params) -> tuple[Plane, Array]:
    """The plane through ``center`` that is nearest to the points of a path, or of several paths.

    Of the matrix with the rows ``θ_t − center`` it takes the two first right singular vectors, which are orthonormal.

    Args:
        path: like ``center``, each leaf with an axis of T >= 2 in front: parameters at T times.
        center: a pytree of float arrays, mostly the end of the path.

    Returns:
        The plane, and ``[2]`` the shares of the two directions in the squared distances from the centre. That a plane
        explains most of a path says little: two components explain most of a random walk in many dimensions, too.

    Raises:
        ValueError: the trees differ, or there is a single point.

    Differs from the authors' code, where the mean of the rows is taken off before: there the plane is parallel to this
    one at best, and does not hold the path's end.

    References:
        Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018, section 7.
        Antognini and Sohl-Dickstein, "PCA of high dimensional random walks with comparison to neural network training",
        NeurIPS 2018.

    >>> plane, shares = principal_plane({"w": jnp.array([[3.0, 0.0, 4.0], [6.0, 0.0, 8.0]])}, {"w": jnp.zeros(3)})
    >>> bool(abs(abs(plane.directions["w"][0]) - jnp.array([0.6, 0.0, 0.8])).max() < 1e-5), shares.round(4).tolist()
    (True, [1.0, 0.0])
    """
    rows = _rows("path", path, center)
    if len(rows) < 2:
        raise ValueError(f"path: expected two points or more, got {len(rows)}")
    if rows.shape[1] < 2:
        raise ValueError("center: expected two parameters or more, got 1")
    _, sizes, directions = jnp.linalg.svd(rows, full_matrices=False)
    total = jnp.sum(jnp.square(sizes))
    shares = jnp.square(sizes[:2]) / jnp.where(total > 0, total, 1)
    return Plane(center, _unrows(directions[:2], center)), shares


def project(plane: Plane, path: PyTree) -> Array:
    """The coordinates of the points of the plane that are nearest to those of a path.

    They solve ``min ‖θ_t − center − a · d₁ − b · d₂‖``, also if the directions are not orthonormal.

    Args:
        plane: a :class:`Plane`.
        path: like its centre, each leaf with an axis of T in front.

    Returns:
        ``[T, 2]``.

    Raises:
        ValueError: the trees differ.

    >>> plane = Plane({"w": jnp.ones(3)}, {"w": jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])})
    >>> project(plane, {"w": jnp.array([[3.0, 2.0, 9.0]])}).round(4).tolist()
    [[1.0, 1.0]]
    """
    _check_plane(plane)
    directions = _flat(plane.directions)
    return jnp.linalg.solve(directions @ directions.T, directions @ _rows("path", path, plane.center).T).T


def share_in_plane(plane: Plane, path: PyTree) -> Array:
    """How much of a path lies in a plane: the share of its squared distances from the centre.

    Args:
        plane: a :class:`Plane`.
        path: like its centre, each leaf with an axis of T in front.

    Returns:
        A scalar from 0 to 1: of a path in the plane 1, of random directions in n dimensions about ``2 / n``.

    Raises:
        ValueError: the trees differ.

    >>> plane = Plane({"w": jnp.zeros(3)}, {"w": jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])})
    >>> round(float(share_in_plane(plane, {"w": jnp.array([[3.0, 0.0, 4.0]])})), 4)
    0.36
    """
    inside = project(plane, path) @ _flat(plane.directions)
    total = jnp.sum(jnp.square(_rows("path", path, plane.center)))
    return jnp.sum(jnp.square(inside)) / jnp.where(total > 0, total, 1)


def plane_losses(
    loss: Callable[[Params], Array], plane: Plane, x: ArrayLike, y: ArrayLike, *, batch_size: int = 16
) -> Array:
    """The loss at each point of a grid on a plane.

    Args:
        loss: ``params -> scalar``, in JAX; static.
        plane: a :class:`Plane`.
        x, y: ``[n]`` and ``[m]``: coordinates along its two directions.
        batch_size: static; points that are computed at a time.

    Returns:
        ``[m, n]``: rows are those of ``y``, as ``matplotlib``'s ``contour`` takes them.

    Raises:
        ValueError, TypeError: a bad argument.

    >>> plane = Plane({"w": jnp.zeros(2)}, {"w": jnp.eye(2)})
    >>> plane_losses(lambda params: params["w"][0] + 10 * params["w"][1], plane, [0.0, 1.0, 2.0], [0.0, 1.0]).tolist()
    [[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]
    """
    if not callable(loss):
        raise TypeError(f"loss: expected a function of the parameters, got {shown(loss)}")
    _check_plane(plane)
    check_positive_int("batch_size", batch_size)
    x, y = (jnp.asarray(plain_array(name, value)) for name, value in (("x", x), ("y", y)))
    for name, value in (("x", x), ("y", y)):
        if value.ndim != 1 or not value.size:
            raise ValueError(f"{name}: expected coordinates [n], got shape {list(value.shape)}")

    def at(point: Array) -> Array:
        def moved(center: Array, two: Array) -> Array:
            wide = compute_dtype(center)
            return (center.astype(wide) + jnp.tensordot(point.astype(wide), two.astype(wide), 1)).astype(center.dtype)

        value = jnp.asarray(loss(jax.tree.map(moved, plane.center, plane.directions)))
        if value.shape != ():
            raise ValueError(f"loss: expected a scalar, got shape {list(value.shape)}")
        return value

    points = jnp.stack(jnp.meshgrid(x, y), -1).reshape(-1, 2)
    return lax.map(at, points, batch_size=batch_size).reshape(len(y), len(x))


def _check_plane(plane: Any) -> None:
    if not isinstance(plane, Plane):
        raise TypeError(f"plane: expected one of random_plane or principal_plane, got {shown(plane)}")


def _rows(name: str, path: PyTree, center: Params) -> Array:
    """``θ_t − center`` as ``[T, parameters]``."""
    wanted, found = (sorted(leaf_path for leaf_path, _ in named_leaves(tree)) for tree in (center, path))
    if wanted != found:
        raise ValueError(f"{name}: expected the leaves of the centre, {wanted}, got {found}")
    lengths: set[int] = set()

    def difference(leaf_path: str, own: Any, points: Any) -> Array:
        points = jnp.asarray(points)
        if points.shape[1:] != jnp.shape(own) or points.ndim == 0:
            expected = ", ".join(map(str, ("T", *jnp.shape(own))))
            raise ValueError(f"{name}[{leaf_path}]: expected shape [{expected}], got {list(points.shape)}")
        lengths.add(len(points))
        return points - jnp.asarray(own)[None]

    differences = map_with_path(difference, center, path)
    if len(lengths) != 1:
        raise ValueError(f"{name}: expected leaves of one length, got {sorted(lengths)}")
    return _flat(differences)


def _flat(tree: PyTree) -> Array:
    """Leaves ``[T, ...]`` side by side as ``[T, parameters]``."""
    return jnp.concatenate(
        [leaf.astype(compute_dtype(leaf)).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)], 1
    )


def _unrows(rows: Array, like: Params) -> PyTree:
    leaves, structure = jax.tree.flatten(like)
    ends = [sum(jnp.size(leaf) for leaf in leaves[: index + 1]) for index in range(len(leaves) - 1)]
    parts = jnp.split(rows, ends, 1)
    shaped = [
        part.reshape(len(rows), *jnp.shape(leaf)).astype(jnp.result_type(leaf))
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, shaped)
