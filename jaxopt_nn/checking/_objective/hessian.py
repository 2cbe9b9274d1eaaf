"""Second order: the gradient of ⟨∇f(x), u⟩ for a random u is H·u; it is checked like any other gradient.

That is evidence that ``jax.grad`` of ∇f is what ∇f does. That ∇f is the gradient of anything is another matter: the
derivative of a field of gradients is symmetric, and uᵀHv is compared with vᵀHu.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._jaxprs.cache import evaluator
from jaxopt_nn.checking._objective.float64 import in_float64
from jaxopt_nn.checking._objective.objective import Arguments, Objective, automatic_gradient, other_arrays
from jaxopt_nn.checking._report import GradientReport
from jaxopt_nn.checking._sampling.differences import ROUND_OFF_OF_F, Floats
from jaxopt_nn.checking._sampling.lines import natural_scale
from jaxopt_nn.types import Array

__all__ = ["second_order"]


def second_order(
    check: Callable[..., GradientReport],
    f: Callable[..., Any],
    arguments: Arguments,
    objective: Objective,
    claimed: Sequence[Floats],
    words: tuple[int, ...],
    key: Any,
    settings: dict[str, Any],
) -> GradientReport:
    """Checks ``jax.grad`` of ⟨∇f, u⟩ by differences of ∇f and by its symmetry.

    u is Gaussian, with the signs of ∇f: nothing cancels in ⟨∇f, u⟩, and its size tells that of its round-off.

    Args:
        check: ``check_gradients``.
        f: the function whose gradient has been checked.
        arguments: its arguments.
        objective: f in float64.
        claimed: ∇f at the point.
        words: what u is drawn from.
        key: of the check.
        settings: other arguments of ``check``.
    """
    gradient, rest = automatic_gradient(f, arguments), other_arrays(arguments)
    generator = np.random.default_rng((*words, 3))
    u, v = ([generator.standard_normal(leaf.shape) for leaf in arguments.leaves] for _ in range(2))
    u = [np.where(g == 0, one, np.copysign(one, g)) for one, g in zip(u, claimed, strict=True)]

    def slope(leaves: Sequence[Any], rest: Sequence[Any], along: Sequence[Any]) -> Array:
        # As a jax array: NumPy's float64 would stay one inside a trace where x64 is off.
        cotangent = None if objective.cotangent is None else jnp.asarray(objective.cotangent)
        gradients = gradient(leaves, rest, cotangent)
        return sum((jnp.vdot(g, jnp.asarray(w, g.dtype)) for g, w in zip(gradients, along, strict=True)), jnp.zeros(()))

    flat, paths = jax.tree.leaves(arguments.args), arguments.paths
    tree = dict(zip(paths, (flat[i] for i in arguments.positions), strict=True))
    report = check(
        lambda tree, rest: slope([tree[path] for path in paths], rest, u), tree, rest, key=key, argnums=0, **settings
    )
    with in_float64():
        point = (list(arguments.leaves), rest)
        product = evaluator(jax.make_jaxpr(jax.grad(slope))(*point, u))
        hu, hv = (product(jax.tree.leaves((*point, along))) for along in (u, v))
    least = ROUND_OFF_OF_F * abs(report.value) / min(natural_scale(leaf) for leaf in arguments.leaves)
    if wrong := _asymmetry(_products(v, hu), _products(u, hv), settings["rtol"], least):
        return report._replace(verdict="FAIL", notes=(*report.notes, wrong))
    return report


def _products(a: Sequence[Any], b: Sequence[Any]) -> Floats:
    return np.concatenate([(np.asarray(x) * np.asarray(y)).ravel() for x, y in zip(a, b, strict=True)])


def _asymmetry(vhu: Floats, uhv: Floats, rtol: float, least: float) -> str:
    """What is wrong with vᵀHu = uᵀHv, given the products that are summed; a difference of ``least`` is round-off."""
    one, other = float(np.sum(vhu)), float(np.sum(uhv))
    if abs(one - other) <= rtol * float(np.linalg.norm(vhu) + np.linalg.norm(uhv)) + least:
        return ""
    return f"the Hessian is not symmetric: uᵀHv = {other:.9g}, vᵀHu = {one:.9g}: ∇f is the gradient of no function"
