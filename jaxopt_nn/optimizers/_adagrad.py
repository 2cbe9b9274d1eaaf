"""AdaGrad: each parameter's rate falls with the sum of its squared gradients."""

from typing import Any, NamedTuple

import optax

from jaxopt_nn.optimizers._learning_rate import scale_by_learning_rate
from jaxopt_nn.optimizers._numbers import as_number, safe_rsqrt, to
from jaxopt_nn.optimizers._transform import map_leaves, moments_like, transform
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["AdagradState", "adagrad", "scale_by_adagrad"]


class AdagradState(NamedTuple):
    """State of :func:`scale_by_adagrad`.

    Attributes:
        sum_of_squares: like the parameters, at least float32: the initial value plus the sum of all squared gradients.
    """

    sum_of_squares: PyTree


def adagrad(
    learning_rate: ArrayLike | Schedule, initial_accumulator_value: ArrayLike = 0.1, eps: ArrayLike = 1e-7
) -> optax.GradientTransformationExtraArgs:
    """AdaGrad.

    ``a ← a + g²``, then ``θ ← θ - lr · g / √(a + ε)``; no step where ``g`` is 0, even if ``a`` and ``ε`` are.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        initial_accumulator_value: a₀ >= 0; may be traced.
        eps: ε >= 0, inside of the root; may be traced.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adagrad(1.0, initial_accumulator_value=0.0, eps=0.0)
        >>> updates, _ = optimizer.update(jnp.array([5.0, 0.0]), optimizer.init(jnp.zeros(2)))
        >>> [round(u, 6) + 0.0 for u in updates.tolist()]
        [-1.0, 0.0]

    Equal to ``optax.adagrad``, and to Keras's. Differs from ``torch.optim.Adagrad``, where a₀ is 0 and ε, 1e-10,
    outside.

    References:
        Duchi, Hazan and Singer, Adaptive subgradient methods, JMLR 2011, section 1.1.
    """
    return optax.chain(scale_by_adagrad(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate))


def scale_by_adagrad(initial_accumulator_value: ArrayLike = 0.1, eps: ArrayLike = 1e-7) -> optax.GradientTransformation:
    """Divides a gradient by the root of the sum of all its squares: :func:`adagrad` without the learning rate.

    Args:
        initial_accumulator_value: a₀ >= 0; may be traced.
        eps: ε >= 0, inside of the root; may be traced.

    Returns:
        The transform.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_adagrad(initial_accumulator_value=0.0)
        >>> round(float(transform.update(jnp.array(5.0), transform.init(jnp.array(0.0)))[0]), 4)
        1.0
    """
    initial = as_number("initial_accumulator_value", initial_accumulator_value)
    epsilon = as_number("eps", eps)

    def init(params: Params) -> AdagradState:
        return AdagradState(moments_like(params, initial))

    def update(updates: PyTree, state: AdagradState, params: Params | None = None) -> tuple[PyTree, AdagradState]:
        del params

        def leaf(g: Array, a: Array) -> tuple[Any, ...]:
            exact = g.astype(a.dtype)
            a = a + exact * exact
            return (exact * safe_rsqrt(a + to(a.dtype, epsilon))).astype(g.dtype), a

        updates, sum_of_squares = map_leaves(leaf, 2, updates, state.sum_of_squares)
        return updates, AdagradState(sum_of_squares)

    return transform(init, update)
