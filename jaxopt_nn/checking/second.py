"""Second order: the gradient of ⟨∇f(x), u⟩ for a random u is H·u; it is checked like any other gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn.checking.problem import Arguments
from jaxopt_nn.checking.report import GradientReport

__all__ = ["second_order"]


def second_order(
    check: Callable[..., GradientReport],
    f: Callable[..., Any],
    arguments: Arguments,
    words: tuple[int, ...],
    key: Any,
    settings: dict[str, Any],
    stop_gradient: str,
) -> GradientReport:
    """Checks ``jax.grad`` of ⟨∇f, u⟩ by differences of ∇f, with a Gaussian u.

    Args:
        check: ``check_gradients``.
        f: the function whose gradient has been checked.
        arguments: its arguments.
        words: what u is drawn from.
        key: of the check.
        settings: other arguments of ``check``.
        stop_gradient: as for ``check``.
    """
    generator = np.random.default_rng((*words, 3))
    cotangents: list[Any] = [generator.standard_normal(leaf.shape) for leaf in arguments.leaves]
    flat, structure = jax.tree.flatten(arguments.args)
    positions = set(arguments.positions)
    variables = [flat[i] for i in arguments.positions]
    others = [None if i in positions else leaf for i, leaf in enumerate(flat)]
    shapes = jax.eval_shape(lambda leaves: f(*_fill(structure, others, positions, leaves)), variables)
    weight = generator.standard_normal(shapes.shape)

    def directional(leaves: list[Any]) -> Any:
        def scalar(leaves: list[Any]) -> Any:
            out = f(*_fill(structure, others, positions, leaves))
            return jnp.sum(out * jnp.asarray(weight, out.dtype)) if out.ndim else out

        gradient = jax.grad(scalar)(leaves)
        return sum(jnp.vdot(g, jnp.asarray(u, g.dtype)) for g, u in zip(gradient, cotangents, strict=True))

    named = dict(zip(arguments.paths, variables, strict=True))
    order = list(named)
    return check(
        lambda tree: directional([tree[path] for path in order]),
        named,
        key=key,
        stop_gradient=stop_gradient,
        **settings,
    )


def _fill(structure: Any, others: list[Any], positions: set[int], leaves: list[Any]) -> Any:
    remaining = iter(leaves)
    return jax.tree.unflatten(structure, [next(remaining) if i in positions else x for i, x in enumerate(others)])
