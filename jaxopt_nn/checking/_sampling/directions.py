"""Directions within one leaf, or a group of leaves laid end to end, drawn on the host: nothing has to be compiled.

A direction fills a window ``[low, high)`` of the flattened leaf with Gaussian numbers, with random signs or with ones,
and is scaled to a root mean square of 1 in the window. A window is the whole leaf, a part to bisect, or a coordinate.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpy.typing import NDArray

from jaxopt_nn.checking._sampling.differences import Floats
from jaxopt_nn.types import Key

__all__ = ["Line", "along", "coordinate", "direction", "part", "project", "random_lines", "seed_words", "short_normal"]


class Line(NamedTuple):
    """A line through the point along one direction of one leaf.

    Attributes:
        kind: what the window is filled with.
        words: what the random numbers are drawn from.
        low: start of the window in the flattened leaf.
        high: its end.
        keep: ``[size]`` which coordinates of the leaf move; None for all of the window.
        along: ``[size]`` of kind ``along``, the direction.
    """

    kind: Literal["gaussian", "signs", "one", "along"]
    words: tuple[int, ...]
    low: int
    high: int
    keep: NDArray[np.bool_] | None = None
    along: Floats | None = None


def seed_words(key: Key) -> tuple[int, ...]:
    """The integers of a concrete PRNG key."""
    if isinstance(key, Tracer):
        raise TypeError("key: expected a concrete key, got a traced one: gradients are checked outside jit and grad")
    with jax.ensure_compile_time_eval():  # a concrete key, even while something else is being traced
        return tuple(int(word) for word in np.asarray(jax.random.key_data(key)).ravel())


def short_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Gaussian numbers of eight binary digits: a cotangent that is the same one in every float dtype."""
    return generator.standard_normal(shape).astype(jnp.bfloat16).astype(np.float64)


def random_lines(words: tuple[int, ...], size: int, count: int, keep: NDArray[np.bool_] | None = None) -> list[Line]:
    """``count`` Gaussian lines, then ``count`` of random signs, through a whole leaf of ``size`` numbers."""
    return [Line("gaussian" if i < count else "signs", (*words, i), 0, size, keep) for i in range(2 * count)]


def part(words: tuple[int, ...], low: int, high: int, keep: NDArray[np.bool_] | None = None) -> Line:
    """A line of random signs in a part of a leaf."""
    return Line("signs", (*words, low, high), low, high, keep)


def coordinate(place: int) -> Line:
    """The line along one coordinate."""
    return Line("one", (), place, place + 1)


def along(vector: Floats) -> Line:
    """The line along a vector."""
    return Line("along", (), 0, vector.size, along=vector.ravel())


def direction(line: Line, size: int) -> tuple[Floats, float]:
    """``(v, scale)``: the flat direction ``[size]``, of root mean square 1 where it moves, and its divisor."""
    if line.along is not None:
        return line.along / float(np.sqrt(np.mean(line.along**2))), 1.0
    flat = np.zeros(size)
    window = slice(line.low, line.high)
    mask = np.ones(line.high - line.low, bool) if line.keep is None else line.keep[window]
    if line.kind == "one":
        flat[window] = mask
        return flat, 1.0
    draws = np.random.default_rng(line.words).standard_normal(len(mask))
    if line.kind == "signs":
        flat[window] = np.where(draws < 0, -1.0, 1.0) * mask
        return flat, 1.0
    scale = float(np.sqrt(np.mean(draws[mask] ** 2))) if np.any(mask) else 1.0
    flat[window] = draws * mask / scale
    return flat, scale


def project(gradient: Floats, lines: list[Line]) -> Floats:
    """The slopes along ``lines`` that a leaf's ``gradient`` claims."""
    flat = gradient.ravel()
    return np.array(
        [float(flat[line.low : line.high] @ direction(line, flat.size)[0][line.low : line.high]) for line in lines]
    )
