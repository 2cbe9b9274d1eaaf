"""A Sequential or Functional model of Keras as a model of ours, with its weights, and the way back."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_nn import penalties
from jaxopt_nn.interop._keras_graph import Plan, Source, plan_of
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
    plan = plan_of(model)
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
    plan = plan_of(model)
    names = {source.path: source.file for source in plan.sources}
    like = {name: array for source in plan.sources for name, array in _arrays(source).items()}
    arrays = to_keras_weights(plan.layer, (params, state), names, like)
    for source in plan.sources:
        for group, holder in _holders(source):
            holder.load_own_variables(
                {str(index): arrays[f"{group}/vars/{index}"] for index in range(len(_own(holder)))}
            )


def _holders(source: Source) -> Iterator[tuple[str, Any]]:
    """The objects of Keras that hold the weights of a layer, with their groups in a file."""
    groups = dict.fromkeys("/".join(name.split("/")[:-1]) for name in KINDS[source.kind].theirs)
    for group in groups:
        yield "/".join(filter(None, [source.file, group])), getattr(source.layer, group) if group else source.layer


def _own(holder: Any) -> dict[str, Any]:
    store: dict[str, Any] = {}
    holder.save_own_variables(store)
    return store


def _arrays(source: Source) -> dict[str, Any]:
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


def _penalty(plan: Plan, params: Params) -> Callable[[Params], Array] | None:
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
