"""PyTorch's weights in the places of ours, layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.interop._maps import Kind, Made, Names, read_weights, same, write_weights
from jaxopt_nn.layers import flatten
from jaxopt_nn.types import Array, Params, State

__all__ = ["KINDS", "from_torch", "to_torch", "torch_flatten"]


def _kernel(array: NDArray[Any]) -> NDArray[Any]:
    """``[out, in, *window]`` as ``[*window, in, out]``."""
    return array.transpose([*range(array.ndim)[2:], 1, 0])


def _torch_kernel(array: NDArray[Any]) -> NDArray[Any]:
    return array.transpose([array.ndim - 1, array.ndim - 2, *range(array.ndim - 2)])


def _simple(**leaves: str) -> Kind:
    """Our leaves to their arrays, one to one. Kernels change their layout."""
    kernels = {"kernel": (_kernel, _torch_kernel)}
    ways = {leaf: kernels.get(leaf, (same, same)) for leaf in leaves}
    return Kind(
        {leaf: Made((name,), ways[leaf][0]) for leaf, name in leaves.items()},
        {name: Made((leaf,), ways[leaf][1]) for leaf, name in leaves.items()},
    )


def _transposed(array: NDArray[Any]) -> NDArray[Any]:
    return array.T


def _part(index: int, parts: int) -> Any:
    """One of the parts of an array on its first axis, transposed if it is a matrix."""

    def part(array: NDArray[Any]) -> NDArray[Any]:
        return np.split(array, parts)[index].T

    return part


def _joined(*arrays: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array.T for array in arrays])


# Two biases are added up. On the way back the second is 0, except for that of the new state in a GRU.
_MATRICES = {
    "kernel": Made(("weight_ih_l0",), _transposed),
    "recurrent_kernel": Made(("weight_hh_l0",), _transposed),
}
_TORCH_MATRICES = {
    "weight_ih_l0": Made(("kernel",), _transposed),
    "weight_hh_l0": Made(("recurrent_kernel",), _transposed),
}
_BIASES = ("bias_ih_l0", "bias_hh_l0")


def _gru_bias(of_input: NDArray[Any], of_state: NDArray[Any]) -> NDArray[Any]:
    own = np.split(of_state, 3)
    return of_input + np.concatenate([own[0], own[1], np.zeros_like(own[2])])


def _torch_gru_bias(recurrent: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([np.zeros_like(recurrent)] * 2 + [recurrent])


_AFFINE = {"scale": "weight", "bias": "bias"}
_RECURRENT = Kind(
    _MATRICES | {"bias": Made(_BIASES, np.add)},
    _TORCH_MATRICES | {"bias_ih_l0": Made(("bias",), same), "bias_hh_l0": Made(("bias",), np.zeros_like)},
)
_GRU = Kind(
    _MATRICES
    | {"bias": Made(_BIASES, _gru_bias), "recurrent_bias": Made(("bias_hh_l0",), lambda b: np.split(b, 3)[2])},
    _TORCH_MATRICES | {"bias_ih_l0": Made(("bias",), same), "bias_hh_l0": Made(("recurrent_bias",), _torch_gru_bias)},
)
_PARTS = ("query", "key", "value")
_ATTENTION = Kind(
    {f"{part}/kernel": Made(("in_proj_weight",), _part(index, 3)) for index, part in enumerate(_PARTS)}
    | {f"{part}/bias": Made(("in_proj_bias",), _part(index, 3)) for index, part in enumerate(_PARTS)}
    | {"output/kernel": Made(("out_proj.weight",), _transposed), "output/bias": Made(("out_proj.bias",), same)},
    {
        "in_proj_weight": Made(tuple(f"{part}/kernel" for part in _PARTS), _joined),
        "in_proj_bias": Made(tuple(f"{part}/bias" for part in _PARTS), _joined),
        "out_proj.weight": Made(("output/kernel",), _transposed),
        "out_proj.bias": Made(("output/bias",), same),
    },
)
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("dense", "conv", "depthwise_conv"), _simple(kernel="weight", bias="bias")),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), _simple(**_AFFINE)),
    "batch_norm": _simple(**_AFFINE, mean="running_mean", var="running_var"),
    "embedding": _simple(embedding="weight"),
    "simple_rnn": _RECURRENT,
    "lstm": _RECURRENT,
    "gru": _GRU,
    "multi_head_attention": _ATTENTION,
}
"""Of each kind of layer: how its weights become ours, and back."""


def from_torch(
    model: Any, variables: tuple[Params, State], weights: Mapping[str, Any], names: Names, *, ignore: Sequence[str] = ()
) -> tuple[Params, State]:
    """Parameters and state of a model of ours from PyTorch's weights.

    Kernels change their layout: ``[out, in]`` becomes ``[in, out]``, ``[out, in, H, W]`` becomes ``[H, W, in, out]``.
    The two biases of a recurrent layer are added up. Of attention, ``in_proj_weight`` is split. A dense layer keeps the
    order of its features: after a flattened image use :func:`torch_flatten`.

    Args:
        model: a layer, or a plain function of an array.
        variables: its ``(params, state)``, or their shapes, as ``model.init`` returns them.
        weights: names to arrays or tensors: a ``state_dict``, what :func:`load_torch` reads, or of a safetensors file
            ``trees.load_arrays(path)``.
        names: the path of each layer of ours that has parameters to the name of PyTorch's module:
            ``{"conv_0": "features.0", "dense_0": "classifier"}``. The paths are those of ``layers.places(model)``.
        ignore: modules and tensors that are not taken. ``num_batches_tracked`` never is.

    Returns:
        ``(params, state)``: NumPy arrays in the dtypes of ``variables``.

    Raises:
        ValueError: a layer has no name, or a name no layer; two layers have one name; a tensor is missing, left over or
            of another shape. All of them are named, and nothing is loaded.
        TypeError: a layer of a kind that has no counterpart here.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxopt_nn import layers
        >>> model = layers.serial(layers.dense(2), jnp.tanh)
        >>> variables = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> weights = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2)}
        >>> params, state = from_torch(model, variables, weights, {"dense_0": "fc"})
        >>> params["dense_0"]["kernel"].shape
        (3, 2)
    """
    given = {
        name: np.asarray(value)
        for name, value in weights.items()
        if not name.endswith("num_batches_tracked") and not _is_ignored(name, ignore)
    }
    return read_weights(model, variables, given, names, KINDS)


def to_torch(model: Any, variables: tuple[Params, State], names: Names) -> dict[str, NDArray[Any]]:
    """The weights of a model of ours by PyTorch's names and in its layouts: the inverse of :func:`from_torch`.

    Args:
        model, variables, names: as for :func:`from_torch`.

    Returns:
        A ``state_dict`` of NumPy arrays: ``{name: torch.from_numpy(array)}`` is one that PyTorch loads. Where PyTorch
        has two biases, one of which is enough, ``bias_hh`` is 0.

    Raises:
        ValueError, TypeError: as :func:`from_torch`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxopt_nn import layers
        >>> variables = layers.dense(2).init(jax.random.key(0), jnp.ones((1, 3)))
        >>> {name: array.shape for name, array in to_torch(layers.dense(2), variables, {"dense": "fc"}).items()}
        {'fc.weight': (2, 3), 'fc.bias': (2,)}
    """
    return write_weights(model, variables, names, KINDS)


def torch_flatten(x: Array) -> Array:
    """Flattens ``[N, *spatial, C]`` with the channels first, as PyTorch does: a plain function, and so a layer.

    The weights of a dense layer after it are those of PyTorch's layer after ``Flatten``.

    >>> torch_flatten(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]]
    """
    return flatten(jnp.moveaxis(x, -1, 1) if x.ndim > 2 else x)


def _is_ignored(name: str, ignore: Sequence[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in ignore)
