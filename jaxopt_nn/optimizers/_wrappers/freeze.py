"""Freezing: parameters that training does not change, to the bit."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn.optimizers._numerics.transform import transform_extra
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer, replace_leaves, select_leaves, translate_extra
from jaxopt_nn.trees import Mask, check_mask, named_leaves, select
from jaxopt_nn.types import Params, PyTree

__all__ = ["FrozenState", "freeze", "frozen_paths"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Frozen:
    """Paths of frozen leaves, as static data in a state.

    Attributes:
        paths: in the order of the leaves.
    """

    paths: tuple[str, ...]


class FrozenState(NamedTuple):
    """State of :func:`freeze`.

    Attributes:
        frozen: static: the paths of the frozen leaves.
        inner: the optimizer's state for the others.
    """

    frozen: Frozen
    inner: PyTree


def freeze(optimizer: optax.GradientTransformation, frozen: Mask) -> optax.GradientTransformationExtraArgs:
    """The same optimizer, which does not change some of the leaves, to the bit.

    A frozen leaf has no optimizer state. Weight decay and momentum do not move it, and it counts in no norm.
    :func:`~jaxopt_nn.training.make_step` does not even compute its gradient. Put ``freeze`` around the whole optimizer.

    Only parameters are frozen. The running statistics of a BatchNorm are model state, which no optimizer sees: with
    ``"batch_norm_0/*"`` frozen they still follow the data. :func:`jaxopt_nn.layers.eval_mode` holds them too.

    Args:
        optimizer: any optimizer of the optax protocol. One that asks for ``value_fn`` or ``grad_fn`` (L-BFGS, a line
            search, :func:`sam`, :func:`sophia`) gets that of the other leaves, with the frozen ones as they are.
        frozen: static; the leaves to freeze, see :mod:`jaxopt_nn.trees`: ``"dense_0/*"``, or ``["embed*", "*/scale"]``.

    Returns:
        The optimizer. The updates of frozen leaves are -0, since adding it changes no number.

    Raises:
        ValueError: there is no pattern; at ``init``, a pattern matches no path, or everything is frozen.
        TypeError: ``optimizer`` is none, or ``frozen`` is no mask.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = optimizers.freeze(optimizers.adam(0.1), "encoder/*")
        >>> params = {"encoder": {"kernel": jnp.ones(3)}, "head": {"kernel": jnp.ones(2)}}
        >>> updates, state = optimizer.update(params, optimizer.init(params), params)
        >>> updates["encoder"]["kernel"].tolist(), [round(u, 4) for u in updates["head"]["kernel"].tolist()]
        ([-0.0, -0.0, -0.0], [-0.1, -0.1])
    """
    inner = as_optimizer("optimizer", optimizer)
    check_mask("frozen", frozen)

    def init(params: Params) -> FrozenState:
        chosen = select("frozen", frozen, params)
        if chosen and all(chosen):
            raise ValueError(f"frozen: expected to leave a leaf to train, freezes all: {frozen!r}")
        paths = tuple(path for (path, _), is_frozen in zip(named_leaves(params), chosen, strict=True) if is_frozen)
        return FrozenState(Frozen(paths), inner.init(select_leaves(params, [not is_frozen for is_frozen in chosen])))

    def update(
        updates: PyTree, state: FrozenState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, FrozenState]:
        trained = [path not in state.frozen.paths for path, _ in named_leaves(updates)]

        def inward(tree: PyTree) -> PyTree:
            return select_leaves(tree, trained)

        inner_params = None if params is None else inward(params)
        inner_extra = translate_extra(extra, inward, lambda part: replace_leaves(part, params, trained))
        new, inner_state = inner.update(inward(updates), state.inner, inner_params, **inner_extra)
        no_update = jax.tree.map(lambda leaf: jnp.full(jnp.shape(leaf), -0.0, jnp.result_type(leaf)), updates)
        return replace_leaves(new, no_update, trained), FrozenState(state.frozen, inner_state)

    return transform_extra(init, update)


def frozen_paths(opt_state: PyTree) -> frozenset[str]:
    """The paths of the leaves that :func:`freeze` holds in an optimizer's state, inside chains and wrappers too.

    >>> from jaxopt_nn import optimizers
    >>> sorted(frozen_paths(freeze(optimizers.sgd(0.1), "a").init({"a": 1.0, "b": 1.0})))
    ['a']
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, FrozenState))
    states = [node for node in nodes if isinstance(node, FrozenState)]
    inner = [frozen_paths(state.inner) for state in states]
    return frozenset[str]().union(*[state.frozen.paths for state in states], *inner)
