"""The operation of a program that first produces a number that is not finite.

The program runs operation by operation. From a result that is not finite the search goes back to an operation whose
inputs are finite, and into the loop, branch or call that it may be, down to one iteration. So a minus infinity that
masks a score, and ends as a probability of 0, is not found.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core
from numpy.typing import NDArray

from jaxopt_nn._jaxprs.equations import Call, Cond, Scan, While, closed, inner_programs, opened
from jaxopt_nn.checking._jaxpr.interpreter import Site, bind, is_jax_code, place_of, source_of
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import PyTree

__all__ = ["Origin", "find_nonfinite", "is_finite", "search"]


class Origin(NamedTuple):
    """Where a number that is not finite comes from. As a string it is a sentence.

    Attributes:
        output: the path of the result that is not finite.
        operation: the primitive of JAX, such as ``"log"``; ``"input"`` if an argument is not finite.
        place: ``file.py:line`` of the innermost code outside JAX; of an input its path.
        file: the whole path of the file; empty for an input.
        scope: the names of ``jax.named_scope`` around it, such as a layer's path.
        inputs: its inputs in words, with their ranges.
        result: ``"nan"``, ``"inf"`` or ``"-inf"``.
        iteration: of the loops around it, from outside to inside, each from 0.
    """

    output: str
    operation: str
    place: str
    file: str
    scope: str
    inputs: str
    result: str
    iteration: tuple[int, ...]

    def __str__(self) -> str:
        if self.operation == "input":
            return f"the input {self.place} holds {self.result}"
        turn = f" in iteration {', '.join(map(str, self.iteration))} of its loop" if self.iteration else ""
        return f"{self.operation} of {self.inputs} gives {self.result}, at {self.place}{turn}"


def find_nonfinite(function: Callable[..., Any], *args: PyTree) -> Origin | None:
    """The operation that first produced a NaN or an infinity in the result of a function.

    Args:
        function: a function in JAX, jitted or not, with loops and derivatives inside: ``jax.grad(loss)`` for a gradient
            that is not finite.
        args: its arguments, arrays with values.

    Returns:
        The :class:`Origin` of the first leaf of the result that is not finite; None if all are finite. What is infinite
        on the way and does no harm, such as a mask, is not found. The function runs operation by operation, so rounding
        may differ from that of a compiled program.

    Raises:
        TypeError: ``function`` is none, or an argument is traced: call this outside of ``jit``, ``vmap`` and ``scan``.

    >>> import jax, jax.numpy as jnp
    >>> def loss(w):
    ...     return jnp.sum(jnp.sqrt(jnp.abs(w)))
    >>> find_nonfinite(loss, jnp.zeros(3)) is None
    True
    >>> origin = find_nonfinite(jax.grad(loss), jnp.zeros(3))
    >>> origin.operation, origin.result
    ('div', 'inf')
    """
    return search(function, *args)[1]


def search(function: Callable[..., Any], *args: PyTree) -> tuple[list[str], Origin | None]:
    """The paths of all leaves of the result that are not finite, and the origin of the first."""
    if not callable(function):
        raise TypeError(f"function: expected a function, got {function!r}")
    leaves = jax.tree.leaves(args)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        raise TypeError("find_nonfinite: expected to be called outside of jit, vmap and grad, got traced arguments")
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    inputs = [path for path, _ in named_leaves(args)]
    outputs = [path for path, _ in named_leaves(shapes)]
    level = _Level(program, [_known(leaf) for leaf in leaves])
    bad = [index for index, flaw in enumerate(level.outputs()) if flaw is not None]
    if not bad:
        return [], None
    return [outputs[index] for index in bad], level.origin(bad[0], inputs)._replace(output=outputs[bad[0]])


def is_finite(value: Any) -> bool:
    """Whether all numbers of an array are finite; of what is no array of floats too."""
    return _flaw(value, constant=False) is None


class _Flaw(NamedTuple):
    """What is wrong with a value: it has NaN, or only infinities; they may come from constants alone, as in a mask."""

    nan: bool
    constant: bool


class _Known(NamedTuple):
    """A value and its flaw; None if it is finite."""

    value: Any
    flaw: _Flaw | None


class _Level:
    """A program, run at known inputs, with the flaw of each value in it."""

    def __init__(
        self,
        program: Any,
        inputs: Sequence[_Known],
        scope: str = "",
        iteration: tuple[int, ...] = (),
        place: tuple[str, str] | None = None,
    ) -> None:
        self.jaxpr, self.scope, self.iteration, self.place = opened(program), scope, iteration, place
        consts = [_known(const, constant=True) for const in getattr(program, "consts", ())]
        self.values: dict[Any, _Known] = dict(
            zip([*self.jaxpr.constvars, *self.jaxpr.invars], [*consts, *inputs], strict=True)
        )
        self.makers: dict[Any, Any] = {}
        for equation in self.jaxpr.eqns:
            ins = [self.read(atom) for atom in equation.invars]
            flaws = [known.flaw for known in ins if known.flaw is not None]
            only_constants = bool(flaws) and all(flaw.constant for flaw in flaws)
            has_nan = any(flaw.nan for flaw in flaws)
            for var, value in zip(equation.outvars, bind(equation, [known.value for known in ins]), strict=True):
                flaw = _flaw(value, constant=only_constants)
                if flaw is not None and flaw.nan and not has_nan:  # it is made here, if of infinite constants
                    flaw = _Flaw(True, False)
                self.values[var] = _Known(value, flaw)
                self.makers[var] = equation

    def read(self, atom: Any) -> _Known:
        return _known(atom.val, constant=True) if isinstance(atom, core.Literal) else self.values[atom]

    def outputs(self) -> list[_Flaw | None]:
        return [self.read(atom).flaw for atom in self.jaxpr.outvars]

    def origin(self, output: int, inputs: list[str] | None = None) -> Origin:
        """Where the output comes from; ``inputs`` are the paths of the program's inputs."""
        atom, maker, made_by_it = self.jaxpr.outvars[output], None, None
        while not isinstance(atom, core.Literal) and atom in self.makers:
            if not all(map(_is_constant, map(self.read, self.makers[atom].invars))):  # as the shape of one is
                maker, made_by_it = self.makers[atom], atom
            flawed = [(each, flaw) for each in self.makers[atom].invars if (flaw := self.read(each).flaw) is not None]
            made = [(each, flaw) for each, flaw in flawed if not flaw.constant]
            of_constants = self.read(atom).flaw
            assert of_constants is not None
            if not made and not (flawed and of_constants.constant):
                return self.inside(self.makers[atom], atom)
            # NaN before infinity: it is nearer to the cause of a NaN.
            atom = max(made or flawed, key=lambda pair: pair[1].nan)[0]
        known = self.read(atom)
        if not isinstance(atom, core.Literal) and atom in self.jaxpr.invars and not _is_constant(known):
            index = self.jaxpr.invars.index(atom)
            path = inputs[index] if inputs else "of the loop or call"
            return Origin("", "input", path, "", self.scope, "", _word(known.value), self.iteration)
        if maker is None:  # the output is a constant itself
            return Origin("", "constant", "an unknown line", "", self.scope, "", _word(known.value), self.iteration)
        return self.inside(maker, made_by_it)

    def inside(self, equation: Any, atom: Any) -> Origin:
        """The origin within an equation whose inputs do no harm."""
        ins, inner = [self.read(each) for each in equation.invars], inner_programs(equation)
        index, scope = equation.outvars.index(atom), _joined(self.scope, equation)
        level = None
        if isinstance(inner, Call):
            level = _Level(inner.program, ins, scope, self.iteration, self.place_in(equation, inner))
        elif isinstance(inner, Cond):
            branch = inner.branches[min(int(ins[0].value), len(inner.branches) - 1)]
            level = _Level(branch, ins[1:], scope, self.iteration, self.place)
        elif isinstance(inner, Scan):
            level, index = self.scanned(inner, ins, scope), None
        elif isinstance(inner, While):
            level, index = self.looped(inner, ins, scope), None
        if level is not None:
            flaws = level.outputs()
            index = _worst(flaws) if index is None or flaws[index] is None else index
            if index is not None:
                return level.origin(index)
        return self.described(equation, self.values[atom].value)

    def place_in(self, equation: Any, call: Call) -> tuple[str, str] | None:
        """The place of all that a function of JAX does; its program is traced once, for the first who called it."""
        of_jax = is_jax_code(Site("", "", "", source_of(opened(call.program))))
        return place_of(equation) if self.place is None and of_jax else self.place

    def scanned(self, scan: Scan, ins: list[_Known], scope: str) -> "_Level | None":
        """The first iteration of a scan that produces what is not finite."""
        last = scan.consts + scan.carry
        consts, carry, stacks = ins[: scan.consts], ins[scan.consts : last], ins[last:]
        body = _compiled(scan.body)
        for step in range(scan.length):
            row = scan.length - 1 - step if scan.reverse else step
            taken = [*consts, *carry, *(_known(known.value[row], constant=_is_constant(known)) for known in stacks)]
            outs = body(*(known.value for known in taken))
            if all(is_finite(out) for out in outs):
                carry = [_Known(out, None) for out in outs[: scan.carry]]
                continue
            level = _Level(scan.body, taken, scope, (*self.iteration, step), self.place)
            if _worst(level.outputs()) is not None:
                return level
            carry = [level.read(atom) for atom in level.jaxpr.outvars[: scan.carry]]
        return None

    def looped(self, loop: While, ins: list[_Known], scope: str) -> "_Level | None":
        """The first iteration of a while loop that produces what is not finite."""
        first, last = loop.condition_consts, loop.condition_consts + loop.body_consts
        consts, carry, step = ins[first:last], ins[last:], 0
        goes_on, body = _compiled(loop.condition), _compiled(loop.body)
        while bool(goes_on(*(known.value for known in [*ins[:first], *carry]))[0]):
            outs = body(*(known.value for known in [*consts, *carry]))
            if not all(is_finite(out) for out in outs):
                level = _Level(loop.body, [*consts, *carry], scope, (*self.iteration, step), self.place)
                if _worst(level.outputs()) is not None:
                    return level
                carry = [level.read(atom) for atom in level.jaxpr.outvars]
            else:
                carry = [_Known(out, None) for out in outs]
            step += 1
        return None

    def described(self, equation: Any, value: Any) -> Origin:
        ins = ", ".join(_range(self.read(atom).value) for atom in equation.invars)
        place, file = self.place or place_of(equation)
        scope = _joined(self.scope, equation)
        return Origin("", equation.primitive.name, place, file, scope, ins, _word(value), self.iteration)


