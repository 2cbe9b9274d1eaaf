"""Normalizations of each example by itself: without state, and the same in training and in evaluation.

Statistics are computed in two passes, in float32 at least, and in a unit near the largest magnitude. So the squares of
very large and very small numbers are right, and nothing is divided by zero, even if ``epsilon`` is 0. The output has
the dtype of the input.
"""

from collections.abc import Callable
from typing import Any, Never

import jax.numpy as jnp

from jaxopt_nn._arguments import check_number, check_positive_int
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.layers._normalization.moments import (
    check_no_features,
    check_normalized,
    inverse_deviation,
    moments,
    scale_and_bias,
    unit_of,
)
from jaxopt_nn.types import Array, ArrayLike, Key, Layer, Params, State

__all__ = ["group_norm", "instance_norm", "layer_norm", "rms_norm"]


def layer_norm(*features: Never, epsilon: ArrayLike = 1e-5, use_scale: bool = True, use_bias: bool = True) -> Layer:
    """Layer normalization over the last axis: ``y = γ (x − μ)/√(σ² + ε) + β``, for each example and position.

    Args:
        *features: not to be given: the number follows from the input.
        epsilon: ε, >= 0; may be traced.
        use_scale: whether there is a γ (static).
        use_bias: whether there is a β (static).

    Returns:
        A layer with parameters ``scale`` (ones) and ``bias`` (zeros), ``[features]``.

    Raises:
        ValueError: for an input that is not floating-point ``[batch, ..., features]``, or with a single feature,
            whatever of which would become 0.
        TypeError: for a number of features.

    References:
        Ba, Kiros and Hinton, "Layer normalization", 2016.

    Differs in ε from flax.linen.LayerNorm (1e-6) and keras.layers.LayerNormalization (1e-3); torch's is 1e-5.

    >>> import jax.numpy as jnp
    >>> y, _ = layer_norm(epsilon=0.0).apply({}, {}, jnp.array([[1.0, 3.0]]))
    >>> y.tolist()
    [[-1.0, 1.0]]
    """
    check_no_features("layer_norm", features)
    check_number("epsilon", epsilon, 0)

    def check(x: Any, features: int | None = None) -> None:
        check_normalized(x, features)
        if x.shape[-1] == 1:
            raise ValueError(f"expected more than one feature to normalize over, got shape {list(x.shape)}")

    def normalize(x: Array) -> Array:
        return _normalized(x, (x.ndim - 1,), epsilon)

    return _normalization(normalize, check, use_scale, use_bias, "layer_norm")


def rms_norm(*features: Never, epsilon: ArrayLike = 1e-6, use_scale: bool = True) -> Layer:
    """Root-mean-square normalization over the last axis: ``y = γ x/√(mean(x²) + ε)``.

    Args:
        *features: not to be given: the number follows from the input.
        epsilon: ε, >= 0; may be traced.
        use_scale: whether there is a γ (static).

    Returns:
        A layer with the parameter ``scale`` (ones), ``[features]``.

    Raises:
        ValueError: for an input that is not floating-point ``[batch, ..., features]``.
        TypeError: for a number of features.

    References:
        Zhang and Sennrich, "Root mean square layer normalization", 2019, equation 4.

    Differs in ε from torch.nn.RMSNorm (the dtype's machine epsilon); Flax's and Keras's are 1e-6.

    >>> import jax.numpy as jnp
    >>> y, _ = rms_norm(epsilon=0.0).apply({}, {}, jnp.array([[10.0, 10.0, 20.0, -20.0]]))
    >>> bool(abs((y**2).mean() - 1) < 1e-6)
    True
    """
    check_no_features("rms_norm", features)
    check_number("epsilon", epsilon, 0)

    def normalize(x: Array) -> Array:
        unit = unit_of(x, (x.ndim - 1,), epsilon)
        x = x * (1 / unit)
        return x * inverse_deviation(jnp.mean(jnp.square(x), -1, keepdims=True), epsilon, unit)

    return _normalization(normalize, check_normalized, use_scale, False, "rms_norm")


