"""Keys that are used twice: two arguments with one key, and one key from which a program draws twice."""

import itertools
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxopt_nn import trees
from jaxopt_nn._jaxprs.equations import Call, Cond, Scan, ShardMap, While, inner_programs, opened
from jaxopt_nn.checking._sampling.directions import seed_words
from jaxopt_nn.types import Key

__all__ = ["check_distinct_keys", "drawn_twice", "drawn_unalike"]

_SAME = frozenset({"random_wrap", "random_unwrap", "convert_element_type", "copy", "copy_p", "stop_gradient"})
# How keys are made from keys, and taken out of an array of them.
_TAKEN = frozenset(
    {"slice", "squeeze", "reshape", "dynamic_slice", "gather", "broadcast_in_dim", "lt", "add", "select_n"}
)
_DERIVED = _TAKEN | {"random_split", "random_fold_in", "random_seed"}
_SHORT = 64  # numbers in an array that may be keys


def check_distinct_keys(args: tuple[Any, ...], key: Key) -> None:
    """Raises ``ValueError`` where two of ``args``, or one of them and the check's own ``key``, are one key."""
    names = {seed_words(key): "key"}
    for path, leaf in trees.named_leaves(args):
        if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
            continue
        typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        if typed or (leaf.dtype == jnp.uint32 and leaf.shape == (2,)):
            keys = leaf.ravel() if typed else leaf[None]
            for i, one in enumerate(keys[:_SHORT]):
                name = f"args[{path}]" + (f"[{i}]" if typed and leaf.ndim else "")
                other = names.setdefault(seed_words(one), name)
                if other != name:
                    raise ValueError(f"{name}: expected a key of its own, got that of {other}: split it first")


def drawn_twice(program: Any, inputs: Sequence[Any]) -> bool:
    """Whether a closed jaxpr draws twice from one key at ``inputs``: equal numbers where others are expected.

    Keys that are split or folded in the same way from one key are one key again. To draw from a key that is split
    counts too.
    """
    return _tracked(program, inputs).twice


def drawn_unalike(program: Any, inputs: Sequence[Any]) -> bool:
    """Whether it draws numbers of two shapes from one key, or splits it too: that is no mask which is used again."""
    return _tracked(program, inputs).unalike


def _tracked(program: Any, inputs: Sequence[Any]) -> "_Tracker":
    tracker = _Tracker()
    tracker.walk(program.jaxpr, [tracker.of_value(value) for value in inputs])
    return tracker


class _Tracker:
    """Numbers the values of a program, the same number for the same key, and counts the draws from each."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.known: dict[Any, int] = {}
        self.draws: Counter[tuple[str, int]] = Counter()
        self.shapes: dict[int, Any] = {}
        self.twice = self.unalike = False

    def new(self) -> int:
        return next(self.numbers)

    def of(self, name: Hashable) -> int:
        """The number of what ``name`` tells all of."""
        return self.known.setdefault(name, -1 - len(self.known))

    def of_value(self, value: Any) -> int:
        """The same number for the same key data, or the same number to make a key of."""
        if getattr(value, "size", 1) > _SHORT:
            return self.new()
        if jnp.issubdtype(jnp.result_type(value), jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        return self.of((str(array.dtype), array.shape, array.tobytes())) if array.dtype.kind in "iu" else self.new()

    def walk(self, jaxpr: Any, inputs: list[int]) -> list[int]:
        values: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))
        values.update((var, self.new()) for var in jaxpr.constvars)

        def read(atom: Any) -> int:
            return self.of_value(atom.val) if isinstance(atom, core.Literal) else values[atom]

        for equation in jaxpr.eqns:
            ins = [read(atom) for atom in equation.invars]
            outs = self.step(equation, ins)
            values.update(zip(equation.outvars, outs or self.key_values(equation, ins), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def again(self, body: Any, consts: list[int], times: int) -> None:
        """Walks the body of a loop: what it makes of ``consts`` is the same each time, all else is new."""
        for _ in range(times):
            self.walk(body, [*consts, *(self.new() for _ in body.invars[len(consts) :])])

    def key_values(self, equation: Any, ins: list[int]) -> list[int]:
        """Numbers for what an operation returns, the same ones for the same operation on the same keys."""
        name = equation.primitive.name
        if name not in _DERIVED:
            return [self.new() for _ in equation.outvars]
        fingerprint = (name, str(sorted(equation.params.items())), *ins)
        return [self.of((*fingerprint, i)) for i in range(len(equation.outvars))]

    def step(self, equation: Any, ins: list[int]) -> list[int]:
        """The outputs where they are known to be inputs, else nothing."""
        name, inner = equation.primitive.name, inner_programs(equation)
        if name in ("random_bits", "random_split"):
            draw, split = ("random_bits", ins[0]), ("random_split", ins[0])
            self.draws[name, ins[0]] += 1
            split_too = self.draws[draw] * self.draws[split] > 0
            self.twice |= self.draws[draw] > 1 or split_too
            random_bits = equation.outvars[0].aval if name == "random_bits" else None
            self.unalike |= split_too or (
                random_bits is not None and self.shapes.setdefault(ins[0], random_bits.shape) != random_bits.shape
            )
        elif name in _SAME:
            return ins[:1]
        elif isinstance(inner, Scan):
            self.again(opened(inner.body), ins[: inner.consts], min(inner.length, 2))
        elif isinstance(inner, While):
            first = inner.condition_consts
            self.again(opened(inner.body), ins[first : first + inner.body_consts], 2)
        elif isinstance(inner, Cond):  # only one branch runs
            before, most = self.draws, Counter[tuple[str, int]]()
            for branch in inner.branches:
                self.draws = before.copy()
                self.walk(opened(branch), ins[1:])
                most |= self.draws
            self.draws = most
        elif isinstance(inner, ShardMap) or (isinstance(inner, Call) and not inner.again):
            return self.walk(opened(inner.program), ins)
        return []
