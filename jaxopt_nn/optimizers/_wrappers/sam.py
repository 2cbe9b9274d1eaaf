"""Sharpness-aware minimization: any optimizer, with the gradient at a point uphill."""

from functools import reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._arguments import check_bool
from jaxopt_nn._dtypes import cast, compute_dtype, promote
from jaxopt_nn.optimizers._numerics.numbers import as_number, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import check_match, check_real, transform_extra
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer
from jaxopt_nn.optimizers._wrappers.second_weights import gradient_fn, require_params
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["sam"]


def sam(
    optimizer: optax.GradientTransformation, rho: ArrayLike = 0.05, *, adaptive: bool = False
) -> optax.GradientTransformationExtraArgs:
    """SAM: takes the gradient at the point within a radius of ρ where the loss is largest, to first order.

    ``θ ← θ + u(∇f(θ + e))`` with ``e = ρ · g / ‖g‖``, g the gradient at θ, and u the update of the optimizer inside.
    Adaptive: ``e = ρ · θ²·g / ‖θ·g‖``, which does not depend on the scale of the weights. Norms are over all leaves; e
    is 0 if the norm is 0.

    Args:
        optimizer: any optimizer of the optax protocol.
        rho: ρ >= 0; may be traced. The papers take 0.05, and ten times as much or more if adaptive.
        adaptive: static; whether the radius is relative to each weight.

    Returns:
        The optimizer. Its state is that of the optimizer inside. Its ``update`` needs ``params`` and
        ``grad_fn(params) -> gradients``, the gradient of the loss on the batch of the step, which
        ``training.make_step`` passes. A step costs two gradients.

    Raises:
        ValueError: ρ is out of its range; at ``update``, no params or no ``grad_fn`` came.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = sam(optimizers.sgd(0.5), rho=1.0)
        >>> gradient = jax.grad(lambda params: params**2)
        >>> params = jnp.array(3.0)
        >>> updates, _ = optimizer.update(gradient(params), optimizer.init(params), params, grad_fn=gradient)
        >>> float(updates)  # -0.5 · 2 · (3 + 1)
        -4.0

    Equal to ``optax.contrib.sam(optimizer, chain(normalize(), sgd(ρ)), opaque_mode=True)``, whose perturbation is NaN
    at a zero gradient.

    References:
        Foret et al., Sharpness-aware minimization, ICLR 2021, algorithm 1.
        Kwon et al., ASAM, ICML 2021, algorithm 1 (adaptive, without η).
    """
    check_bool("adaptive", adaptive)
    inner, radius = as_optimizer("optimizer", optimizer), as_number("rho", rho)

    def uphill(params: Params, gradients: PyTree) -> Params:
        leaves, treedef = jax.tree.flatten(params)
        if not leaves:
            return params
        dtype = promote(*map(compute_dtype, leaves))
        weights = [jnp.asarray(leaf, dtype) for leaf in leaves]
        directions = [jnp.asarray(g, dtype) for g in jax.tree.leaves(gradients)]
        if adaptive:
            directions = [w * g for w, g in zip(weights, directions, strict=True)]
        norm = safe_sqrt(reduce(add, [jnp.sum(g * g) for g in directions]))
        factor = cast(radius, dtype) / jnp.where(norm == 0, 1.0, norm)
        steps = [factor * (w * g if adaptive else g) for w, g in zip(weights, directions, strict=True)]
        perturbed = [(w + e).astype(jnp.result_type(leaf)) for leaf, w, e in zip(leaves, weights, steps, strict=True)]
        return treedef.unflatten(perturbed)

    def update(
        updates: PyTree, state: Any, params: Params | None = None, *, grad_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, Any]:
        params = require_params("sharpness-aware minimization", params)
        gradients_at = gradient_fn("sharpness-aware minimization", grad_fn, params)
        check_match(updates, params)
        check_real("updates", updates)
        gradients = gradients_at(uphill(params, updates))
        check_match(gradients, params)
        gradients = jax.tree.map(_cast_like, gradients, updates)
        return inner.update(gradients, state, params, grad_fn=grad_fn, **extra)

    return transform_extra(inner.init, update)


def _cast_like(gradient: Any, other: Any) -> Array:
    return jnp.asarray(gradient).astype(jnp.result_type(other))
