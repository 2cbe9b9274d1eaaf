"""AdaGrad: the learning rate of each number falls with the sum of its squared gradients."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_number, safe_divide, safe_rsqrt, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import Convention, check_convention, map_leaves, moments_like, transform
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.schedules import Schedule, constant
from jaxopt_nn.schedules._steps import check_schedule, rate_of
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["AdagradState", "adagrad", "scale_by_adagrad"]


class AdagradState(NamedTuple):
    """State of :func:`scale_by_adagrad`.

    Attributes:
        sum_of_squares: like the parameters, at least float32: the initial value plus the sum of all squared gradients.
    """

    sum_of_squares: PyTree


def adagrad(
    learning_rate: ArrayLike | Schedule,
    initial_accumulator_value: ArrayLike | None = None,
    eps: ArrayLike | None = None,
    *,
    lr_decay: ArrayLike | None = None,
    convention: Convention = "optax",
) -> optax.GradientTransformationExtraArgs:
    """AdaGrad.

    ``a ← a + g²``, then ``θ ← θ - lr · g / √(a + ε)``, or ``θ ← θ - lr · g / (√a + ε)`` with ``convention="torch"``;
    no step where ``g`` is 0, even if ``a`` and ``ε`` are 0 too.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        initial_accumulator_value: a₀ >= 0, may be traced; None for 0.1 (torch: 0).
        eps: ε >= 0, may be traced; None for 1e-7 (torch: 1e-10).
        lr_decay: PyTorch's decay δ >= 0 of the learning rate, may be traced: it is divided by ``1 + δ·t`` after ``t``
            updates; None (static) for none.
        convention: static; whose formula. "optax" and "keras" are the same one.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range, or the convention is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adagrad(1.0, initial_accumulator_value=0.0, eps=0.0)
        >>> updates, _ = optimizer.update(jnp.array([5.0, 0.0]), optimizer.init(jnp.zeros(2)))
        >>> [round(u, 6) + 0.0 for u in updates.tolist()]
        [-1.0, 0.0]

    Equal to ``optax.adagrad``, ``torch.optim.Adagrad`` and ``keras.optimizers.Adagrad``, by convention.

    References:
        Duchi, Hazan and Singer, Adaptive subgradient methods, JMLR 2011, section 1.1.
    """
    if lr_decay is not None:
        learning_rate = _decayed(learning_rate, lr_decay)
    return optax.chain(
        scale_by_adagrad(initial_accumulator_value, eps, convention=convention), scale_by_learning_rate(learning_rate)
    )


def scale_by_adagrad(
    initial_accumulator_value: ArrayLike | None = None,
    eps: ArrayLike | None = None,
    *,
    convention: Convention = "optax",
) -> optax.GradientTransformation:
    """Divides a gradient by the root of the sum of all its squares: :func:`adagrad` without the learning rate.

    Args:
        initial_accumulator_value, eps, convention: as in :func:`adagrad`.

    Returns:
        The transform.

    Raises:
        ValueError: as :func:`adagrad` does.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_adagrad(initial_accumulator_value=0.0)
        >>> round(float(transform.update(jnp.array(5.0), transform.init(jnp.array(0.0)))[0]), 4)
        1.0
    """
    check_convention(convention)
    start, small = (0.0, 1e-10) if convention == "torch" else (0.1, 1e-7)
    initial = as_number(
        "initial_accumulator_value", start if initial_accumulator_value is None else initial_accumulator_value
    )
    epsilon = as_number("eps", small if eps is None else eps)

    def init(params: Params) -> AdagradState:
        return AdagradState(moments_like(params, initial))

    def update(updates: PyTree, state: AdagradState, params: Params | None = None) -> tuple[PyTree, AdagradState]:
        del params

        def leaf(g: Array, a: Array) -> tuple[Any, ...]:
            exact, small = g.astype(a.dtype), cast(epsilon, a.dtype)
            a = a + exact * exact
            if convention == "torch":
                return safe_divide(exact, safe_sqrt(a) + small).astype(g.dtype), a
            return (exact * safe_rsqrt(a + small)).astype(g.dtype), a

        updates, sum_of_squares = map_leaves(leaf, 2, updates, state.sum_of_squares)
        return updates, AdagradState(sum_of_squares)

    return transform(init, update)


def _decayed(learning_rate: ArrayLike | Schedule, lr_decay: ArrayLike) -> Schedule:
    decay = as_number("lr_decay", lr_decay)
    if callable(learning_rate):
        check_schedule("learning_rate", learning_rate)
    rate = learning_rate if callable(learning_rate) else constant(as_number("learning_rate", learning_rate))

    def schedule(count: Any) -> Any:
        first = jnp.asarray(rate_of("learning_rate", rate, count))
        return first / (1.0 + cast(decay, first.dtype) * count)

    return schedule
