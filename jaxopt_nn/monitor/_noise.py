"""How noisy the gradient is, and whether steps are too long or too short."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn.monitor._sample import sample, sum_of_squares
from jaxopt_nn.training import Record, StepEnd
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, Params

__all__ = ["gradient_noise", "step_length"]


def gradient_noise(every: int = 1) -> dict[str, Record]:
    """The gradient noise scale, and the signal-to-noise ratio of each leaf's gradient.

    Gradients g and g' of two batches of B examples, one after the other, agree in the signal G and differ in the noise:
    ``E[g·g'] = |G|²`` and ``E[|g|²] = |G|² + tr(Σ)/B``, with Σ the covariance of the gradient of one example. Both are
    means over the steps of an epoch, so the noise scale is of that part of the training. Of a leaf of more than 4,096
    numbers as many are taken, equally spaced.

    Args:
        every: the cadence, in steps of an epoch (static). The gradient is compared with that of the last recorded step.

    Returns:
        A record with the entries ``noise/scale``, ``tr(Σ)/|G|²``, the batch size at which signal and noise are equal
        (infinite where there is no signal), and ``noise/signal_to_noise/<path>``, ``|G|/√(tr(Σ)/B)``. NaN where
        an epoch has less than two recorded steps.

    References:
        McCandlish et al., "An empirical model of large-batch training", 2018, section 2.2 and appendix A.1.
    """

    def init(params: Params) -> list[tuple[Array, Array]]:
        rows = [jnp.full_like(sample(leaf), jnp.nan) for _, leaf in named_leaves(params)]
        return [(row, jnp.asarray(jnp.nan, row.dtype)) for row in rows]

    def products(end: StepEnd, before: list[tuple[Array, Array]]) -> tuple[dict[str, Any], list[tuple[Array, Array]]]:
        named = named_leaves(end.gradient)
        now = [(row, sum_of_squares(row)) for row in (sample(leaf) for _, leaf in named)]
        agreed = {path: jnp.vdot(a, b) for (path, _), (a, _), (b, _) in zip(named, now, before, strict=True)}
        # Of the same steps as the products, so that both means are over the same gradients.
        square = {
            path: jnp.where(jnp.isnan(agreed[path]), jnp.nan, a / 2 + b / 2)
            for (path, _), (_, a), (_, b) in zip(named, now, before, strict=True)
        }
        sizes = {
            path: jnp.float32(leaf.size / max(row.size, 1)) for (path, leaf), (row, _) in zip(named, now, strict=True)
        }
        examples = jax.tree.leaves(end.batch.x)[0].shape[0]
        weight = end.batch.weight
        count = jnp.float32(examples) if weight is None else jnp.square(jnp.sum(weight)) / jnp.sum(jnp.square(weight))
        return {"agreed": agreed, "square": square, "size": sizes, "examples": count}, now

    def finish(means: dict[str, Any]) -> dict[str, Any]:
        agreed, square, size = means["agreed"], means["square"], means["size"]
        ratio = {path: _root_ratio(agreed[path], square[path] - agreed[path]) for path in agreed}
        signal = sum(size[path] * agreed[path] for path in agreed)
        noise = sum(size[path] * (square[path] - agreed[path]) for path in agreed) * means["examples"]
        scale = jnp.where(signal > 0, noise / jnp.where(signal > 0, signal, 1), jnp.inf)
        scale = jnp.where(jnp.isnan(signal), jnp.nan, jnp.maximum(scale, 0))
        return {"scale": scale, "signal_to_noise": ratio}

    return {"noise": Record(products, of="step", every=every, init=init, finish=finish)}


def _root_ratio(signal: Array, noise: Array) -> Array:
    positive = noise > 0
    ratio = jnp.sqrt(jnp.maximum(signal, 0) / jnp.where(positive, noise, 1))
    return jnp.where(jnp.isnan(signal), jnp.nan, jnp.where(positive, ratio, jnp.where(signal > 0, jnp.inf, jnp.nan)))


def step_length(every: int = 20) -> dict[str, Record]:
    """Whether a step was too long or too short along its own direction, for the loss of its batch.

    Along the step, from t = 0 to t = 1, the loss is fitted by the parabola ``a + b·t + c·t²`` that is nearest, by least
    squares, to the two losses and the two slopes at its ends. α says where on it the step ended: −1 where it began, 0
    at the minimum, 1 as far behind the minimum as it began before it, so that nothing was gained. Where the parabola
    has no minimum ahead, the step could have been longer by any factor, and α is −1. A step that goes uphill, as
    momentum may, has no α (NaN).

    Each measurement costs a gradient of its own, at the end of the step.

    Args:
        every: the cadence, in steps of an epoch (static).

    Returns:
        A record with the entry ``step_length``, α clipped to [−1, 10].

    References:
        Schneider, Dangel & Hennig, "Cockpit: a practical debugging tool for the training of deep neural networks",
        2021, section 2.1. There both ends have batches of their own, and what is known of their noise weighs the fit.
    """

    def alpha(end: StepEnd) -> Array:
        after = jax.tree.map(lambda leaf, step: (leaf + step).astype(leaf.dtype), end.params, end.update)
        loss, gradient = end.loss_and_gradient(after)
        slopes = [_slope(tree, end.update) for tree in (end.gradient, gradient)]
        return relative_length(end.loss, loss, *slopes)

    return {"step_length": Record(alpha, of="step", every=every)}


def relative_length(before: Array, after: Array, slope_before: Array, slope_after: Array) -> Array:
    """α of two losses and two slopes.

    The least squares of ``a = f0, a + b + c = f1, b = s0, b + 2c = s1`` in closed form.

    >>> float(relative_length(*map(jnp.float32, (1.0, 0.0, -2.0, 0.0))))  # (1 − t)², whose minimum is at the end
    0.0
    """
    gain = after - before
    # Normal equations: a is free, so they are those of b + c = gain (of half weight), b = s0 and b + 2c = s1.
    rows = ((2.5, 2.5), (2.5, 4.5))
    right = (0.5 * gain + slope_before + slope_after, 0.5 * gain + 2 * slope_after)
    determinant = rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    b = (rows[1][1] * right[0] - rows[0][1] * right[1]) / determinant
    c = (rows[0][0] * right[1] - rows[1][0] * right[0]) / determinant
    falls, bends = b < 0, c > 0
    # α = (1 − t)/t of the minimum at t = −b/2c, so −1 − 2c/b.
    length = jnp.where(bends, -1 - 2 * c / jnp.where(falls, b, -1), -1.0)
    length = jnp.where(
        jnp.isfinite(gain) & jnp.isfinite(c), jnp.clip(length, -1, 10), 10.0
    )  # a loss beyond all numbers
    return jnp.where(slope_before < 0, jnp.where(falls, length, 10.0), jnp.nan)


def _slope(gradient: Params, update: Params) -> Array:
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(update), strict=True)
    return jnp.sum(jnp.stack([jnp.vdot(a.astype(jnp.float32), b.astype(jnp.float32)) for a, b in pairs]))
