"""A model that computes in another dtype than the one in which its parameters are kept."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn._dtypes import as_dtype, cast
from jaxopt_nn.layers._combinators.wiring import as_layer
from jaxopt_nn.types import Array, Key, Layer, Params, PyTree, State

__all__ = ["with_precision"]


def with_precision(model: Any, compute: Any, *, params: Any = jnp.float32) -> Layer:
    """The same model, its parameters kept in one floating-point dtype, its arithmetic in another.

    ==================  ==========  ============  ===============================================================
    what                compute     params        and
    ==================  ==========  ============  ===============================================================
    mixed precision     bfloat16    float32
    the same            float16     float32       ``Recipe(loss_scale=training.DynamicLossScale())``
    all in bfloat16     bfloat16    bfloat16      ``optimizers.round_stochastically(optimizer, key=...)``
    ==================  ==========  ============  ===============================================================

    Parameters and inputs are cast to ``compute`` where the model is applied, and the gradient comes back in the dtype
    of the parameters. Normalizations and losses of this library compute in float32 at least inside, and running
    statistics are kept so. Without this function a model computes and keeps everything in the dtype of its input.

    Args:
        model: a layer, or a plain function of an array; a part of a model too.
        compute: the dtype of its arithmetic and of what goes from layer to layer (static).
        params: the dtype of its parameters (static).

    Returns:
        A layer with parameters and state under the same names. Its outputs have the dtype of its inputs; of inputs that
        are no floats, float32.

    Raises:
        TypeError: a dtype is none of floating point.

    As ``torch.autocast``, but for all operations alike, and as a policy of Haiku's ``jmp``.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.layers import dense
    >>> layer, x = with_precision(dense(3), jnp.bfloat16), jnp.ones((8, 5))
    >>> weights, state = layer.init(jax.random.key(0), x)
    >>> y, _ = layer.apply(weights, state, x)
    >>> weights["kernel"].dtype.name, y.dtype.name, bool((y == y.astype(jnp.bfloat16)).all())
    ('float32', 'float32', True)
    """
    compute, params = (_floating(name, dtype) for name, dtype in (("compute", compute), ("params", params)))
    return _with_precision(as_layer(model), compute, params, inside=False)


def _with_precision(inner: Layer, compute: Any, kept: Any, *, inside: bool) -> Layer:
    """``inside`` of a model the outputs stay in the dtype of the arithmetic."""

    def init(key: Key, x: PyTree) -> tuple[Params, State]:
        # Layers draw parameters in the dtype of their input.
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, _as(leaf.dtype, kept)), x)
        params, state = inner.init(key, shapes)
        return _cast(params, kept), state

    def apply(
        params: Params,
        state: State,
        x: PyTree,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[PyTree, State]:
        y, new_state = inner.apply(
            _cast(params, compute), state, _cast(x, compute), train=train, key=key, weight=weight
        )
        new_state = jax.tree.map(lambda old, new: cast(new, old.dtype), state, new_state)
        return (y if inside else _cast(y, _dtype_of(x))), new_state

    wiring = inner.wiring
    if wiring is not None:  # what goes through a model layer by layer has to see the same
        nodes = (node._replace(layer=_with_precision(node.layer, compute, kept, inside=True)) for node in wiring.nodes)
        wiring = wiring._replace(nodes=tuple(nodes))
    return inner._replace(init=init, apply=apply, wiring=wiring)


def _floating(name: str, dtype: Any) -> Any:
    dtype = as_dtype(name, dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name}: expected a floating-point dtype, such as jnp.bfloat16, got {dtype}")
    return dtype


def _as(dtype: Any, other: Any) -> Any:
    return other if jnp.issubdtype(dtype, jnp.floating) else dtype


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    """The tree with its floats in ``dtype``; what is no float, such as ids, stays."""
    return jax.tree.map(lambda leaf: cast(leaf, _as(leaf.dtype, dtype)), tree)


def _dtype_of(x: PyTree) -> Any:
    """The dtype of the first floats among the inputs; float32 if there are none."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(x)]
    return next((dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)), jnp.dtype(jnp.float32))
