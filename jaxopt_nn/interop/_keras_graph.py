"""The calls in a model of Keras as the nodes of a graph of ours."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxopt_nn import layers
from jaxopt_nn.interop._keras_functions import MERGES, UnsupportedError
from jaxopt_nn.interop._keras_layers import Call, Converted, convert
from jaxopt_nn.types import Array, Layer

__all__ = ["Plan", "Source", "plan_of"]


class Source(NamedTuple):
    """Where the weights of a layer of ours are in Keras.

    Attributes:
        path: of our layer.
        layer: of Keras.
        file: the name of its group in a file.
        kind: of our layer, in KINDS.
    """

    path: str
    layer: Any
    file: str
    kind: str


class Plan(NamedTuple):
    """A model of Keras as ours, without its weights.

    Attributes:
        layer: of ours.
        sources: where its weights are.
        frozen: patterns of the parameters that are not trained.
    """

    layer: Layer
    sources: list[Source]
    frozen: list[str]


def plan_of(model: Any) -> Plan:
    """The graph of a model, and where its weights are. Raises unless all of it is known."""
    kind = "" if isinstance(model, type) else getattr(model, "_obj_type", lambda: "")()
    if kind not in ("Sequential", "Functional") or not type(model).__module__.startswith("keras."):
        got = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise TypeError(f"model: expected a Sequential or Functional model of Keras 3, got {got}")
    if not model.built or not model.inputs:
        raise ValueError("model: expected a model that is built: give it an Input, or call it once")
    wrong: list[str] = []
    plan = _Walk(model, "", "", wrong).plan()
    if wrong:
        more = f"; and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise ValueError("model: not supported: " + "; ".join(wrong[:6]) + more)
    assert plan is not None
    return plan


class _Walk:
    """Goes through the calls of a model, from its outputs to its inputs."""

    def __init__(self, model: Any, path: str, file: str, wrong: list[str]) -> None:
        self.model, self.path, self.file, self.wrong = model, path, file, wrong
        self.nodes: dict[str, tuple[Any, ...]] = {}
        self.names: dict[int, str] = {}  # of tensors
        self.owners: dict[int, tuple[str, Any]] = {}  # of layers of Keras: the node of ours, and what follows it
        self.options: dict[int, Any] = {}
        self.sources: list[Source] = []
        self.frozen: list[str] = []
        self.files = _files(model, file)

    def plan(self) -> Plan | None:
        entries = [tensor._keras_history.operation.name for tensor in self.model.inputs]
        self.names = {id(tensor): name for tensor, name in zip(self.model.inputs, entries, strict=True)}
        leaving = [self.visit(tensor) for tensor in self.model.outputs]
        if self.wrong:
            return None
        if any(name in entries for name in leaving):  # an input that is an output, too
            for position, name in enumerate(leaving):
                if name in entries:
                    leaving[position] = self.add(f"{name}_output", _identity, [name])
        layer = layers.graph(
            self.nodes,
            inputs=entries[0] if len(entries) == 1 else entries,
            outputs=leaving[0] if len(leaving) == 1 else list(dict.fromkeys(leaving)),
        )
        return Plan(layer, self.sources, self.frozen)

    def visit(self, tensor: Any) -> str:
        """The name of our node that makes this tensor; without recursion, since models are deep."""
        stack = [tensor]
        while stack:
            last = stack[-1]
            if id(last) in self.names:
                stack.pop()
                continue
            operation, index, _ = last._keras_history
            call = operation._inbound_nodes[index]
            waiting = [each for each in call.input_tensors if id(each) not in self.names]
            if waiting:
                stack += waiting
            else:
                self.names[id(last)] = self.called(operation, call)
                stack.pop()
        return self.names[id(tensor)]

    def called(self, operation: Any, call: Any) -> str:
        """Adds the nodes of a call, and returns the name of the last."""
        path = f"{self.path}{operation.name}"
        try:
            return self.nodes_of(operation, call)
        except UnsupportedError as error:
            text, kind = str(error), type(operation).__name__
            self.wrong.append(f"{path} ({kind})" if text == kind else f"{path} ({kind}: {text})")
            return ""

    def nodes_of(self, operation: Any, call: Any) -> str:
        if len(call.outputs) != 1:
            raise UnsupportedError(f"{len(call.outputs)} outputs")
        sources, options = _sources_and_options(operation, call)
        fed = [self.names[id(each)] for each in sources]
        owner = self.owners.get(id(operation))
        if owner is not None:  # a shared layer
            if self.options[id(operation)] != options:
                raise UnsupportedError("called in different ways")
            name, then = owner
            again = layers.shared(name) if name in self.nodes and self.has_weights(name) else self.nodes[name][0]
            return self.after(self.add(name, again, fed), then)
        self.options[id(operation)] = options
        if getattr(operation, "_obj_type", lambda: "")() in ("Sequential", "Functional"):
            return self.nested(operation, options, fed)
        _check_regularizers(operation)
        converted = convert(operation, Call(options, len(sources[0].shape)))
        layer = converted.layer
        if type(operation).__name__ == "Embedding" and not np.issubdtype(np.dtype(sources[0].dtype), np.integer):
            fed = [self.add(f"{operation.name}_ids", _as_ids, fed)]
        name = self.add(operation.name, layer, fed)
        self.owners[id(operation)] = name, converted.then
        self.keep(operation, name, converted)
        return self.after(name, converted.then)

    def nested(self, model: Any, options: Mapping[str, Any], fed: Sequence[str]) -> str:
        if not type(model).__module__.startswith("keras."):
            raise UnsupportedError(f"a model of your own, {type(model).__name__}")
        walk = _Walk(model, f"{self.path}{model.name}/", self.files[id(model)], self.wrong)
        plan = walk.plan()
        if plan is None:
            return ""
        layer = layers.eval_mode(plan.layer) if options.get("training") is False else plan.layer
        name = self.add(model.name, layer, fed)
        self.owners[id(model)] = name, None
        self.sources += [each._replace(path=f"{name}/{each.path}") for each in plan.sources]
        self.frozen += [f"{name}/{pattern}" for pattern in plan.frozen]
        return name

    def has_weights(self, name: str) -> bool:
        return any(source.path.split("/")[0] == name for source in self.sources)

    def keep(self, operation: Any, name: str, converted: Converted) -> None:
        """Notes where the weights are."""
        if not converted.weights:
            return
        places = {place.path: place.name for place in layers.places(converted.layer)}
        for within, attribute in converted.weights.items():
            holder = operation
            for part in filter(None, attribute.split("/")):
                holder = getattr(holder, part)
            path = f"{name}/{within}" if within else name
            file = "/".join(filter(None, [self.files[id(operation)], attribute]))
            kind = places[within] if within else next(iter(places.values()))
            self.sources.append(Source(path, holder, file, kind))
            if not operation.trainable and holder.weights:
                self.frozen.append(f"{path}/*")

    def after(self, name: str, then: Any) -> str:
        return name if then is None else self.add(f"{name}_{then.__name__}", then, [name])

    def add(self, name: str, layer: Any, fed: Sequence[str]) -> str:
        free, count = name, 1
        while free in self.nodes or free in self.names.values():
            free, count = f"{name}_{count}", count + 1
        self.nodes[free] = (layer, *fed)
        return free


def _identity(x: Any) -> Any:
    return x


def _as_ids(x: Array) -> Array:
    return x.astype(jnp.int32)


_identity.__name__, _as_ids.__name__ = "identity", "ids"


def _sources_and_options(operation: Any, call: Any) -> tuple[list[Any], dict[str, Any]]:
    """What a layer is called with: arrays, and the rest."""
    kind, args, keywords = type(operation).__name__, call.arguments.args, dict(call.arguments.kwargs)
    options = {name: value for name, value in keywords.items() if value is not None and not hasattr(value, "shape")}
    sources = list(call.input_tensors)
    if kind == "MultiHeadAttention":
        named = dict(zip(("query", "value", "key", "query_mask"), args, strict=False)) | keywords
        strange = {name for name, value in named.items() if value is not None} - {
            "query", "value", "key", "use_causal_mask", "training",
        }  # fmt: skip
        if strange:
            raise UnsupportedError(f"{sorted(strange)[0]} in its call")
        query, value, key = named["query"], named["value"], named.get("key")
        if key is not None and key is not value:
            raise UnsupportedError("a key that is not its value")
        return ([query] if query is value else [query, value]), options
    if any(isinstance(each, dict) for each in args):
        raise UnsupportedError("a dictionary of inputs")
    if kind not in MERGES and any(isinstance(each, (bool, int, float)) for each in args):
        raise UnsupportedError("a number in its call")
    if "mask" in keywords and keywords["mask"] is not None:
        raise UnsupportedError("mask in its call")
    several = kind in MERGES or getattr(operation, "_obj_type", lambda: "")() == "Functional"
    if not several and len(sources) != 1:
        raise UnsupportedError(f"{len(sources)} inputs")
    if kind in MERGES and len(sources) < 2:
        raise UnsupportedError("an operation with a number")
    return sources, options


def _check_regularizers(layer: Any) -> None:
    for name, value in vars(layer).items():
        if value is None or not name.endswith("_regularizer"):
            continue
        known = type(value).__name__ in ("L1", "L2", "L1L2") and type(value).__module__.startswith("keras.")
        if not known or name.lstrip("_") == "activity_regularizer":
            raise UnsupportedError(f"{name.lstrip('_')}={type(value).__name__}")


def _files(model: Any, file: str) -> dict[int, str]:
    """The name of each layer in a file: its class, counted."""
    counts: dict[str, int] = {}
    files: dict[int, str] = {}
    for layer in model.layers:
        name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", type(layer).__name__))
        name = re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
        count = counts[name] = counts.get(name, -1) + 1
        files.setdefault(id(layer), "/".join(filter(None, [file, "layers", f"{name}_{count}" if count else name])))
    return files
