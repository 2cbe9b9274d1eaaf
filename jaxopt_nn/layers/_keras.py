"""A model of Keras as it is, as a layer."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn.layers._other_libraries import library, unless_empty
from jaxopt_nn.types import Array, Key, Layer, Params, PyTree, State

__all__ = ["from_keras"]


def from_keras(model: Any) -> Layer:
    """A Keras 3 model or layer as a layer, called by its ``stateless_call``; Keras runs on JAX.

    Args:
        model: built. Any model will do, also one with a ``call`` of its own. It is not changed by training.

    Returns:
        The layer. ``init`` returns the weights that the model has now, whatever the key: seeds of a sweep all start
        from them. Parameters are its trained variables by their paths (``"sequential/dense/kernel"``), the state is
        the others: moving statistics and frozen weights. What is random in training comes from the layer's key.

    Raises:
        ImportError: without Keras.
        TypeError: ``model`` is none of Keras, or a class.
        ValueError: it is not built, or Keras does not run on JAX. From ``apply``: no key in training for what is
            random.

    Losses that the model adds itself (regularizers, ``add_loss``) are left out: use a penalty.
    ``interop.from_keras`` makes a model of our layers of it, where that is possible.
    """
    keras = library("keras")
    if not isinstance(model, keras.layers.Layer):
        got = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise TypeError(f"model: expected a model or layer of Keras, got {got}")
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"model: expected Keras on JAX, it runs on {keras.backend.backend()}: set the environment variable "
            "KERAS_BACKEND=jax before Keras is imported"
        )
    if not model.built:
        raise ValueError("model: expected a model that is built: give it an Input, or call it once")
    trained, others = list(model.trainable_variables), list(model.non_trainable_variables)
    paths = _paths([*trained, *others])
    seeds = [variable for variable in others if _is_seed(variable)]
    kept = [variable for variable in others if not _is_seed(variable)]

    def tree(variables: list[Any], values: list[Any]) -> dict[str, Any]:
        nested: dict[str, Any] = {}
        for variable, value in zip(variables, values, strict=True):
            *folders, last = paths[id(variable)]
            inner = nested
            for folder in folders:
                inner = inner.setdefault(folder, {})
            inner[last] = value
        return nested

    def value_of(nested: Any, variable: Any) -> Any:
        for part in paths[id(variable)]:
            nested = nested[part]
        return nested

    def init(key: Key, x: PyTree) -> tuple[Params, State]:
        del key, x

        def now(variables: list[Any]) -> dict[str, Any]:
            return tree(variables, [jnp.array(variable.value) for variable in variables])

        return now(trained), now(kept)

    def apply(
        params: Params,
        state: State,
        x: PyTree,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[PyTree, State]:
        if train and key is None and seeds:
            raise ValueError("key: expected a PRNG key in training, got None")
        own = {
            id(variable): jnp.zeros(variable.shape, variable.dtype)
            if key is None
            else jax.random.bits(jax.random.fold_in(key, index), tuple(variable.shape), jnp.uint32)
            for index, variable in enumerate(seeds)
        }
        values = [own[id(each)] if id(each) in own else value_of(state, each) for each in others]
        y, changed = model.stateless_call([value_of(params, each) for each in trained], values, x, training=train)
        if not train or not kept:
            return y, state
        new = tree(kept, [value for each, value in zip(others, changed, strict=True) if id(each) not in own])
        return y, unless_empty(weight, x, new, state)

    return Layer(init, apply, type(model).__name__.lower())


def _is_seed(variable: Any) -> bool:
    return variable.name == "seed_generator_state"


def _paths(variables: list[Any]) -> dict[int, tuple[str, ...]]:
    """Paths by variable. Keras allows one name twice; then the later ones are numbered."""
    taken: set[tuple[str, ...]] = set()
    paths: dict[int, tuple[str, ...]] = {}
    for variable in variables:
        *folders, last = variable.path.split("/")
        path, count = (*folders, last), 1
        while path in taken:
            path, count = (*folders, f"{last}_{count}"), count + 1
        taken.add(path)
        paths[id(variable)] = path
    return paths
