"""Sizes of gradients, updates and parameters by leaf, their histograms, and the sizes of the inputs."""

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.monitor._activations import activations
from jaxopt_nn.monitor._noise import gradient_noise, step_length
from jaxopt_nn.monitor._sample import sample, sum_of_squares
from jaxopt_nn.training import Record, StepEnd
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array

__all__ = ["EDGES", "gradient_flow", "histograms", "inputs", "watch"]

Records = dict[str, Record]

EDGES = tuple(10.0**power for power in range(-10, 3))
"""The edges of the bins of :func:`histograms`: one bin a power of ten, and one below and above all of them."""


def watch(every: int = 1) -> Records:
    """All records of this module but the histograms: what :func:`diagnose` reads.

    The step length, which costs a gradient of its own, is measured at every fiftieth of these steps.

    Args:
        every: the cadence, in steps of an epoch (static).

    >>> sorted(watch(every=10))
    ['activation', 'flow', 'input', 'noise', 'start', 'step_length', 'target']
    """
    check_positive_int("every", every)
    return {
        **gradient_flow(every),
        **activations(every),
        **inputs(every),
        **gradient_noise(every),
        **step_length(50 * every),
    }


def gradient_flow(every: int = 1, *, series: bool = False) -> Records:
    """L2 norms of gradient, update and parameter of each leaf, and the ratio of update to parameter.

    Args:
        every: the cadence, in steps of an epoch (static).
        series: static; whether the history keeps each recorded step. Else it keeps the mean over the steps of an epoch.

    Returns:
        A record with the entries ``flow/gradient/<path>``, ``flow/update/<path>``, ``flow/parameter/<path>`` and
        ``flow/ratio/<path>``. The gradient is the one before the optimizer changes it. A ratio around 1e-3 is usual; a
        parameter of zeros has none (NaN).
    """

    def flow(end: StepEnd) -> dict[str, dict[str, Array]]:
        trees = {"gradient": end.gradient, "update": end.update, "parameter": end.params}
        norms = {kind: {path: _norm(leaf) for path, leaf in named_leaves(tree)} for kind, tree in trees.items()}
        ratio = {
            path: jnp.where(size > 0, norms["update"][path] / jnp.where(size > 0, size, 1), jnp.nan)
            for path, size in norms["parameter"].items()
        }
        return {**norms, "ratio": ratio}

    return {"flow": Record(flow, of="step", every=every, series=series)}


def histograms(every: int = 1) -> Records:
    """Histograms of the sizes of gradients, updates and parameters of each leaf, over logarithmic bins.

    Of a leaf of more than 4,096 numbers as many are taken, equally spaced.

    Args:
        every: the cadence, in steps of an epoch (static).

    Returns:
        A record with the entries ``histogram/<kind>/<path>``, ``[14]``: the fractions whose absolute value is below
        1e-10 (zeros too), in each power of ten up to 1e2, and above.
    """

    def histogram(leaf: Array) -> Array:
        sizes = jnp.abs(sample(leaf))
        below = jnp.stack([jnp.mean(sizes < edge, dtype=sizes.dtype) for edge in EDGES])
        return jnp.diff(below, prepend=jnp.zeros(1, below.dtype), append=jnp.ones(1, below.dtype))

    def of_step(end: StepEnd) -> dict[str, dict[str, Array]]:
        trees = {"gradient": end.gradient, "update": end.update, "parameter": end.params}
        return {kind: {path: histogram(leaf) for path, leaf in named_leaves(tree)} for kind, tree in trees.items()}

    return {"histogram": Record(of_step, of="step", every=every)}


def inputs(every: int = 1) -> Records:
    """How large the features are, and how different in size. Of features that are not floats there is nothing to say.

    Args:
        every: the cadence, in steps of an epoch (static).

    Returns:
        A record with the entries ``input/largest``, the root mean square of the largest feature (entry of the last
        axis), and ``input/spread``, the largest standard deviation over the median one. Features that do not vary are
        left out. And a record of the loss of guessing: ``target/entropy`` of class labels, in nats, is the
        cross-entropy of their frequencies (of labels modulo 256); ``target/variance`` of other targets is the squared
        error of their mean.
    """

    def moments(end: StepEnd) -> dict[str, Array]:
        leaves = [leaf for leaf in jax.tree.leaves(end.batch.x) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        values = [
            leaf.astype(compute_dtype(leaf)).reshape(-1, leaf.shape[-1] if leaf.ndim > 1 else 1) for leaf in leaves
        ]
        if not values:
            return {"mean": jnp.zeros(0), "square": jnp.zeros(0)}
        return {
            "mean": jnp.concatenate([jnp.mean(each, 0) for each in values]),
            "square": jnp.concatenate([jnp.mean(jnp.square(each), 0) for each in values]),
        }

    def finish(means: dict[str, Array]) -> dict[str, Array]:
        mean, square = means["mean"], means["square"]
        if not mean.size:
            return dict.fromkeys(("largest", "spread"), jnp.float32(jnp.nan))
        variance = square - jnp.square(mean)
        varies = variance > 1e-6 * square  # more than the rounding of the difference
        deviation = jnp.sqrt(jnp.where(varies, variance, jnp.nan))
        size = jnp.sqrt(jnp.where(varies, square, jnp.nan))
        return {"largest": jnp.nanmax(size), "spread": jnp.nanmax(deviation) / jnp.nanmedian(deviation)}

    return {
        "input": Record(moments, of="step", every=every, finish=finish),
        "target": Record(_target, of="step", every=every, finish=_spread_of_target),
    }


def _target(end: StepEnd) -> dict[str, Array]:
    y = end.batch.y
    if hasattr(y, "dtype") and jnp.issubdtype(y.dtype, jnp.integer):
        # Compared, not scattered: a scatter is a loop on some machines.
        labels = jnp.ravel(y).astype(jnp.int32) % 256
        return {"counts": jnp.sum(labels[:, None] == jnp.arange(256, dtype=jnp.int32)[None], 0, dtype=jnp.float32)}
    floats = [
        leaf.astype(compute_dtype(leaf)) for leaf in jax.tree.leaves(y) if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    if not floats:
        return {"none": jnp.zeros(())}
    columns = [leaf.reshape(-1, leaf.shape[-1] if leaf.ndim > 1 else 1) for leaf in floats]
    return {
        "mean": jnp.concatenate([jnp.mean(each, 0) for each in columns]),
        "square": jnp.concatenate([jnp.mean(jnp.square(each), 0) for each in columns]),
    }


def _spread_of_target(means: dict[str, Array]) -> dict[str, Array]:
    if "counts" in means:
        share = means["counts"] / jnp.sum(means["counts"])
        return {"entropy": -jnp.sum(jax.scipy.special.xlogy(share, share))}
    if "none" in means:
        return {"variance": jnp.float32(jnp.nan)}
    return {"variance": jnp.mean(jnp.maximum(means["square"] - jnp.square(means["mean"]), 0))}


def _norm(leaf: Array) -> Array:
    return jnp.sqrt(sum_of_squares(jnp.ravel(leaf).astype(compute_dtype(leaf))))
