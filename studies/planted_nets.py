"""Bugs of hand-written backpropagation through a net, each in one place: they spoil some leaves and leave others right.

The net has what goes wrong by hand: a leaf that is used twice, square kernels, as many rows as columns, two batches of
unequal size, a layer normalization, a short convolution, clipping, two branches, weights of examples, a penalty.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["BUGS", "backpropagation", "draw", "loss", "opaque_loss"]

WIDTH, EPS, LIMIT, DECAY = 6, 1e-5, 1.2, 0.01
SHARES = np.array([1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 2, 1 / 2])  # of a row in its batch: one of four rows, one of two

BUGS = {
    "wrong axis in a sum": "the gradient of a bias sums over the features",
    "1/n of the full batch in the last": "the last batch is smaller, but is divided by the size of the others",
    "swapped leaves": "two kernels of equal shape change places",
    "sign of one leaf": "one bias has the opposite sign",
    "no cross term": "the layer normalization's backward pass lacks the projection on the normalized values",
    "no mean term": "the layer normalization's backward pass lacks the mean of the cotangent",
    "no eps": "the layer normalization's backward pass divides by the root of the variance alone",
    "off by one": "the taps of the convolution are one place off in the backward pass",
    "stale residual": "the input is kept before the shared leaf is added to it",
    "clip on one side": "values above the limit pass their cotangent on",
    "detached branch": "one branch of a where has no gradient",
    "truncated weights": "the weights of examples become integers in the backward pass",
    "shared leaf once": "only the last use of the shared leaf counts",
    "shared leaf thrice": "one use of the shared leaf counts twice",
    "kernel not transposed": "the cotangent is multiplied with a square kernel the wrong way round",
    "no weights": "the gradient is that of the loss without weights",
    "ReLU' of another layer": "the slope of the ReLU is taken where a later layer is positive",
    "softmax without row sum": "the exponentials are not divided by their sum",
    "penalty on a bias": "the penalty's gradient is added to a bias too",
    "a row left out": "the last example does not count",
    "one in a thousand": "one kernel's gradient is too large by a thousandth",
    "kernel too early": "the second kernel's gradient takes the values before clipping",
}


def draw(seed: int) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """``(params, (x, labels, weights))`` in float64."""
    rng = np.random.default_rng(seed)
    shapes = {"k1": (WIDTH, WIDTH), "b1": (WIDTH,), "scale": (WIDTH,), "shift": (WIDTH,), "taps": (3,)}
    shapes |= {"k2": (WIDTH, WIDTH), "b2": (WIDTH,), "shared": (WIDTH,)}
    params = {name: 0.6 * rng.standard_normal(shape) for name, shape in shapes.items()}
    params["scale"] = params["scale"] + 1.0
    rows = len(SHARES)
    weights = rng.choice([0.5, 1.0, 1.5, 2.5], rows)
    return params, (rng.standard_normal((rows, WIDTH)), rng.integers(0, WIDTH, rows), weights)


def loss(p: dict[str, Any], x: Any, labels: Any, weights: Any) -> Any:
    *_, logits = _forward(p, x, jnp)
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], -1)[:, 0]
    return -jnp.sum(weights * SHARES * picked) + DECAY * jnp.sum(p["k1"] ** 2)


def opaque_loss(p: dict[str, Any], *data: Any) -> Any:
    """The same in a loop of one turn that has no derivative in reverse mode: differences alone can judge it."""
    return jax.lax.while_loop(lambda c: c[1] < 1, lambda c: (loss(p, *data), c[1] + 1), (jnp.zeros(()), 0))[0]


def backpropagation(bug: str = "") -> Callable[..., dict[str, Any]]:
    """The gradient of :func:`loss` by hand, in NumPy, with a bug."""

    def gradient(p: dict[str, Any], x: Any, labels: Any, weights: Any) -> dict[str, Any]:
        p, (x, labels, weights) = (
            {name: np.asarray(leaf) for name, leaf in p.items()},
            map(np.asarray, (x, labels, weights)),
        )
        h0, z1, n, root, t, c, z2, logits = _forward(p, x, np)
        e = np.exp(logits - logits.max(-1, keepdims=True))
        soft = e if bug == "softmax without row sum" else e / e.sum(-1, keepdims=True)
        shares = np.full(len(SHARES), 1 / 4) if bug == "1/n of the full batch in the last" else SHARES
        rows = np.asarray(weights, int) if bug == "truncated weights" else weights
        rows = shares * (np.ones_like(weights) if bug == "no weights" else rows)
        rows = rows * (np.arange(len(rows)) < len(rows) - 1) if bug == "a row left out" else rows
        d = (soft - np.eye(WIDTH)[labels]) * rows[:, None]
        d = d * np.where(z2 > 0, np.cos(z2), 0.0 if bug == "detached branch" else 0.5)
        g = {"b2": d.sum(0), "k2": (t if bug == "kernel too early" else c).T @ d, "shared": d.sum(0)}
        d = d @ (p["k2"] if bug == "kernel not transposed" else p["k2"].T)
        d = d * ((t > -LIMIT) if bug == "clip on one side" else (np.abs(t) < LIMIT))
        s = n * p["scale"] + p["shift"]
        off = 1 if bug == "off by one" else 0
        g["taps"] = np.array([np.sum(d * _moved(s, k - 1 + off)) for k in range(3)])
        d = sum(p["taps"][k] * _moved(d, 1 - k) for k in range(3))
        g |= {"scale": (d * n).sum(0), "shift": d.sum(0) * (-1 if bug == "sign of one leaf" else 1)}
        d = d * p["scale"]
        root = np.sqrt(root**2 - EPS) if bug == "no eps" else root
        mean = 0 if bug == "no mean term" else d.mean(-1, keepdims=True)
        cross = 0 if bug == "no cross term" else n * (d * n).mean(-1, keepdims=True)
        d = (d - mean - cross) / root * ((n if bug == "ReLU' of another layer" else z1) > 0)
        g["b1"] = d.sum(1 if bug == "wrong axis in a sum" else 0)
        g["b1"] = g["b1"] + (2 * DECAY * p["b1"] if bug == "penalty on a bias" else 0)
        g["k1"] = (x if bug == "stale residual" else h0).T @ d + 2 * DECAY * p["k1"]
        g["k1"] = g["k1"] * (1.001 if bug == "one in a thousand" else 1.0)
        uses = {"shared leaf once": 0, "shared leaf thrice": 2}.get(bug, 1)
        g["shared"] = g["shared"] + uses * (d @ p["k1"].T).sum(0)
        if bug == "swapped leaves":
            g["k1"], g["k2"] = g["k2"], g["k1"]
        return g

    return gradient


def _forward(p: dict[str, Any], x: Any, lib: Any) -> tuple[Any, ...]:
    row = lambda name: p[name][None]  # noqa: E731
    h0 = x + row("shared")
    z1 = h0 @ p["k1"] + row("b1")
    a = lib.maximum(z1, 0.0)
    centred = a - a.mean(-1, keepdims=True)
    root = lib.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
    n = centred / root
    s = n * row("scale") + row("shift")
    t = sum(p["taps"][k] * _moved(s, k - 1, lib) for k in range(3))
    c = lib.clip(t, -LIMIT, LIMIT)
    z2 = c @ p["k2"] + row("b2") + row("shared")
    return h0, z1, n, root, t, c, z2, lib.where(z2 > 0, lib.sin(z2), 0.5 * z2)


def _moved(s: Any, by: int, lib: Any = np) -> Any:
    """Column j + by in place of column j, zeros beyond the edges."""
    reach = abs(by)
    padded = lib.pad(s, ((0, 0), (reach, reach)))
    return padded[:, reach + by : reach + by + s.shape[1]]
