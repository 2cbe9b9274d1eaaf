"""Models of named nodes: several inputs and outputs, shared layers, skip connections."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxopt_nn.layers._combinators.wiring import Node, Wiring, as_layer, layer_of_wiring
from jaxopt_nn.types import Layer

__all__ = ["Shared", "graph", "shared"]


class Shared(NamedTuple):
    """The layer of another node, with its parameters and state; made by :func:`shared`.

    Attributes:
        node: the name of that node.
    """

    node: str


def shared(node: str) -> Shared:
    """In a :func:`graph`: the same layer as another node's, with the same parameters and the same state."""
    return Shared(node)


def graph(
    nodes: Mapping[str, Sequence[Any]],
    *,
    outputs: str | Sequence[str],
    inputs: str | Sequence[str] = "input",
) -> Layer:
    """A model of named nodes, each a layer with the names of its inputs.

    Args:
        nodes: name to ``(layer, source, ...)``: a layer, a plain function or :func:`shared`, then the names of inputs
            or of other nodes, in any order of definition. A layer with several sources gets the tuple of their
            outputs, so :func:`~jaxopt_nn.layers.add` and :func:`~jaxopt_nn.layers.concatenate` merge them.
        outputs: the name of the node that is the output; or the names of several, then the output is a dictionary.
        inputs: the name of the input; or the names of several, then ``x`` is a dictionary of them (or a tuple in this
            order), as ``Batch.x`` may be.

    Returns:
        The composed layer. Parameters and state have an entry for each node that has some, under its name; nodes that
        share a layer have one entry. The state of a shared layer goes from one use to the next. Nodes are evaluated,
        and get their keys, in the order of definition as far as their sources allow.

    Raises:
        ValueError: an unknown source, output or shared node; a cycle; a name that is an input's too or holds a slash;
            ``x`` without the named inputs; those of a node, with its path.

    Differs from Keras's functional API: a layer that is used twice makes two sets of parameters, unless the second use
    is :func:`shared`. (A layer here says how to make parameters, and does not hold them.)

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers
    >>> model = layers.graph(
    ...     {
    ...         "left": (layers.dense(4), "a"),
    ...         "right": (layers.shared("left"), "b"),
    ...         "both": (layers.concatenate, "left", "right", "b"),
    ...         "score": (layers.dense(1), "both"),
    ...     },
    ...     inputs=("a", "b"), outputs=("score", "left"))
    >>> x = {"a": jnp.ones((2, 3)), "b": jnp.zeros((2, 3))}
    >>> params, state = model.init(jax.random.key(0), x)
    >>> y, _ = model.apply(params, state, x)
    >>> sorted(params), y["score"].shape, y["left"].shape
    (['left', 'score'], (2, 1), (2, 4))
    """
    entries = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    leaving = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if not nodes:
        raise ValueError("nodes: expected one or more, got none")
    if len(set(entries)) != len(entries) or not entries:
        raise ValueError(f"inputs: expected different names, one or more, got {list(entries)}")
    layers, sources, owners = _parsed(nodes, entries)
    for name in leaving:
        if name not in nodes:
            raise ValueError(f"outputs: expected a node of {list(nodes)}, got {name!r}")
    if not leaving:
        raise ValueError("outputs: expected the name of a node, got none")
    ordered = [Node(name, layers[owners[name]], sources[name], owners[name]) for name in _order(sources, owners)]
    return layer_of_wiring(
        Wiring(
            tuple(ordered),
            inputs if isinstance(inputs, str) else entries,
            outputs if isinstance(outputs, str) else leaving,
        ),
        "graph",
    )


def _parsed(
    nodes: Mapping[str, Sequence[Any]], entries: tuple[str, ...]
) -> tuple[dict[str, Layer], dict[str, tuple[str, ...]], dict[str, str]]:
    """The layers of the nodes that have one of their own, and of every node its sources and the node it shares with."""
    layers: dict[str, Layer] = {}
    sources: dict[str, tuple[str, ...]] = {}
    owners: dict[str, str] = {}
    for name, node in nodes.items():
        if "/" in name or name in entries:
            raise ValueError(f"nodes: expected a name without a slash that no input has, got {name!r}")
        if isinstance(node, (str, Layer)) or not isinstance(node, Sequence) or len(node) < 2:
            raise ValueError(f"nodes[{name}]: expected (layer, source, ...), got {node!r}")
        layer, *fed = node
        for source in fed:
            if source not in nodes and source not in entries:
                raise ValueError(f"nodes[{name}]: expected a source of {[*entries, *nodes]}, got {source!r}")
        sources[name], owners[name] = tuple(fed), name
        if isinstance(layer, Shared):
            owners[name] = layer.node
            if layer.node not in nodes or isinstance(nodes[layer.node][0], Shared):
                own = [other for other in nodes if not isinstance(nodes[other][0], Shared)]
                raise ValueError(f"nodes[{name}]: expected to share the layer of one of {own}, got {layer.node!r}")
        else:
            try:
                layers[name] = as_layer(layer)
            except TypeError as error:
                raise TypeError(f"nodes[{name}]: {error}") from None
    return layers, sources, owners


def _order(sources: Mapping[str, tuple[str, ...]], owners: Mapping[str, str]) -> list[str]:
    """Each node after its sources, and after the one whose layer it shares."""
    waits: dict[str, set[str]] = {
        name: ({*fed, owners[name]} & sources.keys()) - ({name} if name not in fed else set())
        for name, fed in sources.items()
    }
    done: list[str] = []
    while len(done) < len(waits):
        ready = next((name for name, needs in waits.items() if name not in done and needs <= set(done)), None)
        if ready is None:
            raise ValueError(f"nodes: expected no cycle, got one among {[name for name in waits if name not in done]}")
        done.append(ready)
    return done
