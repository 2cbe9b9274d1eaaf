"""The outputs of every layer of a model, by path: what a model computes on its way."""

from typing import Any, NamedTuple

import jax
from jax import lax

from jaxopt_nn.layers._combinators.wiring import Node, as_layer, at_path, evaluate
from jaxopt_nn.types import Array, Key, Layer, Params, PyTree, State

__all__ = ["Place", "apply_with_outputs", "places"]


class Place(NamedTuple):
    """A layer's place in a model.

    Attributes:
        path: where its parameters are in the tree: ``"residual_0/serial_0/dense_0"``.
        name: what kind of layer it is: ``"dense"``, ``"relu"``.
        repeats: how many :func:`~jaxopt_nn.layers.repeat` it is in: so many axes its inputs and outputs have in front.
    """

    path: str
    name: str
    repeats: int


def places(model: Any) -> tuple[Place, ...]:
    """The layers of a model that are not made of layers, in the order of their evaluation.

    >>> import jax
    >>> from jaxopt_nn.layers import dense, serial
    >>> [place.path for place in places(serial(dense(8), jax.nn.relu, dense(2)))]
    ['dense_0', 'relu_0', 'dense_1']
    """
    layer = as_layer(model)
    return _places(layer, "", 0)


def _places(layer: Layer, path: str, repeats: int) -> tuple[Place, ...]:
    wiring = layer.wiring
    if wiring is None:
        return (Place(path or layer.name, layer.name, repeats),)
    deeper = repeats + (wiring.times is not None)
    return tuple(place for node in wiring.nodes for place in _places(node.layer, _joined(path, node), deeper))


def apply_with_outputs(
    model: Any,
    params: Params,
    state: State,
    x: PyTree,
    *,
    train: bool = False,
    key: Key | None = None,
    weight: Array | None = None,
) -> tuple[PyTree, State, dict[str, tuple[PyTree, PyTree]]]:
    """What ``model.apply`` returns, and of each layer in it what it got and what it made of that.

    Args:
        model: a layer, or a plain function of an array.
        params, state, x, train, key, weight: as ``apply`` takes them.

    Returns:
        ``(y, new_state, {path: (inputs, outputs)})``, with the paths of :func:`places`. Layers that a ``repeat``
        applies n times have ``[n, ...]`` in front. Inside of ``jit`` only what is read is computed. A ``remat`` is
        not done.

    Raises:
        ValueError, TypeError: those of a layer, with its path.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.layers import dense, serial
    >>> model, x = serial(dense(8), jax.nn.relu, dense(2)), jnp.ones((4, 3))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> y, _, outputs = apply_with_outputs(model, params, state, x)
    >>> bool((outputs["dense_1"][1] == y).all()), outputs["relu_0"][1].shape
    (True, (4, 8))
    """
    return _apply(as_layer(model), "", params, state, x, train, key, weight)


_Outputs = dict[str, tuple[PyTree, PyTree]]


def _apply(
    layer: Layer, path: str, params: Params, state: State, x: PyTree, train: bool, key: Key | None, weight: Array | None
) -> tuple[PyTree, State, _Outputs]:
    wiring = layer.wiring
    if wiring is None:
        y, state = layer.apply(params, state, x, train=train, key=key, weight=weight)
        return y, state, {path or layer.name: (x, y)}
    if wiring.times is not None:
        (node,) = wiring.nodes
        times: int = wiring.times

        def block(x: PyTree, own: Any) -> tuple[PyTree, tuple[State, _Outputs]]:
            own_params, own_state, own_key = own
            y, *rest = _apply(node.layer, _joined(path, node), own_params, own_state, x, train, own_key, weight)
            return y, (rest[0], rest[1])

        keys = None if key is None else jax.random.split(key, times)
        stacked = params.get(node.name, {}), state.get(node.name, {}), keys
        # In another precision the first block may get another dtype than the others.
        shapes = jax.eval_shape(lambda x, own: block(x, jax.tree.map(lambda leaf: leaf[0], own))[0], x, stacked)
        x = jax.tree.map(lambda leaf, shape: leaf.astype(shape.dtype), x, shapes)
        y, (new_state, outputs) = at_path(node.name, lax.scan, block, x, stacked, length=times)
        return y, {node.name: new_state} if node.name in state else state, outputs
    outputs: _Outputs = {}

    def apply_of(node: Node) -> Any:
        def apply(params: Params, state: State, x: PyTree, **options: Any) -> tuple[PyTree, State]:
            y, state, inner = _apply(node.layer, _joined(path, node), params, state, x, **options)
            outputs.update(inner)
            return y, state

        return apply

    y, new_state = evaluate(wiring, apply_of, params, state, x, train=train, key=key, weight=weight)
    return y, new_state, outputs


def _joined(path: str, node: Node) -> str:
    return f"{path}/{node.name}" if path else node.name
