"""Lion: the sign of an interpolated momentum."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_decay
from jaxopt_nn.optimizers._numerics.transform import map_leaves, moments_like, transform
from jaxopt_nn.optimizers._transforms.decay import add_decayed_weights
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.trees import Mask, kernels_only
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["LionState", "lion", "scale_by_lion"]


class LionState(NamedTuple):
    """State of :func:`scale_by_lion`.

    Attributes:
        mu: like the parameters, at least float32: the moving average of the gradients, m.
    """

    mu: PyTree


def lion(
    learning_rate: ArrayLike | Schedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    weight_decay: ArrayLike | None = 1e-3,
    *,
    mask: Mask = kernels_only,
) -> optax.GradientTransformationExtraArgs:
    """Lion, with decoupled weight decay.

    ``θ ← θ - lr · (sign(β₁·m + (1-β₁)·g) + λ·θ)``, then ``m ← β₂·m + (1-β₂)·g``.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule. Three to ten times smaller than Adam's.
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        weight_decay: λ >= 0, may be traced; None (static) for none.
        mask: static; the leaves that decay, see :mod:`jaxopt_nn.trees`.

    Returns:
        The optimizer. Its ``update`` needs ``params`` if there is weight decay.

    Raises:
        ValueError: a number is out of its range; at ``init``, the mask selects no leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = lion(0.5, weight_decay=None)
        >>> updates, _ = optimizer.update(jnp.array([3.0, -1e-3, 0.0]), optimizer.init(jnp.zeros(3)))
        >>> [u + 0.0 for u in updates.tolist()]
        [-0.5, 0.5, 0.0]

    Differs from ``optax.lion`` in the default mask, there every leaf (``trees.every_leaf``), and from
    ``keras.optimizers.Lion`` in the default decay, there none; from both in that an infinite gradient makes a step
    that is not finite. PyTorch has no Lion.

    References:
        Chen et al., Symbolic discovery of optimization algorithms, 2023, algorithm 2.
    """
    transforms = [scale_by_lion(b1, b2), scale_by_learning_rate(learning_rate)]
    if weight_decay is not None:
        transforms.insert(1, add_decayed_weights(weight_decay, mask=mask))
    return optax.chain(*transforms)


def scale_by_lion(b1: ArrayLike = 0.9, b2: ArrayLike = 0.99) -> optax.GradientTransformation:
    """Replaces a gradient by ``sign(β₁·m + (1-β₁)·g)``: :func:`lion` without learning rate and decay.

    Args:
        b1: β₁, in [0, 1); may be traced. The sign is flat, so its derivatives by β₁ and β₂ are 0.
        b2: β₂, in [0, 1); may be traced.

    Returns:
        The transform.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_lion()
        >>> float(transform.update(jnp.array(-7.0), transform.init(jnp.array(0.0)))[0])
        -1.0
    """
    first, second = as_decay("b1", b1), as_decay("b2", b2)

    def init(params: Params) -> LionState:
        return LionState(moments_like(params))

    def update(updates: PyTree, state: LionState, params: Params | None = None) -> tuple[PyTree, LionState]:
        del params

        def leaf(g: Array, m: Array) -> tuple[Any, ...]:
            dtype, exact = m.dtype, g.astype(m.dtype)
            mixed = cast(first.rate, dtype) * m + cast(first.complement, dtype) * exact
            m = cast(second.rate, dtype) * m + cast(second.complement, dtype) * exact
            # An infinite gradient must show in the update; its sign would hide it.
            return jnp.where(jnp.isfinite(mixed), jnp.sign(mixed), mixed).astype(g.dtype), m

        updates, mu = map_leaves(leaf, 2, updates, state.mu)
        return updates, LionState(mu)

    return transform(init, update)
