"""The programs that the equations of a jaxpr hold, by what they mean: one reading for every version of JAX.

A higher-order primitive keeps its programs, and how its operands are dealt out to them, in parameters whose names
change from version to version. They are read here and nowhere else.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend import core

from jaxopt_nn import _ops

__all__ = [
    "Call",
    "Cond",
    "Held",
    "Scan",
    "ShardMap",
    "While",
    "closed",
    "inner_programs",
    "is_program",
    "opened",
    "programs_in",
]

# Of newer versions one class with ``Jaxpr``, and a public name no more.
_Closed: Any = core.ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]


class Call(NamedTuple):
    """The program takes the operands of the equation and returns its outputs: ``jit``, ``checkpoint``, ``custom_jvp``.

    Attributes:
        program: the program that runs.
        rule: ``"custom_jvp"`` or ``"custom_vjp"`` where the equation has a derivative of its own, else empty.
        again: whether it computes again what has been computed, as ``jax.checkpoint`` does in the backward pass.
    """

    program: Any
    rule: str = ""
    again: bool = False


class Scan(NamedTuple):
    """``lax.scan``: operands are constants, the carry, arrays to be sliced; outputs are the carry and stacked arrays.

    Attributes:
        body: takes constants, carry, slices; returns carry, slices.
        consts: how many constants.
        carry: how many arrays are carried.
        length: the number of iterations.
        reverse: whether the slices are taken from the end.
        unroll: iterations a round.
    """

    body: Any
    consts: int
    carry: int
    length: int
    reverse: bool
    unroll: int | bool


class While(NamedTuple):
    """``lax.while_loop``: operands are the condition's constants, the body's constants, the carry.

    Attributes:
        condition: takes its constants and the carry.
        condition_consts: how many.
        body: takes its constants and the carry; returns the carry.
        body_consts: how many.
    """

    condition: Any
    condition_consts: int
    body: Any
    body_consts: int


class Cond(NamedTuple):
    """``lax.cond`` and ``lax.switch``: the first operand is the branch's number, the others go to the branch.

    Attributes:
        branches: one program each. Of ``lax.platform_dependent`` only the one for this machine.
    """

    branches: tuple[Any, ...]


class ShardMap(NamedTuple):
    """``jax.shard_map``: the program sees a shard of each operand.

    Attributes:
        program: takes the shards.
        options: what ``jax.shard_map`` takes beside the function, which gets the operands one by one.
    """

    program: Any
    options: dict[str, Any]


class Held(NamedTuple):
    """Any other equation that holds programs, such as a linear solve or a reduction by a function: opaque.

    Attributes:
        programs: what it holds; what they take is not known.
    """

    programs: tuple[Any, ...]


def is_program(item: Any) -> bool:
    """Whether ``item`` is a jaxpr, closed or open."""
    return isinstance(item, (_Closed, core.Jaxpr))


def opened(program: Any) -> Any:
    """The jaxpr of a closed jaxpr, or the jaxpr itself."""
    return program.jaxpr if isinstance(program, _Closed) else program


def closed(jaxpr: Any, consts: Sequence[Any]) -> Any:
    """The closed jaxpr of a jaxpr and its constants."""
    return _Closed(jaxpr, list(consts))


def programs_in(params: Mapping[str, Any]) -> list[Any]:
    """Every program in the parameters of an equation, closed or open, as it is there."""
    items = (item for value in params.values() for item in (value if isinstance(value, (tuple, list)) else (value,)))
    return [item for item in items if is_program(item)]


def inner_programs(equation: Any) -> Call | Scan | While | Cond | ShardMap | Held | None:
    """The programs of an equation and how its operands reach them; None for a plain operation."""
    name, params = equation.primitive.name, equation.params
    inner = tuple(programs_in(params))
    if not inner:
        return None
    if name == "scan":
        if "ft_in" in params:  # JAX 0.12: trees of three and of two
            consts, carry, _ = (len(part) for part in params["ft_in"].unpack())
        else:
            consts, carry = params["num_consts"], params["num_carry"]
        return Scan(inner[0], consts, carry, params["length"], params["reverse"], params["unroll"])
    if name == "while":
        return While(params["cond_jaxpr"], params["cond_nconsts"], params["body_jaxpr"], params["body_nconsts"])
    if name == "cond":
        return Cond(_of_this_platform(params, inner))
    if name == "shard_map":
        axes = params["newly_manual_axes"] if "newly_manual_axes" in params else params["manual_axes"]
        options = {key: params[key] for key in ("mesh", "in_specs", "out_specs", "check_vma")}
        return ShardMap(inner[0], {**options, "axis_names": axes})
    # By shapes, not by name: what takes the operands and returns the outputs is what is computed.
    jaxpr = opened(inner[0])
    if (
        len(inner) == 1
        and _types(jaxpr.invars) == _types(equation.invars)
        and (_types(jaxpr.outvars) == _types(equation.outvars))
    ):
        rule = next((rule for rule in ("custom_jvp", "custom_vjp") if name.startswith(rule)), "")
        return Call(inner[0], rule, bool(params.get("differentiated")))
    return Held(inner)


def _of_this_platform(params: Mapping[str, Any], branches: tuple[Any, ...]) -> tuple[Any, ...]:
    platforms = params.get("branches_platforms")
    if platforms is None:
        return branches
    here = _ops.platform()
    return tuple(branch for branch, names in zip(branches, platforms, strict=True) if names is None or here in names)[
        :1
    ]


def _types(atoms: Any) -> list[tuple[Any, Any]]:
    return [(getattr(atom.aval, "shape", None), getattr(atom.aval, "dtype", None)) for atom in atoms]
