"""Keras's weights in the places of ours, layer by layer.

A file of Keras holds a group of arrays for each layer, and numbers them in the order in which the layer made them:
``layers/dense_1/vars/0`` is a kernel, ``layers/dense_1/vars/1`` a bias.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxopt_nn.interop._maps import Kind, Made, Names, read_weights, same, write_weights
from jaxopt_nn.types import Params, State

__all__ = ["KINDS", "from_keras_weights", "place_by_number", "to_keras_weights"]

Convert = Callable[[NDArray[Any]], NDArray[Any]]


def _simple(*rows: tuple[str, str], there: Convert = same, back: Convert = same) -> Kind:
    """Rows of our leaf and their array, and the ways there and back."""
    return Kind({leaf: Made((name,), there) for leaf, name in rows}, {name: Made((leaf,), back) for leaf, name in rows})


def _folded(*rows: tuple[str, str], there: Convert) -> Kind:
    """Arrays of which two axes are one here."""
    return Kind(
        {leaf: Made((name,), there) for leaf, name in rows},
        {name: Made((leaf,), same, folded=True) for leaf, name in rows},
    )


def _both(*kinds: Kind) -> Kind:
    ours = {leaf: made for kind in kinds for leaf, made in kind.ours.items()}
    return Kind(ours, {name: made for kind in kinds for name, made in kind.theirs.items()})


def _swapped(array: NDArray[Any]) -> NDArray[Any]:
    """The kernel of a transposed convolution: ``[*window, out, in]`` and ``[*window, in, out]``."""
    return np.swapaxes(array, -1, -2)


def _depthwise(array: NDArray[Any]) -> NDArray[Any]:
    """``[*window, channels, multiplier]`` as ``[*window, 1, channels · multiplier]``."""
    return array.reshape((*array.shape[:-2], 1, array.shape[-2] * array.shape[-1]))


def _gates(array: NDArray[Any]) -> NDArray[Any]:
    """Update, reset, new as reset, update, new; and back."""
    update, reset, new = np.split(array, 3, axis=-1)
    return np.concatenate([reset, update, new], axis=-1)


def _gru_bias(array: NDArray[Any]) -> NDArray[Any]:
    """Of the biases of input and state ``[2, 3h]``, what is added before the gates; of one bias ``[3h]``, itself."""
    if array.ndim == 1:
        return _gates(array)
    of_input, of_state = _gates(array)
    last = len(of_state) // 3 * 2
    return of_input + np.concatenate([of_state[:last], np.zeros_like(of_state[last:])])


def _recurrent_bias(array: NDArray[Any]) -> NDArray[Any]:
    return np.split(array[1], 3)[2]


def _keras_gru_biases(bias: NDArray[Any], recurrent: NDArray[Any] | None = None) -> NDArray[Any]:
    if recurrent is None:
        return _gates(bias)
    of_state = np.concatenate([np.zeros_like(bias[: -len(recurrent)]), recurrent])
    return np.stack([_gates(bias), of_state])


def _row(index: int) -> Convert:
    return lambda array: _gates(array)[index]


def _rows(bias: NDArray[Any], recurrent: NDArray[Any]) -> NDArray[Any]:
    return _gates(np.stack([bias, recurrent]))


def _fold_last(array: NDArray[Any]) -> NDArray[Any]:
    """``[..., heads, features]`` as ``[..., heads · features]``."""
    return array.reshape((*array.shape[:-2], array.shape[-2] * array.shape[-1]))


def _fold_first(array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape((array.shape[0] * array.shape[1], *array.shape[2:]))


_KERNEL, _BIAS = ("kernel", "kernel"), ("bias", "bias")
_CELL = (("kernel", "cell/kernel"), ("recurrent_kernel", "cell/recurrent"), ("bias", "cell/bias"))
_GATES = _simple(*_CELL[:2], there=_gates, back=_gates)
_BIASES = ("bias", "recurrent_bias")
_GRU = _both(
    _GATES,
    Kind(
        {"bias": Made(("cell/bias",), _gru_bias), "recurrent_bias": Made(("cell/bias",), _recurrent_bias)},
        {"cell/bias": Made(_BIASES, _keras_gru_biases)},
    ),
)
_GRU_OF_KERAS = _both(
    _GATES,
    Kind(
        {"bias": Made(("cell/bias",), _row(0)), "recurrent_bias": Made(("cell/bias",), _row(1))},
        {"cell/bias": Made(_BIASES, _rows)},
    ),
)
_PARTS = ("query", "key", "value")
_HEADS = tuple((f"{part}/{leaf}", f"{part}_dense/{leaf}") for part in _PARTS for leaf in ("kernel", "bias"))
_AFFINE = (("scale", "gamma"), ("bias", "beta"))
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("dense", "conv"), _simple(_KERNEL, _BIAS)),
    "conv_transpose": _both(_simple(_KERNEL, there=_swapped, back=_swapped), _simple(_BIAS)),
    "depthwise_conv": _both(_folded(_KERNEL, there=_depthwise), _simple(_BIAS)),
    **dict.fromkeys(("layer_norm", "group_norm", "rms_norm"), _simple(*_AFFINE)),
    "batch_norm": _simple(*_AFFINE, ("mean", "moving_mean"), ("var", "moving_variance")),
    "embedding": _simple(("embedding", "embeddings")),
    **dict.fromkeys(("simple_rnn", "lstm"), _simple(*_CELL)),
    "gru": _GRU,
    "keras_gru": _GRU_OF_KERAS,
    "separable_conv": _both(
        _folded(("depthwise_conv_0/kernel", "depthwise_kernel"), there=_depthwise),
        _simple(("conv_0/kernel", "pointwise_kernel"), ("conv_0/bias", "bias")),
    ),
    "prelu": _simple(("slope", "alpha")),
    "multi_head_attention": _both(
        _folded(*_HEADS, there=_fold_last),
        _folded(("output/kernel", "output_dense/kernel"), there=_fold_first),
        _simple(("output/bias", "output_dense/bias")),
    ),
}
"""Of each kind of layer: how its weights become ours, and back."""


def from_keras_weights(
    model: Any, variables: tuple[Params, State], weights: Mapping[str, Any], names: Names, *, ignore: Sequence[str] = ()
) -> tuple[Params, State]:
    """Parameters and state of a model of ours from weights of Keras.

    Dense layers, convolutions, embeddings and LSTMs have the same layout. In a GRU the gates change their order, and
    its two biases are added up. Of a depthwise convolution and of attention two axes become one.

    Args:
        model: a layer, or a plain function of an array.
        variables: its ``(params, state)``, or their shapes, as ``model.init`` returns them.
        weights: names to arrays, as :func:`load_keras` reads them.
        names: the path of each layer of ours that has parameters to the name of Keras's layer in the file:
            ``{"conv_0": "layers/conv2d", "dense_0": "layers/dense"}``. The paths are those of ``layers.places(model)``.
        ignore: layers in the file that are not taken. Optimizers, compiled metrics and random seeds never are.

    Returns:
        ``(params, state)``: NumPy arrays in the dtypes of ``variables``.

    Raises:
        ValueError: a layer has no name, or a name no layer; two layers have one name; an array is missing, left over or
            of another shape. All of them are named, and nothing is loaded.
        TypeError: a layer of a kind that has no counterpart here.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxopt_nn import layers
        >>> model = layers.serial(layers.dense(2), jnp.tanh)
        >>> variables = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> weights = {"layers/dense/vars/0": np.ones((3, 2)), "layers/dense/vars/1": np.zeros(2)}
        >>> params, state = from_keras_weights(model, variables, weights, {"dense_0": "layers/dense"})
        >>> params["dense_0"]["kernel"].shape
        (3, 2)
    """
    given = {
        name: np.asarray(value)
        for name, value in weights.items()
        if not name.startswith(("optimizer/", "_", "compile_metrics/"))
        and "seed_generator/" not in name
        and not any(name.startswith(f"{each}/") for each in ignore)
    }
    return read_weights(model, variables, given, names, KINDS, place_by_number)


def to_keras_weights(
    model: Any, variables: tuple[Params, State], names: Names, like: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """The weights of a model of ours in Keras's layouts: the inverse of :func:`from_keras_weights`.

    Args:
        model, variables, names: as for :func:`from_keras_weights`.
        like: arrays of the model in Keras, as :func:`load_keras` reads them. Only their shapes are used.

    Returns:
        NumPy arrays by the names in ``like``, for :func:`save_keras`.

    Raises:
        ValueError, TypeError: as :func:`from_keras_weights`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxopt_nn import layers
        >>> variables = layers.dense(2).init(jax.random.key(0), jnp.ones((1, 3)))
        >>> like = {"layers/dense/vars/0": np.ones((3, 2)), "layers/dense/vars/1": np.zeros(2)}
        >>> sorted(to_keras_weights(layers.dense(2), variables, {"dense": "layers/dense"}, like))
        ['layers/dense/vars/0', 'layers/dense/vars/1']
    """
    return write_weights(model, variables, names, KINDS, place_by_number, like)


def place_by_number(module: str, arrays: Sequence[str]) -> dict[str, str]:
    """Arrays are numbered within their group: ``cell/kernel`` is ``module/cell/vars/0``."""
    counts: dict[str, int] = {}
    placed: dict[str, str] = {}
    for array in arrays:
        group = "/".join([module, *array.split("/")[:-1]])
        placed[array] = f"{group}/vars/{counts.get(group, 0)}"
        counts[group] = counts.get(group, 0) + 1
    return placed
