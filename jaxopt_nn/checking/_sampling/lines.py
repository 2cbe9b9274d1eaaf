"""All evaluations of f: one compiled program that samples f along a few lines through the point.

f is evaluated at one point at a time, so memory does not grow with the number of lines or steps, and what f does is not
changed by batching it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.checking._sampling.differences import LADDER, Floats, Slopes, round_off, slopes_at_zero
from jaxopt_nn.checking._sampling.directions import Line, direction

__all__ = ["Curve", "Probe", "Sample", "coordinate_units", "make_probe", "natural_scale"]

_ELEMENTS = 1 << 24  # of directions that are sent to the device at a time
_WIDELY = 100.0  # root mean square over geometric mean; of Gaussian numbers 1.9


class Sample(NamedTuple):
    """What B lines showed.

    Attributes:
        slopes: the slopes of f along the lines.
        scale: ``[B]`` slopes times ``scale`` are slopes along directions whose coordinates have variance 1.
        middle: f at the point.
        constant: whether all values of f are bitwise equal.
        repeatable: whether all values of f at the point are bitwise equal.
        noise: round-off of one value of f.
        curve: what the lines showed at each step.
        evaluations: how often f was evaluated.
        stretches: the factors on the ladder of steps; of each line the slopes are those of the best.
    """

    slopes: Slopes
    scale: Floats
    middle: float
    constant: bool
    repeatable: bool
    noise: float
    curve: "Curve"
    evaluations: int
    stretches: tuple[float, ...] = (1.0,)


class Curve(NamedTuple):
    """The plain differences behind the slopes, for a picture of error against step size.

    Attributes:
        steps: ``[m]`` steps.
        two_sided: ``[B, m]`` (f(h) - f(-h)) / 2h.
        forward: ``[B, m]`` (f(h) - f(0)) / h.
        crossed: ``[B, m]`` whether f takes another branch at h or -h than at 0.
    """

    steps: Floats
    two_sided: Floats
    forward: Floats
    crossed: NDArray[np.bool_]


class Probe(Protocol):
    """Samples lines of a leaf; at most the ``block`` of :func:`make_probe` of them at once.

    ``leaf`` is the index of a leaf, or beyond the last one that of a group of :func:`make_probe`, whose lines go
    through all leaves, one after another, flattened. ``noise`` is a lower bound of the round-off of f, ``most`` an
    upper one, ``stretch`` a factor on the ladder of steps.
    """

    def __call__(
        self, leaf: int, lines: list[Line], *, noise: float = 0.0, most: float = np.inf, stretch: float = 1.0
    ) -> Sample: ...


def make_probe(
    fn: Callable[..., Any],
    leaves: Sequence[Any],
    rest: Any,
    block: int,
    groups: Sequence[Floats] = (),
    by_hand: Callable[[Sequence[Any]], float] | None = None,
) -> Probe:
    """Compiles ``fn(leaves, rest) -> (scalar, signature)`` for lines of leaves; for use under ``enable_x64``.

    Args:
        fn: the function; hashable. Equal ones share what is compiled.
        leaves: the point.
        rest: what else ``fn`` takes.
        block: the number of lines that are sampled at once.
        groups: for each group of leaves that move together the unit of steps of every leaf; 0 leaves one where it is.
        by_hand: the scalar at a list of leaves, to be called instead of ``fn``: nothing is compiled.
    """
    sizes = [int(np.size(leaf)) for leaf in leaves]
    edges = np.cumsum([0, *sizes])
    total = int(edges[-1])
    block = max(1, min(block, _ELEMENTS // total))
    point = [jnp.asarray(leaf) for leaf in leaves]

    run = _runner(fn, block) if by_hand is None else functools.partial(_call_by_call, by_hand)
    coordinates = np.concatenate([np.broadcast_to(coordinate_units(x), np.shape(x)).ravel() for x in leaves])

    def probe(
        leaf: int, lines: list[Line], *, noise: float = 0.0, most: float = np.inf, stretch: float = 1.0
    ) -> Sample:
        if leaf < len(leaves):
            low, high, unit, units = edges[leaf], edges[leaf + 1], natural_scale(leaves[leaf]), 1.0
        else:
            low, high, unit, units = 0, total, 1.0, np.repeat(groups[leaf - len(leaves)], sizes)
        units = units * coordinates[low:high]
        steps = np.array(LADDER) * unit * stretch
        offsets = np.concatenate([[0.0], steps, -steps])
        scale = np.ones(len(lines))
        samples = np.empty((len(lines), len(offsets), 2))
        for start in range(0, len(lines), block):
            moves = np.zeros((block, total))
            chunk = lines[start : start + block]
            for i, line in enumerate(chunk):
                flat, scale[start + i] = direction(line, high - low)
                moves[i, low:high] = units * flat
            sampled = np.asarray(run(point, rest, moves, len(chunk), offsets))
            samples[start : start + len(chunk)] = sampled[: len(chunk)]
        values, branches = samples[..., 0], samples[..., 1]
        crossed = branches[:, 1:] != branches[:, :1]
        crossed = crossed[:, : len(steps)] | crossed[:, len(steps) :]
        middle, above, below = values[:, 0], values[:, 1 : 1 + len(steps)], values[:, 1 + len(steps) :]
        noise = min(max(noise, round_off(middle, above, below, steps)), most)
        with np.errstate(all="ignore"):
            curve = Curve(steps, (above - below) / (2 * steps), (above - middle[:, None]) / steps, crossed)
        keep = ~_avoidable(crossed)
        return Sample(
            slopes=slopes_at_zero(
                middle, np.where(keep, above, np.nan), np.where(keep, below, np.nan), steps, noise, unit
            ),
            scale=scale,
            middle=float(middle[0]),
            constant=bool(np.all(values == middle[0])),
            repeatable=np.array_equal(middle, np.full_like(middle, middle[0]), equal_nan=True),
            noise=noise,
            curve=curve,
            evaluations=values.size,
            stretches=(stretch,),
        )

    return probe


@functools.lru_cache(maxsize=128)
def _runner(fn: Callable[..., Any], block: int) -> Callable[..., Any]:
    """The compiled program, kept for other points of the same function."""

    @jax.jit
    def run(point: Any, rest: Any, moves: Any, count: Any, offsets: Any) -> Any:
        edges = np.cumsum([0, *(x.size for x in point)])

        def along(move: Any) -> Any:
            steps = [move[low : low + x.size].reshape(x.shape) for low, x in zip(edges[:-1], point, strict=True)]

            def at(t: Any) -> Any:
                value, signature = fn([x + t * v for x, v in zip(point, steps, strict=True)], rest)
                return jnp.stack([value, signature.astype(jnp.float64)])

            return jax.lax.map(at, offsets)

        # A short block keeps the shape, for one compilation, but its empty places cost nothing.
        return jax.lax.map(
            lambda one: jax.lax.cond(one[0] < count, along, lambda _: jnp.zeros((offsets.size, 2)), one[1]),
            (jnp.arange(block), moves),
        )

    return run


def _call_by_call(
    f: Callable[[Sequence[Any]], float], point: Any, rest: Any, moves: Any, count: int, offsets: Any
) -> Any:
    """As the compiled program, without branch signatures."""
    del rest
    edges = np.cumsum([0, *(x.size for x in point)])
    values = np.zeros((count, len(offsets), 2))
    for i, move in enumerate(moves[:count]):
        steps = [move[low : low + x.size].reshape(x.shape) for low, x in zip(edges[:-1], point, strict=True)]
        values[i, :, 0] = [f([np.asarray(x) + t * v for x, v in zip(point, steps, strict=True)]) for t in offsets]
    return values


def _avoidable(crossed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The steps that reach into another branch of f, where smaller ones stay in the same.

    Where none does, the kink is at the point: all values stay, and the one-sided slopes decide. Where but one does, it
    has no error bar, and the line tells nothing on this ladder.
    """
    staying = np.cumprod(~crossed[:, ::-1], axis=1, dtype=bool)[:, ::-1]  # this step and all smaller ones
    return ~staying & staying[:, -1:]


def natural_scale(leaf: Any) -> float:
    """The unit of steps: the leaf's root mean square; 1 for a leaf of zeros."""
    return float(np.sqrt(np.mean(np.square(leaf)))) or 1.0


def coordinate_units(leaf: Any) -> Floats:
    """The units in which the numbers of a leaf move, in the leaf's own: ones, or its shape where they differ widely.

    Numbers as 0.04, 3e7 and 1e4, the rates of one reaction, share no step. Each then moves by a part of itself, a zero
    by a part of their geometric mean.

    >>> coordinate_units(np.array([1.0, -3.0, 0.0]))
    array(1.)
    >>> (coordinate_units(np.array([0.04, 3e7, -1e4])) * natural_scale([0.04, 3e7, -1e4])).round(2)
    array([4.e-02, 3.e+07, 1.e+04])
    """
    sizes = np.abs(np.asarray(leaf, np.float64))
    scale = natural_scale(sizes)
    middle = float(np.exp(np.mean(np.log(sizes[sizes > 0])))) if np.any(sizes) else scale
    if scale < _WIDELY * middle:
        return np.ones(())
    return np.where(sizes > 0, sizes, middle) / scale
