"""Batch normalization, by the conventions of three libraries."""

import math
from typing import Any, Literal, NamedTuple, Never

import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_number
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.layers._normalization.moments import (
    Moments,
    aligned,
    check_no_features,
    check_normalized,
    inverse_deviation,
    weighted_moments,
)
from jaxopt_nn.types import Array, ArrayLike, Key, Layer, Params, State

__all__ = ["BatchNormConvention", "batch_norm"]

BatchNormConvention = Literal["flax", "torch", "keras"]
"""What ``momentum`` means, the defaults, and which running variance is kept."""


class _Convention(NamedTuple):
    momentum: float
    epsilon: float
    momentum_is_of_old: bool
    unbiased: bool


_CONVENTIONS = {
    "flax": _Convention(0.99, 1e-5, True, False),
    "torch": _Convention(0.1, 1e-5, False, True),
    "keras": _Convention(0.99, 1e-3, True, False),
}


def batch_norm(
    *features: Never,
    momentum: ArrayLike | None = None,
    epsilon: ArrayLike | None = None,
    convention: BatchNormConvention = "torch",
) -> Layer:
    """Batch normalization over all axes but the last.

    ``y = γ (x − μ)/√(σ² + ε) + β``. In training, μ and σ² are the mean and the biased variance of the batch, with
    examples weighted. In evaluation they are the running statistics, which training updates from the batch's. The
    variance is computed in two passes, in float32 at least. If the batch is sharded over devices, the statistics are
    those of the whole batch.

    A batch in which no row has weight does not change the state, and is normalized with the running statistics. Every
    other batch counts the same for the running statistics, however few of its rows have weight. So does each part of a
    batch under ``micro_batches``, as in PyTorch. (Numbers above 1.8e19 in float32 are normalized in training, but their
    variance is too large for the running variance.)

    ==========  =====================================  ========  ======  ================
    convention  running statistic                      momentum  ε       running variance
    ==========  =====================================  ========  ======  ================
    "torch"     (1 − momentum) · old + momentum · new  0.1       1e-5    unbiased, n/(n−1)
    "flax"      momentum · old + (1 − momentum) · new  0.99      1e-5    biased
    "keras"     momentum · old + (1 − momentum) · new  0.99      1e-3    biased
    ==========  =====================================  ========  ======  ================

    Args:
        *features: not to be given: the number follows from the input.
        momentum: in [0, 1], as the convention means it; by default the convention's. May be traced.
        epsilon: ε, >= 0; by default the convention's. May be traced.
        convention: whose meaning and defaults (static). The default, "torch", follows new batches ten times as fast as
            the others. With 0.99 the running statistics are still far from the data after a hundred steps.

    Returns:
        A layer with parameters ``scale`` (γ, ones) and ``bias`` (β, zeros) and state ``mean`` (zeros) and ``var``
        (ones), all ``[features]``.

    Raises:
        TypeError: for a number of features.
        ValueError: for a number out of range, an unknown convention, an input that is not floating-point
            ``[batch, ..., features]``.

    References:
        Ioffe & Szegedy, "Batch normalization", 2015, algorithm 1.

    Differs from torch.nn.BatchNorm1d if there is a single value for each feature, which is an error there. Here it is
    normalized to 0. With the convention "torch" the running variance then stays, since one value has no unbiased
    variance; with the others it moves towards 0.
    With weights of examples, n is (Σw)²/Σw² times the number of positions. Other libraries have no such weights (Keras
    has a mask).

    >>> import jax, jax.numpy as jnp
    >>> layer = batch_norm()
    >>> x = jax.random.normal(jax.random.key(0), (64, 3)) * 5 + 2
    >>> params, state = layer.init(jax.random.key(1), x)
    >>> y, new_state = layer.apply(params, state, x, train=True, key=None)
    >>> bool(jnp.all(jnp.abs(y.mean(0)) < 1e-5)), bool(jnp.all(jnp.abs(y.std(0) - 1) < 1e-3))
    (True, True)
    """
    check_no_features("batch_norm", features)
    if convention not in _CONVENTIONS:
        raise ValueError(f"convention: expected one of {list(_CONVENTIONS)}, got {convention!r}")
    chosen = _CONVENTIONS[convention]
    rate = chosen.momentum if momentum is None else momentum
    small = chosen.epsilon if epsilon is None else epsilon
    check_number("momentum", rate, 0, 1)
    check_number("epsilon", small, 0)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key
        check_normalized(x)
        shape = (x.shape[-1],)
        params = {"scale": jnp.ones(shape, x.dtype), "bias": jnp.zeros(shape, x.dtype)}
        dtype = compute_dtype(x)
        return params, {"mean": jnp.zeros(shape, dtype), "var": jnp.ones(shape, dtype)}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Array, State]:
        del key
        check_normalized(x, params["scale"].shape[0])
        dtype = compute_dtype(x)
        values = x.astype(dtype)
        mean, var = state["mean"].astype(dtype), state["var"].astype(dtype)
        factor = lax.rsqrt(var + jnp.asarray(small, dtype))
        if train and math.prod(x.shape[:-1]) != 0:
            batch = weighted_moments(values, weight, small)
            state = _updated_statistics(state, batch, jnp.asarray(rate, dtype), chosen)
            values, normalizing = batch.x, (batch.mean, inverse_deviation(batch.variance, small, batch.unit))
            if weight is None:
                mean, factor = normalizing
            else:  # without weight the batch has no statistics
                has_weight = batch.entries > 0
                mean, factor = (jnp.where(has_weight, *pair) for pair in zip(normalizing, (mean, factor), strict=True))
        scale = params["scale"].astype(dtype) * factor
        mean, scale, bias = (aligned(each, x) for each in (mean, scale, params["bias"].astype(dtype)))
        return ((values - mean) * scale + bias).astype(x.dtype), state

    return Layer(init, apply, "batch_norm")


def _updated_statistics(state: State, batch: Moments, rate: Array, convention: _Convention) -> State:
    """The running statistics after a batch."""
    old_share, new_share = (rate, 1 - rate) if convention.momentum_is_of_old else (1 - rate, rate)
    mean, variance = batch.mean * batch.unit, batch.variance * batch.unit * batch.unit
    defined = batch.entries > 0
    if convention.unbiased:
        defined = batch.entries > 1
        variance = variance * (batch.entries / jnp.where(defined, jnp.maximum(batch.entries - 1, 1e-6), 1))

    def average(old: Array, new: Array, defined: Array) -> Array:
        return jnp.where(defined, (old_share * old + new_share * new).astype(old.dtype), old)

    return {"mean": average(state["mean"], mean, batch.entries > 0), "var": average(state["var"], variance, defined)}
