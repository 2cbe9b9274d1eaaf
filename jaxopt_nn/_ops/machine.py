"""What the rest of the package may ask about the machine, and the primitives of JAX that mean something to it alone."""

import os

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn.types import Array

__all__ = [
    "BARRIER",
    "VMAP_RULE_CALL",
    "compiler_options",
    "device_memory",
    "hidden_value",
    "lanes_of_a_device",
    "platform",
]

BARRIER = "optimization_barrier"
"""The primitive that returns its operands: it steers the compiler and computes nothing."""

VMAP_RULE_CALL = "custom_vmap_call"
"""The primitive that calls a function with a rule of its own for ``vmap``."""


def platform() -> str:
    """Where JAX runs programs by default: "cpu", "gpu" or "tpu"."""
    return jax.default_backend()


def device_memory() -> int | None:
    """The memory of one device in bytes, on a CPU that of the whole machine; None where the device does not say."""
    device = jax.devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def lanes_of_a_device() -> int:
    """How many small runs one device trains at a time: on a CPU more of them leave its caches."""
    return 16 if platform() == "cpu" else 256


def compiler_options() -> dict[str, int]:
    """Options to compile many lanes with. At level 2 of 3 XLA for CPUs takes half the time; they train as fast."""
    chosen = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    return {} if chosen or platform() != "cpu" else {"xla_backend_optimization_level": 2}


def hidden_value(x: Array) -> Array:
    """``x``, which the compiler does not take for one number in every place, also where it is.

    XLA for CPUs (JAX 0.10 to 0.12) reads freed memory where a matrix product with such an array, as a kernel of zeros,
    is fused with what follows: the softmax's gradient was NaN in a third of the compilations. A barrier does not always
    hide it; a branch that is always taken, though XLA cannot know it, does.
    """
    if platform() != "cpu":
        return x
    return lax.cond(lax.optimization_barrier(jnp.asarray(True)), _same, _other, x)


# Not made anew in each call: outside of jit JAX would compile them each time.
def _same(x: Array) -> Array:
    return x


def _other(x: Array) -> Array:
    return x + jnp.ones((), x.dtype)
