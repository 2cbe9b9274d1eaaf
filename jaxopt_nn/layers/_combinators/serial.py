"""Models made of layers, one after another and side by side. The error of a layer starts with its path.

Children are named by kind and count: ``dense_0``, ``relu_0``, ``dense_1``; those that have parameters (or state) have
an entry of that name in the parameters (or state). Each child gets a key of its own, ``split(key, n)[position]``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from jaxopt_nn.layers._combinators.wiring import Node, Wiring, as_layer, layer_of_wiring, numbered_names
from jaxopt_nn.layers._inputs import check_several
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["add", "concatenate", "eval_mode", "parallel", "residual", "serial"]


def serial(*layers: Layer | Callable[[Any], Any]) -> Layer:
    """Layers one after another: the output of each is the input of the next.

    Args:
        *layers: layers, or plain functions of an array.

    Returns:
        The composed layer.

    Raises:
        ValueError, TypeError: those of a child, with the child's path in front.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import trees
    >>> from jaxopt_nn.layers import dense
    >>> model = serial(dense(8), jax.nn.relu, dense(2))
    >>> params, _ = model.init(jax.random.key(0), jnp.ones((1, 5)))
    >>> [path for path, _ in trees.named_leaves(params)]
    ['dense_0/bias', 'dense_0/kernel', 'dense_1/bias', 'dense_1/kernel']
    """
    children = [as_layer(layer) for layer in layers]
    names = numbered_names(children)
    before = ["input", *names]
    nodes = [Node(name, layer, (fed,), name) for name, layer, fed in zip(names, children, before, strict=False)]
    return layer_of_wiring(Wiring(tuple(nodes), "input", before[-1]), "serial")


def residual(block: Layer | Callable[[Any], Any], shortcut: Layer | Callable[[Any], Any] | None = None) -> Layer:
    """A block with a skip connection: ``y = block(x) + shortcut(x)``.

    Args:
        block: a layer, or a plain function of an array.
        shortcut: likewise; None for the identity. If the block changes the shape, a layer that does so too (a dense
            layer, a 1x1 convolution with the block's stride).

    Returns:
        The composed layer.

    Raises:
        ValueError: if the two outputs differ in shape (nothing is broadcast); those of a child, with its path.

    References:
        He et al., "Deep residual learning for image recognition", 2015, eqs. 1 and 2.

    >>> import jax, jax.numpy as jnp
    >>> layer = residual(jnp.tanh)
    >>> y, _ = layer.apply({}, {}, jnp.zeros((2, 3)) + 1)
    >>> bool(jnp.all(y == 1 + jnp.tanh(1.0)))
    True
    """

    def add(outputs: Sequence[Array]) -> Array:
        ours, around = outputs
        if ours.shape != around.shape:
            hint = "; give a shortcut that changes the shape too" if shortcut is None else ""
            raise ValueError(f"expected the shape {list(around.shape)} of the shortcut, got {list(ours.shape)}{hint}")
        return ours + around

    children = [as_layer(block)] + ([] if shortcut is None else [as_layer(shortcut)])
    *names, last = numbered_names([*children, merge := as_layer(add)])
    nodes = [Node(name, layer, ("input",), name) for name, layer in zip(names, children, strict=True)]
    nodes.append(Node(last, merge, (names[0], "input" if shortcut is None else names[1]), last))
    return layer_of_wiring(Wiring(tuple(nodes), "input", last), "residual")


def eval_mode(layer: Layer | Callable[[Any], Any]) -> Layer:
    """The layer in evaluation mode, also in training: running statistics are used and not updated, nothing is dropped.

    For a frozen part of a model. ``optimizers.freeze(optimizer, "backbone/*")`` holds only the parameters. Batch
    normalization would still normalize with each batch, and its running statistics would go on changing::

        model = layers.graph(
            {"backbone": (layers.eval_mode(backbone), "input"), "head": (layers.dense(10), "backbone")}, outputs="head"
        )
        optimizer = optimizers.freeze(optimizers.adam(1e-3), "backbone/*")

    Args:
        layer: a layer, or a plain function of an array.

    Returns:
        A layer with the same parameters and state, under the same names. Its gradients are those of the evaluation
        mode.

    As ``module.eval()`` in PyTorch, or ``trainable = False`` of a batch normalization in Keras.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.layers import batch_norm
    >>> layer, x = eval_mode(batch_norm()), jnp.arange(6.0).reshape(3, 2)
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> _, after = layer.apply(params, state, x, train=True)
    >>> bool((after["mean"] == state["mean"]).all())
    True
    """
    inner = as_layer(layer)

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Any, State]:
        del train, key
        return inner.apply(params, state, x, train=False, key=None, weight=weight)[0], state

    wiring = inner.wiring
    if wiring is not None:  # what goes through a model layer by layer has to see the same
        wiring = wiring._replace(nodes=tuple(node._replace(layer=eval_mode(node.layer)) for node in wiring.nodes))
    return inner._replace(apply=apply, wiring=wiring)


def concatenate(arrays: Sequence[Array]) -> Array:
    """Arrays side by side on the last axis: a plain function of several arrays, and so a layer.

    Raises:
        ValueError: shapes that differ in another axis.
        TypeError: one array for the tuple of them: its batch axis would be taken for the tuple.

    >>> concatenate((jnp.ones((2, 3)), jnp.zeros((2, 1)))).shape
    (2, 4)
    """
    check_several(arrays)
    first = arrays[0]
    for array in arrays:
        if array.shape[:-1] != first.shape[:-1]:
            raise ValueError(
                f"expected shapes that agree but for the last axis, got {[list(array.shape) for array in arrays]}"
            )
    return jnp.concatenate(arrays, axis=-1)


def add(arrays: Sequence[Array]) -> Array:
    """The sum of arrays of one shape: a plain function of several arrays, and so a layer.

    Raises:
        ValueError: shapes that differ; nothing is broadcast.
        TypeError: one array for the tuple of them: its batch axis would be taken for the tuple.

    >>> add((jnp.ones(2), jnp.ones(2), jnp.ones(2))).tolist()
    [3.0, 3.0]
    """
    check_several(arrays)
    if len({array.shape for array in arrays}) != 1:
        raise ValueError(f"expected arrays of one shape, got {[list(array.shape) for array in arrays]}")
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


def parallel(
    *branches: Layer | Callable[[Any], Any], merge: Layer | Callable[[Sequence[Any]], Any] | None = concatenate
) -> Layer:
    """Layers side by side on one input, their outputs merged.

    Args:
        *branches: one layer or more, or plain functions of an array.
        merge: a function of the tuple of outputs, or a layer: :func:`concatenate` (on the last axis), :func:`add`, one
            of your own; None (static) for the tuple of outputs itself.

    Returns:
        The composed layer.

    Raises:
        ValueError: no branches; outputs that ``merge`` refuses; those of a child, with its path.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.layers import dense
    >>> model = parallel(dense(3), jax.nn.relu)
    >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 5)))
    >>> model.apply(params, state, jnp.ones((2, 5)))[0].shape
    (2, 8)
    """
    if not branches:
        raise ValueError("branches: expected one or more, got none")
    children = [as_layer(branch) for branch in branches]
    merged = as_layer(_tuple if merge is None else merge)
    if len(children) == 1:  # a node with one input gets it bare; merge is promised a tuple
        merged = _of_one(merged)
    *names, last = numbered_names([*children, merged])
    nodes = [Node(name, layer, ("input",), name) for name, layer in zip(names, children, strict=True)]
    return layer_of_wiring(Wiring((*nodes, Node(last, merged, tuple(names), last)), "input", last), "parallel")


def _tuple(outputs: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(outputs)


_tuple.__name__ = "tuple"


def _of_one(layer: Layer) -> Layer:
    """The layer, fed with a tuple of one."""

    def apply(params: Any, state: Any, x: Any, **kwargs: Any) -> Any:
        return layer.apply(params, state, (x,), **kwargs)

    return layer._replace(init=lambda key, x: layer.init(key, (x,)), apply=apply, wiring=None)
