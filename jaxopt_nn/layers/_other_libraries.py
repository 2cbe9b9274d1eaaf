"""Models of Flax, Equinox and Haiku, or of your own, as layers, with their state (such as running statistics).

Such a layer is a :class:`~jaxopt_nn.types.Layer` like any other: it can be a recipe's model, or a part of one. Its mode
follows ``train``: a call that has an argument ``train``, ``training`` or ``is_training`` gets it, and one that has
``deterministic``, ``use_running_average`` or ``inference`` gets the opposite.

Other libraries know no weights of examples, so their batch normalization counts the rows that pad the last batch. If
that matters, drop that batch (``Recipe(last_batch="drop")``) or use :func:`jaxopt_nn.layers.batch_norm`. If no row of a
batch has weight, the state does not change.

A library is imported when a layer is made of one of its models.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import shown
from jaxopt_nn.trees import named_leaves, takes
from jaxopt_nn.types import Array, Key, Layer, Params, PyTree, State

__all__ = ["from_apply", "from_equinox", "from_haiku", "from_linen", "from_nnx", "library", "unless_empty"]

_WHILE_TRAINING = ("train", "training", "is_training")
_WHILE_NOT = ("deterministic", "use_running_average", "inference")


def from_apply(
    init: Callable[..., Any], apply: Callable[..., Any], *, has_state: bool = False, name: str = "model"
) -> Layer:
    """A layer from a pair of functions, which may leave out the arguments that they do not need.

    Args:
        init: ``init(key, x) -> params``, or ``-> (params, state)`` if ``has_state``; ``x`` are zeros of the input's
            shape and dtype.
        apply: ``apply(params, x) -> y``, or ``apply(params, state, x) -> (y, state)`` if ``has_state``. If its
            signature names ``train``, ``key`` or ``weight``, it gets these too.
        has_state: static; whether there is a state.
        name: the base of the layer's name within a combinator.

    Returns:
        The layer. Parameters are any pytree of float arrays, the state any pytree of arrays.

    Raises:
        TypeError: ``init`` or ``apply`` is no function.

    >>> import jax, jax.numpy as jnp
    >>> layer = from_apply(lambda key, x: {"slope": jnp.ones(x.shape[-1])}, lambda params, x: x @ params["slope"])
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((4, 3)))
    >>> layer.apply(params, state, jnp.ones((4, 3)))[0].tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    for argument, value in (("init", init), ("apply", apply)):
        if not callable(value):
            raise TypeError(f"{argument}: expected a function, got {value!r}")
    if not takes(init, None, None):
        raise TypeError(f"init: expected a function (key, x) -> params, got {shown(init)}")
    wanted = _parameters_named(apply, "train", "key", "weight")

    def init_layer(key: Key, x: PyTree) -> tuple[Params, State]:
        result = init(key, _zeros(x))
        if not has_state:
            return result, {}
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(f"init: expected (params, state), got {type(result).__name__}")
        return result

    def apply_layer(
        params: Params,
        state: State,
        x: PyTree,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[PyTree, State]:
        options = {"train": train, "key": key, "weight": weight}
        keywords = {argument: options[argument] for argument in wanted}
        return apply(params, state, x, **keywords) if has_state else (apply(params, x, **keywords), state)

    return Layer(init_layer, apply_layer, name)


def from_linen(module: Any, *, rngs: tuple[str, ...] = ("dropout",)) -> Layer:
    """A Flax Linen module as a layer.

    Args:
        module: a ``flax.linen.Module``; its ``__call__`` takes ``x`` and may take a mode, by one of the names above.
        rngs: the names of the random streams that it uses in training.

    Returns:
        The layer: its parameters are the collection ``params``, its state the other collections (``batch_stats``).

    Raises:
        ImportError: without Flax.
        TypeError: ``module`` is none, or a class of modules.
        ValueError: from ``apply``, if something is random in training and there is no key.
    """
    _check_module("module", module, library("flax.linen").Module, "linen.Dense(3)")
    if isinstance(rngs, str):
        raise TypeError(f"rngs: expected a tuple of names, got the string {rngs!r}")
    no_key = library("flax.errors").InvalidRngError
    names = _mode_names(type(module).__call__)

    def init(key: Key, x: PyTree) -> tuple[Params, State]:
        first, *others = jax.random.split(key, 1 + len(rngs))
        streams = {"params": first, **dict(zip(rngs, others, strict=True))}
        variables = dict(module.init(streams, _zeros(x), **_mode(names, False)))
        return variables.pop("params", {}), variables

    def apply(
        params: Params,
        state: State,
        x: PyTree,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[PyTree, State]:
        variables = {"params": params, **state}
        streams = {} if key is None else dict(zip(rngs, jax.random.split(key, len(rngs)), strict=True))
        mode = _mode(names, train)
        try:
            if not train or not state:
                return module.apply(variables, x, rngs=streams, **mode), state
            y, changed = module.apply(variables, x, rngs=streams, mutable=list(state), **mode)
        except no_key as error:
            raise ValueError(f"key: expected a PRNG key in training, got {key}: {error}") from error
        return y, unless_empty(weight, x, {**state, **changed}, state)

    return Layer(init, apply, _kind(module))


def from_nnx(build: Callable[[Any], Any]) -> Layer:
    """A Flax NNX module as a layer.

    Args:
        build: ``build(rngs) -> module``, with ``rngs`` an ``nnx.Rngs``. An NNX module has its parameters from the
            start, and a layer makes them at ``init``, so it needs the function that makes the module.

    Returns:
        The layer: its parameters are the variables of type ``nnx.Param``, as nested dictionaries (``"layer1/kernel"``),
        its state the others (``nnx.BatchStat``), except for random streams, which get new keys at every call.
        ``module.train()`` and ``module.eval()`` set its mode.

    Raises:
        ImportError: without Flax.
        TypeError: ``build`` is a module, or does not make one.
        ValueError: from ``apply``, if the module has random streams and there is no key in training.
    """
    nnx = library("flax.nnx")
    _check_build(build, nnx.Module, "lambda rngs: nnx.Linear(5, 3, rngs=rngs)")
    abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    _check_module("build", abstract, nnx.Module, "nnx.Linear(5, 3, rngs=rngs)")

    def parts(module: Any) -> tuple[Any, Any, Any, Any]:
        return nnx.split(module, nnx.Param, nnx.RngState, ...)

    definition, *templates = parts(abstract)

    def filled(template: Any, values: PyTree) -> Any:
        template = jax.tree.map(lambda leaf: leaf, template)  # a copy: the next line writes into it
        nnx.replace_by_pure_dict(template, values)
        return template

    def init(key: Key, x: PyTree) -> tuple[Params, State]:
        del x
        _, params, _, rest = parts(build(nnx.Rngs(key)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    def apply(
        params: Params,
        state: State,
        x: PyTree,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[PyTree, State]:
        streams = nnx.to_pure_dict(templates[1])
        if train and key is None and jax.tree.leaves(streams):
            raise ValueError("key: expected a PRNG key in training, got None")
        leaves, treedef = jax.tree.flatten(streams)
        own = jax.random.key(0) if key is None else key
        rngs = [
            jax.random.fold_in(own, index)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else jnp.zeros(leaf.shape, leaf.dtype)
            for index, leaf in enumerate(leaves)
        ]
        values = (params, treedef.unflatten(rngs), state)
        module = nnx.merge(definition, *map(filled, templates, values))
        module.train() if train else module.eval()
        y = module(x)
        return y, unless_empty(weight, x, nnx.to_pure_dict(parts(module)[3]), state) if train else state

    return Layer(init, apply, _kind(abstract))


def from_equinox(build: Callable[[Key], Any], *, batched: bool = False, axis_name: str = "batch") -> Layer:
    """An Equinox module as a layer.

    Args:
        build: ``build(key) -> module``, or ``-> (module, state)`` as ``equinox.nn.make_with_state(Model)(key)`` gives.
        batched: static; whether the module takes a batch. If not, as is usual there, it takes one example and is mapped
            over the batch, with a key of its own for each.
        axis_name: the name of the mapped axis, as its ``BatchNorm(axis_name=...)`` has it.

    Returns:
        The layer: its parameters are the module with its floating-point arrays alone (``equinox.combine`` puts them
        back into a module), its state the other arrays and those of Equinox's state, by path.
        ``equinox.nn.inference_mode`` sets its mode; it gets ``key=`` if its ``__call__`` takes one.

    Raises:
        ImportError: without Equinox.
        TypeError: ``build`` is a module, or makes none.
        ValueError, RuntimeError: from ``apply``, Equinox's own, if something is random in training without a key.
    """
    eqx = library("equinox")
    _check_build(build, eqx.Module, "lambda key: eqx.nn.Linear(5, 3, key=key)")

    def split(result: Any, is_array: Callable[[Any], bool]) -> tuple[Any, Any, Any, Any]:
        """Trained arrays, other arrays, all that is no array, and the state."""
        module, state = result if isinstance(result, tuple) else (result, None)
        arrays, static = eqx.partition(module, is_array)
        params, constants = eqx.partition(arrays, lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact))
        return params, constants, static, state

    abstract = eqx.filter_eval_shape(build, jax.random.key(0))
    _check_module("build", abstract[0] if isinstance(abstract, tuple) else abstract, eqx.Module, "eqx.nn.Linear(5, 3)")
    _, constants_like, static, state_like = split(abstract, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    takes_key = bool(_parameters_named(type(abstract[0] if isinstance(abstract, tuple) else abstract).__call__, "key"))

    def init(key: Key, x: PyTree) -> tuple[Params, State]:
        del x
        params, constants, _, state = split(build(key), eqx.is_array)
        parts = {"constants": constants, "state": state}
        return params, {name: dict(named_leaves(tree)) for name, tree in parts.items() if jax.tree.leaves(tree)}

    def apply(
        params: Params,
        state: State,
        x: PyTree,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[PyTree, State]:
        constants = _with_leaves(constants_like, state.get("constants", {}))
        module = eqx.nn.inference_mode(eqx.combine(params, constants, static), value=not train)

        def one(x: PyTree, inner: Any, key: Key | None) -> tuple[PyTree, Any]:
            keywords = {"key": key} if takes_key else {}
            return (module(x, **keywords), None) if inner is None else module(x, inner, **keywords)

        # An Equinox state may be used once: so it is made anew from its arrays.
        inner = None if state_like is None else _with_leaves(state_like, state.get("state", {}))
        if batched:
            y, inner = one(x, inner, key)
        else:
            count = jax.tree.leaves(x)[0].shape[0]
            keys = None if key is None or not takes_key else jax.random.split(key, count)
            mapped = jax.vmap(one, (0, None, 0), (0, None), axis_name=axis_name)
            y, inner = mapped(x, inner, keys)
        if not train or "state" not in state:
            return y, state
        return y, unless_empty(weight, x, {**state, "state": dict(named_leaves(inner))}, state)

    return Layer(init, apply, _kind(abstract[0] if isinstance(abstract, tuple) else abstract))


def from_haiku(function: Callable[..., Any]) -> Layer:
    """A Haiku function as a layer.

    Args:
        function: what one would give ``haiku.transform_with_state``: it makes modules and applies them to ``x``. It may
            take one of the modes above by name, such as ``is_training``.

    Returns:
        The layer, with Haiku's parameters (kernels are named ``w``, so masks of penalties have to be said) and state.

    Raises:
        ImportError: without Haiku.
        TypeError: ``function`` is no function, such as one that is transformed already.
        ValueError: from ``apply``, Haiku's own, if something is random in training without a key.
    """
    haiku = library("haiku")
    if isinstance(function, type) or not callable(function):
        got = f"the class {function.__name__}" if isinstance(function, type) else f"a {type(function).__name__}"
        raise TypeError(f"function: expected a function of x, not transformed yet, got {got}")
    transformed, names = haiku.transform_with_state(function), _mode_names(function)

    def init(key: Key, x: PyTree) -> tuple[Params, State]:
        # In training mode: Haiku's batch normalization makes its state there alone.
        return transformed.init(key, _zeros(x), **_mode(names, True))

    def apply(
        params: Params,
        state: State,
        x: PyTree,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[PyTree, State]:
        y, changed = transformed.apply(params, state, key, x, **_mode(names, train))
        return y, unless_empty(weight, x, changed, state) if train else state

    return Layer(init, apply, getattr(function, "__name__", "haiku").strip("<>"))


def library(name: str) -> Any:
    """The module of this name, of a package that may not be installed."""
    package = {"haiku": "dm-haiku"}.get(name, name.split(".")[0])
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"a model of {package} needs it installed: pip install {package}") from error


def _check_build(build: Any, module: type, example: str) -> None:
    if isinstance(build, module) or not callable(build) or not takes(build, None):
        got = f"the class {build.__name__}" if isinstance(build, type) else f"a {type(build).__name__}"
        raise TypeError(
            f"build: expected a function that makes a module, such as {example}, got {got}; a layer makes its "
            "parameters at init"
        )


def _check_module(name: str, value: Any, module: type, example: str) -> None:
    if not isinstance(value, module):
        got = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise TypeError(f"{name}: expected a module, such as {example}, got {got}")


def unless_empty(weight: Array | None, x: PyTree, new: State, old: State) -> State:
    """The new state, or the old one where no row has weight."""
    if jax.tree.leaves(x)[0].shape[0] == 0:
        return old
    if weight is None:
        return new
    has_weight = jnp.sum(weight) > 0
    return jax.tree.map(lambda new, old: jnp.where(has_weight, new, old), new, old)


def _zeros(x: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)


def _with_leaves(template: PyTree, leaves: Mapping[str, Array]) -> PyTree:
    """A tree like ``template``, with leaves by path."""
    return jax.tree.unflatten(jax.tree.structure(template), [leaves[path] for path, _ in named_leaves(template)])


def _kind(module: Any) -> str:
    return type(module).__name__.lower()


def _parameters_named(function: Callable[..., Any], *names: str) -> list[str]:
    """Those of the names that a function has a parameter for."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return [name for name in names if name in parameters or anything]


def _mode_names(function: Callable[..., Any]) -> list[str]:
    """How a function calls its mode; what takes any keyword is asked for none."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in (*_WHILE_TRAINING, *_WHILE_NOT) if name in parameters]


def _mode(names: list[str], train: bool) -> dict[str, bool]:
    return {name: train if name in _WHILE_TRAINING else not train for name in names}
