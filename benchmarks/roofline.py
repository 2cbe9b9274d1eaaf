"""What a step costs at the least: floating-point operations of its matrix products, and bytes of its optimizer.

Let B be the batch size, ``a x b`` a dense layer's kernel. Its matrix products are the outputs (2·B·a·b operations), the
kernel's gradient (as many) and the inputs' gradient (as many, but not for the first layer). A convolution is such a
product for each position of its output, with ``a = k·k·channels``. Everything else (biases, activations, loss) is
small, and left out: a share of the peak computed so is a lower bound.

Adam and AdamW in float32 read parameter, gradient and two moments and write parameter and moments: 7 · 4 = 28 bytes a
parameter. Activations are not counted: they may stay in the cache.
"""

from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

from benchmarks.work import LargeUpdate, Training, Update, Work

__all__ = ["Counts", "count", "shares"]


class Counts(NamedTuple):
    """A step's or an update's least work.

    Attributes:
        flops: floating-point operations of matrix products.
        bytes: read and written by the optimizer.
    """

    flops: int
    bytes: int


class _Product(NamedTuple):
    """A layer as a matrix product at ``positions`` places of each example; ``outputs`` have a bias."""

    positions: int
    inputs: int
    outputs: int


_LENET = (
    _Product(28 * 28, 5 * 5 * 1, 6),  # padded: 28 x 28 outputs
    _Product(10 * 10, 5 * 5 * 6, 16),  # on 14 x 14, not padded
    _Product(1, 5 * 5 * 16, 120),
    _Product(1, 120, 84),
    _Product(1, 84, 10),
)


def count(work: Work) -> Counts:
    """The least work of one step of one lane, or of one update."""
    if isinstance(work, Update):
        return Counts(0, 28 * sum(map(prod, work.shapes)))
    if isinstance(work, LargeUpdate):
        moments = 8 if work.state_dtype == "bfloat16" else 16
        return Counts(0, (12 + moments) * work.leaves * work.size)
    if not isinstance(work, Training):
        raise TypeError(f"work: expected training or updates, got {type(work).__name__}")
    layers = tuple(_Product(1, a, b) for a, b in pairwise(work.widths)) or _LENET
    once = [2 * work.batch_size * layer.positions * layer.inputs * layer.outputs for layer in layers]
    parameters = sum((layer.inputs + 1) * layer.outputs for layer in layers)
    return Counts(3 * sum(once) - once[0], 7 * parameters * (2 if work.dtype == "bfloat16" else 4))


def shares(work: Work, per_second: float, rates: dict[str, float]) -> dict[str, float]:
    """Which parts of the machine's measured rates so many steps a second use, for what is counted."""
    counts = count(work)
    found: dict[str, Any] = {}
    if counts.flops:
        found["of_matmul_rate"] = 1e-9 * counts.flops * per_second / rates["matmul_gflops"]
    found["of_copy_rate"] = 1e-9 * counts.bytes * per_second / rates["copy_gbytes"]
    return found
