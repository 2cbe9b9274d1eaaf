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
"""What ``momentum`` means, the defaults, and which variance is carried."""


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

    In training ``y = γ (x − μ)/√(σ² + ε) + β`` with the batch's mean and biased variance, each example counting by its
    weight; in evaluation with the running statistics, which follow the batch's in training. The variance is computed in
    two passes, in float32 at least. Of a batch that is sharded over devices, they are those of the whole batch.

    A batch, or a part of one, in which no row has weight changes nothing: the state stays, and what is there is
    normalized with it. Every other batch counts the same for the running statistics, however few rows have weight in
    it: so do the parts of micro-batches, one after another, as in PyTorch. (Variances above the dtype's range, of
    numbers above 1.8e19 in float32, are normalized in training, but no running variance can hold them.)

    ==========  =====================================  ========  ======  ================
    convention  running statistic                      momentum  ε       running variance
    ==========  =====================================  ========  ======  ================
    "torch"     (1 − momentum) · old + momentum · new  0.1       1e-5    unbiased, n/(n−1)
    "flax"      momentum · old + (1 − momentum) · new  0.99      1e-5    biased
    "keras"     momentum · old + (1 − momentum) · new  0.99      1e-3    biased
    ==========  =====================================  ========  ======  ================

    Args:
        *features: none: their number follows from the input.
        momentum: in [0, 1], as the convention means it; by default the convention's. May be traced.
        epsilon: ε, >= 0; by default the convention's. May be traced.
        convention: whose meaning and defaults (static). The default follows a new batch ten times as fast as the
            others: it suits runs of any length, where 0.99 is still far from the data after a hundred steps.

    Returns:
        A layer with parameters ``scale`` (γ, ones) and ``bias`` (β, zeros) and state ``mean`` (zeros) and ``var``
        (ones), all ``[features]``.

    Raises:
        TypeError: for a number of features.
        ValueError: for a number out of range, an unknown convention, an input that is not floating-point
            ``[batch, ..., features]``.

    References:
        Ioffe & Szegedy, "Batch normalization", 2015, algorithm 1.

    Differs from torch.nn.BatchNorm1d with a single value for each feature: an error there. Here it becomes 0, and by
    the convention of "torch" the running variance stays, for one value has no unbiased variance; by the others it
    follows 0.
    With example weights, n is (Σw)²/Σw² times the positions of an example; the other libraries have none (Keras: a
    mask).

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
            else:  # without weight there are no statistics but the running ones
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
