"""What every combinator is: a graph, whose nodes are layers that read inputs or other nodes.

``serial``, ``residual``, ``parallel``, ``graph`` and ``repeat`` differ only in their connections. A :class:`Wiring`
holds these, so that summaries, drawings and data-dependent initialization can go through a model. The error of a layer
starts with its path.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxopt_nn._arguments import UnusableValueError, check_bool, check_key, shown
from jaxopt_nn.layers._combinators.closures import check_no_weights
from jaxopt_nn.trees import named_leaves, takes
from jaxopt_nn.types import ApplyFn, Array, Key, Layer, Params, PyTree, State

__all__ = [
    "Node",
    "Wiring",
    "as_layer",
    "at_path",
    "bind",
    "collect",
    "evaluate",
    "gather",
    "layer_of_wiring",
    "numbered_names",
    "output_shape",
    "shapes_of",
]


class Node(NamedTuple):
    """A layer at its place in a model.

    Attributes:
        name: unique among its siblings; the name of its entry in parameters and state, and its part of a path.
        layer: the layer.
        inputs: the names of the inputs or nodes that it reads; a layer with several gets a tuple.
        owner: the name of the node whose parameters and state it uses: its own, unless shared.
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...]
    owner: str


class Wiring(NamedTuple):
    """How a combinator connects its layers.

    Attributes:
        nodes: in the order of their evaluation.
        inputs: the name of the one input, or those of several.
        outputs: the name of the node that is the output, or those of several.
        times: how often the whole is applied, one after another, with stacked parameters and state; None for once,
            without stacking.
    """

    nodes: tuple[Node, ...]
    inputs: str | tuple[str, ...]
    outputs: str | tuple[str, ...]
    times: int | None = None


def as_layer(layer: Layer | Callable[[Any], Any]) -> Layer:
    """A layer as it is, or a plain function of an array as a layer without parameters.

    Raises:
        TypeError: it is neither; or it is a module of another library, whose weights would never be trained.

    Warns:
        UserWarning: the function holds an array of floats, which is a constant of the model and is not trained.

    >>> as_layer(jax.nn.relu).name
    'relu'
    """
    if isinstance(layer, Layer):
        return layer
    if not callable(layer):
        raise TypeError(
            f"layer: expected a Layer or a function of an array, got {shown(layer)} of type {type(layer).__name__}"
        )
    check_no_weights(layer)
    name = getattr(layer, "__name__", "function")
    if getattr(layer, "__annotations__", {}).get("return") is Layer:
        raise TypeError(f"layer: expected a Layer, got the function {name} that makes one: call it, {name}(...)")
    if (isinstance(layer, type) and not hasattr(layer, "dtype")) or not takes(layer, None):
        raise TypeError(f"layer: expected a Layer or a function of an array, got {shown(layer)}, which is none")
    function = layer

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key, x
        return {}, {}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Any, State]:
        del params, train, key, weight
        return function(x), state

    return Layer(init, apply, name.strip("<>"))


def numbered_names(layers: Sequence[Layer]) -> list[str]:
    """Names by kind and count: ``dense_0``, ``relu_0``, ``dense_1``."""
    counts: dict[str, int] = {}
    names: list[str] = []
    for layer in layers:
        count = counts.get(layer.name, 0)
        counts[layer.name] = count + 1
        names.append(f"{layer.name}_{count}")
    return names


