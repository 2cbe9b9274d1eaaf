"""One call each for a rule, a layer, a loss and an optimizer: what to differentiate is decided here.

All of them take the keyword arguments of ``check_gradients`` and return its report.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from jaxopt_nn._arguments import (
    UnusableValueError,
    check_bool,
    check_each,
    check_key,
    check_positive_int,
    concrete_array,
    plain_array,
    shown,
)
from jaxopt_nn.checking._check import check_gradients
from jaxopt_nn.checking._jaxpr.interpreter import sites
from jaxopt_nn.checking._objective.float64 import in_float64
from jaxopt_nn.checking._report import GradientReport
from jaxopt_nn.checking._sampling.directions import seed_words, short_normal
from jaxopt_nn.trees import takes
from jaxopt_nn.types import Array, ArrayLike, Key, Layer, Params, PyTree

__all__ = ["check_layer", "check_loss", "check_optimizer", "check_rule"]


def check_rule(f: Callable[..., Any], *args: Any, key: Key, **options: Any) -> GradientReport:
    """Checks a function with a derivative of its own (``jax.custom_vjp``, ``jax.custom_jvp``) alone.

    The output, a tree or a scalar, is multiplied with a random cotangent. So a rule that ignores its incoming cotangent
    fails here, though a plain sum would hide it. The value that the rule computes beside the derivative is compared
    with f's.

    Args:
        f: the function, with its rule.
        *args: its arguments; floats are differentiated.
        key: a PRNG key.
        **options: of ``check_gradients``.

    Returns:
        The report; FAIL also where the rule's forward pass returns another value than f.

    Raises:
        ValueError: f has no rule of its own; or as ``check_gradients`` does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> sin = jax.custom_vjp(jnp.sin)
        >>> sin.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (jnp.cos(x),))  # without ct
        >>> check_rule(sin, jnp.arange(3.0), key=jax.random.key(0)).verdict
        'FAIL'
    """
    _check_function("f", f, "jax.custom_vjp(f)")
    check_key("key", key)
    if not any(site.kind != "stop_gradient" for site in sites(_program(f, args))):
        raise ValueError("f: expected a function with a custom_vjp or custom_jvp in it, found neither")
    words = (*seed_words(key), 4)
    report = check_gradients(lambda *args: _dot(f(*args), words), *args, key=key, **options)
    if wrong := _other_value(f, args) or _other_tangent(f, args, words):
        return report._replace(verdict="FAIL", notes=(*report.notes, wrong))
    return report


def check_layer(
    layer: Layer | Callable[[Any], Any],
    x: PyTree,
    *,
    key: Key,
    train: bool = True,
    weight: ArrayLike | None = None,
    **options: Any,
) -> GradientReport:
    """Checks a layer or a whole model with respect to its parameters (path ``0/...``) and its input (``1``).

    Args:
        layer: the pair ``(init, apply)``, or any function of ``x``; the arrays of one that is a tree, as an Equinox
            module, are its parameters. It must accept float64.
        x: an input, the batch axis first; an input of integers is left alone.
        key: a PRNG key, for parameters, noise and directions.
        train: whether the layer trains, with dropout and batch statistics on.
        weight: example weights ``[N]``, or None.
        **options: of ``check_gradients``.

    Returns:
        The report on ⟨y, random cotangent⟩.

    Raises:
        TypeError, ValueError: as ``check_gradients`` and the layer do.

    Example:
        >>> from jaxopt_nn import layers
        >>> check_layer(layers.dense(3), jnp.ones((2, 4)), key=jax.random.key(0)).verdict
        'PASS'
    """
    check_key("key", key)
    for_params, noise, check = jax.random.split(key, 3)
    check_bool("train", train)
    for leaf in jax.tree.leaves(x):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise TypeError(f"x: expected an array, got the shape of one, {leaf}")
        values = concrete_array(plain_array("x", leaf)) if hasattr(leaf, "shape") else None
        if values is not None and jnp.issubdtype(values.dtype, np.inexact):
            check_each("x", values, np.isfinite(values), "a finite number")
    pair: Any = layer
    if isinstance(pair, type) or not (callable(getattr(pair, "init", None)) and callable(getattr(pair, "apply", None))):
        _check_function("layer", layer, "layers.dense(3)", 1)
        pair = _of_function(layer)
    made: Any = pair.init(for_params, x)
    if not isinstance(made, tuple) or len(cast("tuple[Any, ...]", made)) != 2:
        raise TypeError(
            f"layer: expected init to return (params, state), got a {type(made).__name__}; a module of another library "
            f"becomes a layer by layers.from_linen, from_nnx, from_equinox or from_haiku"
        )
    params, state = made
    words = seed_words(check)

    def f(params: Any, x: Any, state: Any, noise: Any, weight: Any) -> Any:
        return _dot(pair.apply(params, state, x, train=train, key=noise, weight=weight)[0], words)

    options.setdefault("argnums", (0, 1))
    return check_gradients(f, params, x, state, noise, weight, key=check, **options)


def check_loss(
    loss: Callable[..., Any], outputs: ArrayLike, targets: ArrayLike, *, key: Key, **options: Any
) -> GradientReport:
    """Checks a loss ``loss(outputs, targets) -> [N]`` or scalar with respect to the outputs; targets are constants.

    Args:
        loss: the loss.
        outputs: float outputs of a model, ``[N, ...]``.
        targets: what the loss takes beside them.
        key: a PRNG key.
        **options: of ``check_gradients``.

    Returns:
        The report. Each example's loss has a random cotangent of its own, so examples that leak into one another show.

    Raises:
        TypeError, ValueError: as ``check_gradients`` and the loss do.

    Example:
        >>> from jaxopt_nn import losses
        >>> check_loss(losses.mean_squared_error, jnp.arange(3.0), jnp.ones(3), key=jax.random.key(0)).verdict
        'PASS'
    """
    _check_function("loss", loss, "losses.softmax_cross_entropy", 2)
    for leaf in jax.tree.leaves(outputs):
        if not jnp.issubdtype(np.asarray(leaf).dtype, np.inexact):
            raise TypeError(f"outputs: expected floats, got {np.asarray(leaf).dtype}; the order is outputs, targets")
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((outputs, targets))):
        # With the targets as they are: the loss says itself which of them it is not defined for.
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)), outputs)
        try:
            jax.eval_shape(lambda outputs: loss(outputs, targets), shapes)
        except UnusableValueError:
            raise
        except Exception:  # shows below, or is none there: a loss may be written in NumPy
            pass
    options.setdefault("argnums", 0)
    return check_gradients(loss, outputs, targets, key=key, **options)


def check_optimizer(
    factory: Callable[..., optax.GradientTransformation],
    hyperparameters: Mapping[str, Any],
    params: Params,
    *,
    key: Key,
    steps: int = 3,
    loss: Callable[[Params], Array] | None = None,
    **options: Any,
) -> GradientReport:
    """Checks the derivative *through* an optimizer: of the end of a few steps, by hyperparameters and starting point.

    Args:
        factory: ``factory(**hyperparameters)`` makes the optimizer.
        hyperparameters: numbers; they are traced and differentiated (path ``0/learning_rate``).
        params: the starting point (path ``1/...``).
        key: a PRNG key.
        steps: how many updates; >= 1. Each is given ``value``, ``grad``, ``value_fn`` and ``grad_fn`` of the loss, for
            optimizers that ask for them.
        loss: ``loss(params) -> scalar``, smooth; by default Σ softplus(a·w + b)·c with random a, b, c.
        **options: of ``check_gradients``.

    Returns:
        The report on ⟨parameters after the steps, random cotangent⟩. Where the step has no slope, as for the sign in
        Lion, leaves are DEAD.

    Raises:
        TypeError, ValueError: as ``check_gradients`` and the optimizer do.

    Example:
        >>> from jaxopt_nn import optimizers
        >>> w = {"w": jnp.arange(3.0)}
        >>> check_optimizer(optimizers.adam, {"learning_rate": 0.1}, w, key=jax.random.key(0)).verdict
        'PASS'
    """
    check_key("key", key)
    check_positive_int("steps", steps)
    if hasattr(factory, "init") and hasattr(factory, "update"):
        raise TypeError(
            "factory: expected a function that makes the optimizer, got an optimizer: pass optimizers.adam and "
            '{"learning_rate": 0.1} for optimizers.adam(0.1)'
        )
    _check_function("factory", factory, "optimizers.adam")
    if loss is not None:
        _check_function("loss", loss, "lambda params: jnp.sum(params**2)", 1)
        shape = jax.typeof(jax.eval_shape(loss, params)).shape
        if shape != ():
            raise ValueError(f"loss: expected a scalar, got an array {list(shape)}")
    if not isinstance(hyperparameters, Mapping):
        raise TypeError(
            f'hyperparameters: expected a mapping such as {{"learning_rate": 0.1}}, got {hyperparameters!r}'
        )
    made: Any = factory(**hyperparameters)  # says what is out of range: inside of f all is traced
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise TypeError(f"factory: expected a function that makes an optimizer, got one that makes {shown(made)}")
    words = (*seed_words(key), 5)
    objective = loss or (lambda params: _bowl(params, words))

    def value_fn(params: Params, grad_fn: object = None) -> Array:
        # optax's line searches refuse extra arguments that value_fn does not take: so it takes the other one.
        del grad_fn
        return objective(params)

    def f(hyperparameters: Any, params: Any) -> Any:
        optimizer = optax.with_extra_args_support(factory(**hyperparameters))

        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            value, gradient = jax.value_and_grad(objective)(params)
            extra = {"value": value, "grad": gradient, "value_fn": value_fn, "grad_fn": jax.grad(objective)}
            updates, state = optimizer.update(gradient, state, params, **extra)
            return (jax.tree.map(lambda p, u: p + u, params, updates), state), None

        carry = (params, optimizer.init(params))
        if jax.tree.map(jax.typeof, jax.eval_shape(step, carry, None)[0]) == jax.tree.map(jax.typeof, carry):
            carry, _ = jax.lax.scan(step, carry, None, length=steps)
        else:  # an optimizer whose state changes its types
            for _ in range(steps):
                carry, _ = step(carry, None)
        return _dot(carry[0], words)

    return check_gradients(f, dict(hyperparameters), params, key=key, **options)


def _check_function(name: str, fn: Any, example: str, arguments: int = 0) -> None:
    """Raises unless ``fn`` is a function, which takes so many arguments if that is said."""
    if isinstance(fn, type) or not callable(fn) or (arguments and not takes(fn, *[None] * arguments)):
        raise TypeError(f"{name}: expected a function such as {example}, got {shown(fn)} of type {type(fn).__name__}")
    if arguments and getattr(fn, "__annotations__", {}).get("return") is Layer:
        raise TypeError(f"{name}: expected a Layer, got the function {fn.__name__} that makes one: call it")


def _of_function(function: Any) -> Layer:
    """A function as a layer; its parameters are its arrays, if it is a tree of some."""
    return Layer(lambda key, x: (function, ()), lambda params, state, x, **_: (params(x), state))


def _program(f: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """F's jaxpr; what is no array stays a Python value."""
    flat, structure = jax.tree.flatten(args)
    places = [i for i, leaf in enumerate(flat) if isinstance(leaf, (jax.Array, np.ndarray, np.generic, float))]

    def call(arrays: list[Any]) -> Any:
        full = list(flat)
        for i, array in zip(places, arrays, strict=True):
            full[i] = array
        return f(*jax.tree.unflatten(structure, full))

    return jax.make_jaxpr(call)([flat[i] for i in places])


