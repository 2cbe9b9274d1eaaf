"""Hypothesis strategies for functions of arrays and trees (the ``test`` extra): small, readable, shrinking to little.

Arrays are drawn as a shape and a seed, not number by number: a counterexample shrinks to a short shape and the seed 0,
and prints as such. Shapes are few, as each new one compiles; the numbers are many. ``separated`` arrays stay away from
the kinks of common activations, ``tied`` ones sit on them.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jaxopt_nn.types import Batch

__all__ = ["Net", "arrays", "batches", "dtypes", "losses", "nets", "separated", "shapes", "tied", "trees"]


class Net(NamedTuple):
    """A small net with a loss, as a function to differentiate.

    Attributes:
        widths: features of input, hidden layers and output.
        activation: name of the activation, of ``jax.numpy`` or ``jax.nn``.
        reduction: ``mean`` or ``sum`` over the squared errors.
        params: per layer ``kernel`` and ``bias``.
        x: inputs ``[N, widths[0]]``.
        y: targets ``[N, widths[-1]]``.
    """

    widths: tuple[int, ...]
    activation: str
    reduction: str
    params: dict[str, dict[str, Any]]
    x: Any
    y: Any

    def loss(self, params: dict[str, dict[str, Any]], x: Any, y: Any) -> Any:
        """The loss ``f(params, x, y)``."""
        activation = getattr(jax.nn, self.activation, None) or getattr(jnp, self.activation)
        for i in range(len(self.widths) - 1):
            x = x @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"][None]
            x = activation(x) if i < len(self.widths) - 2 else x
        return getattr(jnp, self.reduction)((x - y) ** 2)


def shapes(*, min_dims: int = 0, max_dims: int = 3, max_side: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes without empty axes: two for each number of axes, all of 1 and of sides that differ."""
    sides = [min(side, max_side) for side in (3, 2, max_side, 4, 1)]
    few = [shape for dims in range(min_dims, max_dims + 1) for shape in ((1,) * dims, tuple(_cycled(sides, dims)))]
    return st.sampled_from(list(dict.fromkeys(few)))


def dtypes() -> st.SearchStrategy[Any]:
    """Float dtypes that JAX has without float64; float32 first."""
    return st.sampled_from([np.dtype(np.float32), jnp.dtype(jnp.bfloat16), np.dtype(np.float16)])


def arrays(
    shape: st.SearchStrategy[tuple[int, ...]] | tuple[int, ...] | None = None, dtype: Any = np.float32
) -> st.SearchStrategy[Any]:
    """Gaussian arrays."""
    return _drawn(shape, lambda rng, shape: rng.standard_normal(shape), dtype)


def separated(
    shape: st.SearchStrategy[tuple[int, ...]] | tuple[int, ...] | None = None, dtype: Any = np.float32
) -> st.SearchStrategy[Any]:
    """Arrays whose numbers differ from one another, from 0 and from ±1 by at least 1/(2·size): no kink, no tie."""

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        size = max(int(np.prod(shape)), 1)
        grid = (np.arange(1, size + 1) - 0.5) / size  # within (0, 1)
        values = rng.permutation(grid) * rng.choice((-1.0, 1.0), size) * rng.choice((1.0, 3.0))
        return (values + np.where(np.abs(np.abs(values) - 1) < 0.25 / size, 0.5 / size, 0.0)).reshape(shape)

    return _drawn(shape, make, dtype)


def tied(
    shape: st.SearchStrategy[tuple[int, ...]] | tuple[int, ...] | None = None, dtype: Any = np.float32
) -> st.SearchStrategy[Any]:
    """Arrays of a few values only, 0 and ±1 among them: maxima that tie, activations at their kinks."""
    return _drawn(shape, lambda rng, shape: rng.choice((-1.0, 0.0, 1.0), shape), dtype)


