"""A layer of Keras and what becomes of it, and its recurrent layers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxopt_nn import layers
from jaxopt_nn.interop._keras_functions import UnsupportedError, activation, need
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["Call", "Constant", "Converted", "bidirectional", "fixed", "identity", "recurrent"]


class Converted(NamedTuple):
    """A layer of Keras.

    Attributes:
        layer: ours.
        then: a function after it, such as the activation; None for none.
        weights: the paths within our layer to the attributes of Keras's layer that hold the weights: ``{"": ""}`` for
            the layer itself.
    """

    layer: Any
    then: Any = None
    weights: Mapping[str, str] = {"": ""}


class Call(NamedTuple):
    """How a model of Keras calls a layer.

    Attributes:
        options: the keywords that are no arrays.
        rank: of its (first) input, with the batch axis.
    """

    options: Mapping[str, Any]
    rank: int


Constant = Callable[[Params, State], Array]


def _no_bias(params: Params, _: State) -> Array:
    return jnp.zeros_like(params["recurrent_kernel"][0])


def _no_recurrent_bias(params: Params, _: State) -> Array:
    return jnp.zeros_like(params["recurrent_kernel"][:, 0])


def fixed(layer: Layer, constants: Mapping[str, Constant]) -> Layer:
    """A layer some of whose parameters are constants, and so none."""
    if not constants:
        return layer

    def init(key: Key, x: Any) -> tuple[Params, State]:
        params, state = layer.init(key, x)
        return {name: leaf for name, leaf in params.items() if name not in constants}, state

    def apply(params: Params, state: State, x: Any, **mode: Any) -> tuple[Any, State]:
        numbers = {name: constant(params, state) for name, constant in constants.items()}
        return layer.apply({**params, **numbers}, state, x, **mode)

    return Layer(init, apply, layer.name)


def recurrent(layer: Any, call: Call) -> Converted:
    """SimpleRNN, LSTM and GRU."""
    if "initial_state" in call.options:
        raise UnsupportedError("initial_state in its call")
    need(layer, stateful=False, return_state=False, dropout=0.0, recurrent_dropout=0.0)
    options = {"return_sequences": layer.return_sequences, "reverse": layer.go_backwards}
    kind, absent = type(layer).__name__, {} if layer.use_bias else {"bias": _no_bias}
    if kind == "SimpleRNN":
        function = activation(layer.activation) or identity
        ours = layers.simple_rnn(layer.units, activation=function, **options)
    else:
        for option, expected in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
            if getattr(getattr(layer, option), "__name__", "") != expected:
                raise UnsupportedError(f"{option}={getattr(getattr(layer, option), '__name__', option)}")
        if kind == "LSTM":
            ours = layers.lstm(layer.units, **options)
        else:
            ours = layers.gru(layer.units, reset_after=layer.reset_after, **options)
            if layer.reset_after and layer.use_bias:
                ours = _two_biases(ours, layer.units)
            elif layer.reset_after:
                absent["recurrent_bias"] = _no_recurrent_bias
    ours = fixed(ours, absent)
    # Keras then returns the outputs from the last step to the first.
    backwards = layer.go_backwards and layer.return_sequences
    return Converted(ours, _reversed if backwards else None)


def _reversed(x: Array) -> Array:
    return jnp.flip(x, 1)


_reversed.__name__ = "reversed"


def _two_biases(gru: Layer, features: int) -> Layer:
    """A GRU with two biases for each gate, both trained, as in Keras."""

    def init(key: Key, x: Any) -> tuple[Params, State]:
        params, state = gru.init(key, x)
        return {**params, "recurrent_bias": jnp.zeros_like(params["bias"])}, state

    def apply(params: Params, state: State, x: Any, **mode: Any) -> tuple[Any, State]:
        of_gates = jnp.asarray(params["recurrent_bias"]).at[2 * features :].set(0)
        of_new = params["recurrent_bias"][2 * features :]
        return gru.apply({**params, "bias": params["bias"] + of_gates, "recurrent_bias": of_new}, state, x, **mode)

    return Layer(init, apply, "keras_gru")


def bidirectional(layer: Any, call: Call) -> Converted:
    """Bidirectional, of one of these."""
    forward, backward = recurrent(layer.forward_layer, call), recurrent(layer.backward_layer, call)
    merges = {
        "concat": layers.concatenate,
        "sum": layers.add,
        "mul": lambda both: both[0] * both[1],
        "ave": lambda both: (both[0] + both[1]) / 2,
    }
    if layer.merge_mode not in merges:
        raise UnsupportedError(f"merge_mode={layer.merge_mode}")
    if not layer.backward_layer.go_backwards or layer.forward_layer.go_backwards:
        raise UnsupportedError("layers of these directions")
    both = layers.parallel(forward.layer, backward.layer, merge=merges[layer.merge_mode])
    first, second = (node.name for node in both.wiring.nodes[:2])
    return Converted(both, None, {first: "forward_layer", second: "backward_layer"})


def identity(x: Array) -> Array:
    return x


identity.__name__ = "identity"
