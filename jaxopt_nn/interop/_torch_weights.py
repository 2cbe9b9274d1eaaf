"""PyTorch's weights in the places of ours, layer by layer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.layers import places
from jaxopt_nn.trees import map_with_path, named_leaves
from jaxopt_nn.types import Params, State

__all__ = ["from_torch", "to_torch"]

Convert = Callable[[NDArray[Any]], NDArray[Any]]
Names = Mapping[str, str]


def _same(array: NDArray[Any]) -> NDArray[Any]:
    return array


def _kernel(array: NDArray[Any]) -> NDArray[Any]:
    """``[out, in, *window]`` as ``[*window, in, out]``."""
    axes = range(array.ndim)
    return array.transpose([*axes[2:], 1, 0])


def _torch_kernel(array: NDArray[Any]) -> NDArray[Any]:
    return array.transpose([array.ndim - 1, array.ndim - 2, *range(array.ndim - 2)])


_AFFINE = {"scale": ("weight", _same, _same), "bias": ("bias", _same, _same)}
_LINEAR = {"kernel": ("weight", _kernel, _torch_kernel), "bias": ("bias", _same, _same)}
_LAYERS: dict[str, dict[str, tuple[str, Convert, Convert]]] = {
    **dict.fromkeys(("dense", "conv", "depthwise_conv"), _LINEAR),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), _AFFINE),
    "batch_norm": {**_AFFINE, "mean": ("running_mean", _same, _same), "var": ("running_var", _same, _same)},
    "embedding": {"embedding": ("weight", _same, _same)},
}
"""Of each kind of layer: our leaf to the name of PyTorch's, and how one becomes the other."""


def from_torch(
    model: Any, variables: tuple[Params, State], weights: Mapping[str, Any], names: Names, *, ignore: Sequence[str] = ()
) -> tuple[Params, State]:
    """Parameters and state of a model of ours from PyTorch's weights.

    Kernels change their layout: ``[out, in]`` becomes ``[in, out]``, ``[out, in, H, W]`` becomes ``[H, W, in, out]``.

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
    table = _table(model, variables, names)
    given = {name: np.asarray(value) for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    given = {name: value for name, value in given.items() if not _is_ignored(name, ignore)}
    wrong = [f"missing is {name}, for {path}" for path, (name, _, _) in table.items() if name not in given]
    wrong += [f"left over is {name}" for name in given if name not in {entry[0] for entry in table.values()}]
    found: dict[str, NDArray[Any]] = {}
    for part in variables:
        for path, leaf in named_leaves(part):
            name, convert, _ = table[path]
            if name in given:
                found[path] = convert(given[name]).astype(leaf.dtype)
                if found[path].shape != leaf.shape:
                    wrong.append(f"{path} is {list(leaf.shape)}, {name} makes it {list(found[path].shape)}")
    _raise_for("weights", wrong)
    params, state = (map_with_path(lambda path, _: found[path], part) for part in variables)
    return params, state


def to_torch(model: Any, variables: tuple[Params, State], names: Names) -> dict[str, NDArray[Any]]:
    """The weights of a model of ours by PyTorch's names and in its layouts: the inverse of :func:`from_torch`.

    Args:
        model, variables, names: as for :func:`from_torch`.

    Returns:
        A ``state_dict`` of NumPy arrays: ``{name: torch.from_numpy(array)}`` is one that PyTorch loads.

    Raises:
        ValueError, TypeError: as :func:`from_torch`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxopt_nn import layers
        >>> variables = layers.dense(2).init(jax.random.key(0), jnp.ones((1, 3)))
        >>> {name: array.shape for name, array in to_torch(layers.dense(2), variables, {"dense": "fc"}).items()}
        {'fc.bias': (2,), 'fc.weight': (2, 3)}
    """
    table = _table(model, variables, names)
    leaves = {path: np.asarray(leaf) for part in variables for path, leaf in named_leaves(part)}
    return {table[path][0]: np.ascontiguousarray(table[path][2](leaf)) for path, leaf in leaves.items()}


def _table(model: Any, variables: tuple[Params, State], names: Names) -> dict[str, tuple[str, Convert, Convert]]:
    """The path of each leaf to the name of PyTorch's tensor, and the functions between them."""
    found = places(model)
    root = len(found) == 1 and found[0].path == found[0].name  # a layer by itself: its leaves have no path before them
    kinds = {place.path: place.name for place in found}
    leaves = [path for part in variables for path, _ in named_leaves(part)]
    owners = {path: found[0].path if root else path.rpartition("/")[0] for path in leaves}
    wrong = [f"{path} has parameters and no name" for path in dict.fromkeys(owners.values()) if path not in names]
    wrong += [f"{path} is no layer with parameters" for path in names if path not in owners.values()]
    taken = list(names.values())
    wrong += [f"{name} stands for two layers" for name in dict.fromkeys(taken) if taken.count(name) > 1]
    _raise_for("names", wrong)
    table: dict[str, tuple[str, Convert, Convert]] = {}
    for path in leaves:
        owner, leaf = owners[path], path.rpartition("/")[2]
        kind = kinds.get(owner, "")
        if leaf not in _LAYERS.get(kind, {}):
            raise TypeError(f"{path}: a {kind or 'layer'} has no counterpart among {sorted(_LAYERS)}")
        name, convert, back = _LAYERS[kind][leaf]
        prefix = names[owner]
        table[path] = (f"{prefix}.{name}" if prefix else name, convert, back)
    return table


def _is_ignored(name: str, ignore: Sequence[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in ignore)


def _raise_for(argument: str, wrong: list[str]) -> None:
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(f"{argument}: not those of this model: " + "; ".join(wrong[:4]) + more)
