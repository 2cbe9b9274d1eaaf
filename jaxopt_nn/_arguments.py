"""Checks of arguments that every module makes alike: each names the argument, what was expected and what came.

A traced number passes: its value is not known while a program is traced. What it does to a run shows in the run's
status.
"""

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

__all__ = [
    "UnusableValueError",
    "check_bool",
    "check_class_labels",
    "check_distributions",
    "check_each",
    "check_key",
    "check_number",
    "check_positive_int",
    "check_probabilities",
    "check_same_shape",
    "check_weight",
    "concrete_array",
    "concrete_number",
    "is_distribution",
    "is_probability",
    "plain_array",
    "refuse_masked",
]

_STATIC = (
    "It decides what is compiled, so it cannot be traced: "
    "wrap it as jaxopt_nn.types.Static(value) where it enters as a hyperparameter"
)
_TOLERANCE = 1e-2  # on targets that are probabilities: in bfloat16, or mixed, they miss 0, 1 and the sum 1 a little


class UnusableValueError(ValueError):
    """An entry of an array that holds no usable value, as opposed to a wrong shape or option."""


def concrete_number(value: Any) -> float | None:
    """The value of a Python or NumPy number or of a concrete scalar array; None for a tracer or a larger array."""
    if isinstance(value, jax.core.Tracer) or np.ndim(value) != 0:
        return None
    return float(value)


def concrete_array(value: Any) -> np.ndarray[Any, Any] | None:
    """The values of a concrete array, those of a float dtype narrower than float32 in that; None for a tracer."""
    if isinstance(value, jax.core.Tracer):
        return None
    array = np.asarray(value)
    narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
    return array.astype(np.float32) if narrow else array  # NumPy warns when it compares a bfloat16 NaN


def plain_array(name: str, value: Any) -> Any:
    """``value`` as an array that JAX takes as it is; JAX arrays and tracers pass.

    Lists become NumPy arrays, and other byte orders the machine's. A masked array, text, objects and numbers that JAX
    would change in silence, because they do not fit its 32 bits, are refused.
    """
    if isinstance(value, (jax.Array, jax.ShapeDtypeStruct)):
        return value
    if isinstance(value, (list, tuple)) and any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
        return jnp.asarray(value)
    refuse_masked(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:  # NumPy's word for a ragged list is "inhomogeneous shape"
        raise ValueError(f"{name}: expected rows of equal shape, got something that makes no array: {error}") from error
    if array.dtype.kind in "OUSMm":
        got = "None" if value is None else f"dtype {array.dtype}"
        raise TypeError(f"{name}: expected an array of numbers, got {got}")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    target = jax.dtypes.canonicalize_dtype(array.dtype)
    if target != array.dtype:  # 64 bits where JAX is set to 32
        with np.errstate(over="ignore"):
            narrow = array.astype(target)
        changed = narrow != array if array.dtype.kind in "iu" else ~np.isfinite(narrow) & np.isfinite(array)
        check_each(name, array, ~changed, f"numbers that fit {target}")
    return array


def check_number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    whole: bool = False,
) -> None:
    """Raises unless ``value`` is one real number: finite, within the range and, if asked for, ``whole``; or traced.

    The dtype and the shape of a traced value are known, and checked. A bool is no number.
    """
    array = isinstance(value, (np.ndarray, np.generic, jax.Array))
    if isinstance(value, bool) or not (_is_real(value.dtype) if array else isinstance(value, (int, float))):
        kind = f"{value.dtype}{list(value.shape)}" if isinstance(value, jax.core.Tracer) else repr(value)
        raise TypeError(f"{name}: expected a number, got {kind}")
    if np.ndim(value) != 0:
        raise ValueError(
            f"{name}: expected one number, got an array of shape {np.shape(value)}; to sweep it, use jax.vmap"
        )
    refuse_masked(name, value)
    number = concrete_number(value)
    if number is None:
        return
    below = number <= low if open_low and math.isfinite(low) else number < low
    above = number >= high if open_high and math.isfinite(high) else number > high
    if not math.isfinite(number) or below or above:
        left, right = "(" if open_low or low == -math.inf else "[", ")" if open_high or high == math.inf else "]"
        raise ValueError(f"{name}: expected a finite number in {left}{low:g}, {high:g}{right}, got {number:g}")
    if whole and not number.is_integer():
        raise ValueError(f"{name}: expected an integer, got {number:g}")


def check_bool(name: str, value: Any) -> None:
    """Raises unless ``value`` is True or False, of Python or NumPy: 0, 1 and "no" are none."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{name}: expected True or False, got a traced value. {_STATIC}")
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r} of type {type(value).__name__}")


def check_positive_int(name: str, value: Any, *, high: int | None = None) -> None:
    """Raises unless ``value`` is a Python (or NumPy) integer >= 1 (and <= ``high``)."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{name}: expected a Python int, got a traced value. It fixes a shape. {_STATIC}")
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected a positive int, got {value!r} of type {type(value).__name__}")
    if value < 1 or (high is not None and value > high):
        raise ValueError(f"{name}: expected an int in [1, {'inf)' if high is None else f'{high}]'}, got {value}")


