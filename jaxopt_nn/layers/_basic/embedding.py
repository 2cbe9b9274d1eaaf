"""Vectors for integers, and shapes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from jaxopt_nn import initializers
from jaxopt_nn._arguments import check_key, check_positive_int, concrete_array, shown
from jaxopt_nn._dtypes import as_dtype
from jaxopt_nn.initializers import Initializer
from jaxopt_nn.layers._inputs import check_array
from jaxopt_nn.layers._parts import initializer
from jaxopt_nn.types import Array, Key, Layer, Params, State

__all__ = ["embedding", "reshape"]


def embedding(
    num_embeddings: int,
    features: int,
    *,
    padding_id: int | None = None,
    embedding_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Layer:
    """A vector for each integer: row i of a table.

    Args:
        num_embeddings: rows of the table: ids are 0 to ``num_embeddings - 1`` (static, >= 1).
        features: columns of the table (static, >= 1).
        padding_id: static; an id whose vector is 0 and is not trained; None for none.
        embedding_init: initializer of the table; N(0, 1/features) by default, so that vectors have a length near 1.
        dtype: of the table (static), since integer input has no floating-point dtype.

    Returns:
        A layer with the parameter ``embedding`` ``[num_embeddings, features]``: integers ``[N, ...]`` to
        ``[N, ..., features]``. The default masks of penalties and weight decay leave it out.

    Raises:
        ValueError: at ``apply``, an id out of range, if ids are concrete. In a compiled program such an id gives NaN,
            and so ends a run with a status. Ids are never clamped or wrapped around.
        TypeError: the input is not of an integer dtype.

    Differs from torch.nn.Embedding and keras.layers.Embedding in the default initialization (N(0, 1) and U[-0.05, 0.05)
    there), and in a compiled program in ids that are out of range.

    >>> import jax, jax.numpy as jnp
    >>> layer = embedding(10, 4, padding_id=0)
    >>> ids = jnp.array([[1, 2, 0]])
    >>> params, state = layer.init(jax.random.key(0), ids)
    >>> y, _ = layer.apply(params, state, ids)
    >>> y.shape, bool(jnp.all(y[0, 0] == params["embedding"][1])), float(jnp.sum(jnp.abs(y[0, 2])))
    ((1, 3, 4), True, 0.0)
    """
    check_positive_int("num_embeddings", num_embeddings)
    check_positive_int("features", features)
    if padding_id is not None:
        known = isinstance(padding_id, (int, np.integer)) and not isinstance(padding_id, bool)
        if not known or not 0 <= padding_id < num_embeddings:
            raise ValueError(f"padding_id: expected an int in [0, {num_embeddings}), got {shown(padding_id)}")
    dtype = as_dtype("dtype", dtype)
    num_embeddings, features = int(num_embeddings), int(features)  # they may be integers of NumPy
    draw = initializer("embedding_init", embedding_init) or initializers.normal(features**-0.5)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        check_key("key", key)
        _check_ids(x)
        return {"embedding": draw(key, (num_embeddings, features), dtype)}, {}

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
        _check_ids(x)
        ids = concrete_array(x)
        if ids is not None and ids.size and not (ids.min() >= 0 and ids.max() < num_embeddings):
            raise ValueError(f"expected ids in [0, {num_embeddings}), got {ids.min()} to {ids.max()}")
        table = jnp.asarray(params["embedding"])  # NumPy's arrays, as loaded weights are, have no `at`
        sharding = jax.typeof(x).sharding
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec, None)) if any(sharding.spec) else None
        vectors = table.at[x].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False, out_sharding=sharding)
        if padding_id is not None:
            vectors = jnp.where((x == padding_id)[..., None], jnp.zeros((), table.dtype), vectors)
        return vectors, state

    return Layer(init, apply, "embedding")


def reshape(*shape: int) -> Callable[[Array], Array]:
    """Reshapes all axes but the batch axis: ``[N, ...] -> [N, *shape]``.

    Args:
        *shape: sizes (static); one may be -1, and follows from the others.

    Returns:
        A plain function of an array, and so a layer.

    Raises:
        ValueError: more than one -1, or a size below 1; when applied, a size that does not fit.

    >>> reshape(7, -1)(jnp.ones((2, 28))).shape
    (2, 7, 4)
    """
    if any(
        isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < -1 or size == 0 for size in shape
    ):
        raise ValueError(f"shape: expected ints >= 1, or one -1, got {list(shape)}")
    shape = tuple(map(int, shape))
    if shape.count(-1) > 1:
        raise ValueError(f"shape: expected one -1 at the most, got {list(shape)}")

    def reshaped(x: Array) -> Array:
        product, size = 1, 1
        for each in shape:
            product *= 1 if each == -1 else each
        for each in x.shape[1:]:
            size *= each
        if size % product or (-1 not in shape and size != product):
            raise ValueError(f"expected {list(shape)} to hold the {size} numbers of an example {list(x.shape[1:])}")
        sizes = [size // product if each == -1 else each for each in shape]
        return x.reshape((x.shape[0], *sizes))

    reshaped.__name__ = "reshape"
    return reshaped


def _check_ids(x: Any) -> None:
    check_array(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"expected integer ids, got {x.dtype}{list(x.shape)}")
    if isinstance(x, jax.Array) and x.ndim < 1:
        raise ValueError("expected ids [batch, ...], got a scalar")
