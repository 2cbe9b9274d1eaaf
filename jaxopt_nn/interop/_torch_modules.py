"""A torch module of common layers as a model of ours, with its weights."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_nn import layers
from jaxopt_nn.interop._torch_weights import from_torch, torch_flatten
from jaxopt_nn.types import Layer, Params, PyTree, State

__all__ = ["TorchModule", "from_torch_module"]


class TorchModule(NamedTuple):
    """A torch module as ours; what :func:`from_torch_module` returns.

    Attributes:
        layer: the model. Its input has the channels last: ``[N, H, W, C]`` for PyTorch's ``[N, C, H, W]``.
        params: its parameters, NumPy arrays.
        model_state: its state: the running statistics of batch normalization.
        names: the path of each layer with weights to the name of its module, for :func:`from_torch` and
            :func:`to_torch`.
    """

    layer: Layer
    params: Params
    model_state: State
    names: Mapping[str, str]


def from_torch_module(module: Any, x: PyTree) -> TorchModule:
    """A ``torch.nn.Sequential`` of common layers as a model of ours, with its weights.

    Its predictions are those of PyTorch, and it goes on training as there; what dropout draws is another. Sequential
    modules may be nested, and become :func:`~jaxopt_nn.layers.serial`. Modules with a ``forward`` of their own have to
    be written anew from our layers; their weights come by :func:`from_torch`.

    Args:
        module: a Sequential, or one of the layers: Linear, Conv1d to Conv3d, BatchNorm, LayerNorm, GroupNorm, pooling,
            Dropout, Flatten, Embedding, Identity and activations. Padding is by zeros.
        x: an example input of ours, with the channels last, or its ``jax.ShapeDtypeStruct``; only its shape is read.

    Returns:
        Layer, parameters, state and names.

    Raises:
        TypeError: ``module`` is no module of PyTorch.
        ValueError: a module or an option of it has no counterpart. All of them are named, with their paths.

    Example (needs PyTorch, so it is not run here)::

        net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        ours = interop.from_torch_module(net, jnp.ones((1, 64)))
        logits, _ = ours.layer.apply(ours.params, ours.model_state, x)
    """
    if not any(base.__module__.startswith("torch.nn") and base.__name__ == "Module" for base in type(module).__mro__):
        got = f"the class {module.__name__}" if isinstance(module, type) else f"a {type(module).__name__}"
        raise TypeError(f"module: expected a module of PyTorch, got {got}")
    wrong: list[str] = []
    names: dict[str, str] = {}
    layer = _converted(module, "", _Layout(len(x.shape), None), wrong, names)
    if wrong:
        more = f"; and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise ValueError("module: not supported: " + "; ".join(wrong[:6]) + more)
    assert layer is not None
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    variables = jax.eval_shape(layer.init, jax.random.key(0), shapes)
    places = [place.path for place in layers.places(layer)]
    found = {path: name for path, name in zip(places, names, strict=True) if names[name]}
    weights = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    params, state = from_torch(layer, variables, weights, found)
    return TorchModule(layer, params, state, found)


class _Unsupported(Exception):
    """A module or an option of one that has no counterpart; the message says which."""


class _Layout:
    """What is known of the arrays at a place: their rank, and whether PyTorch has the channels first (None: open)."""

    def __init__(self, rank: int, channels_first: bool | None) -> None:
        self.rank, self.channels_first = rank, channels_first

    def needs(self, channels_first: bool) -> None:
        """Raises if a module before this one says otherwise. Of two axes there is only one layout."""
        if self.rank > 2 and self.channels_first is not None and self.channels_first != channels_first:
            order = "channels first, as convolutions do" if self.channels_first else "features last"
            raise _Unsupported(f"after modules that have the {order}")
        self.channels_first = channels_first


def _converted(module: Any, path: str, layout: _Layout, wrong: list[str], names: dict[str, str]) -> Layer | None:
    """The layer of a module. ``names`` gets the module of each layer in order, and whether it has weights."""
    kind = type(module).__name__
    if kind == "Sequential" and type(module).__module__.startswith("torch."):
        parts = [
            _converted(child, f"{path}.{name}" if path else name, layout, wrong, names)
            for name, child in module.named_children()
        ]
        return None if any(part is None for part in parts) else layers.serial(*(part for part in parts if part))
    try:
        if not type(module).__module__.startswith("torch.") or kind not in _MODULES:
            raise _Unsupported(kind)
        if kind.rstrip("123d") in _CHANNELS_FIRST:
            layout.needs(channels_first=True)
        elif kind in _FEATURES_LAST:
            layout.needs(channels_first=False)
        layer = layers.as_layer(_MODULES[kind](module, layout))
    except _Unsupported as error:
        text = str(error)
        wrong.append(f"{path or 'module'} ({kind})" if text == kind else f"{path or 'module'} ({kind}: {text})")
        return None
    names[path] = path if module.state_dict() else ""
    return layer


def _need(module: Any, **options: Any) -> None:
    for name, expected in options.items():
        if getattr(module, name, expected) != expected:
            raise _Unsupported(f"{name}={getattr(module, name)!r}")


def _sizes(size: Any) -> Any:
    return size if isinstance(size, int) else tuple(size)


def _conv(module: Any, _: _Layout) -> Layer:
    _need(module, padding_mode="zeros", transposed=False)
    if isinstance(module.padding, str):
        padding: Any = module.padding.upper()
    else:
        padding = tuple((size, size) for size in module.padding)
    return layers.conv(
        module.out_channels,
        tuple(module.kernel_size),
        stride=tuple(module.stride),
        padding=padding,
        dilation=tuple(module.dilation),
        groups=module.groups,
        use_bias=module.bias is not None,
    )


def _pool(axes: int, pool: Callable[..., Layer]) -> Callable[[Any, _Layout], Layer]:
    def made(module: Any, _: _Layout) -> Layer:
        _need(module, dilation=1, ceil_mode=False, return_indices=False, divisor_override=None)
        pads = module.padding if isinstance(module.padding, tuple) else (module.padding,) * axes
        stride = module.kernel_size if module.stride is None else module.stride
        padding = tuple((size, size) for size in pads) if any(pads) else "VALID"
        counted = {"count_padding": module.count_include_pad} if hasattr(module, "count_include_pad") else {}
        return pool(_sizes(module.kernel_size), stride=_sizes(stride), padding=padding, **counted)

    return made


def _global_pool(pool: Callable[[Any], Any]) -> Callable[[Any, _Layout], Any]:
    def made(module: Any, _: _Layout) -> Any:
        sizes = module.output_size if isinstance(module.output_size, tuple) else (module.output_size,)
        if set(sizes) != {1}:
            raise _Unsupported(f"output_size={module.output_size}")

        def global_pool(x: Any) -> Any:
            return jnp.expand_dims(pool(x), tuple(range(1, x.ndim - 1)))

        global_pool.__name__ = pool.__name__
        return global_pool

    return made


def _batch_norm(module: Any, _: _Layout) -> Layer:
    _need(module, affine=True, track_running_stats=True)
    if module.momentum is None:
        raise _Unsupported("momentum=None")
    return layers.batch_norm(momentum=module.momentum, epsilon=module.eps)


def _layer_norm(module: Any, _: _Layout) -> Layer:
    if len(module.normalized_shape) != 1:
        raise _Unsupported(f"normalized_shape={tuple(module.normalized_shape)}")
    use_scale = module.weight is not None
    return layers.layer_norm(epsilon=module.eps, use_scale=use_scale, use_bias=module.bias is not None)


def _group_norm(module: Any, _: _Layout) -> Layer:
    _need(module, affine=True)
    return layers.group_norm(module.num_groups, epsilon=module.eps)


def _flatten(module: Any, layout: _Layout) -> Any:
    _need(module, start_dim=1, end_dim=-1)
    channels_first, layout.rank = layout.channels_first is not False, 2
    return torch_flatten if channels_first else layers.flatten


def _embedding(module: Any, layout: _Layout) -> Layer:
    layout.rank += 1
    _need(module, max_norm=None, scale_grad_by_freq=False, padding_idx=None)
    return layers.embedding(module.num_embeddings, module.embedding_dim)


def _called(name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    function.__name__ = name
    return function


def _softmax(module: Any, layout: _Layout) -> Any:
    last = layout.rank - 1
    allowed = (1, -1) if layout.rank == 2 else (1, 1 - layout.rank) if layout.channels_first else (-1, last)
    if module.dim not in allowed:
        raise _Unsupported(f"dim={module.dim}")
    return jax.nn.softmax if type(module).__name__ == "Softmax" else jax.nn.log_softmax


def _with_number(name: str, function: Callable[..., Any], option: str) -> Callable[[Any, _Layout], Any]:
    """An activation with a number."""

    def made(module: Any, _: _Layout) -> Any:
        number = float(getattr(module, option))
        return _called(name, lambda x: function(x, number))

    return made


def _gelu(module: Any, _: _Layout) -> Any:
    approximate = module.approximate == "tanh"
    return _called("gelu", lambda x: jax.nn.gelu(x, approximate=approximate))


_CHANNELS_FIRST = ("Conv", "BatchNorm", "GroupNorm", "MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool")
_FEATURES_LAST = ("Linear", "LayerNorm", "Embedding")
_MODULES: dict[str, Callable[[Any, _Layout], Any]] = {
    "Linear": lambda module, _: layers.dense(module.out_features, use_bias=module.bias is not None),
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), _conv),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), _batch_norm),
    "LayerNorm": _layer_norm,
    "GroupNorm": _group_norm,
    **{f"MaxPool{axes}d": _pool(axes, layers.max_pool) for axes in (1, 2, 3)},
    **{f"AvgPool{axes}d": _pool(axes, layers.average_pool) for axes in (1, 2, 3)},
    **{f"AdaptiveAvgPool{axes}d": _global_pool(layers.global_average_pool) for axes in (1, 2, 3)},
    **{f"AdaptiveMaxPool{axes}d": _global_pool(layers.global_max_pool) for axes in (1, 2, 3)},
    "Flatten": _flatten,
    "Embedding": _embedding,
    "Dropout": lambda module, _: layers.dropout(module.p),
    **dict.fromkeys(("Dropout1d", "Dropout2d", "Dropout3d"), lambda module, _: layers.spatial_dropout(module.p)),
    "Identity": lambda module, _: _called("identity", lambda x: x),
    "ReLU": lambda module, _: jax.nn.relu,
    "ReLU6": lambda module, _: jax.nn.relu6,
    "LeakyReLU": _with_number("leaky_relu", jax.nn.leaky_relu, "negative_slope"),
    "ELU": _with_number("elu", jax.nn.elu, "alpha"),
    "SELU": lambda module, _: jax.nn.selu,
    "GELU": _gelu,
    "SiLU": lambda module, _: jax.nn.silu,
    "Mish": lambda module, _: jax.nn.mish,
    "Tanh": lambda module, _: jnp.tanh,
    "Sigmoid": lambda module, _: jax.nn.sigmoid,
    "Hardswish": lambda module, _: jax.nn.hard_swish,
    "Hardsigmoid": lambda module, _: jax.nn.hard_sigmoid,
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
}
