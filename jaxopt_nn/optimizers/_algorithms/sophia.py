"""Sophia: momentum over a moving estimate of the Hessian's diagonal, clipped."""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from jaxopt_nn._arguments import check_key
from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.numbers import as_decay, as_number, next_count
from jaxopt_nn.optimizers._numerics.transform import map_leaves, moments_like, transform_extra
from jaxopt_nn.optimizers._transforms.decay import add_decayed_weights
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.optimizers._wrappers.second_weights import gradient_fn, require_params
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.trees import Mask, kernels_only
from jaxopt_nn.types import Array, ArrayLike, Key, Params, PyTree

__all__ = ["SophiaState", "scale_by_sophia", "sophia"]


class SophiaState(NamedTuple):
    """State of :func:`scale_by_sophia`.

    Attributes:
        count: int32 scalar, the number of updates done.
        mu: like the parameters, at least float32: the moving average of the gradients, m.
        nu: like the parameters, at least float32: the moving average of the estimates of the diagonal, h.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: PyTree
    nu: PyTree


def sophia(
    learning_rate: ArrayLike | Schedule,
    b1: ArrayLike = 0.96,
    b2: ArrayLike = 0.99,
    gamma: ArrayLike = 0.01,
    eps: ArrayLike = 1e-12,
    weight_decay: ArrayLike | None = None,
    *,
    key: Key,
    update_interval: ArrayLike = 10,
    mask: Mask = kernels_only,
) -> optax.GradientTransformationExtraArgs:
    """Sophia-H: clipped Newton steps in each coordinate, where the loss is convex.

    ``m ← β₁·m + (1-β₁)·g``; at the first and then every k-th update ``h ← β₂·h + (1-β₂)·w⊙∇²f·w`` with normal w; then
    ``θ ← θ - lr · (clip(m / max(γ·h, ε), ±1) + λ·θ)``.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        gamma: γ > 0; may be traced. Tune it so that 10 to 50 % of the coordinates are not clipped.
        eps: ε > 0; may be traced.
        weight_decay: λ >= 0, may be traced; None (static) for none.
        key: a PRNG key for the random vectors w; update t uses ``fold_in(key, t)``.
        update_interval: k, an integer >= 1; may be traced.
        mask: static; the leaves that decay, see :mod:`jaxopt_nn.trees`.

    Returns:
        The optimizer. Its ``update`` needs ``params`` and ``grad_fn(params) -> gradients``, the gradient of the loss on
        the batch of the step, which ``training.make_step`` passes; it is differentiated along w every k-th time.

    Raises:
        ValueError: a number is out of its range; at ``init``, the mask selects no leaf; at ``update``, no params or no
            ``grad_fn`` came.
        TypeError: ``key`` is no PRNG key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> optimizer = sophia(0.5, key=jax.random.key(0))
        >>> gradient = jax.grad(lambda params: 2.0 * params**2)
        >>> params = jnp.array(3.0)
        >>> updates, _ = optimizer.update(gradient(params), optimizer.init(params), params, grad_fn=gradient)
        >>> float(updates)  # a long step, clipped
        -0.5

    Differs from ``optax.contrib.sophia``, which corrects the bias of m (the paper does not), uses h from before the
    update, draws signs for w from one fixed key, and needs the loss itself.

    References:
        Liu et al., Sophia, ICLR 2024, algorithms 1 (Hutchinson's estimator) and 3.
    """
    scale = scale_by_sophia(b1, b2, gamma, eps, key=key, update_interval=update_interval)
    decays = [] if weight_decay is None else [add_decayed_weights(weight_decay, mask=mask)]
    return optax.chain(scale, *decays, scale_by_learning_rate(learning_rate))


def scale_by_sophia(
    b1: ArrayLike = 0.96,
    b2: ArrayLike = 0.99,
    gamma: ArrayLike = 0.01,
    eps: ArrayLike = 1e-12,
    *,
    key: Key,
    update_interval: ArrayLike = 10,
) -> optax.GradientTransformationExtraArgs:
    """Replaces a gradient by ``clip(m / max(γ·h, ε), ±1)``: :func:`sophia` without the learning rate.

    Args:
        b1: β₁, in [0, 1); may be traced.
        b2: β₂, in [0, 1); may be traced.
        gamma: γ > 0; may be traced.
        eps: ε > 0; may be traced.
        key: a PRNG key for the random vectors.
        update_interval: k, an integer >= 1; may be traced.

    Returns:
        The transform. Its ``update`` needs ``params`` and ``grad_fn``. A mean that is not finite is not clipped.

    Raises:
        ValueError: a number is out of its range; at ``update``, no params or no ``grad_fn`` came.
        TypeError: ``key`` is no PRNG key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> transform = scale_by_sophia(b1=0.0, b2=0.0, gamma=100.0, key=jax.random.key(0))
        >>> gradient = jax.grad(lambda params: jnp.sum(params**2))
        >>> params = jnp.array([1.0, -2.0])
        >>> _, state = transform.update(gradient(params), transform.init(params), params, grad_fn=gradient)
        >>> bool((state.nu > 0).all())  # 2·w²
        True
    """
    check_key("key", key)
    first, second = as_decay("b1", b1), as_decay("b2", b2)
    factor, epsilon = as_number("gamma", gamma, open_low=True), as_number("eps", eps, open_low=True)
    interval = as_number("update_interval", update_interval, 1.0, whole=True)

    def init(params: Params) -> SophiaState:
        return SophiaState(jnp.zeros((), jnp.int32), moments_like(params), moments_like(params))

    def update(
        updates: PyTree, state: SophiaState, params: Params | None = None, *, grad_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, SophiaState]:
        del extra
        params = require_params("Sophia", params)
        gradients_at = gradient_fn("Sophia", grad_fn, params)

        def estimated(nu: PyTree) -> PyTree:
            leaves, treedef = jax.tree.flatten(params)
            keys = jax.random.split(jax.random.fold_in(key, state.count), max(len(leaves), 1))
            probes = [
                jax.random.normal(k, jnp.shape(leaf), jnp.result_type(leaf))
                for k, leaf in zip(keys, leaves, strict=False)
            ]
            probe = treedef.unflatten(probes)
            product = jax.jvp(gradients_at, (params,), (probe,))[1]

            def average(w: Array, hw: Array, h: Array) -> tuple[Any, ...]:
                estimate = w.astype(h.dtype) * hw.astype(h.dtype)
                return (cast(second.rate, h.dtype) * h + cast(second.complement, h.dtype) * estimate,)

            return map_leaves(average, 1, probe, product, nu)[0]

        due = state.count % cast(interval, jnp.int32) == 0
        if isinstance(due, jax.core.Tracer):
            nu = jax.lax.cond(due, estimated, lambda h: h, state.nu)
        else:  # Without jit, a cond would compile a new gradient function at each step.
            nu = estimated(state.nu) if due else state.nu

        def leaf(g: Array, m: Array, h: Array) -> tuple[Any, ...]:
            dtype = m.dtype
            m = cast(first.rate, dtype) * m + cast(first.complement, dtype) * g.astype(dtype)
            step = m / jnp.maximum(cast(factor, dtype) * h, cast(epsilon, dtype))
            # Values that are not finite must show; a clip would hide them.
            return jnp.where(jnp.isfinite(m), jnp.clip(step, -1.0, 1.0), m).astype(g.dtype), m

        updates, mu = map_leaves(leaf, 2, updates, state.mu, nu)
        return updates, SophiaState(next_count(state.count), mu, nu)

    return transform_extra(init, update)
