"""Attention, and the block of a transformer.

Sequences are ``[N, T, features]``. A mask is True where a query may attend. Everywhere else the weight is exactly 0, so
padding may hold any finite number.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn import initializers
from jaxopt_nn._arguments import check_key, check_number, check_positive_int
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.initializers import Initializer
from jaxopt_nn.layers._basic.dense import dense
from jaxopt_nn.layers._basic.dropout import dropout
from jaxopt_nn.layers._combinators.graph import graph
from jaxopt_nn.layers._combinators.serial import add, serial
from jaxopt_nn.layers._combinators.wiring import as_layer, numbered_names
from jaxopt_nn.layers._inputs import check_array, check_floating
from jaxopt_nn.layers._normalization.per_example import layer_norm
from jaxopt_nn.types import Array, ArrayLike, Key, Layer, Params, State

__all__ = ["multi_head_attention", "transformer_block"]


def multi_head_attention(
    num_heads: int,
    *,
    head_features: int | None = None,
    features: int | None = None,
    causal: bool = False,
    use_bias: bool = True,
    drop_rate: ArrayLike | None = None,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
) -> Layer:
    """Multi-head scaled dot-product attention.

    Each head is ``softmax(Q Kᵀ/√d) V`` with ``Q = x_q W_q + b_q``, ``K = x_v W_k + b_k``, ``V = x_v W_v + b_v``. A last
    affine map takes the heads side by side. Logits and softmax are computed in float32 at least.

    Args:
        num_heads: heads (static, >= 1).
        head_features: d, the size of each head (static); by default the input's features over ``num_heads``.
        features: of the output (static); by default the input's.
        causal: static; whether position t sees only the positions up to t.
        use_bias: static; whether the four affine maps have biases.
        drop_rate: of attention weights in training, as in :func:`~jaxopt_nn.layers.dropout`; may be traced. None
            (static) for none.
        kernel_init: initializer of the four kernels; Xavier uniform by default.
        bias_init: initializer of the four biases; zeros by default.

    Returns:
        A layer with parameters ``query``, ``key``, ``value`` ``{kernel [F, heads·d], bias}`` and ``output`` ``{kernel
        [heads·d, F], bias}``. Its input is

        * ``x [N, T, F]``, for self-attention;
        * ``(queries [N, Tq, F], values [N, Tk, F'])``: attends from one sequence to another;
        * ``(queries, values, mask)``, the mask bool ``[N, Tk]`` (which positions are there), ``[N, Tq, Tk]``, or None.

        The output is ``[N, Tq, F]``. Where a query may attend to nothing, the heads are 0.

    Raises:
        ValueError: shapes that do not fit; features that ``num_heads`` does not divide; no ``key`` in training if
            weights are dropped.
        TypeError: input that is not floating-point; a mask that is not bool.

    Differs from torch.nn.MultiheadAttention in the mask (True is *excluded* there, and a query without keys gives NaN)
    and in the kernels (one ``in_proj_weight`` there, so the Xavier bound is of 4F fans); from
    keras.layers.MultiHeadAttention in the kernels' layout ([F, heads, d] there).

    References:
        Vaswani et al., "Attention is all you need", 2017, section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> layer = multi_head_attention(2, causal=True)
    >>> x = jax.random.normal(jax.random.key(0), (1, 5, 4))
    >>> params, state = layer.init(jax.random.key(1), x)
    >>> def attend(x):
    ...     return layer.apply(params, state, x)[0]
    >>> y, changed = attend(x), attend(x.at[:, 3].set(9.0))
    >>> y.shape, [bool(jnp.all(a == b)) for a, b in zip(y[0], changed[0])]  # nobody sees what comes later
    ((1, 5, 4), [True, True, True, False, False])
    """
    check_positive_int("num_heads", num_heads)
    for name, value in (("head_features", head_features), ("features", features)):
        if value is not None:
            check_positive_int(name, value)
    if drop_rate is not None:
        check_number("drop_rate", drop_rate, 0, 1, open_high=True)
    drop = None if drop_rate is None else dropout(drop_rate)

    def project(width: int) -> Layer:
        kernel = initializers.xavier_uniform() if kernel_init is None else kernel_init
        return dense(width, kernel_init=kernel, bias_init=bias_init, use_bias=use_bias)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        check_key("key", key)
        queries, values, _ = _parts(x)
        for source in (queries, values):
            check_floating(source)
            if len(source.shape) != 3:
                raise ValueError(f"expected a sequence [batch, time, features], got shape {list(source.shape)}")
        size = head_features
        if size is None:
            if queries.shape[-1] % num_heads:
                raise ValueError(f"expected features that {num_heads} heads divide, got {queries.shape[-1]}")
            size = queries.shape[-1] // num_heads
        inner, outer = num_heads * size, queries.shape[-1] if features is None else features
        keys = jax.random.split(key, 4)
        heads = jax.ShapeDtypeStruct((*queries.shape[:2], inner), queries.dtype)
        fed = {"query": (queries, inner), "key": (values, inner), "value": (values, inner), "output": (heads, outer)}
        return {
            name: project(width).init(own, source)[0]
            for own, (name, (source, width)) in zip(keys, fed.items(), strict=True)
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
        del weight
        queries, values, mask = _parts(x)
        _check(params, queries, values, mask)

        def projected(name: str, source: Any) -> Array:
            y = source @ params[name]["kernel"]
            return y + jnp.broadcast_to(params[name]["bias"], y.shape) if use_bias else y

        def by_head(name: str, source: Any) -> Array:
            y = projected(name, source)
            return y.reshape((*y.shape[:2], num_heads, y.shape[-1] // num_heads))  # no -1: the batch may be empty

        q, k, v = by_head("query", queries), by_head("key", values), by_head("value", values)
        dtype = compute_dtype(q)
        logits = jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=dtype) * q.shape[-1] ** -0.5
        allowed = _allowed(mask, causal, logits.shape)
        if allowed is not None:
            logits = jnp.where(allowed, logits, jnp.finfo(dtype).min)
        shares = jax.nn.softmax(logits, axis=-1) if logits.shape[-1] != 0 else logits
        if allowed is not None:  # where nothing is allowed, softmax would give all an equal share
            shares = jnp.where(allowed, shares, jnp.zeros((), dtype))
        if drop is not None:
            shares, _ = drop.apply({}, {}, shares, train=train, key=key, weight=None)
        heads = jnp.einsum("nhqk,nkhd->nqhd", shares.astype(v.dtype), v)
        return projected("output", heads.reshape((*heads.shape[:2], num_heads * heads.shape[-1]))), state

    return Layer(init, apply, "multi_head_attention")


def transformer_block(
    num_heads: int,
    hidden_features: int | None = None,
    *,
    causal: bool = False,
    activation: Callable[[Array], Array] = jax.nn.gelu,
    norm: Callable[[], Layer] = layer_norm,
    drop_rate: ArrayLike | None = None,
    kernel_init: Initializer | None = None,
) -> Layer:
    """The block of a transformer, with the normalization first (pre-norm).

    ``h = x + attention(norm(x))``, ``y = h + W₂ activation(W₁ norm(h) + b₁) + b₂``.

    Args:
        num_heads: heads of the self-attention (static, >= 1).
        hidden_features: width of the hidden layer (static); four times the features by default.
        causal: static; whether position t sees only the positions up to t.
        activation: of the hidden layer; ``jax.nn.gelu`` is the tanh approximation.
        norm: a function that makes a normalization; it is called twice.
        drop_rate: of attention weights and of both branches before they are added; may be traced. None (static) for
            none.
        kernel_init: initializer of every kernel; Xavier uniform by default.

    Returns:
        A layer ``[N, T, F] -> [N, T, F]``, to be stacked by :func:`~jaxopt_nn.layers.repeat`. With a mask, bool
        ``[N, T]`` or ``[N, T, T]``, its input is ``(x, mask)``, and so is its output: blocks can follow one another.

    Raises:
        ValueError, TypeError: those of its parts, with their paths.

    Differs from torch.nn.TransformerEncoderLayer in the defaults: the norm comes first, GELU, no dropout.

    References:
        Xiong et al., "On layer normalization in the transformer architecture", 2020, figure 1(b).

    >>> import jax, jax.numpy as jnp
    >>> block = transformer_block(2)
    >>> x = jax.random.normal(jax.random.key(0), (3, 5, 4))
    >>> params, state = block.init(jax.random.key(1), x)
    >>> sorted(params), params["hidden"]["dense_0"]["kernel"].shape
    (['attention', 'attention_norm', 'hidden', 'hidden_norm'], (4, 16))
    """
    if hidden_features is not None:
        check_positive_int("hidden_features", hidden_features)
    kernel = initializers.xavier_uniform() if kernel_init is None else kernel_init
    after = [] if drop_rate is None else [dropout(drop_rate)]
    attention = _masked_self_attention(
        multi_head_attention(num_heads, causal=causal, drop_rate=drop_rate, kernel_init=kernel)
    )
    parts = [
        _dense_of_width(lambda x: 4 * x.shape[-1] if hidden_features is None else hidden_features, kernel),
        as_layer(activation),
        _dense_of_width(lambda both: both[1].shape[-1], kernel),
        *after,
    ]
    names = numbered_names(parts)
    fed = [("input",), (names[0],), (names[1], "input"), (names[2],)]
    hidden = {name: (part, *sources) for name, part, sources in zip(names, parts, fed, strict=False)}
    nodes = {
        "sequence": (_sequence, "input"),
        "attention_norm": (norm(), "sequence"),
        "attention": (serial(attention, *after) if after else attention, "attention_norm", "input"),
        "attended": (add, "sequence", "attention"),
        "hidden_norm": (norm(), "attended"),
        "hidden": (graph(hidden, outputs=names[-1]), "hidden_norm"),
        "sum": (_sum_with_mask, "attended", "hidden", "input"),
    }
    return graph(nodes, outputs="sum")._replace(name="transformer_block")


def _sequence(x: Any) -> Any:
    """Of ``x`` or ``(x, mask)``."""
    return x[0] if isinstance(x, (tuple, list)) else x


def _sum_with_mask(parts: Any) -> Any:
    """The sum of two, with the mask of the third if it has one."""
    *summands, x = parts
    y = add(summands)
    return (y, x[1]) if isinstance(x, (tuple, list)) else y


_sequence.__name__, _sum_with_mask.__name__ = "sequence", "add"


def _masked_self_attention(attention: Layer) -> Layer:
    """Of ``(sequence, x)``, where x may have a mask."""

    def fed(both: Any) -> Any:
        normed, x = both
        return normed, normed, x[1] if isinstance(x, (tuple, list)) else None

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return attention.init(key, fed(x))

    def apply(params: Params, state: State, x: Any, **mode: Any) -> tuple[Any, State]:
        return attention.apply(params, state, fed(x), **mode)

    return Layer(init, apply, attention.name)


def _dense_of_width(width: Callable[[Any], int], kernel_init: Initializer) -> Layer:
    """A dense layer on its first input, with a width that follows from the shapes of all inputs."""

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return dense(width(x), kernel_init=kernel_init).init(key, _sequence(x))

    def apply(params: Params, state: State, x: Any, **mode: Any) -> tuple[Any, State]:
        return dense(params["kernel"].shape[-1]).apply(params, state, _sequence(x), **mode)

    return Layer(init, apply, "dense")


def _parts(x: Any) -> tuple[Any, Any, Any]:
    """Queries, values, mask."""
    if not isinstance(x, (tuple, list)):
        return x, x, None
    if len(x) not in (2, 3):
        raise ValueError(f"expected x, (queries, values) or (queries, values, mask), got a tuple of {len(x)}")
    return x[0], x[1], x[2] if len(x) == 3 else None


def _check(params: Params, queries: Any, values: Any, mask: Any) -> None:
    for name, source in (("query", queries), ("value", values)):
        check_floating(source)
        expected = params[name]["kernel"].shape[0]
        if len(source.shape) != 3 or source.shape[-1] != expected:
            raise ValueError(f"expected a sequence [batch, time, {expected}], got shape {list(source.shape)}")
    if queries.shape[0] != values.shape[0]:
        raise ValueError(f"expected one batch size, got queries {list(queries.shape)} and values {list(values.shape)}")
    if mask is None:
        return
    check_array(mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"mask: expected bool, True where attention is allowed, got {mask.dtype}")
    batch, time, others = queries.shape[0], queries.shape[1], values.shape[1]
    if tuple(mask.shape) not in ((batch, others), (batch, time, others)):
        raise ValueError(
            f"mask: expected the shape {[batch, others]} or {[batch, time, others]}, got {list(mask.shape)}"
        )


def _allowed(mask: Any, causal: bool, shape: tuple[int, ...]) -> Array | None:
    """What may be attended to, ``[N, heads, Tq, Tk]``; None for everything."""
    batch, _, time, others = shape
    allowed = None
    if mask is not None:
        allowed = mask.reshape((batch, 1, 1 if mask.ndim == 2 else time, others))
    if causal:
        past = (jnp.arange(others)[None, :] <= jnp.arange(time)[:, None])[None, None]
        allowed = past if allowed is None else allowed & past
    return None if allowed is None else jnp.broadcast_to(allowed, shape)
