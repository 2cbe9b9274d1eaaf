"""Pruning: which configurations go on. The rules decide by values at rungs, numbers of epochs, and nothing else.

A rule is a generator. It yields :class:`Advance`, which asks for configurations to be trained up to a rung, and goes on
once they are; :class:`Prune` ends configurations for good. Since it sees nothing but values, a sweep that goes on after
an interruption replays it and comes to the same decisions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxopt_nn._arguments import check_positive_int

__all__ = ["Advance", "Prune", "Pruning", "asha", "hyperband", "schedule", "successive_halving"]

Score = Callable[[int, int], float]
"""From a configuration and a rung to its value there, less is better; NaN if it diverged or failed."""


class Pruning(NamedTuple):
    """A rule that ends configurations early. See :func:`successive_halving`, :func:`hyperband` and :func:`asha`.

    Attributes:
        rule: its name.
        min_epochs: the first rung.
        factor: from rung to rung so many times more epochs, for one configuration of so many.
    """

    rule: str
    min_epochs: int
    factor: int


class Advance(NamedTuple):
    """These configurations are to be trained up to so many epochs."""

    configurations: tuple[int, ...]
    epochs: int


class Prune(NamedTuple):
    """These configurations do not go on."""

    configurations: tuple[int, ...]


def successive_halving(*, min_epochs: int = 1, factor: int = 3) -> Pruning:
    """Trains all for ``min_epochs``, the best of ``factor`` for ``factor`` times as many epochs, and so on.

    With n configurations, ``n · factor⁻ᵏ`` of them are trained for ``min_epochs · factorᵏ`` epochs, and the last ones
    for all. A configuration is judged by the mean over its seeds of the objective in the last epoch, and goes on from
    its state with all of them. One that diverged goes on no further.

    Args:
        min_epochs: static; epochs before the first decision.
        factor: static; one of so many goes on, at least one.

    References:
        Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016.

    >>> successive_halving(min_epochs=2).factor
    3
    """
    return _checked("successive_halving", min_epochs, factor)


def hyperband(*, min_epochs: int = 1, factor: int = 3) -> Pruning:
    """Successive halvings side by side: some start with many configurations and few epochs, some the other way round.

    It hedges against a ranking that changes late. The configurations are dealt out to the brackets s = s_max, ..., 0 at
    random, in proportion to ``⌈(s_max + 1) / (s + 1) · factorˢ⌉``; bracket s decides for the first time after
    ``epochs · factor⁻ˢ`` epochs.

    Args:
        min_epochs, factor: as of :func:`successive_halving`.

    References:
        Li et al., "Hyperband: A novel bandit-based approach to hyperparameter optimization", 2018, algorithm 1.
    """
    return _checked("hyperband", min_epochs, factor)


def asha(*, min_epochs: int = 1, factor: int = 3) -> Pruning:
    """Asynchronous successive halving: a configuration goes on as soon as it is among the best of those at its rung.

    Nothing waits for a rung to be complete. A chunk of lanes is filled with those that may go on, from the highest rung
    down, and with new ones where these do not fill it.

    Args:
        min_epochs, factor: as of :func:`successive_halving`.

    References:
        Li et al., "A system for massively parallel hyperparameter tuning", 2020, algorithm 2.
    """
    return _checked("asha", min_epochs, factor)


def schedule(
    pruning: Pruning, configurations: int, epochs: int, score: Score, at_a_time: int
) -> Iterator[Advance | Prune]:
    """What is to be done, step by step.

    Args:
        pruning: the rule.
        configurations: how many; they are known by their places.
        epochs: of the longest.
        score: read only for configurations that were asked to be trained up to that rung.
        at_a_time: configurations that are trained together, for :func:`asha`.
    """
    places = range(configurations)
    rungs = _rungs(pruning.min_epochs, pruning.factor, epochs)
    if pruning.rule == "asha":
        yield from _asynchronous(places, rungs, pruning.factor, score, at_a_time)
        return
    brackets = [(places, rungs)]
    if pruning.rule == "hyperband":
        brackets = _brackets(configurations, rungs, pruning.factor)
    for members, levels in brackets:
        yield from _halving(members, levels, pruning.factor, score)


def _rungs(first: int, factor: int, epochs: int) -> list[int]:
    rungs: list[int] = []
    while first < epochs:
        rungs.append(first)
        first *= factor
    return [*rungs, epochs]


def _halving(members: Sequence[int], rungs: Sequence[int], factor: int, score: Score) -> Iterator[Advance | Prune]:
    alive = list(members)
    for rung in rungs:
        yield Advance(tuple(alive), rung)
        if rung == rungs[-1]:
            return
        best = _best(alive, rung, score, max(1, len(alive) // factor))
        if ended := tuple(each for each in alive if each not in best):
            yield Prune(ended)
        alive = [each for each in alive if each in best]
        if not alive:
            return


def _brackets(configurations: int, rungs: Sequence[int], factor: int) -> list[tuple[list[int], Sequence[int]]]:
    last = len(rungs) - 1
    sizes = np.array([-(-(last + 1) * factor**s // (s + 1)) for s in range(last, -1, -1)], float)
    ends = np.round(np.cumsum(sizes) / sizes.sum() * configurations).astype(int)
    order = np.random.default_rng(0).permutation(configurations)
    parts = [sorted(part.tolist()) for part in np.split(order, ends[:-1])]
    return [(part, rungs[start:]) for start, part in enumerate(parts) if part]


def _asynchronous(
    places: Sequence[int], rungs: Sequence[int], factor: int, score: Score, at_a_time: int
) -> Iterator[Advance | Prune]:
    waiting = list(places)
    at_rung: list[list[int]] = [[] for _ in rungs]
    promoted: list[set[int]] = [set() for _ in rungs]
    while True:
        ready: list[int] = []
        level = 0
        for level in range(len(rungs) - 1, 0, -1):
            below = at_rung[level - 1]
            number = len(below) // factor if waiting else max(1, len(below) // factor)
            ready = [each for each in _best(below, rungs[level - 1], score, number) if each not in promoted[level - 1]]
            if len(ready) >= at_a_time or (ready and not waiting):
                break
            ready = []
        if ready:
            chosen = ready[:at_a_time]
            promoted[level - 1].update(chosen)
        elif waiting:
            level, chosen, waiting = 0, waiting[:at_a_time], waiting[at_a_time:]
        else:
            break
        yield Advance(tuple(chosen), rungs[level])
        at_rung[level] += chosen
    if ended := tuple(each for each in places if each not in at_rung[-1]):
        yield Prune(ended)


def _best(members: Sequence[int], rung: int, score: Score, number: int) -> list[int]:
    """The best of them, best first; of equal ones those that come first. None whose value is NaN."""
    values = {each: score(each, rung) for each in members}
    known = [each for each in members if not np.isnan(values[each])]
    return sorted(known, key=lambda each: (values[each], each))[:number]


def _checked(rule: str, min_epochs: int, factor: int) -> Pruning:
    check_positive_int("min_epochs", min_epochs)
    check_positive_int("factor", factor)
    if factor < 2:
        raise ValueError(f"factor: expected an int >= 2, got {factor}")
    return Pruning(rule, min_epochs, factor)
