"""Parameter groups: an optimizer, or a factor of the learning rate, for each part of a model."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn.optimizers._numbers import Number, as_number, to
from jaxopt_nn.optimizers._transform import check_real, stateless, wide
from jaxopt_nn.trees import named_leaves, select
from jaxopt_nn.types import Array, ArrayLike, PyTree

__all__ = ["parameter_groups", "scale_by_depth", "scale_by_path"]


def parameter_groups(
    groups: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """An optimizer of its own for each group of leaves.

    Args:
        groups: pattern of paths to optimizer (see :mod:`jaxopt_nn.trees`). A leaf belongs to the first pattern that
            matches it; end with ``"*"`` for all the others.

    Returns:
        The optimizer, an ``optax.partition`` whose labels are the patterns.

    Raises:
        ValueError: at ``init``, a leaf belongs to no group, or a group has no leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = parameter_groups({"head/*": optimizers.sgd(1.0), "*": optimizers.sgd(0.1)})
        >>> params = {"body": {"kernel": jnp.ones(())}, "head": {"kernel": jnp.ones(())}}
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> round(float(updates["body"]["kernel"]), 4), float(updates["head"]["kernel"])
        (-0.1, -1.0)
    """
    if not groups:
        raise ValueError("groups: expected at least one, got none")
    transforms: dict[Hashable, optax.GradientTransformation] = {**groups}
    return optax.partition(transforms, lambda params: _label("groups", tuple(groups), params))


def scale_by_path(factors: Mapping[str, ArrayLike]) -> optax.GradientTransformation:
    """Multiplies the updates of some leaves: at the end of a chain, their own learning rates.

    ``u ← factor · u`` for the leaves that belong to a pattern; the others pass.

    Args:
        factors: pattern of paths to factor, a scalar >= 0 that may be traced. A leaf belongs to the first pattern that
            matches it.

    Returns:
        The transform, stateless.

    Raises:
        ValueError: a factor is negative or not finite; at ``update``, a pattern has no leaf.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from jaxopt_nn import optimizers
        >>> optimizer = optax.chain(optimizers.sgd(1.0), scale_by_path({"body/*": 0.25}))
        >>> params = {"body": {"kernel": jnp.ones(())}, "head": {"kernel": jnp.ones(())}}
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> float(updates["body"]["kernel"]), float(updates["head"]["kernel"])
        (-0.25, -1.0)
    """
    return _scale("factors", {name: as_number(f"factors[{name}]", factor) for name, factor in factors.items()})


def scale_by_depth(patterns: Sequence[str], decay: ArrayLike) -> optax.GradientTransformation:
    """Layer-wise learning rates: they fall by ``decay`` from each group of layers to the one below it.

    ``u ← decay^(L - 1 - l) · u`` for the leaves that match pattern l of L, first layers first: the last group learns at
    the full rate. Put it at the end of a chain.

    Args:
        patterns: static; patterns of paths, from the input to the output.
        decay: in [0, 1]; may be traced.

    Returns:
        The transform, stateless.

    Raises:
        ValueError: ``decay`` is out of its range, or a pattern stands there twice; at ``update``, one has no leaf.
        TypeError: ``patterns`` is one string.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_depth(["embed", "dense_*", "head"], 0.5)
        >>> updates = {"embed": jnp.ones(()), "dense_0": jnp.ones(()), "head": jnp.ones(())}
        >>> transform.update(updates, transform.init(updates))[0]
        {'dense_0': Array(0.5, dtype=float32), 'embed': Array(0.25, dtype=float32), 'head': Array(1., dtype=float32)}

    References:
        Howard and Ruder, Universal language model fine-tuning, 2018, section 3.2 (discriminative fine-tuning).
    """
    rate = as_number("decay", decay, 0.0, 1.0)
    if isinstance(patterns, str):
        raise TypeError(f"patterns: expected a sequence of patterns, got the string {patterns!r}")
    if len(set(patterns)) < len(patterns):
        raise ValueError(f"patterns: expected each once, got {list(patterns)}")
    return _scale("patterns", {pattern: rate**power for power, pattern in enumerate(reversed(patterns))})


def _scale(name: str, numbers: Mapping[str, Number]) -> optax.GradientTransformation:
    """The transform of a factor for each pattern, which came as the argument ``name``."""

    def scale(updates: PyTree) -> PyTree:
        check_real("updates", updates, or_complex=True)

        def leaf(label: str, update: Any) -> Array:
            update = jnp.asarray(update)
            if label not in numbers:
                return update
            return (to(wide(update), numbers[label]) * update.astype(wide(update))).astype(update.dtype)

        return jax.tree.map(leaf, _label(name, tuple(numbers), updates, rest=""), updates)

    return stateless(scale)


def _label(name: str, patterns: tuple[str, ...], tree: PyTree, rest: str | None = None) -> PyTree:
    """The tree of the first pattern that each leaf matches; ``rest`` where none does, which is an error if None."""
    chosen = [select(name, pattern, tree) for pattern in patterns]
    labels: list[str | None] = []
    for (path, _), *matches in zip(named_leaves(tree), *chosen, strict=True):
        label = next((pattern for pattern, match in zip(patterns, matches, strict=True) if match), rest)
        if label is None:
            raise ValueError(f'{name}: expected one for each leaf, none matches {path!r}: end with "*"')
        labels.append(label)
    if labels and (empty := set(patterns) - set(labels)):
        raise ValueError(f"{name}: expected a leaf in each, but all of {min(empty)!r} belong to an earlier one")
    return jax.tree.structure(tree).unflatten(labels)
