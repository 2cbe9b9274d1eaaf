"""The few array operations that have, or may have, a fast form for some machine. Everything else is plain ``jnp``.

:mod:`jaxopt_nn._ops.plain` says what each operation is, in a few lines of ``jnp`` and ``lax``. That is the
specification, and what runs on every backend by default. :mod:`jaxopt_nn._ops.cpu` holds fast forms for XLA's CPU
backend. This file is the only place that chooses between them, and nothing outside of this folder knows a backend.

**The contract.** A fast form has

* the signature of the plain form;
* its values and derivatives of every order, to rounding; random bits exactly;
* these under ``vmap`` over any axis of any argument, ``jit``, ``scan``, ``checkpoint``, ``shard_map`` and
  ``jax.export``, of sharded inputs, of every floating-point dtype, of sizes zero and one;
* a number that is not finite in one example reaches no other example;
* 1.10 times the speed, end to end, in one of the rows 1 to 6 of the benchmarks. Else it is deleted.

``tests/ops`` compares each pair under the compiler's default options.

**The switch.** With the environment variable ``JAXOPT_NN_OPS=plain``, read once, the plain forms run everywhere: the
first thing to try when a result looks wrong.

**What is not here.** Matrix products, moments, permutations, the global norm, the choice between two states: their fast
forms did not pay and were deleted, so each is the ``jnp`` or ``lax`` call in the file that needs it. A dropout mask is
a comparison with :func:`random_uint16`.
"""

import contextlib
import contextvars
import functools
import math
import os
from collections.abc import Generator, Sequence

import jax
import jax.numpy as jnp

from jaxopt_nn._ops import plain
from jaxopt_nn._ops.cpu import convolution, pooling
from jaxopt_nn._ops.machine import (
    BARRIER,
    VMAP_RULE_CALL,
    compiler_options,
    device_memory,
    hidden_value,
    lanes_of_a_device,
    platform,
)
from jaxopt_nn._ops.plain import any_over_vmapped_axis, random_uint16
from jaxopt_nn._ops.windows import Axis, Lowering
from jaxopt_nn.types import Array

__all__ = [
    "BARRIER",
    "VMAP_RULE_CALL",
    "any_over_vmapped_axis",
    "compiler_options",
    "convolve",
    "convolve_transposed",
    "device_memory",
    "hidden_value",
    "lanes_of_a_device",
    "max_pool",
    "plain_forms",
    "platform",
    "random_uint16",
    "record",
    "sum_pool",
    "uses_plain_forms",
]

_LARGEST_PATCHES = 2**27
"""Numbers, half a gigabyte in float32: larger patches are not made unless asked for."""


_PLAIN = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_forms() -> Generator[None]:
    """Within it, what is traced takes the plain forms, whatever a layer asks for: what a program means is counted."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def convolve(
    x: Array, kernel: Array, bias: Array | None, axes: Sequence[Axis], groups: int, lowering: Lowering
) -> Array:
    """:func:`jaxopt_nn._ops.plain.convolve`; ``lowering`` "native" is the plain form, "patches" the fast one."""
    patches = math.prod(axis.out * axis.window for axis in axes) * x.shape[-1]
    form = convolution if _is_fast(lowering, x, patches) else plain
    return form.convolve(x, kernel, bias, tuple(axes), groups)


def convolve_transposed(
    x: Array, kernel: Array, bias: Array | None, axes: Sequence[Axis], groups: int, lowering: Lowering
) -> Array:
    """:func:`jaxopt_nn._ops.plain.convolve_transposed`, likewise."""
    patches = math.prod(axis.size * axis.window for axis in axes) * kernel.shape[-1]
    form = convolution if _is_fast(lowering, x, patches) else plain
    return form.convolve_transposed(x, kernel, bias, tuple(axes), groups)


def max_pool(x: Array, axes: Sequence[Axis], lowering: Lowering) -> Array:
    """:func:`jaxopt_nn._ops.plain.max_pool`, likewise."""
    form = pooling if _is_fast(lowering, x, pooling.slice_size(x, axes)) else plain
    return form.max_pool(x, tuple(axes))


def sum_pool(x: Array, axes: Sequence[Axis], lowering: Lowering) -> Array:
    """:func:`jaxopt_nn._ops.plain.sum_pool`, likewise."""
    form = pooling if _is_fast(lowering, x, pooling.slice_size(x, axes)) else plain
    return form.sum_pool(x, tuple(axes))


def record(value: Array, previous: Array, *, never: Array) -> Array:
    """:func:`jaxopt_nn._ops.plain.record`. The fast form reads ``previous``, so it is compiled apart from other uses.

    Those then compute the value for themselves; else they all wait for one tiny kernel: 54 µs a step for 36 (a compiled
    scan of Adam on a 64-64-32-10 net, 2 cores).
    """
    if uses_plain_forms() or platform() != "cpu":
        return plain.record(value, previous, never=never)
    return jnp.where(never, previous, value)


def _is_fast(lowering: Lowering, x: Array, copied: int) -> bool:
    """Whether the fast form runs, which makes copies of ``copied`` numbers for each example."""
    if uses_plain_forms():
        return False
    if lowering != "auto":
        return lowering == "patches"
    static = all(isinstance(size, int) for size in x.shape)  # in jax.export a batch may be a symbol
    return static and _is_for_single_cpu(x) and x.shape[0] * copied <= _LARGEST_PATCHES


def _is_for_single_cpu(x: Array) -> bool:
    """Whether what is traced is for a single CPU device: the only one there is, or each one's part in a ``shard_map``.

    The fast forms regroup the axes of a batch. Of arrays that several devices share, that would break up axes that are
    spread over them.
    """
    if platform() != "cpu":
        return False
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names:
        return set(mesh.manual_axes) == set(mesh.axis_names)
    return jax.device_count() == 1 and not jax.typeof(x).sharding.mesh.axis_names


def uses_plain_forms() -> bool:
    """Whether what is traced now takes the plain forms, by the environment variable or within :func:`plain_forms`."""
    return _plain_everywhere() or _PLAIN.get()


@functools.cache
def _plain_everywhere() -> bool:
    value = os.environ.get("JAXOPT_NN_OPS", "")
    if value not in ("", "plain"):
        raise ValueError(f'JAXOPT_NN_OPS: expected "plain", or the environment variable unset, got {value!r}')
    return value == "plain"
