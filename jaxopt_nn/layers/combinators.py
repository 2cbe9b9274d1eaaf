"""Models out of layers. Errors of a layer carry its path."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["as_layer", "serial"]


def as_layer(layer: Layer | Callable[[Any], Any]) -> Layer:
    """A layer as it is, or a plain function of an array as a layer without parameters.

    >>> as_layer(jax.nn.relu).name
    'relu'
    """
    if isinstance(layer, Layer):
        return layer
    if not callable(layer):
        raise TypeError(
            f"layer: expected a Layer or a function of an array, got {layer!r} of type {type(layer).__name__}"
        )
    function = layer

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key, x
        return {}, {}

    def apply(
        params: Params, state: State, x: Any, *, train: bool, key: Key | None, weight: Array | None
    ) -> tuple[Any, State]:
        del params, train, key, weight
        return function(x), state

    return Layer(init, apply, getattr(function, "__name__", "function").strip("<>"))


def serial(*layers: Layer | Callable[[Any], Any]) -> Layer:
    """Layers one after another: the output of each is the input of the next.

    Children are named by kind and count: ``dense_0``, ``relu_0``, ``dense_1``; those that have parameters (or state)
    have an entry of that name in the parameters (or state). Each child gets a key of its own, ``split(key,
    n)[position]``.

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
    children = _named([as_layer(layer) for layer in layers])

    def init(key: Key, x: Any) -> tuple[Params, State]:
        x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
        params: dict[str, Any] = {}
        state: dict[str, Any] = {}
        for (name, layer), own_key in zip(children, jax.random.split(key, len(children)), strict=True):
            own_params, own_state = _located(name, layer.init, own_key, x)
            x = _located(name, _output_shape, layer, own_params, own_state, x)
            if jax.tree.leaves(own_params):
                params[name] = own_params
            if jax.tree.leaves(own_state):
                state[name] = own_state
        return params, state

    def apply(
        params: Params, state: State, x: Any, *, train: bool, key: Key | None, weight: Array | None
    ) -> tuple[Any, State]:
        new_state = dict(state)
        keys = [None] * len(children) if key is None else jax.random.split(key, len(children))
        for (name, layer), own_key in zip(children, keys, strict=True):
            x, own_state = _located(
                name, layer.apply, params.get(name, {}), state.get(name, {}), x, train=train, key=own_key, weight=weight
            )
            if name in state:
                new_state[name] = own_state
        return x, new_state

    return Layer(init, apply, "serial")


def _named(layers: Sequence[Layer]) -> list[tuple[str, Layer]]:
    counts: dict[str, int] = {}
    named: list[tuple[str, Layer]] = []
    for layer in layers:
        count = counts.get(layer.name, 0)
        counts[layer.name] = count + 1
        named.append((f"{layer.name}_{count}", layer))
    return named


def _output_shape(layer: Layer, params: Params, state: State, x: Any) -> Any:
    def output(params: Params, state: State, x: Any) -> Any:
        return layer.apply(params, state, x, train=False, key=None, weight=None)[0]

    return jax.eval_shape(output, params, state, x)


def _located(name: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls ``fn``; its plain ValueErrors and TypeErrors get ``name`` in front of their message."""
    try:
        return fn(*args, **kwargs)
    except (ValueError, TypeError) as error:
        if type(error) not in (ValueError, TypeError):  # subclasses (JAX's) have constructors of their own
            raise
        inner = "/" if re.match(r"\w+_\d+[/:]", str(error)) else ": "
        raise type(error)(f"{name}{inner}{error}") from error
