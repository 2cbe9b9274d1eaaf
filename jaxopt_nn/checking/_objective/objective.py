"""The checked function as one scalar function of a list of float64 leaves, and the gradient that is claimed for it.

Of the differentiated arguments the float leaves are variables. Every other array is passed on as an array, floats
widened to float64; Python values (a bool, an axis, a string, a callable) are left as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_nn import trees
from jaxopt_nn._jaxprs import cache
from jaxopt_nn._jaxprs.cache import Program
from jaxopt_nn._jaxprs.identity import fingerprint
from jaxopt_nn.checking._jaxpr import interpreter
from jaxopt_nn.checking._jaxpr.analysis import Reading, check_untraced, read
from jaxopt_nn.checking._jaxpr.interpreter import Policy, Site
from jaxopt_nn.checking._sampling.directions import short_normal
from jaxopt_nn.types import Array, PyTree

__all__ = [
    "Arguments",
    "Gradient",
    "Objective",
    "automatic_gradient",
    "claimed_gradient",
    "make_objective",
    "other_arrays",
    "own_dtype_gradient",
    "split_arguments",
    "value_of",
]

_ARRAYS = (jax.Array, np.ndarray, np.generic)


class Arguments(NamedTuple):
    """The arguments of f, taken apart.

    Attributes:
        args: as the caller passed them.
        argnums: which of them are differentiated.
        bare: whether a gradient is the bare tree of one argument, not a tuple.
        paths: paths of the float leaves in the differentiated arguments.
        leaves: the float leaves, widened to float64.
        dtypes: their dtypes as jax holds them for the caller.
        skipped: the other leaves of these arguments: path and dtype.
        positions: where the float leaves are among all leaves of ``args``.
        constants_needed: whether all other arrays stay what they are, as f needs their numbers while it is traced.
    """

    args: tuple[Any, ...]
    argnums: tuple[int, ...]
    bare: bool
    paths: tuple[str, ...]
    leaves: tuple[Any, ...]
    dtypes: tuple[str, ...]
    skipped: tuple[str, ...]
    positions: tuple[int, ...]
    constants_needed: bool = False


class Objective(NamedTuple):
    """The scalar function that is differentiated.

    Attributes:
        shared: the jaxpr of f in float64: float leaves, then other arrays, then what f closes over.
        rest: what else ``value`` takes: the other arrays and what f closes over, the cotangent, and the leaves at the
            point.
        cotangent: what an array output is multiplied with; None for a scalar output.
        reading: what the program tells.
        sites: where it has rules of its own or stops a gradient.
        deterministic: whether two traces gave the same program.
        widen: whether ``value`` takes shorter floats inside of f for float64.
        trusted: rules that are meant: ``value`` is the function whose derivative they are.
        by_hand: f at a list of float64 leaves, where JAX cannot trace it; else None. ``shared`` then is the program of
            nothing.
        note: what the report has to say of this.
    """

    shared: Program
    rest: Any
    cotangent: Any
    reading: Reading
    sites: list[Site]
    deterministic: bool
    widen: bool = False
    trusted: tuple[Site, ...] = ()
    by_hand: Callable[[Sequence[Any]], float] | None = None
    note: str = ""

    def value(self, leaves: Sequence[Any], rest: Any, policy: Policy) -> tuple[Array, Array]:
        """The float64 scalar that is differentiated, and its branch signature, under ``enable_x64``."""
        return value_of(self.shared, policy._replace(widen=self.widen, trusted=self.trusted), leaves, rest)

    @property
    def program(self) -> Any:
        """The closed jaxpr."""
        return self.shared.closed


def value_of(shared: Program, policy: Policy, leaves: Sequence[Any], rest: Any) -> tuple[Array, Array]:
    """As ``Objective.value``, of the program alone."""
    others, cotangent, point = rest
    two = policy.frozen or policy.trusted
    points = [[*point, *others], [*leaves, *others]] if two else [[*leaves, *others]]
    (out, *_), signature = interpreter.run(shared.closed, policy, *points)
    return _reduce(jnp.asarray(out, jnp.float64), cotangent), signature


class Gradient(Protocol):
    """A claimed gradient at float64 ``leaves``, and at ``others`` in place of the other arrays of the arguments."""

    def __call__(self, leaves: Sequence[Any], others: Sequence[Any] | None = None) -> list[Any]: ...


def split_arguments(args: tuple[Any, ...], argnums: int | Sequence[int] | None) -> Arguments:
    """Finds the float leaves; to be called in the caller's own precision."""
    chosen = _argnums(argnums, len(args))
    bare = isinstance(argnums, (int, np.integer)) or (argnums is None and len(args) == 1)
    offsets = np.cumsum([0, *(len(jax.tree.leaves(arg)) for arg in args)])
    paths: list[str] = []
    leaves: list[Any] = []
    dtypes: list[str] = []
    skipped: list[str] = []
    positions: list[int] = []
    for path, leaf in trees.named_leaves(args):
        if isinstance(leaf, Tracer):
            raise TypeError(
                f"args[{path}]: expected a concrete array, got a traced one: check_gradients runs outside jit and grad"
            )
    for place, number in enumerate(chosen):
        settings = _settings(args[number])
        for i, (path, leaf) in enumerate(trees.named_leaves(args[number])):
            path = (path if bare else f"{place}/{path}".rstrip("/")) or f"args[{number}]"
            dtype = _dtype(leaf)
            if dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating):
                raise TypeError(f"{path}: expected a real array, got {dtype}: complex gradients are not checked")
            if i in settings:
                skipped.append(f"{path} (a {type(leaf).__name__} of a module)")
            elif dtype is None or not jnp.issubdtype(dtype, jnp.floating):
                skipped.append(f"{path} ({type(leaf).__name__ if dtype is None else dtype})")
            elif not dtype.isnative:
                raise TypeError(f"{path}: expected the byte order of this machine, got {dtype.str}: JAX takes no other")
            elif np.size(leaf) == 0:
                skipped.append(f"{path} (empty)")
            else:
                paths.append(path)
                leaves.append(np.asarray(leaf).astype(np.float64))
                dtypes.append(str(jnp.asarray(leaf).dtype))
                positions.append(int(offsets[number]) + i)
                if not np.all(np.isfinite(leaves[-1])):
                    raise ValueError(f"{path}: expected finite values, got NaN or inf")
    if not paths:
        raise TypeError(
            f"args: expected at least one float leaf to differentiate, got {', '.join(skipped) or 'no leaf'}"
        )
    return Arguments(args, chosen, bare, tuple(paths), tuple(leaves), tuple(dtypes), tuple(skipped), tuple(positions))


