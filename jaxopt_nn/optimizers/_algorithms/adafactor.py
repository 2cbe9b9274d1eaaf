"""Adafactor: second moments of matrices kept as a row and a column, steps relative to the size of the parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast, compute_dtype, promote
from jaxopt_nn.optimizers._algorithms.sgd import MomentumState
from jaxopt_nn.optimizers._numerics.numbers import Number, as_decay, as_number, next_count, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import (
    check_match,
    check_real,
    map_leaves,
    moments_like,
    stateless,
    transform,
)
from jaxopt_nn.optimizers._transforms.decay import add_decayed_weights
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.optimizers._wrappers.second_weights import require_params
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.trees import Mask, kernels_only
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["AdafactorState", "FactoredMoment", "adafactor", "scale_by_factored_rms"]


class FactoredMoment(NamedTuple):
    """The second moments of a leaf with two large axes, ``row · column / mean(row)``. Both are at least float32.

    Attributes:
        row: the leaf's shape without its largest axis: the moving average of the squares' mean along that.
        column: the leaf's shape without its second largest axis, likewise.
    """

    row: Array
    column: Array


class AdafactorState(NamedTuple):
    """State of :func:`scale_by_factored_rms`.

    Attributes:
        count: int32 scalar, the number of updates done.
        nu: the tree of the parameters, with a :class:`FactoredMoment` for each leaf that has two large axes and,
            like the parameter and at least float32, the moving average of the squared gradients for any other.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    nu: PyTree


def adafactor(
    learning_rate: ArrayLike | Schedule,
    decay_exponent: ArrayLike = 0.8,
    eps: ArrayLike = 1e-30,
    clipping_threshold: ArrayLike | None = 1.0,
    min_scale: ArrayLike | None = 1e-3,
    momentum: ArrayLike | None = None,
    weight_decay: ArrayLike | None = None,
    *,
    min_size_to_factor: int = 128,
    mask: Mask = kernels_only,
) -> optax.GradientTransformationExtraArgs:
    """Adafactor: Adam's rescaling with far less memory, and steps relative to the size of each leaf.

    ``v ← β·v + (1-β)·(g² + ε)`` with ``1-β = t^-c`` at update t, ``u = g / √v``, ``u ← u / max(1, RMS(u)/d)``, then
    ``θ ← θ - lr · max(RMS(θ), s) · u``, leaf by leaf. For a leaf with two large axes only the means of v along
    each are stored: ``v ≈ row · column / mean(row)``. With momentum the steps are averaged,
    ``a ← μ·a + (1-μ)·step``. Weight decay subtracts ``λ·θ`` at the end, without the learning rate.

    Args:
        learning_rate: relative to the size of the parameters; scalar >= 0, may be traced; or a schedule. In the paper
            it is ``min(1e-2, 1/√t)``.
        decay_exponent: c >= 0; may be traced.
        eps: ε >= 0; may be traced.
        clipping_threshold: d > 0, may be traced; None (static) not to clip.
        min_scale: s >= 0, may be traced; None (static) for steps that are not relative to the parameters.
        momentum: μ, in [0, 1), may be traced; None (static) for none, and no state.
        weight_decay: λ >= 0, may be traced; None (static) for none.
        min_size_to_factor: static; a leaf is factored if two of its axes are at least this long.
        mask: static; the leaves that decay, see :mod:`jaxopt_nn.trees`.

    Returns:
        The optimizer. Its ``update`` needs ``params``.

    Raises:
        ValueError: a number is out of its range; at ``init``, the mask selects no leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adafactor(0.1)
        >>> params = jnp.array([3.0, -4.0])
        >>> updates, _ = optimizer.update(jnp.array([2.0, -7.0]), optimizer.init(params), params)
        >>> [round(u, 4) for u in updates.tolist()]  # 0.1 · √12.5 · sign(g)
        [-0.3536, 0.3536]

    Equal to ``optax.adafactor``, where each leaf decays (``trees.every_leaf``); there β is rounded to float32, and
    derivatives at a zero gradient are NaN. ``torch.optim.Adafactor`` and Keras's cap lr at ``1/√t`` and factor the last
    two axes of any leaf; torch's decay is ``lr·λ·θ``.

    References:
        Shazeer and Stern, Adafactor, ICML 2018, algorithms 4 and 5.
    """
    links: list[optax.GradientTransformation] = [
        scale_by_factored_rms(decay_exponent, eps, min_size_to_factor=min_size_to_factor)
    ]
    if clipping_threshold is not None:
        links.append(_clip_by_rms(as_number("clipping_threshold", clipping_threshold, open_low=True)))
    links.append(scale_by_learning_rate(learning_rate))
    if min_scale is not None:
        links.append(_scale_by_size(as_number("min_scale", min_scale)))
    if momentum is not None:
        links.append(_average(momentum))
    if weight_decay is not None:
        links += [optax.scale(-1.0), add_decayed_weights(weight_decay, mask=mask), optax.scale(-1.0)]
    return optax.chain(*links)


