"""A Sequential or Functional model of Keras as a model of ours, with its weights, and the way back."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn import layers, penalties
from jaxopt_nn.interop._keras_functions import MERGES, UnsupportedError
from jaxopt_nn.interop._keras_layers import Call, convert
from jaxopt_nn.interop._keras_weights import KINDS, from_keras_weights, place_by_number, to_keras_weights
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, Layer, Params, State

__all__ = ["KerasModel", "from_keras", "into_keras"]


class KerasModel(NamedTuple):
    """A model of Keras as ours; what :func:`from_keras` returns.

    Attributes:
        layer: the model, a :func:`~jaxopt_nn.layers.graph` whose nodes have the names of Keras's layers. An activation
            is a node of its own: ``hidden`` and ``hidden_relu``.
        params: its parameters, NumPy arrays.
        model_state: its state: the moving statistics of batch normalization.
        names: the path of each layer with weights to its name in a file of Keras, for :func:`from_keras_weights`.
        penalty: the sum of its regularizers, for ``Recipe(penalty=...)``; None without any.
        frozen: patterns of the parameters that Keras does not train, for ``optimizers.freeze``.
    """

    layer: Layer
    params: Params
    model_state: State
    names: Mapping[str, str]
    penalty: Callable[[Params], Array] | None
    frozen: tuple[str, ...]


def from_keras(model: Any) -> KerasModel:
    """A Sequential or Functional model of Keras 3 as a model of ours, with its weights.

    Its predictions are those of Keras, and it goes on training as it does there. For the same curve take the optimizer
    in Keras's convention, ``optimizers.adam(1e-3, convention="keras")``, and the same order of examples. What dropout
    draws is another.

    Args:
        model: built, of Keras's own layers, with data in the format ``channels_last``. Layers may be shared, and models
            nested.

    Returns:
        Layer, parameters, state and what else Keras keeps in a model. ``layer.init`` makes new weights by our
        initializers, not by Keras's.

    Raises:
        TypeError: it is no such model, such as one with a ``call`` of its own. That one becomes a layer as it is by
            ``layers.from_keras``.
        ValueError: it is not built yet; a layer or an option of it has no counterpart. All of them are named, with
            their paths.

    A model with several inputs takes a dictionary of them by the names of its input layers. One with several outputs
    returns a dictionary by the names of the nodes.

    Example (needs Keras, so it is not run here)::

        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10)])
        ours = interop.from_keras(model)
        logits, _ = ours.layer.apply(ours.params, ours.model_state, x)
        interop.into_keras(model, result.params, result.model_state)
    """
    plan = _plan(model)
    abstract = jax.eval_shape(plan.layer.init, jax.random.key(0), _inputs(model))
    names = {source.path: source.file for source in plan.sources}
    arrays = {name: array for source in plan.sources for name, array in _arrays(source).items()}
    params, state = from_keras_weights(plan.layer, abstract, arrays, names)
    return KerasModel(plan.layer, params, state, names, _penalty(plan, params), tuple(plan.frozen))


def into_keras(model: Any, params: Params, state: State) -> None:
    """Writes weights of ours into the model of Keras that :func:`from_keras` was given, or one like it.

    Args:
        model: of Keras.
        params, state: those of ``from_keras(model).layer``, such as a result's ``params`` and ``model_state``.

    Raises:
        TypeError, ValueError: as :func:`from_keras`, or the weights are not of this model: nothing is written.
    """
    plan = _plan(model)
    names = {source.path: source.file for source in plan.sources}
    like = {name: array for source in plan.sources for name, array in _arrays(source).items()}
    arrays = to_keras_weights(plan.layer, (params, state), names, like)
    for source in plan.sources:
        for group, holder in _holders(source):
            holder.load_own_variables(
                {str(index): arrays[f"{group}/vars/{index}"] for index in range(len(_own(holder)))}
            )


class _Source(NamedTuple):
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


class _Plan(NamedTuple):
    layer: Layer
    sources: list[_Source]
    frozen: list[str]


def _plan(model: Any) -> _Plan:
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
        self.sources: list[_Source] = []
        self.frozen: list[str] = []
        self.files = _files(model, file)

    def plan(self) -> _Plan | None:
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
        return _Plan(layer, self.sources, self.frozen)

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

    def keep(self, operation: Any, name: str, converted: Any) -> None:
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
            self.sources.append(_Source(path, holder, file, kind))
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


def _holders(source: _Source) -> Iterator[tuple[str, Any]]:
    """The objects of Keras that hold the weights of a layer, with their groups in a file."""
    groups = dict.fromkeys("/".join(name.split("/")[:-1]) for name in KINDS[source.kind].theirs)
    for group in groups:
        yield "/".join(filter(None, [source.file, group])), getattr(source.layer, group) if group else source.layer


def _own(holder: Any) -> dict[str, Any]:
    store: dict[str, Any] = {}
    holder.save_own_variables(store)
    return store


def _arrays(source: _Source) -> dict[str, Any]:
    return {
        f"{group}/vars/{index}": np.asarray(array)
        for group, holder in _holders(source)
        for index, array in _own(holder).items()
    }


def _inputs(model: Any) -> Any:
    """Shapes of a batch; sizes that are open are taken as 2."""

    def shape(tensor: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(tuple(2 if size is None else size for size in tensor.shape), tensor.dtype)

    if len(model.inputs) == 1:
        return shape(model.inputs[0])
    return {tensor._keras_history.operation.name: shape(tensor) for tensor in model.inputs}


def _penalty(plan: _Plan, params: Params) -> Callable[[Params], Array] | None:
    """The sum of the regularizers of the weights that are trained."""
    paths = [path for path, _ in named_leaves(params)]
    groups: dict[tuple[float, float], set[str]] = {}
    for source in plan.sources:
        own = {path.removeprefix(f"{source.path}/") for path in paths if path.startswith(f"{source.path}/")}
        theirs = {name: made for name, made in KINDS[source.kind].theirs.items() if set(made.of) & own}
        at = place_by_number(source.file, list(theirs))
        for group, holder in _holders(source):
            for index, variable in enumerate(holder._trainable_variables):
                regularizer = getattr(variable, "regularizer", None)
                name = next((name for name, full in at.items() if full == f"{group}/vars/{index}"), None)
                if regularizer is not None and variable.trainable and name is not None:
                    leaves = {f"{source.path}/{leaf}" for leaf in theirs[name].of}
                    groups.setdefault(_strengths(regularizer), set()).update(leaves)
    if not groups:
        return None
    terms = [penalties.elastic_net(*strengths, _among(leaves)) for strengths, leaves in groups.items()]
    return lambda params: sum((term(params) for term in terms[1:]), terms[0](params))


def _strengths(regularizer: Any) -> tuple[float, float]:
    return float(getattr(regularizer, "l1", 0.0)), float(getattr(regularizer, "l2", 0.0))


def _among(paths: set[str]) -> Callable[[str, Any], bool]:
    return lambda path, _: path in paths
