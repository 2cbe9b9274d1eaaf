"""What the layers of a model put out: mean, deviation, dead units, saturation."""

from typing import Any

import jax.numpy as jnp

from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.training import LayerOutput, Record
from jaxopt_nn.types import Array

__all__ = ["activations"]

_BOUNDS = {
    "tanh": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "soft_sign": (-1.0, 1.0),
}
_NEAR = 0.015
"""How near to a bound, as a part of the range, an output is saturated: tanh beyond 0.97, where its slope is 0.06."""


def activations(every: int = 1, *, series: bool = False) -> dict[str, Record]:
    """Mean and deviation of each layer's outputs, the fraction of dead units and of saturated outputs.

    Args:
        every: the cadence, in steps of an epoch (static).
        series: static; whether the history keeps each recorded step.

    Returns:
        A record with the entries ``activation/<path>/mean`` and ``/deviation``, of each layer with one floating-point
        output, over the examples of weight and over all axes. Of layers that keep the shape of their input also
        ``/dead``: the fraction of units (entries of the last axis) that are 0 for all examples that were looked at in
        the epoch, though what they got was not, as a dead ReLU. Of functions with bounds, known by their names (tanh,
        sigmoid, hard_tanh, hard_sigmoid, soft_sign), also ``/saturated``: the fraction of outputs within 1.5 % of a
        bound. ``/position`` is the layer's place in the order of evaluation. In a ``repeat`` each is ``[n]``. And a
        record with the entries ``start/<path>``: the deviation at the first step of an epoch, so at first that of the
        initial parameters.
    """

    def of_layer(output: LayerOutput) -> dict[str, Array] | None:
        value = output.value
        if not _is_told_of(value):
            return None
        value = value.astype(compute_dtype(value))
        share = _shares(value, output.weight)
        mean = jnp.sum(share * value)
        found = {
            "position": jnp.float32(output.position),
            "mean": mean,
            "square": jnp.sum(share * jnp.square(value)),
        }
        if getattr(output.inputs, "shape", None) == value.shape and value.ndim > 1:
            axes = tuple(range(value.ndim - 1))
            found["active"] = jnp.sum(share * (value != 0), axes)
            found["fed"] = jnp.sum(share * (output.inputs != 0), axes)
        if output.name in _BOUNDS:
            low, high = _BOUNDS[output.name]
            near = _NEAR * (high - low)
            found["saturated"] = jnp.sum(share * ((value < low + near) | (value > high - near)))
        return found

    def finish(means: dict[str, Array]) -> dict[str, Array]:
        mean = means["mean"]
        entries = {name: means[name] for name in ("position", "mean", "saturated") if name in means}
        entries["deviation"] = jnp.sqrt(jnp.maximum(means["square"] - jnp.square(mean), 0))
        if "active" in means:
            dead = (means["active"] == 0) & (means["fed"] > 0)
            entries["dead"] = jnp.where(jnp.isnan(mean), jnp.nan, jnp.mean(dead, -1, dtype=mean.dtype))
        return entries

    def deviation(output: LayerOutput) -> Array | None:
        return jnp.std(output.value.astype(compute_dtype(output.value))) if _is_told_of(output.value) else None

    return {
        "activation": Record(of_layer, of="layer", every=every, series=series, finish=finish),
        "start": Record(deviation, of="layer", every=_NEVER_AGAIN),
    }


_NEVER_AGAIN = 2**31 - 1
"""A cadence: the first step of an epoch alone."""


def _is_told_of(value: Any) -> bool:
    return hasattr(value, "dtype") and bool(jnp.issubdtype(value.dtype, jnp.floating)) and value.ndim > 0


def _shares(value: Array, weight: Array | None) -> Array:
    """The share of each number in a mean over the examples and all axes, to be multiplied with ``value``."""
    inner = value.size // value.shape[0]
    if weight is None:
        return jnp.full((1,) * value.ndim, 1 / max(value.size, 1), value.dtype)
    weight = weight.astype(value.dtype)
    weight = weight / jnp.maximum(jnp.sum(weight), jnp.finfo(value.dtype).tiny) / inner
    return weight.reshape(-1, *(1,) * (value.ndim - 1))
