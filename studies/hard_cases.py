"""Right and wrong gradients where differences have a hard time, for ``studies.gradient_checking``.

``kinked``: a penalty or loss with a kink at each of many zeros beside a smooth part. ``badly scaled``: numbers of one
leaf that differ by many orders of magnitude, and steep functions. ``low precision``: float32 or bfloat16 inside of f.
A case is judged with the exact oracle, and in a loop that has no derivative in reverse mode, where differences are all
there is.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["FAMILIES", "Case", "opaque"]


class Case(NamedTuple):
    """A function at a point, with its right gradient and wrong ones.

    Attributes:
        name: what it is.
        f: a scalar function of the leaf.
        point: the leaf, float64.
        right: its gradient.
        wrong: others, by name.
    """

    name: str
    f: Callable[[Any], Any]
    point: Any
    right: Callable[[Any], Any]
    wrong: dict[str, Callable[[Any], Any]]


def opaque(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same in a loop of one turn that has no derivative in reverse mode."""
    return lambda w: jax.lax.while_loop(
        lambda c: c[1] < 1, lambda c: (jnp.asarray(f(w), float), c[1] + 1), (jnp.zeros(()), 0)
    )[0]


_LARGE = 5000
KINKS: dict[str, tuple[Callable[[Any], Any], float, float]] = {
    "L1": (jnp.abs, -1.0, 1.0),
    "ReLU": (jax.nn.relu, 0.0, 1.0),
    "max": (lambda w: jnp.maximum(w, -0.5 * w), -0.5, 1.0),
    "hinge": (lambda w: jnp.maximum(0.0, 1.0 - (1.0 + w)), -1.0, 0.0),
    "clipped": (lambda w: jnp.clip(w, 0.0, 1.0), 0.0, 1.0),
    "quantile": (lambda w: jnp.maximum(0.3 * w, -0.7 * w), -0.7, 0.3),
}
"""A function with a kink at 0, and its slopes on the two sides."""


def kinked(seed: int, sizes: tuple[int, ...]) -> Iterator[Case]:
    """Each kink, at 10, 50 and 90 % of the numbers of a leaf; of a large one, which takes long, at one of these."""
    shares = (0.1, 0.5, 0.9)
    for (i, (name, (kink, left, right))), share, size in itertools.product(enumerate(KINKS.items()), shares, sizes):
        if size > _LARGE and share != shares[(i + seed) % 3]:
            continue
        draws = np.random.default_rng((seed, size, round(10 * share)))
        w = draws.standard_normal(size)
        w[draws.random(size) < share] = 0.0
        a, y = draws.standard_normal((40, size)) / np.sqrt(size), draws.standard_normal(40)
        slope = jax.grad(lambda w, kink=kink: jnp.sum(kink(w)))
        # Any subgradient is right: other ones than JAX's too.
        anywhere = np.where(w == 0, draws.uniform(left, right, size), 0.0)
        zero, other = (int(np.flatnonzero(mask)[0]) for mask in (w == 0, w != 0))

        def f(w: Any, a: Any = a, y: Any = y, kink: Any = kink) -> Any:
            return jnp.mean((a @ w - y) ** 2) + 0.05 * jnp.sum(kink(w))

        def claim(
            w: Any,
            times: float = 1.0,
            at: int | None = None,
            by: float = 0.0,
            *,
            a: Any = a,
            y: Any = y,
            slope: Any = slope,
            anywhere: Any = anywhere,
        ) -> Any:
            found = times * 2 * a.T @ (a @ w - y) / 40 + 0.05 * np.where(w == 0, anywhere, slope(w))
            return found if at is None else found.at[at].add(by)

        wrong = {
            "smooth part x2": lambda w, claim=claim: claim(w, 2.0),
            "smooth part x1.01": lambda w, claim=claim: claim(w, 1.01),
            "smooth part lost": lambda w, claim=claim: claim(w, 0.0),
            "one number beside kinks": lambda w, claim=claim, other=other: claim(w, 1.0, other, 0.02),
            "one number at a kink": lambda w, claim=claim, zero=zero: claim(w, 1.0, zero, 0.2),
        }
        yield Case(f"{name} {share} {size}", f, w, claim, wrong)


