"""The points of the scaling curves: one network, and one of its sizes changed at a time."""

from itertools import pairwise
from typing import NamedTuple

from benchmarks.work import Case, Training

__all__ = ["CURVES", "POINTS", "Curve"]


class Curve(NamedTuple):
    """Steps a second against one size.

    Attributes:
        label: of the axis.
        values: of the size, rising.
        peers: who is measured beside ours.
    """

    label: str
    values: tuple[int, ...]
    peers: tuple[str, ...]


_PEERS = ("torch", "keras-jax-16", "equinox")

CURVES = {
    "batch": Curve("batch size", (8, 32, 128, 512, 2048), _PEERS),
    "width": Curve("width of two hidden layers", (32, 128, 512, 2048), _PEERS),
    "depth": Curve("hidden layers of width 64", (1, 2, 4, 8, 16), _PEERS),
    "lanes": Curve("runs with seeds of their own, on up to two devices", (1, 4, 16, 64, 256), ("torch", "sklearn-2")),
    "devices": Curve("devices, 64 runs", (1, 2, 4, 8), ()),
}


def _work(curve: str, value: int) -> Training:
    """Of about a second for a peer at each point: half a millisecond a step and 50 GFLOP/s, as a rule of thumb."""
    batch_size = value if curve == "batch" else 32
    widths = {"width": (64, value, value, 10), "depth": (64,) * (value + 1) + (10,)}.get(curve, (64, 64, 64, 10))
    lanes = {"lanes": value, "devices": 64}.get(curve, 1)
    weights = sum(a * b for a, b in pairwise(widths))
    steps = 1 / (5e-4 + 6 * batch_size * weights / 5e10) / lanes**0.5
    examples = batch_size * max(4, 1024 // batch_size)
    epochs = max(1, round(steps * batch_size / examples))
    devices = {"lanes": min(value, 2), "devices": value}.get(curve, 1)
    together = 16 if lanes // devices > 16 else None
    return Training("made", widths, batch_size, epochs, 1e-3, examples, lanes, devices=devices, together=together)


POINTS = {
    f"{name}-{value}": Case(f"{curve.label}: {value:,}", "steps", _work(name, value), dict.fromkeys(curve.peers, None))
    for name, curve in CURVES.items()
    for value in curve.values
}