def _worst(flaws: Sequence[_Flaw | None]) -> int | None:
    """The output to go back from: a NaN before an infinity, and no constant."""
    bad = [(flaw.nan, -index) for index, flaw in enumerate(flaws) if flaw is not None and not flaw.constant]
    return -max(bad)[1] if bad else None


def _is_constant(known: _Known) -> bool:
    return known.flaw is not None and known.flaw.constant


def _known(value: Any, *, constant: bool = False) -> _Known:
    return _Known(value, _flaw(value, constant=constant))


def _flaw(value: Any, *, constant: bool) -> _Flaw | None:
    numbers = _numbers(value)
    if numbers is None or bool(np.isfinite(numbers).all()):
        return None
    return _Flaw(bool(np.isnan(numbers).any()), constant)


def _numbers(value: Any) -> NDArray[Any] | None:
    """The floating-point numbers of an array, on the host, in a dtype that NumPy knows; None if it has none."""
    dtype = jnp.result_type(value) if hasattr(value, "dtype") else jnp.asarray(value).dtype
    if not jnp.issubdtype(dtype, jnp.inexact):
        return None
    array = np.asarray(value)
    return array if array.dtype.kind in "fc" else array.astype(np.float32)


def _word(value: Any) -> str:
    numbers = _numbers(value)
    assert numbers is not None
    if np.isnan(numbers).any():
        return "nan"
    return "inf" if (numbers == np.inf).any() else "-inf"