def badly_scaled(seed: int, sizes: tuple[int, ...]) -> Iterator[Case]:
    """Numbers from 1e-6 to 1e6, each of which f sees in its own unit; and sigmoids of slopes up to 1e7."""
    functions: dict[str, Callable[[Any], Any]] = {
        "sine": jnp.sin,
        "square": lambda z: z**2,
        "saturated": lambda z: z / (1 + z**2),
        "exponential": lambda z: jnp.exp(-0.5 * z),
    }
    for (name, function), size in itertools.product(functions.items(), sizes):
        draws = np.random.default_rng((seed, size))
        scale = 10.0 ** draws.uniform(-6, 6, size)
        scale[:2] = (1e-6, 1e6)
        point = scale * draws.uniform(0.5, 1.5, size) * draws.choice((-1.0, 1.0), size)
        f = lambda w, function=function, scale=scale: jnp.sum(function(w / scale)) + jnp.mean(w / scale) ** 2  # noqa: E731
        yield Case(f"{name} {size}", f, point, jax.grad(f), _wrong(f, scale < 1e-3, draws))
    for power, size in itertools.product((5, 6, 7), sizes):
        draws = np.random.default_rng((seed, size, power))
        point = 0.5 + 10.0**-power * draws.standard_normal(size)
        f = lambda w, power=power: jnp.sum(jax.nn.sigmoid(10.0**power * (w - 0.5)))  # noqa: E731
        yield Case(f"steep 1e{power} {size}", f, point, jax.grad(f), _wrong(f, np.arange(size) < 1, draws))


def _wrong(f: Callable[[Any], Any], some: Any, draws: np.random.Generator) -> dict[str, Callable[[Any], Any]]:
    gradient = jax.grad(f)
    one = int(draws.integers(len(some)))
    return {
        "x2": lambda w: 2 * gradient(w),
        "x1.01": lambda w: 1.01 * gradient(w),
        "some x2": lambda w: gradient(w) * np.where(some, 2.0, 1.0),
        "one of the other sign": lambda w: gradient(w).at[one].multiply(-1.0),
    }


def low_precision(seed: int, sizes: tuple[int, ...]) -> Iterator[Case]:
    """Nets that compute in a shorter float, and claims that are rounded to one."""
    for dtype, size in itertools.product((jnp.float32, jnp.bfloat16), sizes):
        draws = np.random.default_rng((seed, size))
        rows, columns = 8, max(size // 10, 2)
        point = (draws.standard_normal((10, columns)) / 3).astype(dtype).astype(np.float64)
        x = draws.standard_normal((rows, 10)).astype(dtype)
        t = draws.standard_normal((rows, columns))

        def cast(w: Any, x: Any = x, t: Any = t, dtype: Any = dtype) -> Any:
            return jnp.mean((jnp.tanh(x @ w.astype(dtype)).astype(jnp.float64) - t) ** 2)

        def normalized(w: Any, x: Any = x, t: Any = t, dtype: Any = dtype) -> Any:
            h = (x.astype(w.dtype) @ w).astype(jnp.float32)
            h = (h - h.mean(-1, keepdims=True)) * jax.lax.rsqrt(h.var(-1, keepdims=True) + 1e-3)
            return jnp.mean((h.astype(dtype) - t) ** 2).astype(jnp.float32)

        def wide(w: Any, x: Any = x, t: Any = t) -> Any:
            return jnp.mean((jnp.sin(x.astype(w.dtype) @ w) - t) ** 2)

        for name, f in (("cast", cast), ("normalized", normalized), ("claim", wide)):
            # Of the function ``wide`` it is the claim that is rounded.
            last = (lambda g, dtype=dtype: g.astype(dtype)) if f is wide else (lambda g: g)
            claim = lambda w, f=f, last=last, by=1.0: last(by * jax.grad(f)(w))  # noqa: E731
            half = lambda w, claim=claim: claim(w) * (np.arange(w.shape[1]) < w.shape[1] // 2)[None]  # noqa: E731
            wrong = {
                "x2": lambda w, claim=claim: claim(w, by=2.0),
                "x1.1": lambda w, claim=claim: claim(w, by=1.1),
                "half of it lost": half,
                "of the other sign": lambda w, claim=claim: claim(w, by=-1.0),
                "zero": lambda w, claim=claim: claim(w, by=0.0),
            }
            yield Case(f"{name} {jnp.dtype(dtype).name} {size}", f, point, claim, wrong)


FAMILIES = {
    "kinked": (kinked, (100, 1000, 20_000)),
    "badly scaled": (badly_scaled, (3, 30, 300)),
    "low precision": (low_precision, (50, 500)),
}
"""Cases of a seed and of sizes, and the sizes of the campaign."""