def check_key(name: str, key: Any) -> None:
    """Raises unless ``key`` is one PRNG key: ``jax.random.key(seed)``, or the older ``jax.random.PRNGKey(seed)``."""
    if isinstance(key, jax.Array):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
            return
        if key.dtype == jnp.uint32 and key.shape == (2,):
            return
        raise TypeError(f"{name}: expected one PRNG key, got an array {key.dtype}{list(key.shape)}")
    hint = f"; make one with jax.random.key({key})" if isinstance(key, (int, np.integer)) else ""
    raise TypeError(f"{name}: expected a PRNG key, got {key!r} of type {type(key).__name__}{hint}")


def check_same_shape(name: str, value: Any, other_name: str, other: Any) -> None:
    """Raises unless two arrays have one shape: ``[N, 1]`` against ``[N]`` would silently broadcast to ``[N, N]``."""
    shape, want = np.shape(value), np.shape(other)
    if shape != want:
        squeezed = [size for size in shape if size != 1] == [size for size in want if size != 1]
        hint = "; drop or add the axis of size 1 in one of them" if squeezed else ""
        raise ValueError(f"{name}: expected the shape {list(want)} of {other_name}, got {list(shape)}{hint}")


def check_class_labels(name: str, labels: Any, num_classes: int) -> None:
    """Raises unless ``labels`` are integers and, where they are concrete, lie in ``[0, num_classes)``."""
    dtype = jnp.result_type(labels)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(
            f"{name}: expected integer class labels, got {dtype}{list(np.shape(labels))}; convert them: astype(int)"
        )
    values = concrete_array(labels)
    if values is not None and values.size:
        from_one = values.min() == 1 and values.max() == num_classes
        hint = "; classes count from 0: subtract 1" if from_one else ""
        expected = f"a class label in [0, {num_classes})"
        check_each(name, values, (values >= 0) & (values < num_classes), expected, hint)


def check_distributions(name: str, rows: Any, *, or_nan: bool = False) -> None:
    """Raises unless each row of concrete ``rows`` is a distribution of classes, or holds a NaN where that counts."""
    values = concrete_array(rows)
    if values is not None:
        valid = is_distribution(values.astype(np.float64))
        check_each(name, values, valid | (or_nan & np.isnan(values).any(-1)), "probabilities that sum to 1")


def check_probabilities(name: str, values: Any, *, or_nan: bool = False) -> None:
    """Raises unless concrete ``values`` lie in [0, 1], or are NaN where that counts."""
    array = concrete_array(values)
    if array is not None:
        check_each(name, array, is_probability(array) | (or_nan & np.isnan(array)), "a probability in [0, 1]")


def is_distribution(p: Any) -> Any:
    """Whether each row is one, up to the rounding of a low precision."""
    return (p >= -_TOLERANCE).all(-1) & (abs(p.sum(-1) - 1) <= _TOLERANCE)


def is_probability(p: Any) -> Any:
    """Whether each number lies in [0, 1], up to the rounding of a low precision."""
    return (p >= -_TOLERANCE) & (p <= 1 + _TOLERANCE)


def check_weight(name: str, weight: Any, length: int) -> None:
    """Raises unless ``weight`` is ``[length]`` and, where it is concrete, finite and non-negative."""
    if np.shape(weight) != (length,):
        raise ValueError(f"{name}: expected one weight an example, [{length}], got {list(np.shape(weight))}")
    values = concrete_array(weight)
    if values is not None:
        check_each(name, values, np.isfinite(values) & (values >= 0), "a finite number >= 0")


def check_each(name: str, values: np.ndarray[Any, Any], valid: Any, expected: str, hint: str = "") -> None:
    """Raises at the first entry (or, if ``valid`` has fewer axes, row) of concrete ``values`` that is not ``valid``."""
    if not np.all(valid):
        index = tuple(int(i) for i in np.argwhere(~valid)[0])
        raise UnusableValueError(f"{name}{list(index)}: expected {expected}, got {values[index]}{hint}")


def _is_real(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, np.integer) or jnp.issubdtype(dtype, np.floating))


def refuse_masked(name: str, value: Any) -> None:
    """Raises for a masked array of NumPy's that hides a value: it would count as any other number."""
    if np.ma.is_masked(value):
        raise TypeError(
            f"{name}: expected an array without hidden values, got a masked array: fill it with .filled(number), "
            f"leave the rows out, or give them weight 0"
        )
