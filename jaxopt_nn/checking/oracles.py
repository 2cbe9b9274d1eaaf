"""What a check of one function knows beside the claim: its values along lines, and other readings of its program."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from jaxopt_nn.checking import rules
from jaxopt_nn.checking.differences import Floats
from jaxopt_nn.checking.directions import Line
from jaxopt_nn.checking.explain import Oracle
from jaxopt_nn.checking.interpret import Policy
from jaxopt_nn.checking.probe import Probe, Sample, make_probe
from jaxopt_nn.checking.problem import Arguments, Objective

__all__ = ["counting_probe", "make_oracles"]


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
    policy = Policy(strip=lambda _: True, opaque=lambda _: False, frozen=frozen, signature=True)
    sampler = make_probe(
        lambda leaves, rest: objective.value(leaves, rest, policy), arguments.leaves, objective.rest, block, groups
    )

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
) -> list[Oracle]:
    """What else is known about each leaf; what costs a compilation is put off until somebody asks, and kept.

    Why something could not be had is added to ``reasons``.
    """
    points = arguments.leaves
    frozen = functools.cache(lambda: counting_probe(objective, arguments, block, calls, frozen=True))

    def told(changed: rules.Changed) -> rules.Changed:
        reasons.update(dict.fromkeys(changed.reasons))
        return changed

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
            frozen=(lambda lines: frozen()(i, lines)) if stops else None,
            rules=lambda: rules.blame(single_rules(), i) if automatic else [],
            stops=lambda: rules.blame(through_stops(), i),
            terms=lambda: [(place, gradients[i]) for place, gradients in terms()],
            sizes=sorted(set(axes)),
        )

    return [oracle(i) for i in range(len(points))]
