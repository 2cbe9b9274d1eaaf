"""Initial values of parameters: each name is a factory of a function ``init(key, shape, dtype) -> array``.

Even ``zeros()`` is a factory, so that all of them are used alike. Any initializer of ``jax.nn.initializers`` has the
same protocol and can be used in their place; these are thin over them and give the same numbers where the formulas
agree.

**Fans.** The last axis of a kernel counts its outputs, the one before its inputs, the rest is a window: dense kernels
are ``[fan_in, fan_out]``, convolution kernels ``HWIO`` with ``fan_in = H·W·I`` and ``fan_out = H·W·O``. PyTorch stores
them the other way round (``[out, in]``, ``OIHW``).

**Truncation.** ``truncated=True`` draws a normal truncated at ±2 and divides by the standard deviation 0.87962566 of
that distribution, so the *result* has the standard deviation asked for, and lies within 2.27 of it. This is the form of
JAX and Keras, and the default of Xavier, He and LeCun here; PyTorch's ``kaiming_normal_`` and ``xavier_normal_`` are
``truncated=False``.

**Defaults.** He normal and zero biases are this library's. :func:`torch_default`, :func:`torch_default_bias` and
:func:`keras_default` are the others' for dense layers and convolutions; :func:`jaxopt_nn.layers.with_defaults` draws a
whole model as those libraries do, recurrences, embeddings and attention included.

Numbers may be traced; shapes, dtypes, modes and ``truncated`` are static. Draws are made in float32 (float64 for a
float64 dtype) and then rounded to ``dtype``: parameters in bfloat16 are the rounded float32 ones.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxopt_nn._arguments import check_bool, check_key, check_number, check_positive_int
from jaxopt_nn.types import Array, ArrayLike, Key

__all__ = [
    "Distribution",
    "FanMode",
    "Initializer",
    "constant",
    "he_normal",
    "he_uniform",
    "keras_default",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "torch_default",
    "torch_default_bias",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

FanMode = Literal["fan_in", "fan_out", "fan_avg"]
Distribution = Literal["normal", "truncated_normal", "uniform"]

_TRUNCATED_STDDEV = 0.87962566103423978  # the standard deviation of a standard normal truncated at ±2


class Initializer(Protocol):
    """``init(key, shape, dtype) -> array``: what every factory of this module returns."""

    def __call__(self, key: Key, shape: Sequence[int], dtype: DTypeLike = ..., /) -> Array: ...


def zeros() -> Initializer:
    """All zeros: for biases. Equal units stay equal under gradient descent, so hidden kernels cannot start here.

    Returns:
        An initializer that reads no key (it may be None).

    >>> zeros()(None, (2,)).tolist()
    [0.0, 0.0]
    """
    return constant(0.0)


def constant(value: ArrayLike) -> Initializer:
    """All elements equal to ``value``.

    Args:
        value: a finite number; may be traced.

    Returns:
        An initializer that reads no key (it may be None).

    Raises:
        ValueError: ``value`` is not finite.

    >>> constant(0.5)(None, (2,)).tolist()
    [0.5, 0.5]
    """
    check_number("value", value)

    def init(key: Key, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        del key
        return jnp.full(_checked_shape(shape), value, dtype)

    return init


def normal(stddev: ArrayLike, *, truncated: bool = False) -> Initializer:
    """Independent N(0, stddev²).

    Args:
        stddev: standard deviation of the values drawn, >= 0; may be traced.
        truncated: draw within ±2.27 stddev, with the same standard deviation; static.

    Returns:
        An initializer for any shape.

    Raises:
        ValueError: ``stddev`` is negative or not finite.

    Differs from ``jax.nn.initializers.truncated_normal`` in that ``stddev`` is the one after truncation.

    >>> w = normal(0.1)(jax.random.key(0), (100, 100))
    >>> bool(abs(w.std() - 0.1) < 0.003)
    True
    """
    check_number("stddev", stddev, 0.0)
    check_bool("truncated", truncated)
    if truncated:
        return _drawn(jax.nn.initializers.truncated_normal(stddev / _TRUNCATED_STDDEV))
    return _drawn(jax.nn.initializers.normal(stddev))


def uniform(bound: ArrayLike) -> Initializer:
    """Independent U[-bound, bound): symmetric, with standard deviation bound/√3.

    Args:
        bound: half the width of the interval, >= 0; may be traced.

    Returns:
        An initializer for any shape.

    Raises:
        ValueError: ``bound`` is negative or not finite.

    Differs from ``jax.nn.initializers.uniform(scale)``, which draws from [0, scale), and ``torch.nn.init.uniform_``,
    from [0, 1) by default: weights of one sign are rarely wanted.

    >>> w = uniform(0.1)(jax.random.key(0), (100, 100))
    >>> bool(-0.1 <= w.min() < -0.09) and bool(0.09 < w.max() < 0.1)
    True
    """
    check_number("bound", bound, 0.0)

    def draw(key: Key, shape: Sequence[int], dtype: DTypeLike) -> Array:
        return _uniform(key, shape, dtype) * jnp.asarray(bound, dtype)

    return _drawn(draw)


def xavier_uniform(*, gain: ArrayLike = 1.0) -> Initializer:
    """Xavier (Glorot) uniform: U[-a, a) with a = gain·√(6 / (fan_in + fan_out)). For tanh and sigmoid.

    Args:
        gain: factor on the standard deviation, > 0; may be traced. PyTorch's gain for tanh is 5/3.

    Returns:
        An initializer for shapes of rank >= 2.

    Raises:
        ValueError: ``gain`` is not positive and finite.

    References:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010, eq. 16.

    >>> w = xavier_uniform()(jax.random.key(0), (64, 32))
    >>> bool(abs(w).max() <= (6 / 96) ** 0.5)
    True
    """
    check_number("gain", gain, 0.0, open_low=True)
    return variance_scaling(gain * gain, "fan_avg", "uniform")


def xavier_normal(*, gain: ArrayLike = 1.0, truncated: bool = True) -> Initializer:
    """Xavier (Glorot) normal: variance gain²·2 / (fan_in + fan_out). For tanh and sigmoid.

    Args:
        gain: factor on the standard deviation, > 0; may be traced.
        truncated: see the module; static.

    Returns:
        An initializer for shapes of rank >= 2.

    Raises:
        ValueError: ``gain`` is not positive and finite.

    References:
        Glorot and Bengio, 2010, eq. 12.

    Differs from ``torch.nn.init.xavier_normal_`` in the default: that one is ``truncated=False``.

    >>> w = xavier_normal()(jax.random.key(0), (96, 32))
    >>> bool(abs(w.var() * 64 - 1) < 0.1)
    True
    """
    check_number("gain", gain, 0.0, open_low=True)
    return variance_scaling(gain * gain, "fan_avg", _normal(truncated))


def he_uniform(*, negative_slope: ArrayLike = 0.0, mode: FanMode = "fan_in") -> Initializer:
    """He (Kaiming) uniform: U[-a, a) with a = √(6 / ((1 + negative_slope²)·fan)). For ReLU and leaky ReLU.

    Args:
        negative_slope: the slope of the leaky ReLU that follows, 0 for ReLU; may be traced.
        mode: "fan_in" keeps the variance of activations, "fan_out" that of gradients; static.

    Returns:
        An initializer for shapes of rank >= 2.

    Raises:
        ValueError: ``negative_slope`` is not finite, or an unknown ``mode``.

    References:
        He et al., "Delving deep into rectifiers", 2015, eqs. 10, 14 and 15.

    >>> w = he_uniform()(jax.random.key(0), (64, 32))
    >>> bool(abs(w).max() <= (6 / 64) ** 0.5)
    True
    """
    check_number("negative_slope", negative_slope)
    return variance_scaling(2.0 / (1.0 + negative_slope * negative_slope), mode, "uniform")


def he_normal(*, negative_slope: ArrayLike = 0.0, mode: FanMode = "fan_in", truncated: bool = True) -> Initializer:
    """He (Kaiming) normal: variance 2 / ((1 + negative_slope²)·fan). For ReLU and leaky ReLU.

    Args:
        negative_slope: the slope of the leaky ReLU that follows, 0 for ReLU; may be traced.
        mode: "fan_in" keeps the variance of activations, "fan_out" that of gradients; static.
        truncated: see the module; static.

    Returns:
        An initializer for shapes of rank >= 2.

    Raises:
        ValueError: ``negative_slope`` is not finite, or an unknown ``mode``.

    References:
        He et al., 2015, eqs. 10, 14 and 15.

    Differs from ``torch.nn.init.kaiming_normal_`` in the default: that one is ``truncated=False``.

    >>> w = he_normal()(jax.random.key(0), (64, 128))
    >>> bool(abs(w.var() * 32 - 1) < 0.1)
    True
    """
    check_number("negative_slope", negative_slope)
    return variance_scaling(2.0 / (1.0 + negative_slope * negative_slope), mode, _normal(truncated))


def lecun_uniform(*, gain: ArrayLike = 1.0) -> Initializer:
    """LeCun uniform: U[-a, a) with a = gain·√(3 / fan_in). For linear, SELU and softmax layers.

    Args:
        gain: factor on the standard deviation, > 0; may be traced. PyTorch's default kernel of a linear layer,
            U(±1/√fan_in), is ``gain=3**-0.5``.

    Returns:
        An initializer for shapes of rank >= 2.

    Raises:
        ValueError: ``gain`` is not positive and finite.

    References:
        LeCun et al., "Efficient BackProp", 1998, eq. 16.

    >>> w = lecun_uniform()(jax.random.key(0), (75, 32))
    >>> bool(abs(w).max() <= 0.2)
    True
    """
    check_number("gain", gain, 0.0, open_low=True)
    return variance_scaling(gain * gain, "fan_in", "uniform")


def lecun_normal(*, gain: ArrayLike = 1.0, truncated: bool = True) -> Initializer:
    """LeCun normal: variance gain² / fan_in. For linear, SELU and softmax layers.

    Args:
        gain: factor on the standard deviation, > 0; may be traced.
        truncated: see the module; static.

    Returns:
        An initializer for shapes of rank >= 2.

    Raises:
        ValueError: ``gain`` is not positive and finite.

    References:
        LeCun et al., 1998, eq. 16; Klambauer et al., "Self-normalizing neural networks", 2017.

    >>> w = lecun_normal()(jax.random.key(0), (64, 128))
    >>> bool(abs(w.var() * 64 - 1) < 0.1)
    True
    """
    check_number("gain", gain, 0.0, open_low=True)
    return variance_scaling(gain * gain, "fan_in", _normal(truncated))


def torch_default() -> Initializer:
    """PyTorch's default for kernels of linear layers and convolutions: U[-a, a) with a = 1/√fan_in.

    Its standard deviation 1/√(3·fan_in) is 0.41 of He's: activations of a deep ReLU network shrink by 0.41 a layer. (In
    PyTorch it is written as Kaiming uniform with a = √5, which makes the same bound.)

    Returns:
        An initializer for shapes of rank >= 2: ``lecun_uniform(gain=3**-0.5)``.

    >>> w = torch_default()(jax.random.key(0), (100, 32))
    >>> bool(0.099 < abs(w).max() <= 0.1)
    True
    """
    return lecun_uniform(gain=3**-0.5)


def torch_default_bias(fan_in: int) -> Initializer:
    """PyTorch's default for biases of linear layers and convolutions: U[-a, a) with a = 1/√fan_in.

    Args:
        fan_in: of the kernel beside it, which a bias does not show (static, >= 1).

    Returns:
        An initializer for any shape.

    Raises:
        ValueError: ``fan_in`` is below 1.

    >>> b = torch_default_bias(100)(jax.random.key(0), (1000,))
    >>> bool(0.099 < abs(b).max() <= 0.1)
    True
    """
    check_positive_int("fan_in", fan_in)
    return uniform(fan_in**-0.5)


def keras_default() -> Initializer:
    """Keras's default for kernels of dense layers and convolutions: Glorot uniform; its biases are zeros.

    Returns:
        An initializer for shapes of rank >= 2: ``xavier_uniform()``.

    >>> w = keras_default()(jax.random.key(0), (64, 32))
    >>> bool(abs(w).max() <= (6 / 96) ** 0.5)
    True
    """
    return xavier_uniform()


def orthogonal(*, gain: ArrayLike = 1.0) -> Initializer:
    """A uniformly distributed orthogonal matrix, times ``gain``.

    All axes but the last are taken together as rows: the smaller of the two sides is orthonormal, WᵀW = gain²·I or
    WWᵀ = gain²·I.

    Args:
        gain: factor, finite; may be traced.

    Returns:
        An initializer for shapes of rank >= 2.

    Raises:
        ValueError: ``gain`` is not finite.

    References:
        Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning", 2013, section 3.

    >>> w = orthogonal()(jax.random.key(0), (8, 3))
    >>> bool(abs(w.T @ w - jnp.eye(3)).max() < 1e-5)
    True
    """
    check_number("gain", gain)
    return _drawn(jax.nn.initializers.orthogonal(gain), needs_matrix=True)


def variance_scaling(scale: ArrayLike, mode: FanMode, distribution: Distribution) -> Initializer:
    """Zero mean and variance scale / fan: the family that Xavier, He and LeCun are members of.

    ===========  ========  =============
    member       scale     mode
    ===========  ========  =============
    LeCun        gain²     ``"fan_in"``
    Xavier       gain²     ``"fan_avg"``
    He           2         ``"fan_in"``
    ===========  ========  =============

    Args:
        scale: numerator of the variance, > 0; may be traced.
        mode: "fan_in", "fan_out", or "fan_avg", their mean; static.
        distribution: "normal", "truncated_normal" or "uniform"; static.

    Returns:
        An initializer for shapes of rank >= 2. It raises ``ValueError`` for other shapes.

    Raises:
        ValueError: ``scale`` is not positive and finite; an unknown ``mode`` or ``distribution``.

    >>> same = variance_scaling(2.0, "fan_in", "truncated_normal")(jax.random.key(0), (5, 7)) == he_normal()(
    ...     jax.random.key(0), (5, 7))
    >>> bool(same.all())
    True
    """
    check_number("scale", scale, 0.0, open_low=True)
    for name, value, choices in (("mode", mode, FanMode), ("distribution", distribution, Distribution)):
        if value not in get_args(choices):
            raise ValueError(f"{name}: expected one of {list(get_args(choices))}, got {value!r}")

    def draw(key: Key, shape: Sequence[int], dtype: DTypeLike) -> Array:
        window = math.prod(shape[:-2])
        fan_in, fan_out = window * shape[-2], window * shape[-1]
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        variance = jnp.asarray(scale / fan, dtype)
        if distribution == "uniform":
            return _uniform(key, shape, dtype) * jnp.sqrt(3 * variance)
        if distribution == "normal":
            return jax.nn.initializers.normal(1.0)(key, shape, dtype) * jnp.sqrt(variance)
        stddev = jnp.sqrt(variance) / jnp.asarray(_TRUNCATED_STDDEV, dtype)
        return jax.nn.initializers.truncated_normal(1.0)(key, shape, dtype) * stddev

    return _drawn(draw, needs_matrix=True)


def _normal(truncated: bool) -> Distribution:
    check_bool("truncated", truncated)
    return "truncated_normal" if truncated else "normal"


def _uniform(key: Key, shape: Sequence[int], dtype: DTypeLike) -> Array:
    """U[-1, 1)."""
    return jax.random.uniform(key, shape, dtype, -1.0)


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, Sequence) or not all(isinstance(size, (int, np.integer)) for size in shape):
        raise TypeError(f"shape: expected a sequence of ints such as (4, 3), got {shape!r}")
    return tuple(shape)


def _drawn(draw: Any, *, needs_matrix: bool = False) -> Initializer:
    """``draw`` with its arguments checked, carried out in float32 or wider."""

    def init(key: Key, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        check_key("key", key)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"dtype: expected a floating dtype, got {jnp.dtype(dtype)}")
        shape = _checked_shape(shape)
        if needs_matrix and (len(shape) < 2 or min(shape) < 1):
            raise ValueError(
                f"shape: expected [..., fan_in, fan_out] with two axes or more and sizes >= 1, got {list(shape)}"
            )
        return draw(key, shape, jnp.promote_types(dtype, jnp.float32)).astype(dtype)

    return init