def layer_of_wiring(wiring: Wiring, name: str) -> Layer:
    """The layer that evaluates a wiring once. Each node gets a key of its own, ``split(key, n)[position]``."""
    nodes = wiring.nodes

    def init(key: Key, x: PyTree) -> tuple[Params, State]:
        check_key("key", key)
        values = bind(wiring, shapes_of(x))
        params: dict[str, Any] = {}
        state: dict[str, Any] = {}
        for node, own_key in zip(nodes, jax.random.split(key, len(nodes)), strict=True):
            fed = gather(values, node.inputs)
            if node.owner == node.name:
                own_params, own_state = at_path(node.name, node.layer.init, own_key, fed)
                if jax.tree.leaves(own_params):
                    params[node.name] = own_params
                if jax.tree.leaves(own_state):
                    state[node.name] = own_state
            own = params.get(node.owner, {}), state.get(node.owner, {})
            values[node.name] = at_path(node.name, output_shape, node.layer, *own, fed)
        return params, state

    def apply(
        params: Params,
        state: State,
        x: PyTree,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[PyTree, State]:
        for argument, value in (("params", params), ("state", state)):
            if not isinstance(value, Mapping):
                raise TypeError(f"{argument}: expected the dictionary that init returned, got {shown(value)}")
        check_bool("train", train)
        if key is not None:
            check_key("key", key)
        return evaluate(wiring, _apply_of, params, state, x, train=train, key=key, weight=weight)

    return Layer(init, apply, name, wiring)


def _apply_of(node: Node) -> ApplyFn:
    return node.layer.apply


def evaluate(
    wiring: Wiring,
    apply_of: Callable[[Node], ApplyFn],
    params: Params,
    state: State,
    x: PyTree,
    *,
    train: bool,
    key: Key | None,
    weight: Array | None,
) -> tuple[PyTree, State]:
    """Evaluates a wiring once, each node by what ``apply_of`` says: ``node.layer.apply``, or what equals it."""
    nodes, values = wiring.nodes, bind(wiring, x)
    new_state = dict(state)
    keys = [None] * len(nodes) if key is None else jax.random.split(key, len(nodes))
    for node, own_key in zip(nodes, keys, strict=True):
        with jax.named_scope(node.name):  # the names of operations begin with the path of their layer
            values[node.name], own_state = at_path(
                node.name,
                apply_of(node),
                params.get(node.owner, {}),
                new_state.get(node.owner, {}),
                gather(values, node.inputs),
                train=train,
                key=own_key,
                weight=weight,
            )
        if node.owner in state:
            new_state[node.owner] = own_state
    return collect(wiring, values), new_state


def bind(wiring: Wiring, x: PyTree) -> dict[str, PyTree]:
    """The values of the inputs, by name."""
    names = wiring.inputs
    if isinstance(names, str):
        return {names: x}
    if isinstance(x, Mapping):
        if set(x) != set(names):
            raise ValueError(f"expected inputs {sorted(names)}, got {sorted(x)}")
        return {name: x[name] for name in names}
    if not isinstance(x, (tuple, list)) or len(x) != len(names):
        got = f"{len(x)}" if isinstance(x, (tuple, list)) else type(x).__name__
        raise ValueError(f"expected {len(names)} inputs {list(names)}, as a dictionary or in this order, got {got}")
    return dict(zip(names, x, strict=True))


def gather(values: Mapping[str, PyTree], names: Sequence[str]) -> PyTree:
    """The input of a node that reads these names."""
    return values[names[0]] if len(names) == 1 else tuple(values[name] for name in names)


def collect(wiring: Wiring, values: Mapping[str, PyTree]) -> PyTree:
    """The output of the one node, or of several by name."""
    outputs = wiring.outputs
    return values[outputs] if isinstance(outputs, str) else {name: values[name] for name in outputs}


def shapes_of(x: PyTree) -> PyTree:
    """The shapes and dtypes of ``x``.

    Raises:
        TypeError: a leaf has none, such as a number in a tuple that was meant as a shape.
    """
    for path, leaf in named_leaves(x):
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise TypeError(
                f"x{f'[{path}]' if path else ''}: expected an array, or jax.ShapeDtypeStruct((batch, ...), dtype) for "
                f"a shape, got {leaf!r} of type {type(leaf).__name__}"
            )
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)


def output_shape(layer: Layer, params: Params, state: State, x: PyTree) -> PyTree:
    """The shapes and dtypes of a layer's output in evaluation."""

    def output(params: Params, state: State, x: Any) -> Any:
        return layer.apply(params, state, x, train=False, key=None, weight=None)[0]

    return jax.eval_shape(output, params, state, x)


_PLAIN = (ValueError, TypeError, KeyError, AttributeError, IndexError, UnusableValueError)


def at_path(name: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls ``fn``. An error gets ``name`` in front of its message, or a note if it is of another class."""
    try:
        return fn(*args, **kwargs)
    except Exception as error:
        path = getattr(error, "layer_path", "")
        longer = f"{name}/{path}" if path else name
        if type(error) in _PLAIN:
            text = str(error).removeprefix(f"{path}: ") if path else error
            if isinstance(error, KeyError):  # whose text is the repr of its argument
                text = error.args[0].removeprefix(f"{path}: ") if path else f"no entry {error}"
            outer = type(error)(f"{longer}: {text}")
            setattr(outer, "layer_path", longer)  # noqa: B010
            raise outer from error
        # Other classes, such as JAX's, have constructors of their own.
        if path:
            error.__notes__.remove(f"in the layer {path}")
        error.add_note(f"in the layer {longer}")
        setattr(error, "layer_path", longer)  # noqa: B010
        raise
