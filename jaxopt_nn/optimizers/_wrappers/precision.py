"""Low precision: an optimizer's state stored in bfloat16, and parameters of bfloat16 that go on learning."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._arguments import check_key
from jaxopt_nn._dtypes import cast, compute_dtype
from jaxopt_nn.optimizers._numerics.numbers import next_count
from jaxopt_nn.optimizers._numerics.transform import transform_extra
from jaxopt_nn.optimizers._wrappers.in_float32 import in_float32
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer
from jaxopt_nn.optimizers._wrappers.second_weights import require_params
from jaxopt_nn.trees import named_leaves, select
from jaxopt_nn.types import Array, Key, Params, PyTree

__all__ = ["RoundedState", "StoredState", "round_stochastically", "stochastic_round", "store_state"]


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


class RoundedState(NamedTuple):
    """State of :func:`round_stochastically`.

    Attributes:
        count: int32 scalar, the number of updates done.
        key: the key for rounding.
        inner: the optimizer's state.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    key: Key
    inner: PyTree


def round_stochastically(optimizer: optax.GradientTransformation, *, key: Key) -> optax.GradientTransformationExtraArgs:
    """Lets an optimizer train bfloat16 parameters, which are rounded up or down at random, right in the mean.

    ``θ ← round(θ + u)``, with ``E[round(x)] = x``. A bfloat16 has 8 bits, so an update of less than 1/512 of a
    parameter is lost by rounding to the nearest, and training with a small learning rate stands still. Here such an
    update moves the parameter by a whole step, now and then. The optimizer sees parameters and gradients in float32, as
    in :func:`in_float32`. Leaves of float32 or float64 are not rounded.

    Args:
        optimizer: any optimizer of the optax protocol. Put this around all other wrappers.
        key: a PRNG key. Update t uses ``fold_in(key, t)``.

    Returns:
        The optimizer. Its updates, in bfloat16, lead exactly to the rounded parameters, if they change none by more
        than half; larger ones are rounded once more, to the nearest.

    Raises:
        TypeError: at ``init``, a parameter is float16 or another short dtype than bfloat16; ``optimizer`` is none;
            ``key`` is no PRNG key.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import optimizers
        >>> params = jnp.ones(10_000, jnp.bfloat16)
        >>> optimizer = round_stochastically(optimizers.sgd(1e-3), key=jax.random.key(0))
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> after = optax.apply_updates(params, updates)  # to the nearest, all were 1
        >>> after.dtype.name, sorted(set(after.tolist())), bool(abs(after.astype(jnp.float32).mean() - 0.999) < 1e-4)
        ('bfloat16', [0.99609375, 1.0], True)

    References:
        Zamirai et al., Revisiting bfloat16 training, 2020, section 4.
    """
    inner = in_float32(as_optimizer("optimizer", optimizer))
    check_key("key", key)

    def init(params: Params) -> RoundedState:
        for path, leaf in named_leaves(params):
            dtype = jnp.result_type(leaf)
            if dtype != jnp.bfloat16 and jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
                raise TypeError(f"params[{path}]: expected bfloat16, to be rounded stochastically, got {dtype}")
        return RoundedState(jnp.zeros((), jnp.int32), jnp.array(key, copy=True), inner.init(params))

    def update(
        updates: PyTree, state: RoundedState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, RoundedState]:
        params = require_params("stochastic rounding", params)
        exact = jax.tree.map(lambda leaf: leaf.astype(compute_dtype(leaf)), updates)
        exact, inner_state = inner.update(exact, state.inner, params, **extra)
        now = jax.random.fold_in(state.key, state.count)
        leaves, treedef = jax.tree.flatten(params)
        rounded = [
            _step_to(jax.random.fold_in(now, index), leaf, update)
            for index, (leaf, update) in enumerate(zip(leaves, jax.tree.leaves(exact), strict=True))
        ]
        return treedef.unflatten(rounded), RoundedState(next_count(state.count), state.key, inner_state)

    return transform_extra(init, update)


def _step_to(key: Key, leaf: Array, update: Array) -> Array:
    """The update that leads to the rounded sum."""
    if leaf.dtype != jnp.bfloat16:
        return update.astype(leaf.dtype)
    wide = leaf.astype(update.dtype)
    target = stochastic_round(key, wide + update, leaf.dtype)
    return (target.astype(wide.dtype) - wide).astype(leaf.dtype)


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
    check_key("key", key)
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
