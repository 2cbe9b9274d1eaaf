"""What a worker in another process does with a task: it makes the lanes' program once, and runs its chunks."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxopt_nn._safetensors import impl_of, is_key
from jaxopt_nn.sweeps._execute import Made, Task
from jaxopt_nn.sweeps._lanes import Chunk, Lane, Program, Work, advance, compile_lane, trace_lane, values_of
from jaxopt_nn.sweeps._plan import Group
from jaxopt_nn.sweeps._space import Space

__all__ = ["portable", "run_task"]

_KEPT = 32  # programs of a worker
# What of JAX's configuration decides which numbers come out.
_CONFIG = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
)


def portable(work: Work, space: Space, groups: Sequence[Made]) -> Any:
    """A job as other processes can read it: arrays of NumPy, the key as numbers, and JAX's configuration."""
    impl = str(impl_of(work.key)) if is_key(work.key) else None
    key = np.asarray(jax.random.key_data(work.key))
    plain = work._replace(key=key, data=jax.tree.map(np.asarray, work.data))
    return plain, space, [made.group for made in groups], impl, {name: getattr(jax.config, name) for name in _CONFIG}


def run_task(read: Callable[[Any], Any], name: Any, task: Task) -> list[tuple[Task, Chunk]]:
    """The chunks of a task. ``read(name)`` is the job; by its name the worker knows what it compiled before."""
    _, space, groups = _job(read, name)
    lane, program = _program(read, name, task.group, task.width)
    done: list[tuple[Task, Chunk]] = []
    for start in range(0, len(task.trials), program.width):
        part = task.part(start, start + program.width)
        values = values_of(space, groups[part.group], part.trials)
        done.append((part, advance(program, lane, values, part.first, part.epochs, part.state, keep=part.keep)))
    return done


@functools.lru_cache(maxsize=1)
def _job(read: Callable[[Any], Any], name: Any) -> tuple[Work, Space, list[Group]]:
    work, space, groups, impl, config = read(name)
    for option, value in config.items():
        jax.config.update(option, value)
    key, data = (jax.tree.map(jax.device_put, part) for part in (work.key, work.data))
    key = key if impl is None else jax.random.wrap_key_data(key, impl=impl)
    return work._replace(key=key, data=data), space, groups


@functools.lru_cache(maxsize=_KEPT)
def _program(read: Callable[[Any], Any], name: Any, group: int, width: int) -> tuple[Lane, Program]:
    work, space, groups = _job(read, name)
    lane = trace_lane(work, space, groups[group])
    return lane, compile_lane(work, lane, width)