def make_objective(f: Callable[..., Any], arguments: Arguments, words: tuple[int, ...]) -> tuple[Objective, Arguments]:
    """Traces f twice in float64 and reads it; ``words`` seed the cotangent. To be called under ``in_float64``.

    Returns the arguments too, of which f may hold some.
    """
    try:
        program, again = _traces(f, arguments)
    except Exception as error:  # whatever f raises: it may be no function of JAX
        error.add_note("check_gradients calls f with float64 arrays under jax.enable_x64; f must accept these")
        arguments = arguments._replace(constants_needed=True)
        try:
            program, again = _traces(f, arguments)
        except Exception:
            try:
                out = np.asarray(_caller(f, arguments)(_as_passed(arguments, arguments.leaves), []))
            except Exception:
                raise error from None
            return _by_hand(f, arguments, words, out, type(error).__name__), arguments
    outputs: Any = program.out_avals
    cotangent = _cotangent(outputs, words)
    check_untraced(program)
    reading = read(program)
    shared, consts = cache.share(program)
    objective = Objective(
        shared=shared,
        rest=([*_others(arguments), *consts], cotangent, [np.asarray(leaf) for leaf in arguments.leaves]),
        cotangent=cotangent,
        reading=reading._replace(rounding=reading.rounding[: len(arguments.leaves)]),
        sites=interpreter.sites(program),
        deterministic=fingerprint(program) == fingerprint(again),
    )
    return objective, arguments


def _traces(f: Callable[..., Any], arguments: Arguments) -> list[Any]:
    # A fresh function each time: jax would give the trace of the first back.
    return [jax.make_jaxpr(_caller(f, arguments))(arguments.leaves, _others(arguments)) for _ in range(2)]


def _by_hand(f: Callable[..., Any], arguments: Arguments, words: tuple[int, ...], out: Any, error: str) -> Objective:
    cotangent = _cotangent([out], words)

    def call(leaves: Sequence[Any]) -> float:
        value = np.asarray(_caller(f, arguments)(_as_passed(arguments, leaves), []), np.float64)
        return float(value if cotangent is None else np.sum(value * cotangent))

    shared, _ = cache.share(jax.make_jaxpr(lambda *_: jnp.zeros(()))(*arguments.leaves))
    return Objective(
        shared=shared,
        rest=([], cotangent, [np.asarray(leaf) for leaf in arguments.leaves]),
        cotangent=cotangent,
        reading=Reading((0.0,) * len(arguments.leaves), False),
        sites=[],
        deterministic=True,
        by_hand=call,
        note=f"JAX cannot trace f ({error}): it was called as it is, and judged by differences alone",
    )


