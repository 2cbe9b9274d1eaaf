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
    "check_class_labels",
    "check_each",
    "check_key",
    "check_number",
    "check_one_number",
    "check_positive_int",
    "check_same_shape",
    "check_weight",
    "concrete_array",
    "concrete_number",
]


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


def check_number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Raises unless ``value`` is a finite number within the range, or traced."""
    if not hasattr(value, "dtype") and not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    number = concrete_number(value)
    if number is None:
        return
    below = number <= low if open_low and math.isfinite(low) else number < low
    above = number >= high if open_high and math.isfinite(high) else number > high
    if not math.isfinite(number) or below or above:
        left, right = "(" if open_low or low == -math.inf else "[", ")" if open_high or high == math.inf else "]"
        raise ValueError(f"{name}: expected a finite number in {left}{low:g}, {high:g}{right}, got {number:g}")


def check_one_number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    whole: bool = False,
) -> None:
    """As :func:`check_number`, and raises for an array of numbers, or where a concrete one is not ``whole``."""
    check_number(name, value, low, high, open_low=open_low, open_high=open_high)
    if np.ndim(value) != 0:
        raise ValueError(
            f"{name}: expected one number, got an array of shape {np.shape(value)}; to sweep it, use jax.vmap"
        )
    number = concrete_number(value)
    if whole and number is not None and not number.is_integer():
        raise ValueError(f"{name}: expected an integer, got {number:g}")


def check_positive_int(name: str, value: Any, *, high: int | None = None) -> None:
    """Raises unless ``value`` is a Python (or NumPy) integer >= 1 (and <= ``high``)."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name}: expected a Python int, got a traced value. It fixes a shape, so it cannot be traced: "
            f"wrap it as jaxopt_nn.types.Static(value) where it enters as a hyperparameter"
        )
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
        raise TypeError(f"{name}: expected integer class labels, got {dtype}{list(np.shape(labels))}")
    values = concrete_array(labels)
    if values is not None:
        check_each(name, values, (values >= 0) & (values < num_classes), f"a class label in [0, {num_classes})")


def check_weight(name: str, weight: Any, length: int) -> None:
    """Raises unless ``weight`` is ``[length]`` and, where it is concrete, finite and non-negative."""
    if np.shape(weight) != (length,):
        raise ValueError(f"{name}: expected one weight an example, [{length}], got {list(np.shape(weight))}")
    values = concrete_array(weight)
    if values is not None:
        check_each(name, values, np.isfinite(values) & (values >= 0), "a finite number >= 0")


def check_each(name: str, values: np.ndarray[Any, Any], valid: Any, expected: str) -> None:
    """Raises at the first entry (or, if ``valid`` has fewer axes, row) of concrete ``values`` that is not ``valid``."""
    if not np.all(valid):
        index = tuple(int(i) for i in np.argwhere(~valid)[0])
        raise ValueError(f"{name}{list(index)}: expected {expected}, got {values[index]}")
