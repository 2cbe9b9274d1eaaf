"""Many equal blocks, one after another, as one scanned block. The time to compile does not grow with their number."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from jaxopt_nn._arguments import check_bool, check_key, check_positive_int
from jaxopt_nn.layers._combinators.wiring import (
    Node,
    Wiring,
    as_layer,
    at_path,
    numbered_names,
    output_shape,
    shapes_of,
)
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["repeat"]


def repeat(block: Layer | Callable[[Any], Any], n: int, *, unroll: int = 1, remat: bool = False) -> Layer:
    """The same block n times in a row, each with parameters, state and key of its own.

    Equal to ``serial(block, ..., block)``, but the parameters (and state) of the n blocks are stacked, each leaf
    ``[n, ...]``, and a ``lax.scan`` goes over them: the program holds the block once, whatever n is.

    Args:
        block: a layer whose output has the shapes and dtypes of its input.
        n: how many (static, >= 1).
        unroll: how many of them one iteration of the loop holds (static, >= 1): larger programs, fewer iterations.
        remat: static; whether a block's intermediate values are computed again for the gradient instead of stored:
            the memory of n blocks falls to that of their n inputs, for one more forward pass.

    Returns:
        The composed layer: one child, named as in ``serial``, with stacked parameters. Block i is initialized with
        ``split(key, n)[i]``.

    Raises:
        ValueError: the block changes a shape or dtype; those of the block, with its path.

    A stacked leaf holds n layers. Whatever treats a leaf as one layer (trust ratios, Muon, penalties by path) takes all
    n blocks together.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.layers import dense, residual, serial
    >>> model = repeat(residual(serial(dense(4), jnp.tanh)), 50)
    >>> params, _ = model.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> params["residual_0"]["serial_0"]["dense_0"]["kernel"].shape
    (50, 4, 4)
    """
    check_positive_int("n", n)
    check_positive_int("unroll", unroll)
    check_bool("remat", remat)
    n, unroll = int(n), int(unroll)  # they may be integers of NumPy
    layer = as_layer(block)
    (name,) = numbered_names([layer])

    def init(key: Key, x: Any) -> tuple[Params, State]:
        check_key("key", key)
        x = shapes_of(x)
        params, state = at_path(name, jax.vmap(lambda own: layer.init(own, x)), jax.random.split(key, n))
        first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (params, state))
        y = at_path(name, output_shape, layer, *first, x)
        at_path(name, _check_same, x, y)
        return {name: params} if jax.tree.leaves(params) else {}, {name: state} if jax.tree.leaves(state) else {}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Any, State]:
        keys = None if key is None else jax.random.split(key, n)
        y, new_state = scanned((params.get(name, {}), state.get(name, {}), keys), x, weight, train)
        return y, {name: new_state} if name in state else state

    @functools.partial(jax.jit, static_argnums=3)  # made once for a layer, so that an eager call compiles once
    def scanned(stacked: Any, x: Any, weight: Array | None, train: bool) -> tuple[Any, State]:
        def body(x: Any, own: Any) -> tuple[Any, State]:
            own_params, own_state, own_key = own
            with jax.named_scope(name):
                y, new_state = at_path(
                    name, layer.apply, own_params, own_state, x, train=train, key=own_key, weight=weight
                )
            at_path(name, _check_same, x, y)
            return y, new_state

        body = jax.checkpoint(body, prevent_cse=False) if remat else body
        return lax.scan(body, x, stacked, length=n, unroll=min(unroll, n))

    return Layer(init, apply, "repeat", Wiring((Node(name, layer, ("input",), name),), "input", name, n))


def _check_same(x: Any, y: Any) -> None:
    before, after = ([(leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(tree)] for tree in (x, y))
    if before != after:
        text = [", ".join(f"{dtype}{list(shape)}" for shape, dtype in each) for each in (before, after)]
        raise ValueError(f"expected the block to keep its input's shape and dtype {text[0]}, got {text[1]}")
