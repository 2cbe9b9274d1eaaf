"""Losses of distances between embeddings, for examples that are pairs or triples of inputs."""

import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_each, check_number, concrete_array, plain_array
from jaxopt_nn.losses._arrays import floats, reals
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["contrastive", "triplet"]


def contrastive(outputs: ArrayLike, targets: ArrayLike, *, margin: ArrayLike = 1.0) -> Array:
    """Pulls the embeddings of equal inputs together, and pushes others apart up to a margin.

    With d = ‖a - b‖: ℓ = t·d² + (1 - t)·max(0, m - d)².

    Args:
        outputs: ``[N, 2, D]``: the two embeddings a and b of a pair.
        targets: ``[N]``: 1 for equals, 0 for others.
        margin: m > 0; may be traced.

    Returns:
        ``[N]``.

    Raises:
        TypeError: ``outputs`` are not floats, or targets not real.
        ValueError: shapes that do not match, the margin is not positive, or a concrete target is neither 0 nor 1.

    References:
        Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an invariant mapping", 2006, equation 4, twice.

    >>> pairs = jnp.array([[[0.0], [0.5]], [[0.0], [0.5]]])
    >>> contrastive(pairs, jnp.array([1, 0])).tolist()
    [0.25, 0.25]
    """
    check_number("margin", margin, 0.0, open_low=True)
    o = floats("outputs", outputs)
    _check_embeddings(o, 2)
    if np.shape(targets) != o.shape[:1]:
        raise ValueError(f"targets: expected one a pair, {list(o.shape[:1])}, got {list(np.shape(targets))}")
    known = concrete_array(plain_array("targets", targets))
    if known is not None:
        check_each("targets", known, np.isin(known, (0, 1)), "0 or 1")
    t = reals("targets", targets, o.dtype)
    square = jnp.sum(jnp.square(o[:, 0] - o[:, 1]), -1)
    apart = jnp.square(jnp.maximum(0, jnp.asarray(margin, o.dtype) - _root(square)))
    return jnp.where((t == 0) | (t == 1), t * square + (1 - t) * apart, jnp.nan)


def triplet(outputs: ArrayLike, targets: ArrayLike | None = None, *, margin: ArrayLike = 1.0) -> Array:
    """Makes an anchor nearer to an equal input than to another one, by a margin: ℓ = max(0, m + ‖a - p‖ - ‖a - n‖).

    Args:
        outputs: ``[N, 3, D]``: the embeddings of an anchor a, of an equal p, and of another n.
        targets: ignored; the order in a triple says which is which.
        margin: m > 0; may be traced.

    Returns:
        ``[N]``.

    Raises:
        TypeError: ``outputs`` are not floats.
        ValueError: ``outputs`` of another shape, or the margin is not positive.

    References:
        Schroff, Kalenichenko and Philbin, "FaceNet", 2015 (there with squared distances).

    >>> triplet(jnp.array([[[0.0], [1.0], [1.5]]])).tolist()
    [0.5]
    """
    del targets
    check_number("margin", margin, 0.0, open_low=True)
    o = floats("outputs", outputs)
    _check_embeddings(o, 3)
    near, far = (_root(jnp.sum(jnp.square(o[:, 0] - o[:, index]), -1)) for index in (1, 2))
    return jnp.maximum(0, jnp.asarray(margin, o.dtype) + near - far)


def _check_embeddings(outputs: Array, number: int) -> None:
    if outputs.ndim != 3 or outputs.shape[1] != number:
        raise ValueError(
            f"outputs: expected {number} embeddings an example, [N, {number}, D], got {list(outputs.shape)}"
        )


def _root(square: Array) -> Array:
    """√x, with derivative 0 at 0."""
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
