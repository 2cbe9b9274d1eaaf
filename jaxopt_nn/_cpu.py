"""Where the shortcuts for CPUs may be taken."""

import jax

__all__ = ["one_cpu"]


def one_cpu() -> bool:
    """Whether JAX computes on a CPU and has no other device: decided while tracing.

    What regroups the axes of a batch for the sake of XLA's kernels is for there alone. Of arrays that several devices
    share, it would break up axes that are spread over them.
    """
    return jax.default_backend() == "cpu" and jax.device_count() == 1
