"""Tasks in worker processes on this machine: cores that JAX was not told of when it began."""

import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from jaxopt_nn._arguments import check_number, check_positive_int
from jaxopt_nn.sweeps._execute import Execute, Made, Task
from jaxopt_nn.sweeps._lanes import Chunk, Work
from jaxopt_nn.sweeps._space import Space
from jaxopt_nn.sweeps._worker import portable, run_task

__all__ = ["processes"]


def processes(
    workers: int | None = None, *, max_retries: int = 3
) -> Callable[[Work, Space, Sequence[Made]], AbstractContextManager[Execute]]:
    """Runs a sweep in worker processes on this machine: ``sweep(..., executor=sweeps.processes())``.

    For a machine of several cores, once JAX runs with one device. Each chunk of lanes is a task; a worker compiles the
    programs of its tasks itself, so it pays for sweeps that take longer than that. Results come back to this process,
    which writes the store. Functions defined in a script or a notebook are sent along.

    Args:
        workers: static; how many; None for one for each core.
        max_retries: static; how often chunks are run again after a worker was lost. Then their trials have failed.

    Raises:
        ImportError: loky is missing: the extra ``sweep``.

    >>> executor = processes(2)
    """
    if workers is not None:
        check_positive_int("workers", workers)
    check_number("max_retries", max_retries, 0, whole=True)

    @contextmanager
    def in_processes(work: Work, space: Space, groups: Sequence[Made]) -> Generator[Execute]:
        loky, cloudpickle = _import_loky()
        number = workers or loky.cpu_count()
        with tempfile.TemporaryDirectory() as folder:
            job = Path(folder) / "job"
            job.write_bytes(cloudpickle.dumps(portable(work, space, groups)))
            pool: Any = loky.ProcessPoolExecutor(number)

            def submit(tasks: Iterable[Task]) -> dict[Future[Any], Task]:
                return {pool.submit(run_task, _read, str(job), task): task for task in tasks}

            def execute(tasks: Iterable[Task]) -> Iterator[tuple[Task, Chunk | Exception]]:
                nonlocal pool
                waiting, losses = submit(tasks), 0
                while waiting:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        try:
                            chunks = future.result()
                        except BrokenProcessPool as error:
                            losses += 1
                            if losses > max_retries:
                                yield from ((task, error) for task in waiting.values())
                                return
                            pool.shutdown(kill_workers=True)
                            pool = loky.ProcessPoolExecutor(number)
                            waiting = submit(waiting.values())
                            break
                        except Exception as error:  # of the recipe's code: it is recorded with its trials
                            yield waiting.pop(future), error
                        else:
                            del waiting[future]
                            yield from chunks

            try:
                yield execute
            finally:
                pool.shutdown(kill_workers=True)

    return in_processes


def _read(path: str) -> Any:
    _, cloudpickle = _import_loky()
    return cloudpickle.loads(Path(path).read_bytes())


def _import_loky() -> tuple[Any, Any]:
    try:
        import cloudpickle
        import loky
    except ImportError as error:
        raise ImportError("a sweep in worker processes needs loky: pip install 'jaxopt-nn[sweep]'") from error
    return loky, cloudpickle
