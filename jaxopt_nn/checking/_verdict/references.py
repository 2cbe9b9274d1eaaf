"""What a check of one function knows beside the claim: its values along lines, and other readings of its program."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._jaxprs.cache import Program
from jaxopt_nn.checking._jaxpr import rule_stripped
from jaxopt_nn.checking._jaxpr.interpreter import Policy, Site
from jaxopt_nn.checking._jaxpr.loop_steps import step_terms
from jaxopt_nn.checking._objective import casts
from jaxopt_nn.checking._objective.objective import Arguments, Gradient, Objective, value_of
from jaxopt_nn.checking._sampling.differences import Floats
from jaxopt_nn.checking._sampling.directions import Line
from jaxopt_nn.checking._sampling.lines import Probe, Sample, coordinate_units, make_probe, natural_scale
from jaxopt_nn.checking._verdict.explanation import Near, Oracle
from jaxopt_nn.types import Array

__all__ = ["counting_probe", "make_oracles"]

_NEAR = 2.0**-27  # of a coordinate's unit: on the other side of a kink at the point, and hardly anywhere else
_PAIRS = 4  # of points on opposite sides: two kinks may cancel in one
_STEADY = 1e-3  # relative change of a gradient that is no round-off
_IMPLICIT = (
    "jax.random.gamma (and beta, dirichlet, ...) is differentiated by its shape by implicit reparametrization, which "
    "is right in expectation and not for the numbers that one key gives"
)


class _Sampled(NamedTuple):
    """F as it is sampled: without rules, and with branch signatures. Equal for equal programs, which share a probe.

    Attributes:
        shared: f's program.
        frozen: whether stop_gradients are frozen; else they are transparent.
        widen: whether shorter floats are float64.
        trusted: rules that are meant.
    """

    shared: Program
    frozen: bool
    widen: bool
    trusted: tuple[Site, ...]

    def __call__(self, leaves: Sequence[Any], rest: Any) -> tuple[Array, Array]:
        policy = Policy(lambda _: True, lambda _: False, frozen=self.frozen, signature=True, widen=self.widen)
        return value_of(self.shared, policy._replace(trusted=self.trusted), leaves, rest)


def counting_probe(
    objective: Objective,
    arguments: Arguments,
    block: int,
    calls: list[int],
    *,
    frozen: bool,
    groups: Sequence[Floats] = (),
) -> Probe:
    """Samples f, with frozen or transparent stop_gradients, and notes how often it was evaluated."""
    sampled = _Sampled(objective.shared, frozen, objective.widen, objective.trusted)
    sampler = make_probe(sampled, arguments.leaves, objective.rest, block, groups, objective.by_hand)

    def probe(
        leaf: int, lines: list[Line], *, noise: float = 0.0, most: float = np.inf, stretch: float = 1.0
    ) -> Sample:
        sample = sampler(leaf, lines, noise=noise, most=most, stretch=stretch)
        calls.append(sample.evaluations)
        return sample

    return probe


def make_oracles(
    objective: Objective,
    arguments: Arguments,
    stripped: rule_stripped.Stripped,
    field: Gradient,
    nearby_claims: Callable[[], list[list[Any]]],
    stops: bool,
    automatic: bool,
    block: int,
    calls: list[int],
    reasons: dict[str, None],
    *,
    constant: bool = False,
) -> list[Oracle]:
    """What else is known about each leaf; what costs a compilation is put off until somebody asks, and kept.

    Why something could not be had is added to ``reasons``. ``field`` is the claimed gradient as a function, and
    ``nearby_claims`` gives it at points that differ by round-off. ``constant``: stop_gradients are meant.
    """
    points = arguments.leaves
    as_it_is = objective._replace(widen=False)  # a rule runs in the float that it was traced for
    plain = automatic and not (objective.by_hand or rule_stripped.has_own_rules(objective))
    frozen = functools.cache(lambda: counting_probe(objective, arguments, block, calls, frozen=True))

    def checked(changed: rule_stripped.Changed) -> rule_stripped.Changed:
        reasons.update(dict.fromkeys(changed.reasons))
        return changed

    @functools.cache
    def conventional() -> list[Floats] | None:
        if objective.by_hand is not None:
            return None
        if plain and not (stops or constant or objective.widen):  # the claim itself, without a second compilation
            return [np.asarray(leaf, np.float64) for leaf in field(points)]
        return rule_stripped.conventional_gradient(as_it_is, points, frozen=constant).gradient

    @functools.cache
    def exact() -> Callable[[Any], list[Floats]] | None:
        if stripped.gradient is None:
            return field if plain else None
        return rule_stripped.stripped_field(objective, points, frozen=constant)

    @functools.cache
    def near(i: int) -> Near | None:
        unit = natural_scale(points[i]) * coordinate_units(points[i])
        draws = np.random.default_rng(i)
        gradients: list[Floats] = []
        for _ in range(_PAIRS):
            step = _NEAR * unit * draws.uniform(0.5, 1.0, points[i].shape) * draws.choice((-1.0, 1.0), points[i].shape)
            for move in (step, -step):
                leaves = [leaf + move if j == i else leaf for j, leaf in enumerate(points)]
                gradients.append(np.asarray((exact() or field)(leaves)[i], np.float64).ravel())
        sides = np.stack(gradients) * np.broadcast_to(units[i], points[i].shape).ravel()
        return Near(np.min(sides, axis=0), np.max(sides, axis=0), exact() is not None) if _finite(sides) else None

    def steady(i: int) -> bool:
        claims = [np.asarray(leaves[i], np.float64) for leaves in (field(points), *nearby_claims())]
        return all(bool(norm(one - claims[0]) <= _STEADY * norm(claims[0])) for one in claims)

    single_rules = functools.cache(lambda: checked(rule_stripped.single_rules(as_it_is, points)))
    through_stops = functools.cache(lambda: checked(rule_stripped.through_stops(objective, points)))

    @functools.cache
    def summands() -> list[tuple[str, list[Floats]]]:
        summands, reason = rule_stripped.terms(objective, points)
        reasons.update({reason: None} if reason else {})
        return summands

    masks = _masks(jax.tree.leaves(arguments.args))
    axes = [length for leaf in jax.tree.leaves(arguments.args) for length in np.shape(leaf)]
    units = [coordinate_units(leaf) for leaf in points]
    norm = np.linalg.norm
    gamma = casts.has_primitive(objective.program, "random_gamma")

    def oracle(i: int) -> Oracle:
        gradient = stripped.gradient[i] if stripped.gradient is not None else None
        return Oracle(
            path=arguments.paths[i],
            value=points[i] * units[i],
            stripped=gradient * units[i] if gradient is not None and _finite(gradient) else None,
            conventional=lambda: values[i] * units[i] if (values := conventional()) and _finite(values[i]) else None,
            plain=plain,
            near=lambda: near(i),
            steady=lambda: steady(i),
            why=_IMPLICIT if gamma else "",
            frozen=(lambda lines: frozen()(i, lines)) if stops else None,
            rules=lambda: rule_stripped.blame(single_rules(), i) if automatic else [],
            stops=lambda: rule_stripped.blame(through_stops(), i),
            terms=lambda: [
                *((place, gradients[i] * units[i]) for place, gradients in summands()),
                *((place, gradient * units[i]) for place, gradient in step_terms(objective, points, i)),
            ],
            sizes=sorted(set(axes)),
            masks=masks,
        )

    return [oracle(i) for i in range(len(points))]


def _finite(values: Floats) -> bool:
    return bool(np.all(np.isfinite(values)))


def _masks(leaves: Sequence[Any]) -> list[tuple[int, int]]:
    """``(ones, size)`` of every array of zeros and ones."""
    sizes: dict[tuple[int, int], None] = {}
    for leaf in leaves:
        if isinstance(leaf, (jax.Array, np.ndarray)) and (
            leaf.dtype == np.bool_ or jnp.issubdtype(leaf.dtype, np.number)
        ):
            array = np.asarray(leaf)
            if array.ndim and np.all((array == 0) | (array == 1)) and 0 < np.count_nonzero(array) < array.size:
                sizes[int(np.count_nonzero(array)), array.size] = None
    return list(sizes)
