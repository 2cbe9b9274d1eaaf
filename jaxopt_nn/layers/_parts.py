"""Checks of what a layer is made of: initializers, functions, layers that are made by a function."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxopt_nn import _ops
from jaxopt_nn._arguments import shown
from jaxopt_nn.initializers import Initializer
from jaxopt_nn.trees import takes
from jaxopt_nn.types import Array, Key, Layer

__all__ = ["check_function", "initializer", "layer_from"]


def initializer(name: str, init: Any) -> Initializer | None:
    """``init``, whose arrays are checked; None for None.

    Raises:
        TypeError: it is no function ``(key, shape, dtype) -> array``.
    """
    if init is None:
        return None
    if isinstance(init, type) or not callable(init) or not takes(init, None, (1,), None):
        raise TypeError(
            f"{name}: expected an initializer, (key, shape, dtype) -> array, such as initializers.he_normal(), "
            f"got {shown(init)}"
        )

    def draw(key: Key, shape: Sequence[int], dtype: Any = float, /) -> Array:
        drawn: Any = init(key, shape, dtype)
        if getattr(drawn, "shape", None) != tuple(shape):
            raise ValueError(f"{name}: expected an initializer that makes an array {list(shape)}, got {shown(drawn)}")
        return _ops.hidden_value(drawn)  # zeros would be known to the compiler

    return draw


def layer_from(name: str, factory: Any) -> Layer:
    """What ``factory()`` returns.

    Raises:
        TypeError: it is no function without arguments, or returns no layer.
    """
    if not callable(factory) or not takes(factory):
        hint = ": pass the function that makes it, without ()" if isinstance(factory, Layer) else ""
        raise TypeError(
            f"{name}: expected a function that makes a layer, such as layers.layer_norm, got {shown(factory)}{hint}"
        )
    layer: Any = factory()
    if not isinstance(layer, Layer):
        raise TypeError(f"{name}: expected a function that makes a layer, got one that makes {shown(layer)}")
    return layer


def check_function(name: str, function: Callable[..., Any]) -> None:
    """Raises unless ``function`` may be called with one array."""
    if isinstance(function, type) or not callable(function) or not takes(function, None):
        raise TypeError(f"{name}: expected a function of an array, such as jnp.tanh, got {shown(function)}")
