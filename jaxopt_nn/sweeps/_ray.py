"""Tasks on many machines: Ray finds a place for each of them, and runs it again where a worker is lost."""

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from jaxopt_nn._arguments import check_number
from jaxopt_nn.sweeps._execute import Execute, Made, Task
from jaxopt_nn.sweeps._lanes import Chunk, Work
from jaxopt_nn.sweeps._space import Space
from jaxopt_nn.sweeps._worker import portable, run_task

__all__ = ["ray"]


def ray(
    address: str | None = None, *, num_cpus: float = 1, num_gpus: float = 0, max_retries: int = 3
) -> Callable[[Work, Space, Sequence[Made]], AbstractContextManager[Execute]]:
    """Runs a sweep on a cluster of Ray: ``sweep(..., executor=sweeps.ray())``.

    Each chunk of lanes is a task of Ray. Its results come back to this process, which writes the store, so the same
    call goes on after an interruption, on a cluster or without one. Pruned sweeps send the states of the survivors
    along. A Ray that was not running before the call is stopped after it. What the recipe imports has to be installed
    on the workers.

    Args:
        address: of a cluster; None for one on this machine, with a worker for each core.
        num_cpus, num_gpus: static; what a task needs.
        max_retries: static; a chunk whose worker was lost is run again so many times. Then its trials have failed.

    Raises:
        ImportError: Ray is missing: the extra ``ray``.

    >>> executor = ray(num_cpus=2)
    """
    check_number("num_cpus", num_cpus, 0)
    check_number("num_gpus", num_gpus, 0)
    check_number("max_retries", max_retries, -1, whole=True)

    @contextmanager
    def on_ray(work: Work, space: Space, groups: Sequence[Made]) -> Generator[Execute]:
        engine = _import_ray()
        begun = not engine.is_initialized()
        if begun:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # it only starts other programs that way
                engine.init(address=address, log_to_driver=False, include_dashboard=False, logging_level="error")
        try:
            job = [engine.put(portable(work, space, groups))]
            remote = engine.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=max_retries)(_run)

            def execute(tasks: Iterable[Task]) -> Iterator[tuple[Task, Chunk | Exception]]:
                waiting = {remote.remote(job, task): task for task in tasks}
                try:
                    while waiting:
                        (done, *_), _ = engine.wait(list(waiting))
                        task = waiting.pop(done)
                        try:
                            chunks = engine.get(done)
                        except engine.exceptions.RayTaskError as error:
                            yield task, error.cause if isinstance(error.cause, Exception) else error
                        except engine.exceptions.RayError as error:
                            yield task, error
                        else:
                            yield from chunks
                finally:  # after Ctrl-C
                    for reference in waiting:
                        engine.cancel(reference, force=True)

            yield execute
        finally:
            if begun:
                engine.shutdown()

    return on_ray


def _run(job: list[Any], task: Task) -> list[tuple[Task, Chunk]]:
    """What a worker does. ``job`` holds a reference, so that not each task brings the data along."""
    return run_task(_get, job[0], task)


def _get(reference: Any) -> Any:
    return _import_ray().get(reference)


def _import_ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("a sweep on many machines needs Ray: pip install 'jaxopt-nn[ray]'") from error
    return ray
