"""What is shown while a sweep runs: a bar over trials at a terminal, else a line of the log for each chunk."""

import logging
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from jaxopt_nn.sweeps._store import PAUSED, PRUNED, Record

__all__ = ["is_shown", "open_bar"]

_LOGGER = logging.getLogger("jaxopt_nn.sweeps")


def is_shown(progress: bool | None) -> bool:
    """Whether a bar is wanted: at a terminal, and in a notebook, if nothing else is said."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules if progress is None else progress


@contextmanager
def open_bar(
    progress: bool | None, trials: int, earlier: Sequence[Record], objective: str, mode: str
) -> Generator[Callable[[Sequence[Record]], None]]:
    """A function that shows trials that ended, with the best value so far and the time left.

    Args:
        progress: whether it is a bar; None for at a terminal.
        trials: how many there are.
        earlier: those that were finished before.
        objective, mode: what is best.
    """
    pick = min if mode == "min" else max
    values: list[float] = []
    counts = {PAUSED: 0, PRUNED: 0}
    finished = len(earlier)
    bar: Any = None
    if is_shown(progress):
        with suppress(ImportError):
            from tqdm.auto import tqdm

            layout = "{n_fmt}/{total_fmt} trials |{bar}| {elapsed}<{remaining}{postfix}"
            bar = tqdm(total=trials, initial=finished, bar_format=layout)

    def note(records: Sequence[Record]) -> str:
        best = [v for each in records if np.isfinite(v := each.metrics.get(objective, np.nan))]
        values[:] = [pick([*values, *best])] if values or best else []
        for status in counts:
            counts[status] += sum(each.status == status for each in records)
        parts = [f"best {objective} {values[0]:.4g}"] if values else []
        return ", ".join(parts + ([f"{counts[PRUNED]} pruned"] if counts[PRUNED] else []))

    def show(records: Sequence[Record]) -> None:
        nonlocal finished
        text, ended = note(records), sum(each.status != PAUSED for each in records)
        finished += ended
        if bar is not None:
            bar.set_postfix_str(text, refresh=False)
            bar.update(ended)
        elif records:
            _LOGGER.info("%d of %d trials finished, %s", finished, trials, text)

    note(earlier)
    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
