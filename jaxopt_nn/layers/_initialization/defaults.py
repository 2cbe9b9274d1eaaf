"""A whole model, initialized as another library does."""

import math
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxopt_nn import initializers
from jaxopt_nn._arguments import check_key
from jaxopt_nn.initializers import Initializer
from jaxopt_nn.layers._combinators.wiring import as_layer
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, Key, Layer, Params, PyTree, State

__all__ = ["with_defaults"]


def with_defaults(model: Any, convention: Literal["torch", "keras"]) -> Layer:
    """The same model, its parameters initialized as PyTorch or Keras does by default.

    ====================  ======================================  ==============================================
    layer                 "torch"                                 "keras"
    ====================  ======================================  ==============================================
    dense, conv           kernel and bias U(±1/√fan_in)           Glorot uniform, zero bias
    conv_transpose        the same, of fan_out                    the same
    embedding             N(0, 1)                                 U(±0.05)
    recurrences           all U(±1/√features)                     Glorot uniform, orthogonal, zeros; forget bias 1
    multi_head_attention  Xavier uniform of the three together,   Glorot uniform of each matrix, zero biases
                          output U(±1/√fan_in), zero biases
    ====================  ======================================  ==============================================

    Initializers that were given to a layer of this table are ignored. Normalizations begin alike in all libraries, and
    stay as they are, as do layers of any other kind. Keras itself computes the fans of its attention kernels from
    ``[F, heads, d]``, as if F were a window, so its weights are smaller.

    Args:
        model: a layer.
        convention: "torch" or "keras" (static).

    Returns:
        The same layer with another ``init``. The padding vector of an embedding is drawn too, and never read.

    Raises:
        ValueError: an unknown convention.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn.layers import dense, serial
    >>> model = with_defaults(serial(dense(50), jnp.tanh, dense(2)), "torch")
    >>> params, _ = model.init(jax.random.key(0), jnp.ones((1, 100)))
    >>> bool(0.099 < abs(params["dense_0"]["kernel"]).max() < 0.1), bool(abs(params["dense_0"]["bias"]).max() < 0.1)
    (True, True)
    """
    if convention not in ("torch", "keras"):
        raise ValueError(f'convention: expected "torch" or "keras", got {convention!r}')
    layer = as_layer(model)

    def init(key: Key, x: PyTree) -> tuple[Params, State]:
        check_key("key", key)
        first, second = jax.random.split(key)
        params, state = layer.init(first, x)
        laws = _laws(layer, params, convention, 0)
        named = named_leaves(params)
        keys = jax.random.split(second, max(1, len(named)))
        leaves = [
            laws[path](own_key, leaf.shape, leaf.dtype) if path in laws else leaf
            for own_key, (path, leaf) in zip(keys, named, strict=False)
        ]
        return jax.tree.unflatten(jax.tree.structure(params), leaves), state

    return layer._replace(init=init)


def _laws(layer: Layer, params: Params, convention: str, stacked: int) -> dict[str, Initializer]:
    """Path to initializer, for each parameter that gets another one. The first ``stacked`` axes count blocks."""
    if layer.wiring is None:
        return _of_kind(layer.name, params, convention, stacked)
    laws: dict[str, Initializer] = {}
    deeper = stacked + (layer.wiring.times is not None)
    for node in layer.wiring.nodes:
        if node.owner == node.name and node.name in params:
            inner = _laws(node.layer, params[node.name], convention, deeper)
            laws |= {f"{node.name}/{path}": law for path, law in inner.items()}
    return laws


def _of_kind(kind: str, params: Params, convention: str, stacked: int) -> dict[str, Initializer]:
    if not isinstance(params, dict):
        return {}
    names = params.keys()
    if names >= {"query", "key", "value", "output"}:
        return _of_attention(params, convention, stacked)
    if "recurrent_kernel" in names:
        if convention == "keras":
            return _of_keras_recurrence(kind, params, stacked)
        bound = params["recurrent_kernel"].shape[stacked] ** -0.5
        return dict.fromkeys(names, initializers.uniform(bound))
    if names == {"embedding"}:
        return {"embedding": initializers.normal(1.0) if convention == "torch" else initializers.uniform(0.05)}
    if "kernel" in names and names <= {"kernel", "bias"}:
        shape = params["kernel"].shape[stacked:]
        window = math.prod(shape[:-2])
        fan_in, fan_out = window * shape[-2], window * shape[-1]
        if convention == "torch":
            return dict.fromkeys(names, initializers.uniform((fan_out if "transpose" in kind else fan_in) ** -0.5))
        laws = {"kernel": _glorot(fan_in, fan_out), "bias": initializers.zeros()}
        return {name: laws[name] for name in names}
    laws = {}
    for name, inner in params.items():  # a layer of layers without a wiring, such as drop_connect
        inner_laws = _of_kind(re.sub(r"_\d+$", "", str(name)), inner, convention, stacked)
        laws |= {f"{name}/{path}": law for path, law in inner_laws.items()}
    return laws


def _of_attention(params: Params, convention: str, stacked: int) -> dict[str, Initializer]:
    laws: dict[str, Initializer] = {}
    for name in ("query", "key", "value", "output"):
        inputs, outputs = params[name]["kernel"].shape[stacked:]
        law = _glorot(inputs, outputs)
        if convention == "torch":
            law = initializers.uniform(inputs**-0.5) if name == "output" else _glorot(inputs, 3 * outputs)
        laws[f"{name}/kernel"] = law
        if "bias" in params[name]:
            laws[f"{name}/bias"] = initializers.zeros()
    return laws


def _of_keras_recurrence(kind: str, params: Params, stacked: int) -> dict[str, Initializer]:
    inputs, outputs = params["kernel"].shape[stacked:]
    features = params["recurrent_kernel"].shape[stacked]

    def orthogonal(key: Key, shape: Any, dtype: Any = jnp.float32) -> Array:
        blocks = math.prod(shape[:stacked])
        draw = initializers.orthogonal()
        leaves = jax.vmap(lambda own_key: draw(own_key, shape[stacked:], dtype))(jax.random.split(key, blocks))
        return leaves.reshape(shape)

    def bias(key: Key, shape: Any, dtype: Any = jnp.float32) -> Array:
        del key
        zeros = jnp.zeros(shape, dtype)
        return zeros.at[..., features : 2 * features].set(1) if kind == "lstm" else zeros

    laws = {
        "kernel": _glorot(inputs, outputs),
        "recurrent_kernel": orthogonal,
        "bias": bias,
        "recurrent_bias": initializers.zeros(),
    }
    return {name: laws[name] for name in params}


def _glorot(fan_in: int, fan_out: int) -> Initializer:
    return initializers.uniform((6 / (fan_in + fan_out)) ** 0.5)