def _cotangent(outputs: Sequence[Any], words: tuple[int, ...]) -> Any:
    """What an array output is multiplied with; None for a scalar; raises where f has another output."""
    if len(outputs) != 1 or not jnp.issubdtype(outputs[0].dtype, jnp.floating):
        got = ", ".join(f"{aval.dtype}{list(aval.shape)}" for aval in outputs)
        raise TypeError(
            f"f: expected one real float array as its output, got {got or 'nothing'}; wrap f to return only that"
        )
    shape = outputs[0].shape
    if 0 in shape:
        raise TypeError(f"f: expected one real float array as its output, got an empty one of shape {list(shape)}")
    return None if shape == () else short_normal(np.random.default_rng((*words, 0)), shape)


def _call_claim(
    grad_fn: Callable[..., Any], objective: Objective, arguments: Arguments, leaves: Sequence[Any], rest: Sequence[Any]
) -> list[Any]:
    """What ``grad_fn`` claims, given arrays of JAX; or what the caller passed, where it or f takes no others."""
    as_passed = lambda: grad_fn(*_put(arguments, _as_passed(arguments, leaves), rest))  # noqa: E731
    if objective.by_hand is not None:
        return _match(as_passed(), arguments)
    try:
        claimed = grad_fn(*_put(arguments, [jnp.asarray(leaf) for leaf in leaves], rest))
    except Exception as error:  # whatever it raises: it may write into an array of NumPy
        try:
            claimed = as_passed()
        except Exception:
            raise error from None
    return _match(claimed, arguments)


def _as_passed(arguments: Arguments, leaves: Sequence[Any]) -> list[Any]:
    """Leaves as what the caller passed: arrays of NumPy or of JAX, or Python floats. f may write into its own."""
    flat = jax.tree.leaves(arguments.args)
    originals: list[Any] = []
    for i, leaf in zip(arguments.positions, leaves, strict=True):
        if isinstance(flat[i], float):
            originals.append(float(leaf))
        else:
            originals.append(np.array(leaf) if isinstance(flat[i], (np.ndarray, np.generic)) else jnp.asarray(leaf))
    return originals


def claimed_gradient(
    f: Callable[..., Any], grad_fn: Callable[..., Any] | None, objective: Objective, arguments: Arguments
) -> Gradient:
    """What is claimed at float64 leaves, as NumPy arrays. Call it under ``enable_x64``."""
    rest = _others(arguments)
    if grad_fn is not None:
        return lambda leaves, others=None: _call_claim(
            grad_fn, objective, arguments, leaves, rest if others is None else others
        )
    if objective.by_hand is not None:  # JAX may differentiate what it calls step by step
        return lambda leaves, others=None: [np.asarray(leaf) for leaf in _step_by_step(f, arguments, objective, leaves)]
    cotangent = [] if objective.cotangent is None else [objective.cotangent]
    automatic = automatic_gradient(f, arguments)
    program = jax.make_jaxpr(automatic)(list(arguments.leaves), rest, objective.cotangent)
    check_untraced(program)  # a rule may close over what f itself does not
    run = cache.evaluator(program)
    return lambda leaves, others=None: [
        np.asarray(leaf) for leaf in run([*leaves, *(rest if others is None else others), *cotangent])
    ]


def own_dtype_gradient(
    f: Callable[..., Any], grad_fn: Callable[..., Any] | None, arguments: Arguments, objective: Objective
) -> list[Any]:
    """The claimed gradient in the caller's dtypes, as float64 numbers; to be called in the caller's own precision."""
    flat = jax.tree.leaves(arguments.args)
    leaves, rest = [jnp.asarray(flat[i]) for i in arguments.positions], other_arrays(arguments)
    if grad_fn is None and objective.by_hand is not None:
        gradient = _step_by_step(f, arguments, objective, leaves)
    elif grad_fn is None:
        inputs = (leaves, rest, objective.cotangent)
        program = jax.make_jaxpr(automatic_gradient(f, arguments))(*inputs)
        gradient = cache.evaluator(program)(jax.tree.leaves(inputs))
    else:
        gradient = _call_claim(grad_fn, objective, arguments, leaves, rest)
    return [np.asarray(leaf).astype(np.float64) for leaf in gradient]


def _step_by_step(
    f: Callable[..., Any], arguments: Arguments, objective: Objective, leaves: Sequence[Any]
) -> list[Any]:
    """By ``jax.grad`` without tracing the whole of f."""
    try:
        return automatic_gradient(f, arguments)([jnp.asarray(leaf) for leaf in leaves], [], objective.cotangent)
    except Exception as error:
        raise TypeError(
            f"f: JAX cannot differentiate it ({type(error).__name__}): pass the gradient that is claimed as grad_fn"
        ) from error


