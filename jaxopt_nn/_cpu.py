"""Where the shortcuts for CPUs may be taken."""

import jax

__all__ = ["one_cpu"]


def one_cpu() -> bool:
    """Whether what is traced is for a single CPU device: the only one there is, or each one's part in a ``shard_map``.

    What regroups the axes of a batch for the sake of XLA's kernels is for there alone. Of arrays that several devices
    share, it would break up axes that are spread over them.
    """
    if jax.default_backend() != "cpu":
        return False
    mesh = jax.sharding.get_abstract_mesh()
    return jax.device_count() == 1 or (bool(mesh.axis_names) and set(mesh.manual_axes) == set(mesh.axis_names))