def _range(value: Any) -> str:
    """``float32[32, 10] from 0 to 0.93``, or a single number as it is."""
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jax.dtypes.extended) or array.size == 0:
        return f"{array.dtype}{list(array.shape)}"
    numbers = _numbers(array)
    numbers = np.asarray(array) if numbers is None else numbers
    if array.size == 1:
        return f"{numbers.reshape(()).item():.6g}" if numbers.dtype.kind != "b" else str(bool(numbers.reshape(())))
    if numbers.dtype.kind == "c":
        return f"{array.dtype}{list(array.shape)}"
    known = numbers[~np.isnan(numbers)] if numbers.dtype.kind == "f" else numbers
    low, high = (float(known.min()), float(known.max())) if known.size else (np.nan, np.nan)
    return f"{array.dtype}{list(array.shape)} from {low:.6g} to {high:.6g}"


def _joined(scope: str, equation: Any) -> str:
    """The names of scopes from outside to inside. What a program is nested in names only what is inside of it."""
    own = str(equation.source_info.name_stack)
    return own if not scope or own.startswith(scope) else "/".join(part for part in (scope, own) if part)


def _compiled(program: Any) -> Callable[..., list[Any]]:
    return jax.jit(core.jaxpr_as_fun(closed(opened(program), getattr(program, "consts", ()))))
