"""An optimizer's state stored in low precision: bfloat16 moments in half the memory."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._arguments import check_key
from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._numerics.transform import transform_extra
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer
from jaxopt_nn.trees import named_leaves, select
from jaxopt_nn.types import Array, Key, Params, PyTree

__all__ = ["StoredState", "stochastic_round", "store_state"]


class StoredState(NamedTuple):
    """State of :func:`store_state`.

    Attributes:
        count: int32 scalar, the number of updates done.
        key: the key for rounding; None to round to the nearest.
        drift: float32 scalar, the relative error ``‖stored - exact‖ / ‖exact‖`` of the last update, over all leaves
            that are stored in another dtype than that of the arithmetic.
        inner: the optimizer's state, in the dtypes in which it is stored.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    key: Key | None
    drift: Array
    inner: PyTree


def store_state(
    optimizer: optax.GradientTransformation, dtypes: Mapping[str, Any], *, key: Key | None = None
) -> optax.GradientTransformationExtraArgs:
    """The same optimizer, with parts of its state stored in other dtypes.

    Each update casts the stored state to the dtype of the arithmetic, calls the optimizer, and rounds the new state.
    Hyperparameters are no state, so no β is ever rounded. With β near 1, a moving average changes in one step by less
    than half of the distance between two bfloat16 numbers, so rounding to the nearest would stop it. With a ``key`` it
    is rounded up or down at random, so that the mean is exact.

    Args:
        optimizer: any optimizer of the optax protocol.
        dtypes: static; pattern of paths in the optimizer's state (see :mod:`jaxopt_nn.trees`) to the floating-point
            dtype to store it in. A leaf belongs to the first pattern that matches it. For Adam, ``{"*/mu/*":
            jnp.bfloat16}`` are the first moments, ``"*/nu/*"`` the second.
        key: a PRNG key for stochastic rounding; None to round to the nearest.

    Returns:
        The optimizer.

    Raises:
        ValueError: at ``init``, a pattern matches no floating-point array of the state.
        TypeError: a dtype is not of floating point, ``optimizer`` is none, or ``dtypes`` no mapping.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> optimizer = store_state(
        ...     optimizers.adam(0.1), {"*/mu/*": jnp.bfloat16}, key=jax.random.key(0))
        >>> state = optimizer.init({"kernel": jnp.ones(3)})
        >>> state.inner[0].mu["kernel"].dtype.name, state.inner[0].nu["kernel"].dtype.name
        ('bfloat16', 'float32')

    Differs from ``optax.adam(mu_dtype=...)`` in the rounding, and works for any part of any state.

    References:
        Gupta et al., Deep learning with limited numerical precision, 2015, section 3 (stochastic rounding).
    """
    inner = as_optimizer("optimizer", optimizer)
    if not isinstance(dtypes, Mapping):
        raise TypeError(f"dtypes: expected a mapping, {{pattern of paths: dtype}}, got {dtypes!r}")
    for pattern, dtype in dtypes.items():
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"dtypes[{pattern}]: expected a floating-point dtype, got {jnp.dtype(dtype).name}")
    if key is not None:
        check_key("key", key)

    def init(params: Params) -> StoredState:
        exact = inner.init(params)
        stored = jax.tree.map(cast, exact, _targets(dtypes, exact))
        own_key = None if key is None else jnp.array(key, copy=True)
        return StoredState(jnp.zeros((), jnp.int32), own_key, jnp.zeros((), jnp.float32), stored)

    def update(
        updates: PyTree, state: StoredState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, StoredState]:
        types = jax.eval_shape(inner.init, updates if params is None else params)
        widened = jax.tree.map(lambda stored, exact: cast(stored, exact.dtype), state.inner, types)
        updates, exact = inner.update(updates, widened, params, **extra)
        stored, drift = _store(exact, _targets(dtypes, types), state.key, state.count)
        return updates, StoredState(state.count + 1, state.key, drift, stored)

    return transform_extra(init, update)


def stochastic_round(key: Key, x: Array, dtype: Any) -> Array:
    """Rounds to one of the two neighbours in ``dtype`` at random, so that the expected value is ``x``.

    Args:
        key: a PRNG key.
        x: float32 array.
        dtype: bfloat16 or float32; static.

    Returns:
        An array of ``dtype``: the neighbour above with the probability ``(x - below) / (above - below)``. Numbers that
        ``dtype`` has, infinities and NaN stay.

    Raises:
        TypeError: for any other dtype.

    Example:
        >>> x = jnp.full(10_000, 1.0 + 2.0**-10)  # a quarter of the way from 1 to the next bfloat16 is 2^-9
        >>> rounded = stochastic_round(jax.random.key(0), x, jnp.bfloat16).astype(jnp.float32)
        >>> sorted(set(rounded.tolist())), bool(abs(rounded.mean() - x[0]) < 2e-4)
        ([1.0, 1.0078125], True)
    """
    if x.dtype != jnp.float32 or jnp.dtype(dtype) not in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)):
        raise TypeError(
            f"dtype: expected float32 to be rounded stochastically to bfloat16, got {x.dtype.name} to "
            f"{jnp.dtype(dtype).name}"
        )
    if jnp.dtype(dtype) == jnp.float32:
        return x
    # A bfloat16 is the upper half of a float32. A uniform 16-bit number, added to the bits, carries over into the
    # upper half with the right probability. Then the lower half is cut off.
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    rounded = jax.lax.bitcast_convert_type((bits + noise) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(dtype)


def _targets(dtypes: Mapping[str, Any], state: PyTree) -> PyTree:
    """The tree of the dtypes in which the leaves of ``state`` are stored."""
    arrays = {path: leaf for path, leaf in named_leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    stored: dict[str, Any] = {}
    for pattern, dtype in dtypes.items():
        matches = zip(named_leaves(arrays), select("dtypes", pattern, arrays), strict=True)
        stored = {path: dtype for (path, _), match in matches if match} | stored
    leaves = [stored.get(path, leaf.dtype) for path, leaf in named_leaves(state)]
    return jax.tree.structure(state).unflatten(leaves)


def _store(exact: PyTree, targets: PyTree, key: Key | None, count: Array) -> tuple[PyTree, Array]:
    """The state as it is stored, and the relative error of that."""
    leaves, treedef = jax.tree.flatten(exact)
    now = None if key is None else jax.random.fold_in(key, count)
    stored: list[Array] = []
    error, size = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)
    for index, (leaf, dtype) in enumerate(zip(leaves, jax.tree.leaves(targets), strict=True)):
        leaf = jnp.asarray(leaf)
        if leaf.dtype == dtype:
            stored.append(leaf)
            continue
        rounded = (
            _nearest(leaf, dtype) if now is None else stochastic_round(jax.random.fold_in(now, index), leaf, dtype)
        )
        stored.append(rounded.astype(dtype))
        exact = leaf.astype(jnp.float32)
        error += jnp.sum((rounded.astype(jnp.float32) - exact) ** 2)
        size += jnp.sum(exact**2)
    return treedef.unflatten(stored), jnp.sqrt(error / jnp.where(size == 0, 1.0, size))


def _nearest(leaf: Array, dtype: Any) -> Array:
    """``leaf`` rounded to ``dtype``, in its own dtype. A compiler may drop a pair of casts, but not this."""
    kind = jnp.finfo(dtype)
    return jax.lax.reduce_precision(leaf, kind.nexp, kind.nmant)
