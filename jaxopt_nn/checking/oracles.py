"""What a check of one function knows beside the claim: its values along lines, and other readings of its program."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_nn.checking import rules
from jaxopt_nn.checking.compiled import Program
from jaxopt_nn.checking.differences import Floats
from jaxopt_nn.checking.directions import Line
from jaxopt_nn.checking.explain import Oracle
from jaxopt_nn.checking.interpret import Policy
from jaxopt_nn.checking.probe import Probe, Sample, make_probe
from jaxopt_nn.checking.problem import Arguments, Objective, value_of
from jaxopt_nn.types import Array

__all__ = ["counting_probe", "make_oracles"]


class _Sampled(NamedTuple):
    """F as it is sampled: without rules, and with branch signatures. Equal for equal programs, which share a probe.

    Attributes:
        shared: f's program.
        frozen: whether stop_gradients are frozen; else they are transparent.
    """

    shared: Program
    frozen: bool

    def __call__(self, leaves: Sequence[Any], rest: Any) -> tuple[Array, Array]:
        policy = Policy(strip=lambda _: True, opaque=lambda _: False, frozen=self.frozen, signature=True)
        return value_of(self.shared, policy, leaves, rest)


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
    sampled = _Sampled(objective.shared, frozen)
    sampler = make_probe(sampled, arguments.leaves, objective.rest, block, groups, objective.by_hand)

    def probe(leaf: int, lines: list[Line], *, noise: float = 0.0, stretch: float = 1.0) -> Sample:
        sample = sampler(leaf, lines, noise=noise, stretch=stretch)
        calls.append(sample.evaluations)
        return sample

    return probe


def make_oracles(
    objective: Objective,
    arguments: Arguments,
    stripped: rules.Stripped,
    stops: bool,
    automatic: bool,
    block: int,
    calls: list[int],
    reasons: dict[str, None],
    *,
    constant: bool = False,
) -> list[Oracle]:
    """What else is known about each leaf; what costs a compilation is put off until somebody asks, and kept.

    Why something could not be had is added to ``reasons``. ``constant``: stop_gradients are meant.
    """
    points = arguments.leaves
    frozen = functools.cache(lambda: counting_probe(objective, arguments, block, calls, frozen=True))

    def told(changed: rules.Changed) -> rules.Changed:
        reasons.update(dict.fromkeys(changed.reasons))
        return changed

    @functools.cache
    def conventional() -> list[Floats] | None:
        if objective.by_hand is not None:
            return None
        return rules.conventional_gradient(objective, points, frozen=constant).gradient

    single_rules = functools.cache(lambda: told(rules.single_rules(objective, points)))
    through_stops = functools.cache(lambda: told(rules.through_stops(objective, points)))

    @functools.cache
    def terms() -> list[tuple[str, list[Floats]]]:
        found, reason = rules.terms(objective, points)
        reasons.update({reason: None} if reason else {})
        return found

    axes = [length for leaf in jax.tree.leaves(arguments.args) for length in np.shape(leaf)]

    def oracle(i: int) -> Oracle:
        gradient = stripped.gradient[i] if stripped.gradient is not None else None
        return Oracle(
            path=arguments.paths[i],
            value=points[i],
            stripped=gradient if gradient is not None and np.all(np.isfinite(gradient)) else None,
            conventional=lambda: None if (found := conventional()) is None else found[i],
            frozen=(lambda lines: frozen()(i, lines)) if stops else None,
            rules=lambda: rules.blame(single_rules(), i) if automatic else [],
            stops=lambda: rules.blame(through_stops(), i),
            terms=lambda: [(place, gradients[i]) for place, gradients in terms()],
            sizes=sorted(set(axes)),
        )

    return [oracle(i) for i in range(len(points))]
