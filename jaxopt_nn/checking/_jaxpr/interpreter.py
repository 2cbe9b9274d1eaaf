"""Runs a traced program again, with some of its equations read in another way.

- A call with a derivative of its own (``jax.custom_jvp``, ``jax.custom_vjp``) is replaced by the plain computation
  inside it: JAX then differentiates what is computed, not what a rule says. It is looked for inside ``jit``, ``scan``,
  ``while_loop``, ``cond``, ``checkpoint``, ``shard_map``.
- A ``stop_gradient`` is left as it is (opaque), taken for the identity (transparent), or frozen: its output stays what
  it was at another point. Then the program runs at two points at once, in two lanes.
- The branches that were taken are summed up in one number, the signature: comparisons, selections, maxima, signs,
  roundings, orders of sorting. Two points of one signature lie on one smooth piece.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.sharding import PartitionSpec

from jaxopt_nn._jaxprs.equations import Call, Cond, Scan, ShardMap, While, inner_programs, opened, programs_in
from jaxopt_nn.types import Array

__all__ = ["Policy", "Site", "bind", "is_jax_code", "place_of", "run", "sites", "source_of"]

Lanes = tuple[Any, ...]


class Site(NamedTuple):
    """A place in somebody's code that changes what a derivative is.

    Attributes:
        kind: ``custom_jvp``, ``custom_vjp`` or ``stop_gradient``.
        name: the function with a rule of its own; empty for ``stop_gradient``.
        place: ``file.py:line`` of the rule, or of the ``stop_gradient``.
        file: the whole path of the file.
        defined: ``file.py:line`` of the function that has the rule.
    """

    kind: str
    name: str
    place: str
    file: str
    defined: str = ""

    def __str__(self) -> str:
        """The site in words."""
        return (
            f"{self.kind} at {self.place}" if not self.name else f"the {self.kind} rule of {self.name} at {self.place}"
        )


class Policy(NamedTuple):
    """How equations are read.

    Attributes:
        strip: whether the rule at a site is replaced by the computation inside it.
        opaque: whether a ``stop_gradient`` at a site is left as it is; else it is transparent.
        frozen: whether all of them are frozen instead.
        signature: whether branches are summed up.
        widen: whether shorter floats are float64.
        trusted: the rules that are meant. At the second of two points such a call is the linear function that its rule
            makes of it at the first.
    """

    strip: Callable[[Site], bool]
    opaque: Callable[[Site], bool]
    frozen: bool = False
    signature: bool = False
    widen: bool = False
    trusted: tuple[Site, ...] = ()


def run(program: Any, policy: Policy, *points: Sequence[Any]) -> tuple[list[Any], Array]:
    """The outputs of a closed jaxpr at the last of one or two ``points``, and the signature there (uint32).

    With two points, a frozen ``stop_gradient`` has at the second the output that it has at the first.
    """
    walk = _Walk(policy, len(points))
    outs = walk.evaluate(program, [tuple(map(walk.widen, values)) for values in zip(*points, strict=True)])
    return [lane[-1] for lane in outs], walk.signature


def sites(program: Any) -> list[Site]:
    """The sites in a closed jaxpr, each once, in the order in which they are met."""
    sites: dict[Site, None] = {}
    _collect_sites(program.jaxpr, sites)
    return list(sites)


def is_jax_code(site: Site) -> bool:
    """Whether a site is inside JAX itself: the rule of ``jax.nn.relu``, the stop_gradient of ``log_softmax``."""
    return _IN_JAX.search(site.file) is not None


def place_of(equation: Any) -> tuple[str, str]:
    """``(file.py:line, whole path)`` of the innermost code outside JAX that an equation comes from."""
    trace = equation.source_info.traceback
    inner = None
    for frame in trace.frames if trace is not None else ():
        inner = inner or frame
        path = frame.file_name
        if not re.search(r"[/\\]jax[/\\]|[/\\]jaxopt_nn[/\\]checking[/\\]|[/\\](functools|contextlib)\.py$|^<", path):
            return f"{_base(path)}:{frame.line_num}", path
    return (f"{_base(inner.file_name)}:{inner.line_num}", inner.file_name) if inner else ("an unknown line", "")


_IN_JAX = re.compile(r"[/\\]jax[/\\](_src|nn|numpy|scipy|experimental|lax)[/\\]")
_MACHINERY = re.compile(
    r"[/\\]jax[/\\]_src[/\\]((interpreters|lax[/\\]control_flow)[/\\]|lax[/\\]lax\.py|\w+\.py)|[/\\](functools|contextlib)\.py$|^<"
)
_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_STEPS = frozenset({"floor", "ceil", "round", "sign", "argmax", "argmin"})
_RULES = ("custom_jvp", "custom_vjp")
_DTYPES = ("new_dtype", "dtype", "preferred_element_type", "out_dtype")  # parameters that say what an operation gives


def _is_short(dtype: Any) -> bool:
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 8


class _Walk:
    def __init__(self, policy: Policy, width: int, shards: tuple[Any, ...] = ()) -> None:
        self.policy = policy
        self.width = width
        self.shards = shards
        self.count = 0
        self.signature: Any = self.zero()

    def zero(self) -> Any:
        """A signature to begin with; inside of ``shard_map`` each shard's own, by its type too."""
        zero = jnp.zeros((), jnp.uint32)
        return sum((lax.axis_index(axis).astype(jnp.uint32) * zero for axis in self.shards), zero)

    def evaluate(self, program: Any, inputs: Sequence[Lanes]) -> list[Lanes]:
        jaxpr = opened(program)
        consts = [(self.widen(const),) * self.width for const in getattr(program, "consts", ())]
        values: dict[Any, Lanes] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

        def read(atom: Any) -> Lanes:
            return (self.widen(atom.val),) * self.width if isinstance(atom, core.Literal) else values[atom]

        for equation in jaxpr.eqns:
            outs = self.step(equation, [read(atom) for atom in equation.invars])
            values.update(zip(equation.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def step(self, equation: Any, ins: list[Lanes]) -> list[Lanes]:
        name, params, inner = equation.primitive.name, equation.params, inner_programs(equation)
        # One of JAX's own, as in ``log_softmax``, stays: what it stops changes nothing.
        if name == "stop_gradient" and not is_jax_code(site := _stop_site(equation)):
            if self.policy.frozen:
                return [(value[0],) * self.width for value in ins]
            if not self.policy.opaque(site):
                return ins
        elif isinstance(inner, Call) and inner.rule in _RULES and _rule_site(equation, inner) in self.policy.trusted:
            if self.width == 2:
                return _linear(equation, ins)
        # Any other call is what it computes: a rule for ``vmap`` alone has no transpose.
        elif isinstance(inner, Call) and (inner.rule not in _RULES or self.policy.strip(_rule_site(equation, inner))):
            return self.evaluate(inner.program, ins)
        elif isinstance(inner, Scan):
            return self.scan(inner, ins)
        elif isinstance(inner, While):
            return self.loop(inner, ins)
        elif isinstance(inner, Cond):
            return self.branch(inner, ins)
        elif isinstance(inner, ShardMap):
            return self.shard(inner, ins)
        outs = self.bound(equation, ins) if self.policy.widen else _bind(equation, ins, self.width)
        if self.policy.signature:
            self.note(name, params, [value[-1] for value in ins], [value[-1] for value in outs])
        return outs

    def widen(self, value: Any) -> Any:
        """A shorter float as float64, if the policy says so."""
        return jnp.asarray(value, jnp.float64) if self.policy.widen and _is_short(jnp.result_type(value)) else value

    def bound(self, equation: Any, ins: list[Lanes]) -> list[Lanes]:
        """What an equation gives in float64."""
        name, params = equation.primitive.name, equation.params
        if name == "reduce_precision":
            return ins
        if name == "bitcast_convert_type":  # of the very bits
            kinds = [atom.aval.dtype for atom in equation.invars]
            ins = [tuple(jnp.asarray(one, dtype) for one in lane) for lane, dtype in zip(ins, kinds, strict=True)]
        else:
            names = {key: jnp.dtype("float64") for key in _DTYPES if _is_short(params.get(key))}
            equation = equation.replace(params={**params, **names}) if names else equation
        return [tuple(self.widen(one) for one in lane) for lane in _bind(equation, ins, self.width)]

    def nested(
        self, program: Any, consts: list[Lanes], shards: tuple[Any, ...] = ()
    ) -> Callable[[Sequence[Any]], tuple[list[Any], Any]]:
        """``inner(flat lanes) -> (flat lanes, signature)``: a body of a loop or branch, in a scope of its own."""

        def inner(flat: Sequence[Any]) -> tuple[list[Any], Any]:
            walk = _Walk(self.policy, self.width, (*self.shards, *shards))
            return _flat(walk.evaluate(program, [*consts, *_lanes(flat, self.width)])), walk.signature

        return inner

    def scan(self, scan: Scan, ins: list[Lanes]) -> list[Lanes]:
        last = scan.consts + scan.carry
        inner = self.nested(scan.body, ins[: scan.consts])
        carry, xs = _flat(ins[scan.consts : last]), _flat(ins[last:])

        def body(state: Any, x: Any) -> Any:
            old, signature = state
            outs, more = inner([*old, *x])
            return (outs[: len(old)], signature * jnp.uint32(31) + more), outs[len(old) :]

        (carry, signature), ys = lax.scan(
            body, (carry, self.zero()), xs, scan.length, reverse=scan.reverse, unroll=scan.unroll
        )
        self.add(signature)
        return _lanes([*carry, *ys], self.width)

    def loop(self, loop: While, ins: list[Lanes]) -> list[Lanes]:
        consts = loop.condition_consts + loop.body_consts
        goes_on = self.nested(loop.condition, ins[: loop.condition_consts])
        body = self.nested(loop.body, ins[loop.condition_consts : consts])

        def step(state: Any) -> Any:
            outs, more = body(state[0])
            return outs, state[1] * jnp.uint32(31) + more + jnp.uint32(1)

        outs, signature = lax.while_loop(
            lambda state: goes_on(state[0])[0][-1], step, (_flat(ins[consts:]), self.zero())
        )
        self.add(signature)
        return _lanes(outs, self.width)

    def branch(self, cond: Cond, ins: list[Lanes]) -> list[Lanes]:
        index = ins[0][-1]
        branches = [self.nested(branch, []) for branch in cond.branches]
        outs, signature = lax.switch(index, branches, _flat(ins[1:]))
        self.add(signature * jnp.uint32(31) + jnp.asarray(index).astype(jnp.uint32))
        return _lanes(outs, self.width)

    def shard(self, shard: ShardMap, ins: list[Lanes]) -> list[Lanes]:
        axes = tuple(sorted(shard.options["axis_names"], key=str))
        inner = self.nested(shard.program, [], axes)
        each = lambda specs: tuple(spec for spec in specs for _ in range(self.width))  # noqa: E731

        def body(*flat: Any) -> Any:
            outs, signature = inner(flat)
            return (*outs, signature[None])

        in_specs, out_specs = each(shard.options["in_specs"]), each(shard.options["out_specs"])
        options: dict[str, Any] = {
            **shard.options,
            "in_specs": in_specs,
            "out_specs": (*out_specs, PartitionSpec(axes)),
        }
        *outs, signatures = jax.shard_map(body, **options)(*_flat(ins))
        self.add(jnp.sum(signatures * (2 * lax.iota(jnp.uint32, signatures.size) + 1), dtype=jnp.uint32))
        return _lanes(outs, self.width)

    def note(self, name: str, params: Any, ins: list[Any], outs: list[Any]) -> None:
        """Adds the branch that an equation took to the signature."""
        if name in _COMPARISONS or name in _STEPS:
            self.hash(outs[0])
        elif name in ("max", "min"):
            self.hash(ins[0] > ins[1])
        elif name == "abs" and jnp.issubdtype(ins[0].dtype, jnp.floating):
            self.hash(ins[0] < 0)
        elif name == "clamp":
            self.hash((ins[1] < ins[0]).astype(jnp.int8) - (ins[1] > ins[2]).astype(jnp.int8))
        elif name in ("reduce_max", "reduce_min"):
            self.hash(ins[0] == jnp.expand_dims(outs[0], params["axes"]))
        elif name == "sort" and ins[0].ndim:
            self.hash(jnp.argsort(ins[0], axis=params["dimension"]))

    def hash(self, branch: Any) -> None:
        self.count += 1
        numbers = jnp.asarray(branch).astype(jnp.int32).astype(jnp.uint32).reshape(-1)
        weights = lax.iota(jnp.uint32, numbers.size) * jnp.uint32(2654435761) + jnp.uint32(40503 * self.count | 1)
        self.add(jnp.sum(numbers * (weights ^ (weights >> jnp.uint32(15))), dtype=jnp.uint32))

    def add(self, signature: Any) -> None:
        self.count += 1
        if self.policy.signature:
            self.signature = self.signature * jnp.uint32(16777619) + signature


def bind(equation: Any, ins: Sequence[Any]) -> list[Any]:
    """The outputs of an equation at these inputs."""
    return [out for (out,) in _bind(equation, [(value,) for value in ins], 1)]


def _bind(equation: Any, ins: list[Lanes], width: int) -> list[Lanes]:
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)

    def bind(values: Sequence[Any]) -> Any:
        with equation.ctx.manager:
            outs = equation.primitive.bind(*functions, *values, **params)
        return list(outs) if equation.primitive.multiple_results else [outs]

    first = [value[0] for value in ins]
    outs = [bind(first)]
    for lane in range(1, width):
        values = [value[lane] for value in ins]
        same = all(a is b for a, b in zip(values, first, strict=True))
        outs.append(outs[0] if same else bind(values))
    return list(zip(*outs, strict=True))


def _linear(equation: Any, ins: list[Lanes]) -> list[Lanes]:
    """A call at the first point, and what its rule makes of it at the second."""
    first, second = ([value[i] for value in ins] for i in (0, 1))
    floats = [i for i, value in enumerate(first) if jnp.issubdtype(jnp.result_type(value), jnp.floating)]

    def call(*values: Any) -> list[Any]:
        full = list(first)
        for i, value in zip(floats, values, strict=True):
            full[i] = value
        outs = _bind(equation, [(value,) for value in full], 1)
        return [out for (out,) in outs]

    # Of a ``custom_vjp`` there is but the transposed product.
    outs, pull = jax.vjp(call, *(first[i] for i in floats))
    steps = tuple(second[i] - first[i] for i in floats)
    (moves,) = jax.linear_transpose(pull, outs)(steps)
    return [(out, out + move) for out, move in zip(outs, moves, strict=True)]


def _collect_sites(jaxpr: Any, sites: dict[Site, None]) -> None:
    for equation in jaxpr.eqns:
        inner = inner_programs(equation)
        if isinstance(inner, Call) and inner.rule in _RULES:
            sites[_rule_site(equation, inner)] = None
        elif equation.primitive.name == "stop_gradient":
            sites[_stop_site(equation)] = None
        for program in programs_in(equation.params):
            _collect_sites(opened(program), sites)


def _rule_site(equation: Any, call: Call) -> Site:
    params = equation.params
    name, defined, path = _source(opened(call.program))
    place = defined
    for rule in ("bwd", "jvp_jaxpr_fun"):
        _, rule_place, rule_path = _source(params.get(rule))
        if _IN_JAX.search(rule_path):  # JAX's own wrapper of what ``defjvps`` was given
            rule_place, rule_path = _place_of_defjvps(params[rule])
        if rule_place and not _IN_JAX.search(rule_path):
            place, path = rule_place, rule_path
    return Site(call.rule, name or "a function", place or place_of(equation)[0], path, defined)


def _place_of_defjvps(fun: Any, depth: int = 6) -> tuple[str, str]:
    """``(file.py:line, whole path)`` of the first function that ``defjvps`` was given, inside of JAX's wrappers."""
    inside = [getattr(fun, "f", None), getattr(fun, "f_transformed", None)]
    inside += [cell.cell_contents for cell in getattr(fun, "__closure__", None) or ()]
    if getattr(fun, "__qualname__", "").endswith("defjvps.<locals>.jvp"):
        rules = [one for cell in inside if isinstance(cell, tuple) for one in cast(tuple[Any, ...], cell)]
        code = next((one.__code__ for one in rules if hasattr(one, "__code__")), None)
        return (f"{_base(code.co_filename)}:{code.co_firstlineno}", code.co_filename) if code else ("", "")
    places = (_place_of_defjvps(one, depth - 1) for one in inside if depth and one is not None)
    return next((place for place in places if place[0]), ("", ""))


def _stop_site(equation: Any) -> Site:
    trace = equation.source_info.traceback
    # Whose it is says the code that calls ``lax.stop_gradient``, past JAX's machinery.
    callers = [frame.file_name for frame in (trace.frames if trace is not None else ())]
    caller = next((path for path in callers if not _MACHINERY.search(path)), "")
    place, path = place_of(equation)
    return Site("stop_gradient", "", place, caller if _IN_JAX.search(caller) else path)


def source_of(fun: Any) -> str:
    """The whole path of the file that a traced function is in; empty if it is not known."""
    return _source(fun)[2]


def _source(fun: Any) -> tuple[str, str, str]:
    """``(function, file.py:line, whole path)`` from "function at path:line"."""
    text = getattr(getattr(fun, "debug_info", None), "func_src_info", None) or ""
    match = re.fullmatch(r"(.*) at (.*):(\d+)", text)
    return (match[1], f"{_base(match[2])}:{match[3]}", match[2]) if match else ("", "", "")


def _base(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


def _flat(values: Sequence[Lanes]) -> list[Any]:
    return [value for lane in values for value in lane]


def _lanes(flat: Sequence[Any], width: int) -> list[Lanes]:
    return [tuple(flat[i : i + width]) for i in range(0, len(flat), width)]