def _other_value(f: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """What is wrong with the value that the rule returns, if anything."""
    call, point = _of_floats(f, args)
    if not point:
        return ""
    plain, ruled = call(*point), jax.vjp(call, *point)[0]
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(ruled), strict=True):
        if not np.allclose(np.asarray(a), np.asarray(b), rtol=1e-2 if a.dtype.itemsize < 4 else 1e-4, atol=0):
            return "the rule's forward pass returns another value than f"
    return ""


def _other_tangent(f: Callable[..., Any], args: tuple[Any, ...], words: tuple[int, ...]) -> str:
    """What is wrong with the dot-product identity ⟨ct, J·v⟩ = ⟨Jᵀ·ct, v⟩ of a function with rules for both modes."""
    call, point = _of_floats(f, args)
    if not point or any(site.kind == "custom_vjp" for site in sites(_program(f, args))):  # that has no forward mode
        return ""
    generator = np.random.default_rng((*words, 7))
    with in_float64():
        exact = [np.asarray(leaf).astype(np.float64) for leaf in point]
        tangents = [generator.standard_normal(leaf.shape) for leaf in exact]
        scalar = lambda *some: _dot(call(*some), words)  # noqa: E731
        forward = float(jax.jvp(scalar, exact, tangents)[1])
        back = jax.vjp(scalar, *exact)[1](np.float64(1))
        products = [float(np.sum(np.asarray(g) * t)) for g, t in zip(back, tangents, strict=True)]
    size = sum(abs(product) for product in products) + abs(forward)
    if abs(forward - sum(products)) > 1e-6 * size:
        return "forward and reverse mode differ: ⟨ct, J·v⟩ is not ⟨Jᵀ·ct, v⟩"
    return ""


