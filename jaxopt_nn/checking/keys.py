"""Keys that are used twice: two arguments with one key, and one key from which a program draws twice."""

import itertools
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core

from jaxopt_nn import trees
from jaxopt_nn.checking.directions import seed_words
from jaxopt_nn.types import Key

__all__ = ["check_distinct_keys", "drawn_twice"]

_SAME = frozenset({"random_wrap", "random_unwrap", "convert_element_type", "copy", "copy_p", "stop_gradient"})


def check_distinct_keys(args: tuple[Any, ...], key: Key) -> None:
    """Raises ``ValueError`` where two of ``args``, or one of them and the check's own ``key``, are one key."""
    seen = {seed_words(key): "key"}
    for path, leaf in trees.named_leaves(args):
        if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
            continue
        typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) and leaf.ndim == 0
        if typed or (leaf.dtype == jnp.uint32 and leaf.shape == (2,)):
            other = seen.setdefault(seed_words(leaf), f"args[{path}]")
            if other != f"args[{path}]":
                raise ValueError(f"args[{path}]: expected a key of its own, got that of {other}: split it first")


def drawn_twice(program: Any) -> bool:
    """Whether a closed jaxpr draws random numbers twice from one key: equal numbers where others are expected."""
    tracker = _Tracker()
    tracker.walk(program.jaxpr, [tracker.new() for _ in program.jaxpr.invars])
    return tracker.twice


class _Tracker:
    """Numbers the values of a program, the same number for the same key, and counts the draws from each."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.draws: Counter[int] = Counter()
        self.twice = False

    def new(self) -> int:
        return next(self.numbers)

    def walk(self, jaxpr: Any, inputs: list[int]) -> list[int]:
        values: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))
        values.update((var, self.new()) for var in jaxpr.constvars)

        def read(atom: Any) -> int:
            return self.new() if isinstance(atom, core.Literal) else values[atom]

        for equation in jaxpr.eqns:
            ins = [read(atom) for atom in equation.invars]
            outs = self.step(equation.primitive.name, equation.params, ins)
            values.update(zip(equation.outvars, outs or [self.new() for _ in equation.outvars], strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def step(self, name: str, params: Any, ins: list[int]) -> list[int]:
        """The outputs where they are known to be inputs, else nothing."""
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        if name == "random_bits":
            self.draws[ins[0]] += 1
            self.twice |= self.draws[ins[0]] > 1
        elif name in _SAME:
            return ins[:1]
        elif name == "scan":
            fixed = params["num_consts"]
            before = self.draws.copy()
            self.walk(inner.jaxpr, [*ins[:fixed], *(self.new() for _ in inner.jaxpr.invars[fixed:])])
            again = any(self.draws[value] > before[value] for value in ins[:fixed])
            self.twice |= again and params["length"] > 1
        elif name == "cond":  # only one branch runs
            before, most = self.draws, Counter[int]()
            for branch in params["branches"]:
                self.draws = before.copy()
                self.walk(branch.jaxpr, ins[1:])
                most |= self.draws
            self.draws = most
        elif isinstance(inner, (core.ClosedJaxpr, core.Jaxpr)):
            opened = inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner
            if len(opened.invars) == len(ins):
                return self.walk(opened, ins)
        return []