def automatic_gradient(f: Callable[..., Any], arguments: Arguments) -> Callable[..., Any]:
    """``gradient(leaves, other arrays, cotangent)``, a list of arrays, by ``jax.grad``, in any precision."""
    # f itself, not its program: a rule in f may close over values of the trace that calls it.
    call = _caller(f, arguments)
    return jax.grad(lambda leaves, rest, cotangent: _reduce(call(leaves, rest), cotangent))


def _reduce(out: Array, cotangent: Any) -> Array:
    return out if cotangent is None else jnp.sum(out * jnp.asarray(cotangent, out.dtype))


def _caller(f: Callable[..., Any], arguments: Arguments) -> Callable[[Sequence[Any], Sequence[Any]], Any]:
    """F as a function of its float leaves and its other arrays: a new function object at each call."""
    return lambda leaves, rest: f(*_put(arguments, leaves, rest))


def _put(arguments: Arguments, leaves: Sequence[Any], rest: Sequence[Any]) -> Any:
    """The arguments with other float leaves and other arrays in place of their own."""
    flat, structure = jax.tree.flatten(arguments.args)
    for i, leaf in zip([*arguments.positions, *_other_positions(arguments)], [*leaves, *rest], strict=True):
        flat[i] = leaf
    return jax.tree.unflatten(structure, flat)


def _other_positions(arguments: Arguments) -> list[int]:
    if arguments.constants_needed:
        return []
    variables = set(arguments.positions)
    flat = jax.tree.leaves(arguments.args)
    return [i for i, leaf in enumerate(flat) if i not in variables and isinstance(leaf, _ARRAYS)]


def other_arrays(arguments: Arguments) -> list[Any]:
    """The arrays among the arguments that are not differentiated, in the order in which f's program takes them."""
    flat = jax.tree.leaves(arguments.args)
    return [flat[i] for i in _other_positions(arguments)]


def _others(arguments: Arguments) -> list[Any]:
    return [_widen(leaf) for leaf in other_arrays(arguments)]


def _argnums(argnums: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    if argnums is None:
        return tuple(range(count))
    chosen = tuple(argnums) if isinstance(argnums, Sequence) else (argnums,)
    for number in chosen:
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or not 0 <= number < count:
            raise ValueError(
                f"argnums: expected integers in [0, {count - 1}], one per differentiated argument, got {argnums!r}"
            )
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"argnums: expected each argument once, got {argnums!r}")
    return tuple(int(number) for number in chosen)


def _dtype(leaf: Any) -> Any:
    if isinstance(leaf, (bool, int, float, complex)):
        return np.dtype(type(leaf))
    return getattr(leaf, "dtype", None)


def _widen(leaf: Any) -> Any:
    return np.asarray(leaf).astype(np.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _match(gradient: PyTree, arguments: Arguments) -> list[Any]:
    """The float leaves of what grad_fn returned, as NumPy arrays; raises where tree or shape is another."""
    differentiated: Any = [arguments.args[number] for number in arguments.argnums]
    differentiated = differentiated[0] if arguments.bare else tuple(differentiated)
    if arguments.bare and jax.tree.structure(differentiated).num_nodes == 1:  # a leaf has no path
        name = arguments.paths[0]
        differentiated, gradient = {name: differentiated}, {name: gradient}
    offsets = np.cumsum([0, *(len(jax.tree.leaves(arg)) for arg in arguments.args)])
    places = [place for number in arguments.argnums for place in range(offsets[number], offsets[number + 1])]
    named = zip(places, trees.named_leaves(differentiated), strict=True)
    others = {path for place, (path, _) in named if place not in arguments.positions}

    def keep(path: str, leaf: Any) -> Any:
        if path in others:
            return None
        if isinstance(leaf, Tracer):
            raise TypeError(
                f"grad_fn: it closes over a traced value, and returned one ({leaf.aval}); call it outside jit"
            )
        array = np.asarray(leaf)
        return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array

    got = trees.map_with_path(keep, gradient)
    expected = trees.map_with_path(
        lambda path, leaf: None if path in others else np.zeros(np.shape(leaf)), differentiated
    )
    with jax.enable_x64(True):
        trees.check_same_structure("grad_fn", expected, got)
    raw = dict(trees.named_leaves(gradient))
    return [np.asarray(raw[path]) for path, _ in trees.named_leaves(expected)]


def _settings(tree: PyTree) -> set[int]:
    """The leaves of a tree that are Python floats inside of a module or another dataclass: no parameters."""
    plain = (dict, list, tuple, Mapping)
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: not isinstance(node, plain))
    float_leaves: set[int] = set()
    first = 0
    for node in nodes:
        leaves = jax.tree.leaves(node)
        if not jax.tree_util.all_leaves([node]):
            float_leaves |= {first + i for i, leaf in enumerate(leaves) if isinstance(leaf, float)}
        first += len(leaves)
    return float_leaves
