"""Multilayer perceptrons from their widths, for studies of depth and width."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.initializers import Initializer
from jaxopt_nn.layers._basic.dense import dense
from jaxopt_nn.layers._basic.dropout import dropout
from jaxopt_nn.layers._combinators.serial import serial
from jaxopt_nn.types import ArrayLike, Layer

__all__ = ["mlp", "pyramid"]


def mlp(
    widths: Sequence[int],
    activation: Layer | Callable[[Any], Any] = jax.nn.relu,
    *,
    norm: Callable[[], Layer] | None = None,
    drop_rate: ArrayLike | None = None,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
) -> Layer:
    """Dense layers of the given widths, the last one linear.

    Each hidden layer is ``dense → norm → activation → dropout``; norm and dropout are optional.

    Args:
        widths: outputs of each dense layer, the model's last (static, each >= 1): ``[64, 32, 10]`` has two hidden
            layers.
        activation: after each hidden layer.
        norm: makes a normalization, such as ``layers.batch_norm``. The dense layers before one have no bias, since it
            would cancel.
        drop_rate: of a dropout after each hidden activation; may be traced. None (static) for none.
        kernel_init: initializer of every kernel; He normal by default.
        bias_init: initializer of every bias; zeros by default.

    Returns:
        The layer, a :func:`~jaxopt_nn.layers.serial`.

    Raises:
        ValueError: no width, or one below 1.

    >>> import jax, jax.numpy as jnp
    >>> model = mlp([*pyramid(64, 16, 3), 10], jnp.tanh)
    >>> params, _ = model.init(jax.random.key(0), jnp.ones((1, 20)))
    >>> [params[f"dense_{i}"]["kernel"].shape for i in range(4)]
    [(20, 64), (64, 32), (32, 16), (16, 10)]
    """
    if not widths:
        raise ValueError("widths: expected one or more, got none")
    for index, width in enumerate(widths):
        check_positive_int(f"widths[{index}]", width)
    parts: list[Layer | Callable[[Any], Any]] = []
    for width in widths[:-1]:
        parts.append(dense(width, kernel_init=kernel_init, bias_init=bias_init, use_bias=norm is None))
        parts += [] if norm is None else [norm()]
        parts.append(activation)
        parts += [] if drop_rate is None else [dropout(drop_rate)]
    return serial(*parts, dense(widths[-1], kernel_init=kernel_init, bias_init=bias_init))


def pyramid(
    first: int, last: int, depth: int, *, spacing: Literal["geometric", "linear"] = "geometric"
) -> tuple[int, ...]:
    """Widths from ``first`` to ``last``: for :func:`mlp`.

    Args:
        first: the width of the first layer (static, >= 1).
        last: that of the last (static, >= 1); equal to ``first`` for a rectangle, larger for an upside-down pyramid.
        depth: how many widths (static, >= 1); 1 gives ``(first,)``, and ``last`` has to be equal.
        spacing: "geometric" for a constant ratio, "linear" for a constant difference, rounded.

    Raises:
        ValueError: a number below 1; a depth of 1 from one width to another; an unknown spacing.

    >>> pyramid(256, 32, 4), pyramid(100, 40, 3, spacing="linear")
    ((256, 128, 64, 32), (100, 70, 40))
    """
    for name, value in (("first", first), ("last", last), ("depth", depth)):
        check_positive_int(name, value)
    if spacing not in ("geometric", "linear"):
        raise ValueError(f'spacing: expected "geometric" or "linear", got {spacing!r}')
    if depth == 1:
        if first != last:
            raise ValueError(f"depth: expected 2 or more from the width {first} to {last}, got 1")
        return (first,)
    parts = [index / (depth - 1) for index in range(depth)]
    if spacing == "linear":
        return tuple(round(first + (last - first) * part) for part in parts)
    return tuple(round(first * (last / first) ** part) for part in parts)