def scale_by_factored_rms(
    decay_exponent: ArrayLike = 0.8, eps: ArrayLike = 1e-30, *, min_size_to_factor: int = 128
) -> optax.GradientTransformation:
    """Divides a gradient by the root of its second moments. Large matrices store only row and column means.

    Args:
        decay_exponent: c >= 0; may be traced.
        eps: ε >= 0; may be traced.
        min_size_to_factor: static; a leaf is factored if two of its axes are at least this long.

    Returns:
        The transform: :func:`adafactor` up to ``u = g / √v``.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_factored_rms(min_size_to_factor=2)
        >>> state = transform.init(jnp.zeros((2, 3)))
        >>> state.nu.row.shape, state.nu.column.shape
        ((2,), (3,))
        >>> gradients = jnp.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])  # its squares are a row times a column
        >>> updates, _ = transform.update(gradients, state)
        >>> [round(u, 4) for u in updates[1].tolist()]
        [1.0, 1.0, 1.0]
    """
    exponent, epsilon = as_number("decay_exponent", decay_exponent), as_number("eps", eps)

    def init(params: Params) -> AdafactorState:
        def leaf(moment: Array) -> Any:
            if sum(size >= min_size_to_factor for size in moment.shape) < 2:
                return moment
            second, first = _large_axes_of(moment.shape)
            # Sums of zeros, so that they have the shardings of the means to come, on any mesh.
            return FactoredMoment(jnp.sum(moment, axis=first), jnp.sum(moment, axis=second))

        return AdafactorState(jnp.zeros((), jnp.int32), jax.tree.map(leaf, moments_like(params)))

    def update(updates: PyTree, state: AdafactorState, params: Params | None = None) -> tuple[PyTree, AdafactorState]:
        if params is not None:
            check_match(updates, params)
        check_real("updates", updates)
        count = next_count(state.count)

        def leaf(g: Array, v: Any) -> tuple[Array, Any]:
            dtype = v.row.dtype if isinstance(v, FactoredMoment) else v.dtype
            exact, log_count = g.astype(dtype), jnp.log(count.astype(dtype))
            # 1 - β and β = 1 - t^-c, neither of them with a cancellation
            log_share = -cast(exponent, dtype) * log_count
            share, beta = jnp.exp(log_share), -jnp.expm1(log_share)
            square = exact * exact + cast(epsilon, dtype)
            if not isinstance(v, FactoredMoment):
                v = beta * v + share * square
                return _over_root(exact, v).astype(g.dtype), v
            second, first = _large_axes_of(g.shape)
            v = FactoredMoment(
                beta * v.row + share * jnp.mean(square, axis=first),
                beta * v.column + share * jnp.mean(square, axis=second),
            )
            row, column = jnp.expand_dims(v.row, first), jnp.expand_dims(v.column, second)
            mean = jnp.mean(row, axis=second, keepdims=True)
            scaled = _over_root(_over_root(exact, jnp.broadcast_to(row, g.shape)), jnp.broadcast_to(column, g.shape))
            return (scaled * safe_sqrt(mean)).astype(g.dtype), v

        leaves, treedef = jax.tree.flatten(updates)
        results = [leaf(jnp.asarray(g), v) for g, v in zip(leaves, treedef.flatten_up_to(state.nu), strict=True)]
        updates, nu = (treedef.unflatten([result[i] for result in results]) for i in range(2))
        return updates, AdafactorState(count, nu)

    return transform(init, update)


def _large_axes_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """The second largest and the largest axis; of two equal axes, the later is the larger one."""
    *_, second, first = sorted(range(len(shape)), key=lambda axis: shape[axis])
    return second, first


@jax.custom_jvp
def _over_root(g: Array, v: Array) -> Array:
    """``g / √v``, and 0 where v is 0. Where g is 0 the derivatives are finite, even if those of ``1/√v`` are not."""
    return g * jnp.where(v == 0, 0.0, jax.lax.rsqrt(jnp.where(v == 0, 1.0, v)))


@_over_root.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (g, v), (g_dot, v_dot) = primals, tangents
    result = _over_root(g, v)
    return result, _over_root(g_dot, v) - 0.5 * result * (v_dot / jnp.where(v == 0, 1.0, v))


def _root_mean_square(x: Array) -> Array:
    return safe_sqrt(jnp.sum(x * x) / max(x.size, 1))


def _clip_by_rms(threshold: Number) -> optax.GradientTransformation:
    """Divides each leaf by its root mean square over the threshold, if this is more than 1 and finite."""

    def leaf(u: Any) -> Array:
        u = jnp.asarray(u)
        exact = u.astype(compute_dtype(u))
        excess = _root_mean_square(exact) / cast(threshold, exact.dtype)
        return (exact / jnp.where(jnp.isfinite(excess), jnp.maximum(excess, 1.0), 1.0)).astype(u.dtype)

    return stateless(lambda updates: jax.tree.map(leaf, updates))


def _scale_by_size(least: Number) -> optax.GradientTransformation:
    """Multiplies each leaf by the root mean square of its parameters, or by ``least`` if that is more."""

    def leaf(u: Any, param: Any) -> tuple[Array]:
        u, dtype = jnp.asarray(u), promote(compute_dtype(u), compute_dtype(param))
        size = jnp.maximum(_root_mean_square(jnp.asarray(param, dtype)), cast(least, dtype))
        return ((size * u.astype(dtype)).astype(u.dtype),)

    def update(
        updates: PyTree, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[PyTree, optax.EmptyState]:
        return map_leaves(leaf, 1, updates, require_params("a relative step", params))[0], state

    return transform(lambda params: optax.EmptyState(), update)


def _average(momentum: ArrayLike) -> optax.GradientTransformation:
    """The moving average of updates, from 0 and not debiased."""
    mu = as_decay("momentum", momentum)

    def leaf(u: Array, average: Array) -> tuple[Any, ...]:
        dtype = average.dtype
        average = cast(mu.rate, dtype) * average + cast(mu.complement, dtype) * u.astype(dtype)
        return average.astype(u.dtype), average

    def update(updates: PyTree, state: MomentumState, params: Params | None = None) -> tuple[PyTree, MomentumState]:
        del params
        updates, average = map_leaves(leaf, 2, updates, state.velocity)
        return updates, MomentumState(average)

    return transform(lambda params: MomentumState(moments_like(params)), update)
