"""Losses of regressions: for a number, a quantile, or the parameters of a distribution."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_each, check_number, concrete_array, plain_array
from jaxopt_nn.losses._arrays import floats, mean_of_trailing, pair, reals
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["gaussian_nll", "huber", "mean_absolute_error", "mean_squared_error", "poisson_nll", "quantile"]


def mean_squared_error(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Squared error, averaged over an example's outputs: ℓ = mean (o - t)².

    Args:
        outputs: ``[N, ...]``.
        targets: ``[N, ...]``.

    Returns:
        ``[N]``.

    Raises:
        TypeError: ``outputs`` are not floats, or targets not real.
        ValueError: shapes differ.

    Differs from ``optax.l2_loss`` in the factor: that one is half of it.

    >>> mean_squared_error(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 0.0]])).tolist()
    [5.0]
    """
    o, t = pair("outputs", outputs, "targets", targets)
    return mean_of_trailing(jnp.square(o - t))


def huber(outputs: ArrayLike, targets: ArrayLike, *, delta: ArrayLike = 1.0) -> Array:
    """Huber's loss, quadratic for small errors and linear for large ones, averaged over an example's outputs.

    With e = o - t: ℓ = e²/2 where abs(e) <= δ, and δ·(abs(e) - δ/2) beyond.

    Args:
        outputs: ``[N, ...]``.
        targets: ``[N, ...]``.
        delta: the error δ > 0 at which the loss turns linear; may be traced.

    Returns:
        ``[N]``.

    Raises:
        TypeError: ``outputs`` are not floats, or targets not real.
        ValueError: shapes differ, or δ is not positive and finite.

    References:
        Huber, "Robust estimation of a location parameter", 1964.

    >>> huber(jnp.array([0.5, 3.0]), jnp.array([0.0, 0.0])).tolist()
    [0.125, 2.5]
    """
    check_number("delta", delta, 0.0, open_low=True)
    o, t = pair("outputs", outputs, "targets", targets)
    error, d = o - t, jnp.asarray(delta, o.dtype)
    # max over |c| <= δ of c·e - c²/2: one expression for both parts, with the right second derivative at e = 0.
    c = jnp.clip(error, -d, d)
    return mean_of_trailing(c * (error - 0.5 * c))


def mean_absolute_error(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Absolute error, averaged over an example's outputs: ℓ = mean abs(o - t). Its minimum is the median.

    Args:
        outputs: ``[N, ...]``.
        targets: ``[N, ...]``.

    Returns:
        ``[N]``.

    Raises:
        TypeError: ``outputs`` are not floats, or targets not real.
        ValueError: shapes differ.

    >>> mean_absolute_error(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 0.0]])).tolist()
    [2.0]
    """
    o, t = pair("outputs", outputs, "targets", targets)
    return mean_of_trailing(jnp.abs(o - t))


def quantile(outputs: ArrayLike, targets: ArrayLike, *, quantile: float | Sequence[float] = 0.5) -> Array:
    """The pinball loss, whose minimum is a quantile of the targets.

    With e = t - o: ℓ = max(q·e, (q - 1)·e).

    Args:
        outputs: of one quantile ``[N, ...]``, the shape of the targets; of Q quantiles ``[N, ..., Q]``.
        targets: ``[N, ...]``.
        quantile: q in (0, 1), which may be traced; or a sequence of Q of them, whose losses are averaged.

    Returns:
        ``[N]``, averaged over the axes behind.

    Raises:
        TypeError: ``outputs`` are not floats, or targets not real.
        ValueError: shapes that do not match, or a q outside of (0, 1).

    References:
        Koenker and Bassett, "Regression quantiles", 1978.

    >>> quantile(jnp.array([1.0, 1.0]), jnp.array([3.0, 0.0]), quantile=0.75).tolist()
    [1.5, 0.25]
    """
    o = floats("outputs", outputs)
    if isinstance(quantile, Sequence):
        if not quantile:
            raise ValueError("quantile: expected at least one number, got none")
        for index, each in enumerate(quantile):
            check_number(f"quantile[{index}]", each, 0.0, 1.0, open_low=True, open_high=True)
        t = reals("targets", targets, o.dtype)
        if o.shape != (*t.shape, len(quantile)):
            raise ValueError(
                f"outputs: expected {len(quantile)} quantiles of targets {list(t.shape)}, "
                f"{[*t.shape, len(quantile)]}, got {list(o.shape)}"
            )
        t = t[..., None]
    else:
        check_number("quantile", quantile, 0.0, 1.0, open_low=True, open_high=True)
        o, t = pair("outputs", outputs, "targets", targets)
    error, q = t - o, jnp.asarray(quantile, o.dtype)
    q = jnp.expand_dims(q, tuple(range(o.ndim - q.ndim)))
    return mean_of_trailing(jnp.maximum(q * error, (q - 1) * error))


def gaussian_nll(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Negative log-likelihood of a normal distribution, whose mean and variance are the model's outputs.

    With outputs μ and s = log σ²: ℓ = (log 2π + s + (t - μ)²·exp(-s)) / 2.

    Args:
        outputs: ``[N, ..., 2]``: μ and s in the last axis.
        targets: ``[N, ...]``.

    Returns:
        ``[N]``, averaged over the axes behind; it may be negative.

    Raises:
        TypeError: ``outputs`` are not floats, or targets not real.
        ValueError: shapes that do not match.

    References:
        Nix and Weigend, "Estimating the mean and variance of the target probability distribution", 1994.

    Differs from ``torch.nn.GaussianNLLLoss``, which takes the variance itself, and has the constant only with
    ``full=True``.

    >>> loss = gaussian_nll(jnp.array([[1.0, 0.0]]), jnp.array([1.0]))
    >>> bool(jnp.allclose(loss, 0.5 * jnp.log(2 * jnp.pi)))
    True
    """
    o = floats("outputs", outputs)
    t = reals("targets", targets, o.dtype)
    if o.ndim < 2 or o.shape != (*t.shape, 2):
        raise ValueError(
            f"outputs: expected a mean and a log variance for targets {list(t.shape)}, {[*t.shape, 2]}, "
            f"got {list(o.shape)}"
        )
    mean, log_variance = o[..., 0], o[..., 1]
    return mean_of_trailing(
        0.5 * (math.log(2 * math.pi) + log_variance + jnp.square(t - mean) * jnp.exp(-log_variance))
    )


def poisson_nll(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Negative log-likelihood of Poisson counts, from the logarithm of their rate, without the constant log t!.

    With outputs z = log λ: ℓ = exp(z) - t·z.

    Args:
        outputs: ``[N, ...]``: z.
        targets: ``[N, ...]``: counts >= 0.

    Returns:
        ``[N]``, averaged over the axes behind.

    Raises:
        TypeError: ``outputs`` are not floats, or targets not real.
        ValueError: shapes differ, or a concrete target is negative or not finite.

    >>> poisson_nll(jnp.array([0.0]), jnp.array([2])).tolist()
    [1.0]
    """
    z, t = pair("outputs", outputs, "targets", targets)
    counts = concrete_array(plain_array("targets", targets))
    if counts is not None:
        check_each("targets", counts, (counts >= 0) & np.isfinite(counts), "a count, a finite number >= 0")
    return mean_of_trailing(jnp.where(t >= 0, jnp.exp(z) - t * z, jnp.nan))
