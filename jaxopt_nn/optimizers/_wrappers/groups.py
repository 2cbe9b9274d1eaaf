"""An optimizer, or a factor of the learning rate, for each part of a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._dtypes import cast, compute_dtype
from jaxopt_nn.optimizers._numerics.numbers import Number, as_number
from jaxopt_nn.optimizers._numerics.transform import check_real, stateless, transform_extra
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer, replace_leaves, select_leaves, translate_extra
from jaxopt_nn.trees import check_mask, named_leaves, select
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["parameter_groups", "partition", "scale_by_depth", "scale_by_path"]


def parameter_groups(
    groups: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """An optimizer of its own for each group of leaves.

    An optimizer that asks for ``value_fn`` or ``grad_fn`` (L-BFGS, a line search, :func:`sam`, :func:`sophia`) gets
    that of its group, with all other leaves held at their values before the step.

    Args:
        groups: pattern of paths to optimizer (see :mod:`jaxopt_nn.trees`). A leaf belongs to the first pattern that
            matches it; end with ``"*"`` for all the others.

    Returns:
        The optimizer. Its state is that of an ``optax.partition`` whose labels are the patterns.

    Raises:
        ValueError: there is no group; at ``init``, a leaf belongs to no group, or a group has no leaf.
        TypeError: ``groups`` is no mapping of patterns to optimizers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = parameter_groups({"head/*": optimizers.sgd(1.0), "*": optimizers.sgd(0.1)})
        >>> params = {"body": {"kernel": jnp.ones(())}, "head": {"kernel": jnp.ones(())}}
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> round(float(updates["body"]["kernel"]), 4), float(updates["head"]["kernel"])
        (-0.1, -1.0)
    """
    patterns = _patterns("groups", "optimizer", groups)
    if not patterns:
        raise ValueError("groups: expected at least one, got none")
    checked = {pattern: as_optimizer(f"groups[{pattern}]", optimizer) for pattern, optimizer in groups.items()}
    return partition(checked, lambda tree: _label("groups", patterns, tree))


def partition(
    optimizers: Mapping[str, optax.GradientTransformationExtraArgs], label: Callable[[PyTree], list[str]]
) -> optax.GradientTransformationExtraArgs:
    """``optax.partition``, but optimizers can ask for functions of their part of the parameters.

    Args:
        optimizers: name to optimizer.
        label: the name for each leaf of a tree, in their order.
    """

    def chosen_by(tree: PyTree) -> dict[str, list[bool]]:
        labels = label(tree)
        return {name: [each == name for each in labels] for name in optimizers}

    def init(params: Params) -> optax.PartitionState:
        chosen = chosen_by(params)
        states = {name: inner.init(select_leaves(params, chosen[name])) for name, inner in optimizers.items()}
        return optax.PartitionState({name: optax.MaskedState(state) for name, state in states.items()})

    def update(
        updates: PyTree, state: optax.PartitionState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, optax.PartitionState]:
        before: Mapping[Any, Any] = state.inner_states
        states: dict[Any, Any] = {}
        result = updates
        for name, chosen in chosen_by(updates).items():

            def inward(tree: PyTree, chosen: list[bool] = chosen) -> PyTree:
                return select_leaves(tree, chosen)

            def outward(part: PyTree, chosen: list[bool] = chosen) -> PyTree:
                return replace_leaves(part, params, chosen)

            inner_params = None if params is None else inward(params)
            inner_extra, inner_state = translate_extra(extra, inward, outward), before[name].inner_state
            new, inner_state = optimizers[name].update(inward(updates), inner_state, inner_params, **inner_extra)
            result, states[name] = replace_leaves(new, result, chosen), optax.MaskedState(inner_state)
        return result, optax.PartitionState(states)

    return transform_extra(init, update)


def scale_by_path(factors: Mapping[str, ArrayLike]) -> optax.GradientTransformation:
    """Multiplies the updates of some leaves. At the end of a chain this gives them learning rates of their own.

    ``u ← factor · u`` for the leaves that match a pattern; the others are not changed.

    Args:
        factors: pattern of paths to factor, a scalar >= 0 that may be traced. A leaf belongs to the first pattern that
            matches it.

    Returns:
        The transform, stateless.

    Raises:
        ValueError: a factor is negative or not finite; at ``update``, a pattern has no leaf.
        TypeError: ``factors`` is no mapping of patterns to numbers.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from jaxopt_nn import optimizers
        >>> optimizer = optax.chain(optimizers.sgd(1.0), scale_by_path({"body/*": 0.25}))
        >>> params = {"body": {"kernel": jnp.ones(())}, "head": {"kernel": jnp.ones(())}}
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> float(updates["body"]["kernel"]), float(updates["head"]["kernel"])
        (-0.25, -1.0)
    """
    _patterns("factors", "factor", factors)
    return _scale("factors", {name: as_number(f"factors[{name}]", factor) for name, factor in factors.items()})


def scale_by_depth(patterns: Sequence[str], decay: ArrayLike) -> optax.GradientTransformation:
    """Learning rates that fall by a factor of ``decay`` from each group of layers to the one before it.

    ``u ← decay^(L - 1 - l) · u`` for the leaves that match pattern l of L, from the first layers to the last. The last
    group has the full rate. Put it at the end of a chain.

    Args:
        patterns: static; patterns of paths, from the input to the output.
        decay: in [0, 1]; may be traced.

    Returns:
        The transform, stateless.

    Raises:
        ValueError: ``decay`` is out of its range, or a pattern is given twice; at ``update``, a pattern has no leaf.
        TypeError: ``patterns`` is no sequence of patterns.

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
    check_mask("patterns", patterns)
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
            dtype = compute_dtype(update)
            return (cast(numbers[label], dtype) * update.astype(dtype)).astype(update.dtype)

        leaves, treedef = jax.tree.flatten(updates)
        labels = _label(name, tuple(numbers), updates, rest="")
        return treedef.unflatten([leaf(*pair) for pair in zip(labels, leaves, strict=True)])

    return stateless(scale)


def _patterns(name: str, what: str, mapping: Any) -> tuple[str, ...]:
    """The keys of ``{pattern: what}``, which came as the argument ``name``."""
    if not isinstance(mapping, Mapping) or not all(isinstance(pattern, str) for pattern in mapping):
        raise TypeError(f"{name}: expected a mapping, {{pattern of paths: {what}}}, got {mapping!r}")
    return tuple(mapping)


def _label(name: str, patterns: tuple[str, ...], tree: PyTree, rest: str | None = None) -> list[str]:
    """The first pattern that each leaf matches; ``rest`` if none does, which is an error if ``rest`` is None."""
    chosen = [select(name, pattern, tree) for pattern in patterns]
    labels: list[str] = []
    for (path, _), *matches in zip(named_leaves(tree), *chosen, strict=True):
        label = next((pattern for pattern, match in zip(patterns, matches, strict=True) if match), rest)
        if label is None:
            raise ValueError(f'{name}: expected one for each leaf, none matches {path!r}: end with "*"')
        labels.append(label)
    if labels and (empty := set(patterns) - set(labels)):
        raise ValueError(f"{name}: expected a leaf in each, but all of {min(empty)!r} belong to an earlier one")
    return labels