def trees(leaves: st.SearchStrategy[Any] | None = None, *, max_leaves: int = 4) -> st.SearchStrategy[Any]:
    """Nested dictionaries, tuples and lists of arrays, with at least one array."""
    base = arrays() if leaves is None else leaves
    names = st.sampled_from(["kernel", "bias", "scale", "a", "b"])
    return st.recursive(
        base,
        lambda inner: (
            st.dictionaries(names, inner, min_size=1, max_size=3)
            | st.lists(inner, min_size=1, max_size=3)
            | st.tuples(inner, inner)
        ),
        max_leaves=max_leaves,
    )


def losses() -> st.SearchStrategy[tuple[str, Callable[..., Any]]]:
    """``(name, loss(outputs, targets) -> [N])`` for outputs and targets ``[N, C]``; smooth but for ``absolute``."""
    return st.sampled_from(
        [
            ("squared", lambda o, t: jnp.mean((o - t) ** 2, axis=-1)),
            ("log_cosh", lambda o, t: jnp.mean(jax.nn.softplus(2 * (o - t)) - (o - t), axis=-1)),
            ("cross_entropy", lambda o, t: -jnp.sum(jax.nn.softmax(t) * jax.nn.log_softmax(o), axis=-1)),
            ("absolute", lambda o, t: jnp.mean(jnp.abs(o - t), axis=-1)),
        ]
    )


@st.composite
def batches(draw: Any, *, max_examples: int = 6, max_features: int = 4, classes: int = 3) -> Batch:
    """Batches of features, class labels and weights; some weights are 0, never all."""
    n, features = draw(st.sampled_from([(1, 1), (max_examples, max_features), (max_examples, 1)]))
    rng = np.random.default_rng(draw(_seeds()))
    weight = np.where(rng.random(n) < 0.3, 0.0, rng.uniform(0.5, 2.0, n)).astype(np.float32)
    weight[rng.integers(n)] = 1.0
    x = rng.standard_normal((n, features)).astype(np.float32)
    return Batch(x, rng.integers(0, classes, n), draw(st.sampled_from([None, weight])))


@st.composite
def nets(draw: Any, *, max_layers: int = 3, max_width: int = 5, smooth: bool = False) -> Net:
    """Small dense nets, two for each activation; with ``smooth`` without ReLU and its like."""
    kinked = [] if smooth else ["relu", "leaky_relu", "elu"]
    activation = draw(st.sampled_from(["tanh", "sigmoid", "softplus", "gelu", *kinked]))
    # One small net and one large one: two programs an activation.
    sides = [min(side, max_width) for side in (3, 5, 2, 4)]
    small, large = ((1, 1), "mean", 1), (tuple(_cycled(sides, max_layers + 1)), "sum", 4)
    widths, reduction, n = draw(st.sampled_from([small, large]))
    rng = np.random.default_rng(draw(_seeds()))
    params = {
        f"dense_{i}": {
            "kernel": (rng.standard_normal((a, b)) / np.sqrt(a)).astype(np.float32),
            "bias": (0.1 * rng.standard_normal(b)).astype(np.float32),
        }
        for i, (a, b) in enumerate(itertools.pairwise(widths))
    }
    x, y = (rng.standard_normal((n, width)).astype(np.float32) for width in (widths[0], widths[-1]))
    return Net(widths, activation, reduction, params, x, y)


def _cycled(sides: Sequence[int], count: int) -> list[int]:
    return list(itertools.islice(itertools.cycle(sides), count))


def _seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**16)


def _drawn(
    shape: st.SearchStrategy[tuple[int, ...]] | tuple[int, ...] | None,
    make: Callable[[np.random.Generator, tuple[int, ...]], Any],
    dtype: Any,
) -> st.SearchStrategy[Any]:
    chosen = shapes() if shape is None else st.just(shape) if isinstance(shape, tuple) else shape
    return st.builds(
        lambda shape, seed: np.asarray(make(np.random.default_rng(seed), shape)).astype(dtype), chosen, _seeds()
    )
