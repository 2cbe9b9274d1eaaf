"""The planted bugs of ``studies.gradient_checking``: each a wrong operation on ``[n]`` arrays with a correct twin.

All checkers see the same function: a custom rule around one operation, its output weighted and reduced, beside a second
leaf that is right.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["BUGS", "REDUCTIONS", "Bug", "case"]

REDUCTIONS = {"mean": jnp.mean, "sum": jnp.sum, "vector": lambda y: y}


class Bug(NamedTuple):
    """A wrong operation with its correct twin.

    Attributes:
        make: ``make(n, wrong) -> op``, an operation on ``[n]`` arrays.
        says: what the report says of it where it is right about the cause.
        point: what the operation is evaluated at, of a generator and n.
        order: the order of derivative that is wrong.
        dtypes: where it is a bug.
    """

    make: Callable[[int, bool], Callable[[Any], Any]]
    says: str
    point: Callable[[Any, int], Any] = lambda rng, n: rng.standard_normal(n)
    order: int = 1
    dtypes: tuple[str, ...] = ("float32", "float64")


def ruled(forward: Callable[[Any], Any], backward: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    op = jax.custom_vjp(forward)
    op.defvjp(lambda x: (forward(x), x), lambda x, ct: (backward(x, ct).astype(x.dtype),))
    return op


def right_or(forward: Callable[[Any], Any], wrong_backward: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """An operation with a rule: the right one from JAX, or a wrong one."""
    right = lambda x, ct: jax.vjp(forward, x)[1](ct)[0]  # noqa: E731
    return lambda n, wrong: ruled(forward, wrong_backward if wrong else right)


def columns(x: Any) -> Any:
    return x.reshape(-1, 10)


def normalize(x: Any) -> Any:
    x = columns(x)
    return ((x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1e-5)).ravel()


def normalize_without_variance(x: Any, ct: Any) -> Any:
    x, ct = columns(x), columns(ct)
    return ((ct - ct.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1e-5)).ravel()


def softmax(x: Any) -> Any:
    return jax.nn.softmax(columns(x), axis=-1).ravel()


def softmax_without_cross(x: Any, ct: Any) -> Any:
    p = softmax(x)
    return ct * p * (1 - p)


def dropped(x: Any) -> Any:
    return jnp.where(np.random.default_rng(0).random(x.shape) < 0.8, jnp.sin(x) / 0.8, 0.0)


def dropped_again(x: Any) -> Any:
    return jnp.where(np.random.default_rng(1).random(x.shape) < 0.8, jnp.sin(x) / 0.8, 0.0)


def pooled(x: Any) -> Any:
    return jnp.repeat(jnp.max(x.reshape(-1, 2), axis=-1), 2)


def pooled_to_all_ties(x: Any, ct: Any) -> Any:
    pairs = x.reshape(-1, 2)
    top = pairs == jnp.max(pairs, axis=-1, keepdims=True)
    return (top * ct.reshape(-1, 2).sum(-1, keepdims=True)).ravel()


def one_flipped(n: int, wrong: bool) -> Callable[[Any], Any]:
    place = (7 * n) // 11
    return ruled(jnp.sin, lambda x, ct: (ct * jnp.cos(x)).at[place].multiply(-1.0 if wrong else 1.0))


def by_jvp(n: int, wrong: bool) -> Callable[[Any], Any]:
    op = jax.custom_jvp(lambda x: jnp.sin(x))
    op.defjvps(lambda t, out, x: (1.01 if wrong else 1.0) * jnp.cos(x) * t)
    return op


def stopped(n: int, wrong: bool) -> Callable[[Any], Any]:
    return lambda x: jnp.sin(jax.lax.stop_gradient(x) if wrong else x) + jnp.cos(2 * x)


def penalty(n: int, wrong: bool) -> Callable[[Any], Any]:
    """The sine, and 0.01·Σx² as one more output."""
    l2 = ruled(lambda x: 0.01 * jnp.sum(x**2), lambda x, ct: (0.04 if wrong else 0.02) * ct * x)
    return lambda x: jnp.concatenate([jnp.sin(x), l2(x)[None]])


def cancelling(n: int, wrong: bool) -> Callable[[Any], Any]:
    def op(x: Any) -> Any:
        variance = jnp.mean(x**2) - jnp.mean(x) ** 2 if wrong else jnp.mean((x - jnp.mean(x)) ** 2)
        return ((x - jnp.mean(x)) / jnp.sqrt(variance + 1e-5)) ** 3

    return op


def rooted(n: int, wrong: bool) -> Callable[[Any], Any]:
    return lambda x: jnp.where(x > 0, jnp.sqrt(x if wrong else jnp.where(x > 0, x, 1.0)), 0.0)


def constant_slope(n: int, wrong: bool) -> Callable[[Any], Any]:
    keep = jax.lax.stop_gradient if wrong else lambda x: x
    op = jax.custom_vjp(jnp.sin)
    op.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct * keep(jnp.cos(x)),))
    return lambda x: op(x) ** 2


BUGS = {
    "x2": Bug(right_or(jnp.sin, lambda x, ct: 2 * ct * jnp.cos(x)), "ratio 2.0000"),
    "x1.01": Bug(right_or(jnp.sin, lambda x, ct: 1.01 * ct * jnp.cos(x)), "ratio 1.0100"),
    "x1.0001": Bug(right_or(jnp.sin, lambda x, ct: 1.0001 * ct * jnp.cos(x)), "ratio 1.0001"),
    "ignores the cotangent": Bug(right_or(jnp.sin, lambda x, ct: jnp.cos(x)), "the custom_vjp rule of"),
    "custom_jvp x1.01": Bug(by_jvp, "ratio 1.0100"),
    "stop_gradient": Bug(stopped, "stop_gradient at"),
    "batch norm without variance": Bug(right_or(normalize, normalize_without_variance), "rule of normalize"),
    "softmax without cross term": Bug(right_or(softmax, softmax_without_cross), "rule of softmax"),
    "mean over B-1": Bug(
        lambda n, wrong: ruled(lambda x: x**2 / n, lambda x, ct: 2 * ct * x / (n - 1 if wrong else n)), "B/(B-1)"
    ),
    "L2 twice": Bug(penalty, "λ·w|counts twice"),
    "dropout resampled": Bug(
        right_or(dropped, lambda x, ct: jax.vjp(dropped_again, x)[1](ct)[0]), "rule of dropped"
    ),
    "leaky slope lost": Bug(
        right_or(lambda x: jax.nn.leaky_relu(x, 0.1), lambda x, ct: jnp.where(x > 0, ct, 0.0)), "there claimed is zero"
    ),
    "max-pool to all ties": Bug(
        right_or(pooled, pooled_to_all_ties), "rule of pooled|coordinates are wrong|several ties",
        point=lambda rng, n: np.repeat(rng.standard_normal(n // 2), 2),
    ),
    "one coordinate": Bug(one_flipped, "1 of"),
    "E[x²]-E[x]² in float32": Bug(
        cancelling, "more than half of the digits", point=lambda rng, n: rng.standard_normal(n) + 3000,
        dtypes=("float32",),
    ),
    "sqrt under where": Bug(
        rooted, "not finite",
        point=lambda rng, n: np.where(np.arange(n) == n // 3, -1.0, np.abs(rng.standard_normal(n)) + 0.1),
    ),
    "right gradient and wrong Hv": Bug(constant_slope, "second order", order=2),
}  # fmt: skip


def case(name: str, n: int, reduction: str, dtype: str, seed: int, wrong: bool) -> tuple[Callable[..., Any], Any]:
    """``(f, point)``: the reduced and weighted operation on leaf ``bug``, and a leaf ``right`` beside it."""
    bug, rng = BUGS[name], np.random.default_rng((seed, n))
    op, reduce = bug.make(n, wrong), REDUCTIONS[reduction]
    point = {"bug": bug.point(rng, n).astype(dtype), "right": rng.standard_normal(n).astype(dtype)}
    weight = rng.uniform(0.5, 1.5, n + 1)

    def f(leaves: Any) -> Any:
        y, z = op(leaves["bug"]), jnp.sin(leaves["right"])
        y = y * jnp.asarray(weight[: y.size], y.dtype)
        return jnp.concatenate([y, z]) if reduction == "vector" else reduce(y) + reduce(z)

    return f, point