def group_norm(
    groups: int = 32, *features: Never, epsilon: ArrayLike = 1e-5, use_scale: bool = True, use_bias: bool = True
) -> Layer:
    """Group normalization: over all positions and the channels of a group, for each example.

    Args:
        groups: number of groups that the channels are split into, a divisor of their number (static). With 1 it is
            a layer normalization over positions and channels.
        *features: not to be given: the number follows from the input.
        epsilon: ε, >= 0; may be traced.
        use_scale: whether there is a γ for each channel (static).
        use_bias: whether there is a β for each channel (static).

    Returns:
        A layer with parameters ``scale`` (ones) and ``bias`` (zeros), ``[channels]``.

    Raises:
        ValueError: for an input that is not floating-point ``[batch, ..., channels]``, or if ``groups`` does not divide
            the channels, or leaves groups of a single number, whatever of which would become 0.
        TypeError: for a number of channels.

    References:
        Wu and He, "Group normalization", 2018.

    Differs in ε from flax.linen.GroupNorm (1e-6) and keras.layers.GroupNormalization (1e-3); torch's is 1e-5.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])
    >>> group_norm(2, epsilon=0.0).apply({}, {}, x)[0].tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    check_no_features("group_norm", features)
    check_positive_int("groups", groups)
    groups = int(groups)  # of NumPy's integers too
    check_number("epsilon", epsilon, 0)

    def check(x: Any, features: int | None = None) -> None:
        check_normalized(x, features)
        if x.shape[-1] % groups:
            raise ValueError(f"groups: expected a divisor of the {x.shape[-1]} channels, got {groups}")
        if all(size == 1 for size in (*x.shape[1:-1], x.shape[-1] // groups)):
            raise ValueError(f"groups: expected groups of more than one number, got {groups} of shape {list(x.shape)}")

    def normalize(x: Array) -> Array:
        parts = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
        return _normalized(parts, (*range(1, x.ndim - 1), x.ndim), epsilon).reshape(x.shape)

    return _normalization(normalize, check, use_scale, use_bias, "group_norm")


def instance_norm(*features: Never, epsilon: ArrayLike = 1e-5, use_scale: bool = True, use_bias: bool = True) -> Layer:
    """Instance normalization: over the positions, for each example and channel.

    Args:
        *features: not to be given: the number follows from the input.
        epsilon: ε, >= 0; may be traced.
        use_scale: whether there is a γ for each channel (static).
        use_bias: whether there is a β for each channel (static).

    Returns:
        A layer with parameters ``scale`` (ones) and ``bias`` (zeros), ``[channels]``.

    Raises:
        ValueError: for an input that is not floating-point ``[batch, spatial axes ..., channels]``, or with a single
            position, whatever of which would become 0.
        TypeError: for a number of channels.

    References:
        Ulyanov, Vedaldi and Lempitsky, "Instance normalization: the missing ingredient for fast stylization", 2016.

    Differs from torch.nn.InstanceNorm2d, which by default has neither scale nor bias.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0, 10.0], [3.0, 30.0]]])
    >>> instance_norm(epsilon=0.0).apply({}, {}, x)[0].tolist()
    [[[-1.0, -1.0], [1.0, 1.0]]]
    """
    check_no_features("instance_norm", features)
    check_number("epsilon", epsilon, 0)

    def check(x: Any, features: int | None = None) -> None:
        check_normalized(x, features, spatial=True)
        if all(size == 1 for size in x.shape[1:-1]):
            raise ValueError(f"expected more than one position to normalize over, got shape {list(x.shape)}")

    def normalize(x: Array) -> Array:
        return _normalized(x, tuple(range(1, x.ndim - 1)), epsilon)

    return _normalization(normalize, check, use_scale, use_bias, "instance_norm")


def _normalized(x: Array, axes: tuple[int, ...], epsilon: ArrayLike) -> Array:
    unit = unit_of(x, axes, epsilon)
    deviation, variance = moments(x, axes, unit)
    return deviation * inverse_deviation(variance, epsilon, unit)


def _normalization(
    normalize: Callable[[Array], Array], check: Callable[..., None], use_scale: bool, use_bias: bool, name: str
) -> Layer:
    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key
        check(x)
        params: dict[str, Array] = {}
        if use_scale:
            params["scale"] = jnp.ones(x.shape[-1:], x.dtype)
        if use_bias:
            params["bias"] = jnp.zeros(x.shape[-1:], x.dtype)
        return params, {}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Array, State]:
        del train, key, weight
        vectors = [vector.shape[0] for vector in params.values()]
        check(x, vectors[0] if vectors else None)
        return scale_and_bias(normalize(x.astype(compute_dtype(x))), params).astype(x.dtype), state

    return Layer(init, apply, name)
