"""Small leaves as one vector, for fewer kernels and fewer buffers, with the same results."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_nn.optimizers._numerics.transform import transform_extra
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer, translate_extra
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, Params, PyTree

__all__ = ["flatten"]


def flatten(optimizer: optax.GradientTransformation, *, at_most: int = 4096) -> optax.GradientTransformationExtraArgs:
    """The same optimizer, which sees all small leaves of a dtype as one vector.

    An optimizer that treats each number by itself (SGD, Adam and their variants) computes the same. A program with
    1,000 small leaves has 3,000 kernels, and a call passes 8,000 buffers, which takes longer than the arithmetic. With
    each moment of all leaves in one vector, both are a third. Larger leaves are not joined, which would cost a copy and
    gain nothing. Neither are leaves whose type says that they are sharded.

    The optimizer inside sees a dictionary: the large leaves by their paths, and ``"flattened float32"`` (or another
    dtype) for the vector. So transforms that look at paths or leaves belong outside: masks of weight decay, trust
    ratios, clipping by a leaf's norm, Muon, Adafactor. The norm of the whole gradient, ``value_fn`` and ``grad_fn``
    (SAM, L-BFGS) are the same inside.

    Args:
        optimizer: any optimizer of the optax protocol that treats each number by itself.
        at_most: static, >= 0; the largest size, in numbers, of a leaf that counts as small. 0 joins none.

    Returns:
        The optimizer.

    Raises:
        ValueError: ``at_most`` is negative.
        TypeError: ``optimizer`` is none, or ``at_most`` no integer.

    Example:
        >>> from jaxopt_nn import optimizers
        >>> optimizer = optax.chain(
        ...     flatten(optimizers.scale_by_adam()),
        ...     optimizers.add_decayed_weights(1e-2),  # by path: outside
        ...     optimizers.scale_by_learning_rate(1e-3),
        ... )
        >>> dense = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
        >>> params = {"dense": dense, "head": {"kernel": jnp.ones((99, 99))}}
        >>> {name: moment.shape for name, moment in optimizer.init(params)[0].mu.items()}
        {'flattened float32': (8,), 'head/kernel': (99, 99)}

    Differs from ``optax.flatten`` in that large leaves and other dtypes are not joined with the rest.
    """
    if isinstance(at_most, bool) or not isinstance(at_most, (int, np.integer)):
        raise TypeError(f"at_most: expected an int, got {at_most!r}")
    if at_most < 0:
        raise ValueError(f"at_most: expected 0 or more, got {at_most}")
    inner = as_optimizer("optimizer", optimizer)

    def init(params: Params) -> Any:
        return inner.init(_flatten_small(params, at_most)[0])

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        flat, unflatten = _flatten_small(updates, at_most)
        inner_params, outward = (None, unflatten) if params is None else _flatten_small(params, at_most)
        inner_extra = translate_extra(extra, lambda tree: _flatten_small(tree, at_most)[0], outward)
        flat_updates: Any
        flat_updates, state = inner.update(flat, state, inner_params, **inner_extra)
        return unflatten(flat_updates), state

    return transform_extra(init, update)


def _flatten_small(tree: PyTree, at_most: int) -> tuple[dict[str, Array], Callable[[dict[str, Array]], PyTree]]:
    """The tree as the optimizer inside sees it, and a function that undoes this."""
    leaves = [(path, jnp.asarray(leaf)) for path, leaf in named_leaves(tree)]
    is_small = [leaf.size <= at_most and not _is_sharded(leaf) for _, leaf in leaves]
    pairs = zip(is_small, leaves, strict=True)
    names = [f"flattened {leaf.dtype.name}" if small else path for small, (path, leaf) in pairs]
    parts: dict[str, list[Array]] = {}
    for name, small, (_, leaf) in zip(names, is_small, leaves, strict=True):
        parts.setdefault(name, []).append(leaf.ravel() if small else leaf)
    flat = {name: arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays) for name, arrays in parts.items()}

    def unflatten(flat_updates: dict[str, Array]) -> PyTree:
        start = dict.fromkeys(flat_updates, 0)
        leaves_out: list[Array] = []
        for name, small, (_, leaf) in zip(names, is_small, leaves, strict=True):
            if not small:
                leaves_out.append(flat_updates[name])
                continue
            end = start[name] + math.prod(leaf.shape)
            leaves_out.append(jax.lax.slice(flat_updates[name], (start[name],), (end,)).reshape(leaf.shape))
            start[name] = end
        return jax.tree.structure(tree).unflatten(leaves_out)

    return flat, unflatten


def _is_sharded(leaf: Array) -> bool:
    """Whether its type says so, as on a mesh of explicit axes. Such a leaf cannot be joined with others."""
    return any(part is not None for part in jax.typeof(leaf).sharding.spec)
