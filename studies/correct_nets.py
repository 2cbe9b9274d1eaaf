"""Random nets with right gradients, for ``studies.gradient_checking``: a checker that fails one gives a false alarm.

A structure is what a program is compiled for: layers, loss, reduction, masks, dtypes, what is differentiated. Of each
many cases are drawn: parameters, batch, masks, scale and the check's key, some of them with ties on purpose.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Structure", "draw", "loss_of", "structure"]

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "abs": jnp.abs,
    "hard_tanh": jax.nn.hard_tanh,
    "relu6": jax.nn.relu6,
}
BETWEEN: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda h: h,
    "layer norm": lambda h: (h - h.mean(-1, keepdims=True)) * jax.lax.rsqrt(h.var(-1, keepdims=True) + 1e-2),
    "batch norm": lambda h: (h - h.mean(0, keepdims=True)) * jax.lax.rsqrt(h.var(0, keepdims=True) + 1e-2),
    "maximum of two": lambda h: jnp.maximum(h, jnp.roll(h, 1, -1)),
    "share of the row": lambda h: jax.nn.softmax(h, axis=-1),
    "clip": lambda h: jnp.clip(h, -1.0, 1.0),
    "residual": lambda h: h + jnp.sin(h),
}
LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "squared": lambda o, t: jnp.mean((o - t) ** 2, axis=-1),
    "absolute": lambda o, t: jnp.mean(jnp.abs(o - t), axis=-1),
    "huber": lambda o, t: jnp.sum(jnp.where(jnp.abs(o - t) < 1, 0.5 * (o - t) ** 2, jnp.abs(o - t) - 0.5), axis=-1),
    "hinge": lambda o, t: jnp.sum(jnp.maximum(0.0, 1 - o * jnp.sign(t)), axis=-1),
    "cross-entropy": lambda o, t: -jnp.sum(jax.nn.softmax(t) * jax.nn.log_softmax(o), axis=-1),
    "largest and soft": lambda o, t: jnp.max(o, axis=-1) ** 2 + jax.nn.logsumexp(o - t, axis=-1),
}
REDUCTIONS = ("mean", "sum", "weighted mean", "vector")


class Structure(NamedTuple):
    """What all cases of one program have in common.

    Attributes:
        rows: examples.
        widths: of input, hidden layers and output.
        activation: of ``ACTIVATIONS``.
        between: of ``BETWEEN``, after the activation of the first hidden layer.
        loss: of ``LOSSES``.
        reduction: of ``REDUCTIONS``.
        masked: whether units of the hidden layers are masked, as dropout does.
        penalty: ``l1``, ``l2`` or none.
        dtype: of parameters and inputs.
        argnums: what is differentiated: parameters, or inputs too.
        each_leaf: whether leaves are looked at one by one from the start.
        order: of the derivative.
    """

    rows: int
    widths: tuple[int, ...]
    activation: str
    between: str
    loss: str
    reduction: str
    masked: bool
    penalty: str
    dtype: str
    argnums: tuple[int, ...]
    each_leaf: bool
    order: int


def structure(seed: int) -> Structure:
    """The structure of a seed."""
    rng = np.random.default_rng((seed, 1))
    pick = lambda options: options[int(rng.integers(len(options)))]  # noqa: E731
    between = pick(list(BETWEEN))
    rows, *widths = (int(rng.integers(1, 8)) for _ in range(int(rng.integers(3, 6))))
    # What two numbers are after a normalization does not depend on them: the gradient is round-off of 0.
    rows = max(rows, 4) if between == "batch norm" else rows
    widths = [widths[0], max(widths[1], 4), *widths[2:]] if between == "layer norm" else widths
    return Structure(
        rows=rows,
        widths=tuple(widths),
        activation=pick(list(ACTIVATIONS)),
        between=between,
        loss=pick(list(LOSSES)),
        reduction=pick(REDUCTIONS),
        masked=bool(rng.random() < 0.5),
        penalty=pick(("none", "l1", "l2")),
        dtype=pick(("float32", "float32", "float32", "float64", "bfloat16")),
        argnums=pick(((0,), (0, 1))),
        each_leaf=bool(rng.random() < 0.5),
        order=2 if rng.random() < 0.05 else 1,
    )


def loss_of(made: Structure) -> Callable[..., Any]:
    """``f(params, x, targets, masks, weights, scale)``."""
    reduce, per_example = made.reduction, LOSSES[made.loss]
    last = len(made.widths) - 2

    def f(params: Any, x: Any, targets: Any, masks: Any, weights: Any, scale: Any) -> Any:
        h = x
        for i, (kernel, bias) in enumerate(params):
            h = h @ kernel + bias[None]
            if i < last:
                h = ACTIVATIONS[made.activation](h)
                h = BETWEEN[made.between](h) if i == 0 else h
                h = h * masks[i][None].astype(h.dtype) if made.masked else h
        losses = per_example(h, targets) * scale
        if reduce == "weighted mean":
            total = jnp.sum(losses * weights) / jnp.sum(weights)
        else:
            total = losses if reduce == "vector" else getattr(jnp, reduce)(losses)
        if made.penalty == "none":
            return total
        size = jnp.abs if made.penalty == "l1" else jnp.square
        return total + 0.01 * scale * sum(jnp.sum(size(kernel)) for kernel, _ in params)

    return f


def draw(made: Structure, seed: int, number: int) -> tuple[tuple[Any, ...], bool]:
    """The arguments of case ``number`` of a seed's structure, and whether they were tied on purpose (one in four)."""
    rng = np.random.default_rng((seed, 2, number))
    tied, dtype = number % 4 == 3, jnp.dtype(made.dtype)
    values = lambda *shape: (rng.choice((-1.0, 0.0, 1.0), shape) if tied else rng.standard_normal(shape)).astype(dtype)  # noqa: E731
    params = [(values(a, b), values(b)) for a, b in zip(made.widths[:-1], made.widths[1:], strict=True)]
    masks = [rng.random(width) < 0.8 for width in made.widths[1:-1]]
    weights = np.where(rng.random(made.rows) < 0.3, 0.0, rng.uniform(0.5, 2.0, made.rows))
    weights[rng.integers(made.rows)] = 1.0
    scale = np.asarray(10.0 ** rng.uniform(-3, 3)).astype(dtype)
    x, targets = values(made.rows, made.widths[0]), values(made.rows, made.widths[-1])
    return (params, x, targets, masks, weights.astype(dtype), scale), tied
