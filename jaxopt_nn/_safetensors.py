"""Arrays in safetensors files: names to arrays, written whole or not at all. Nothing in such a file is executed.

A PRNG key is written as the numbers that it consists of; whoever reads it has to say that it is one.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

__all__ = ["impl_of", "is_key", "like", "numbers_of", "read_arrays", "write_arrays"]

_DTYPES = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
}


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes a file, first beside ``path``: what is found there is the old file or the whole new one.

    Raises:
        TypeError: a dtype that such a file cannot hold.
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    numbers = {name: numbers_of(name, array) for name, array in arrays.items()}
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(numbers, beside)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except SafetensorError as error:  # its word for a full disk, too
        raise OSError(str(error)) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file, on the host.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, is no safetensors file, or has a dtype that NumPy does not have.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
    except (SafetensorError, AttributeError) as error:
        raise ValueError(f"{path}: expected a safetensors file: {error}") from error


def is_key(leaf: Any) -> bool:
    """Whether it is an array of typed PRNG keys, or the shape of one."""
    return bool(jnp.issubdtype(getattr(leaf, "dtype", np.dtype(bool)), jax.dtypes.prng_key))


def numbers_of(name: str, leaf: Any) -> NDArray[Any]:
    """The array as a file holds it: NumPy's, in one piece; of a PRNG key its numbers."""
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"{name}: expected a dtype that a safetensors file can hold, got {array.dtype}")
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def like(path: str, leaf: Any, array: NDArray[Any]) -> Any:
    """An array that was read, as one like ``leaf``: of NumPy, or PRNG keys. Raises for another shape or dtype."""
    numbers = leaf if hasattr(leaf, "dtype") else jax.typeof(leaf)
    expected = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else numbers
    if array.shape != expected.shape or array.dtype != expected.dtype:
        want, got = (f"{each.dtype}{list(each.shape)}" for each in (expected, array))
        raise ValueError(f"{path}: expected {want}, got {got} from the file")
    return jax.random.wrap_key_data(jnp.asarray(array), impl=impl_of(leaf)) if is_key(leaf) else array


def impl_of(leaf: Any) -> Any:
    """The name of the generator of PRNG keys, of which only the shape may be there."""
    impl: list[Any] = []
    jax.eval_shape(lambda key: impl.append(jax.random.key_impl(key)), leaf)
    return impl[0]