def _of_floats(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[..., Any], list[Any]]:
    """The function of those arguments that are float arrays, and these; of none where an argument is a tree."""
    plain = all(hasattr(leaf, "dtype") or isinstance(leaf, (int, float)) for leaf in args)
    places = [i for i, leaf in enumerate(args) if plain and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]

    def call(*some: Any) -> Any:
        full = list(args)
        for i, value in zip(places, some, strict=True):
            full[i] = value
        return f(*full)

    return call, [jnp.asarray(args[i]) for i in places]


def _dot(tree: PyTree, words: tuple[int, ...]) -> Array:
    """⟨tree, random cotangent⟩ over its float leaves."""
    generator = np.random.default_rng(words)
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    products = [jnp.sum(leaf * jnp.asarray(short_normal(generator, np.shape(leaf)), leaf.dtype)) for leaf in floats]
    return sum(products[1:], products[0])


def _bowl(params: Params, words: tuple[int, ...]) -> Array:
    generator = np.random.default_rng((*words, 6))
    total: Any = 0.0
    for leaf in jax.tree.leaves(params):
        a, b, c = (jnp.asarray(generator.uniform(0.5, 1.5, np.shape(leaf)), leaf.dtype) for _ in range(3))
        total = total + jnp.sum(c * (jax.nn.softplus(a * leaf + b) + jnp.square(leaf - b) / 4))
    return total
