"""Initialization that depends on data."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._arguments import check_number, check_positive_int
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.layers._combinators.wiring import as_layer, at_path, bind, collect, gather
from jaxopt_nn.layers._normalization.moments import unit_of
from jaxopt_nn.types import Array, ArrayLike, Layer, Params, PyTree, State

__all__ = ["lsuv"]


def lsuv(
    model: Any,
    params: Params,
    state: State,
    x: PyTree,
    *,
    tolerance: ArrayLike = 0.01,
    iterations: int = 10,
) -> Params:
    """Layer-sequential unit variance: scales each kernel until its layer's output on ``x`` has the variance 1.

    Layers are taken in the order of evaluation, each with the input that the scaled layers before it make. For each
    layer with a ``kernel``, and with or without a ``bias``, ``W ← W / √Var[y]`` is repeated until ``abs(Var[y] - 1) <
    tolerance``, where y is its output. Without a bias, or with a bias of zeros, once is enough. The paper begins with
    orthonormal kernels, ``initializers.orthogonal()``.

    Args:
        model: a layer.
        params: its parameters, from ``model.init``.
        state: its state, which is read and not changed.
        x: a mini-batch of a hundred examples or more, scaled as the model will see them.
        tolerance: >= 0; may be traced.
        iterations: at the most, for each layer (static, >= 1).

    Returns:
        The parameters with other kernels; a pure function of its arguments, for ``jit`` and ``vmap``. The model is
        evaluated with ``train=False``: no dropout, normalizations by their running statistics. Layers of other kinds
        (recurrences, attention, models of other libraries) stay as they are, as does a kernel whose output does not
        vary.

    Raises:
        ValueError, TypeError: a bad argument; those of a layer that ``x`` does not fit, with its path.

    References:
        Mishkin and Matas, "All you need is a good init", ICLR 2016, algorithm 1.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import initializers
    >>> from jaxopt_nn.layers import dense, serial
    >>> model = serial(*[dense(64, kernel_init=initializers.normal(3.0)), jnp.tanh] * 5, dense(10))
    >>> x = jax.random.normal(jax.random.key(0), (500, 20))
    >>> params, state = model.init(jax.random.key(1), x)
    >>> params = lsuv(model, params, state, x)
    >>> y, _ = model.apply(params, state, x)
    >>> bool(abs(jnp.var(y) - 1) < 0.01)
    True
    """
    check_number("tolerance", tolerance, 0)
    check_positive_int("iterations", iterations)
    return _scaled_params(as_layer(model), params, state, x, tolerance, int(iterations))


@functools.partial(jax.jit, static_argnums=(0, 5))
def _scaled_params(
    layer: Layer, params: Params, state: State, x: PyTree, tolerance: ArrayLike, iterations: int
) -> Params:
    """One program, so that an eager call compiles once for a model."""
    return _scaled(layer, params, state, x, tolerance, iterations)[0]


def _scaled(
    layer: Layer, params: Params, state: State, x: PyTree, tolerance: ArrayLike, iterations: int
) -> tuple[Params, PyTree]:
    """New parameters, and the output with them."""
    wiring = layer.wiring
    if wiring is None:
        return _scaled_kernel(layer, params, state, x, tolerance, iterations)
    if wiring.times is not None:
        (node,) = wiring.nodes

        def block(x: PyTree, node_state: Any) -> tuple[PyTree, Params]:
            new, y = at_path(node.name, _scaled, node.layer, *node_state, x, tolerance, iterations)
            return y, new

        x, stacked = lax.scan(block, x, (params.get(node.name, {}), state.get(node.name, {})), length=wiring.times)
        return {**params, node.name: stacked} if node.name in params else params, x
    values, new, done = bind(wiring, x), dict(params), set[str]()
    for node in wiring.nodes:
        node_inputs, node_state = gather(values, node.inputs), state.get(node.owner, {})
        if node.owner in new and node.owner not in done:  # the first use of a shared layer decides
            new[node.owner], values[node.name] = at_path(
                node.name, _scaled, node.layer, new[node.owner], node_state, node_inputs, tolerance, iterations
            )
            done.add(node.owner)
        else:
            values[node.name] = at_path(
                node.name, _output, node.layer, new.get(node.owner, {}), node_state, node_inputs
            )
    return new, collect(wiring, values)


def _scaled_kernel(
    layer: Layer, params: Params, state: State, x: PyTree, tolerance: ArrayLike, iterations: int
) -> tuple[Params, PyTree]:
    if not isinstance(params, dict) or "kernel" not in params or not params.keys() <= {"kernel", "bias"}:
        return params, _output(layer, params, state, x)

    def rescale(kernel: Array, _: None) -> tuple[Array, None]:
        y = _output(layer, {**params, "kernel": kernel}, state, x)
        exact = y.astype(compute_dtype(y)).ravel()
        unit = unit_of(exact, (0,))[0]
        variance = jnp.var(exact / unit)
        # Written so that nothing changes where the variance is NaN.
        far = jnp.abs(variance * unit * unit - 1) >= jnp.asarray(tolerance, variance.dtype)
        needs_scaling = (variance > 0) & jnp.isfinite(variance) & far
        factor = jnp.where(
            needs_scaling, lax.rsqrt(jnp.where(needs_scaling, variance, 1)) / unit, jnp.ones_like(variance)
        )
        return (kernel * factor.astype(kernel.dtype)), None

    kernel, _ = lax.scan(rescale, params["kernel"], None, length=iterations)
    new = {**params, "kernel": kernel}
    return new, _output(layer, new, state, x)


def _output(layer: Layer, params: Params, state: State, x: PyTree) -> PyTree:
    return layer.apply(params, state, x, train=False, key=None, weight=None)[0]
