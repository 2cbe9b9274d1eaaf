"""Recurrent layers over sequences ``[N, T, features]``, each a ``lax.scan`` over time.

The input's part of every gate is one matrix product before the scan, and the program does not grow with T. The state
begins at zero. ``reverse`` goes backwards in time, and puts each output at its own step, so ``parallel(lstm(h), lstm(h,
reverse=True))`` is a bidirectional layer.

The input may be ``(x, mask)``, with a bool mask ``[N, T]`` that is False at padded steps. There the state does not
change, so the last output of a sequence that is padded at its end is that of its last real step.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn import initializers
from jaxopt_nn._arguments import check_key, check_positive_int
from jaxopt_nn.initializers import Initializer
from jaxopt_nn.layers._inputs import check_array, check_floating
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["gru", "lstm", "simple_rnn"]


def simple_rnn(
    features: int,
    *,
    activation: Callable[[Array], Array] = jnp.tanh,
    return_sequences: bool = True,
    reverse: bool = False,
    unroll: int = 1,
    kernel_init: Initializer | None = None,
    recurrent_init: Initializer | None = None,
    bias_init: Initializer | None = None,
) -> Layer:
    """A simple (Elman) recurrent layer: ``h_t = activation(x_t W + h_{t-1} U + b)``.

    Args:
        features: size of h (static, >= 1).
        activation: a function of an array (static).
        return_sequences: static; whether all h are returned, ``[N, T, features]``, or the last, ``[N, features]``.
        reverse: static; whether time runs backwards: the "last" h is then that at t = 0.
        unroll: steps of time in one iteration of the loop (static, >= 1).
        kernel_init: initializer of W ``[F, features]``; Xavier uniform by default.
        recurrent_init: initializer of U ``[features, features]``; orthogonal by default.
        bias_init: initializer of b ``[features]``; zeros by default.

    Returns:
        A layer with parameters ``kernel``, ``recurrent_kernel`` and ``bias``.

    Raises:
        ValueError: input that is no sequence ``[N, T, F]``; a mask of another shape than ``[N, T]``.

    Differs from torch.nn.RNN in the initialization (U(±1/√features) for all there) and in the biases (two there, of
    which only the sum matters); from keras.layers.SimpleRNN in ``return_sequences`` (False there), and in that
    ``go_backwards`` returns the outputs in reverse order there.

    References:
        Elman, "Finding structure in time", 1990.

    >>> import jax, jax.numpy as jnp
    >>> layer = simple_rnn(3, return_sequences=False)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((2, 7, 4)))
    >>> layer.apply(params, state, jnp.ones((2, 7, 4)))[0].shape
    (2, 3)
    """

    def step(params: Params, h: tuple[Array, ...], gates: Array) -> tuple[Array, ...]:
        return (activation(gates + h[0] @ params["recurrent_kernel"]),)

    def biases(key: Key, dtype: Any) -> dict[str, Array]:
        return {"bias": (bias_init or initializers.zeros())(key, (features,), dtype)}

    cell = _Cell(features, 1, 1, step, biases)
    return _recurrent(
        "simple_rnn",
        cell,
        (kernel_init, recurrent_init),
        return_sequences=return_sequences,
        reverse=reverse,
        unroll=unroll,
    )


def lstm(
    features: int,
    *,
    return_sequences: bool = True,
    reverse: bool = False,
    unroll: int = 1,
    kernel_init: Initializer | None = None,
    recurrent_init: Initializer | None = None,
    bias_init: Initializer | None = None,
) -> Layer:
    """Long short-term memory.

    ``i, f, g, o = x_t W + h_{t-1} U + b``; ``c_t = σ(f) c_{t-1} + σ(i) tanh(g)``; ``h_t = σ(o) tanh(c_t)``.

    Args:
        features: size of h and c (static, >= 1).
        return_sequences: static; whether all h are returned, ``[N, T, features]``, or the last, ``[N, features]``.
        reverse: static; whether time runs backwards.
        unroll: steps of time in one iteration of the loop (static, >= 1).
        kernel_init: initializer of W ``[F, 4·features]``; Xavier uniform by default.
        recurrent_init: initializer of U ``[features, 4·features]``; orthogonal by default.
        bias_init: initializer of b ``[4·features]``; by default 1 for the forget gate and 0 for the others.

    Returns:
        A layer with parameters ``kernel``, ``recurrent_kernel`` and ``bias``, the gates side by side in the order
        input, forget, cell, output: that of PyTorch and of Keras.

    Raises:
        ValueError: input that is no sequence ``[N, T, F]``; a mask of another shape than ``[N, T]``.

    Differs from torch.nn.LSTM in the layout (``[4·features, F]`` there), the initialization (U(±1/√features) for all
    there, the forget gate like the others) and in the biases (two there, of which only the sum matters); from
    keras.layers.LSTM in ``return_sequences`` (False there).

    References:
        Hochreiter and Schmidhuber, "Long short-term memory", 1997; Gers et al., "Learning to forget", 2000;
        Jozefowicz et al., "An empirical exploration of recurrent network architectures", 2015 (the bias of 1).

    >>> import jax, jax.numpy as jnp
    >>> layer = lstm(3)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((2, 7, 4)))
    >>> layer.apply(params, state, jnp.ones((2, 7, 4)))[0].shape
    (2, 7, 3)
    """

    def step(params: Params, carry: tuple[Array, ...], gates: Array) -> tuple[Array, ...]:
        h, c = carry
        i, f, g, o = jnp.split(gates + h @ params["recurrent_kernel"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    def biases(key: Key, dtype: Any) -> dict[str, Array]:
        if bias_init is not None:
            return {"bias": bias_init(key, (4 * features,), dtype)}
        return {"bias": jnp.zeros(4 * features, dtype).at[features : 2 * features].set(1)}

    cell = _Cell(features, 4, 2, step, biases)
    return _recurrent(
        "lstm", cell, (kernel_init, recurrent_init), return_sequences=return_sequences, reverse=reverse, unroll=unroll
    )


def gru(
    features: int,
    *,
    reset_after: bool = True,
    return_sequences: bool = True,
    reverse: bool = False,
    unroll: int = 1,
    kernel_init: Initializer | None = None,
    recurrent_init: Initializer | None = None,
    bias_init: Initializer | None = None,
) -> Layer:
    """Gated recurrent unit.

    ``r = σ(x_t W_r + h U_r + b_r)``; ``z = σ(x_t W_z + h U_z + b_z)``;
    ``n = tanh(x_t W_n + b_n + r (h U_n + b'_n))``, or before the product, ``n = tanh(x_t W_n + b_n + (r h) U_n)``;
    ``h_t = (1 - z) n + z h``.

    Args:
        features: size of h (static, >= 1).
        reset_after: static; whether the reset gate acts after the product with U (PyTorch, Keras 3, cuDNN) or before it
            (the paper).
        return_sequences: static; whether all h are returned, ``[N, T, features]``, or the last, ``[N, features]``.
        reverse: static; whether time runs backwards.
        unroll: steps of time in one iteration of the loop (static, >= 1).
        kernel_init: initializer of W ``[F, 3·features]``; Xavier uniform by default.
        recurrent_init: initializer of U ``[features, 3·features]``; orthogonal by default.
        bias_init: initializer of the biases; zeros by default.

    Returns:
        A layer with parameters ``kernel``, ``recurrent_kernel`` and ``bias`` ``[3·features]``, the gates side by side
        in the order reset, update, new, and, if ``reset_after``, ``recurrent_bias`` b'_n ``[features]``.

    Raises:
        ValueError: input that is no sequence ``[N, T, F]``; a mask of another shape than ``[N, T]``.

    Differs from torch.nn.GRU (order r, z, n as here) in the initialization and in that r and z have two biases each
    there, of which only the sum matters; from keras.layers.GRU in the order (z, r, n there). In both z keeps the old h;
    in Cho et al. 1 - z does in an early version.

    References:
        Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, eqs. 5 to 8.

    >>> import jax, jax.numpy as jnp
    >>> layer = gru(3)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((2, 7, 4)))
    >>> {name: leaf.shape for name, leaf in sorted(params.items())}
    {'bias': (9,), 'kernel': (4, 9), 'recurrent_bias': (3,), 'recurrent_kernel': (3, 9)}
    """

    def step(params: Params, carry: tuple[Array, ...], gates: Array) -> tuple[Array, ...]:
        (h,), kernel = carry, params["recurrent_kernel"]
        if reset_after:
            recurrent = h @ kernel
            r, z = jnp.split(jax.nn.sigmoid((gates + recurrent)[:, : 2 * features]), 2, axis=-1)
            inner = recurrent[:, 2 * features :]
            n = jnp.tanh(
                gates[:, 2 * features :] + r * (inner + jnp.broadcast_to(params["recurrent_bias"], inner.shape))
            )
        else:
            both = gates[:, : 2 * features] + h @ kernel[:, : 2 * features]
            r, z = jnp.split(jax.nn.sigmoid(both), 2, axis=-1)
            n = jnp.tanh(gates[:, 2 * features :] + (r * h) @ kernel[:, 2 * features :])
        return ((1 - z) * n + z * h,)

    def biases(key: Key, dtype: Any) -> dict[str, Array]:
        draw = initializers.zeros() if bias_init is None else bias_init
        first, second = (key, key) if bias_init is None else jax.random.split(key)  # zeros need no key
        after: dict[str, Array] = {"recurrent_bias": draw(second, (features,), dtype)} if reset_after else {}
        return {"bias": draw(first, (3 * features,), dtype), **after}

    cell = _Cell(features, 3, 1, step, biases)
    return _recurrent(
        "gru", cell, (kernel_init, recurrent_init), return_sequences=return_sequences, reverse=reverse, unroll=unroll
    )


class _Cell(NamedTuple):
    """What differs from one recurrent layer to another.

    Attributes:
        features: size of the output.
        gates: how many gates the kernels hold side by side.
        carries: number of arrays in the state; the first is the output.
        step: ``(params, carry, the input's part of the gates) -> carry``.
        biases: ``(key, dtype) -> parameters`` besides the kernels.
    """

    features: int
    gates: int
    carries: int
    step: Callable[[Params, tuple[Array, ...], Array], tuple[Array, ...]]
    biases: Callable[[Key, Any], dict[str, Array]]


def _recurrent(
    name: str,
    cell: _Cell,
    inits: Sequence[Initializer | None],
    *,
    return_sequences: bool,
    reverse: bool,
    unroll: int,
) -> Layer:
    check_positive_int("features", cell.features)
    check_positive_int("unroll", unroll)
    cell, unroll = cell._replace(features=int(cell.features)), int(unroll)  # they may be integers of NumPy
    kernel_init = inits[0] or initializers.xavier_uniform()
    recurrent_init = inits[1] or initializers.orthogonal()
    width = cell.gates * cell.features

    def init(key: Key, x: Any) -> tuple[Params, State]:
        check_key("key", key)
        x, _ = _parts(x)
        first, second, third = jax.random.split(key, 3)
        return {
            "kernel": kernel_init(first, (x.shape[-1], width), x.dtype),
            "recurrent_kernel": recurrent_init(second, (cell.features, width), x.dtype),
            **cell.biases(third, x.dtype),
        }, {}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Array, State]:
        del train, key, weight
        x, mask = _parts(x)
        if x.shape[-1] != params["kernel"].shape[0]:
            raise ValueError(f"expected {params['kernel'].shape[0]} features, got shape {list(x.shape)}")
        return over_time(params, x, mask), state

    @jax.jit  # made once for a layer, so that an eager call compiles once
    def over_time(params: Params, x: Array, mask: Array | None) -> Array:
        gates = x @ params["kernel"]
        gates = gates + jnp.broadcast_to(params["bias"], gates.shape)

        def body(carry: tuple[Array, ...], inputs: Any) -> tuple[tuple[Array, ...], Array | None]:
            own_gates, present = inputs
            new = cell.step(params, carry, own_gates)
            if present is not None:
                new = tuple(jnp.where(present[:, None], a, b) for a, b in zip(new, carry, strict=True))
            return new, new[0] if return_sequences else None

        # Made from x, so that they are sharded and mapped as it is.
        zeros = (jnp.zeros_like(gates[:, 0, : cell.features]),) * cell.carries
        steps = jnp.moveaxis(gates, 1, 0), None if mask is None else jnp.moveaxis(mask, 1, 0)
        last, outputs = lax.scan(body, zeros, steps, reverse=reverse, unroll=unroll)
        return last[0] if outputs is None else jnp.moveaxis(outputs, 0, 1)

    return Layer(init, apply, name)


def _parts(x: Any) -> tuple[Any, Any]:
    """The sequence and its mask."""
    if isinstance(x, (tuple, list)) and len(x) != 2:
        raise ValueError(f"expected x or (x, mask), got a {type(x).__name__} of {len(x)}")
    x, mask = x if isinstance(x, (tuple, list)) else (x, None)
    check_floating(x)
    if len(x.shape) != 3 or x.shape[1] < 1:
        raise ValueError(f"expected a sequence [batch, time, features], got shape {list(x.shape)}")
    if mask is not None:
        check_array(mask)
    if mask is not None and mask.dtype != jnp.bool_:
        raise TypeError(f"mask: expected bool, True where there is something, got {mask.dtype}")
    if mask is not None and tuple(mask.shape) != tuple(x.shape[:2]):
        raise ValueError(f"mask: expected the shape {list(x.shape[:2])}, got {list(mask.shape)}")
    return x, mask
