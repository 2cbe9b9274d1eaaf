"""Ctrl-C and SIGTERM while a run is saved: they wait for the end of a dispatch."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

__all__ = ["deferred_signals"]


@contextmanager
def deferred_signals() -> Generator[list[int]]:
    """A list of the signals that came; at a second Ctrl-C ``KeyboardInterrupt`` is raised at once.

    At the end a SIGTERM is sent again, to whom it was meant for: by default it ends the process. In other threads than
    the main one Python hands no signals out; there the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if signal.SIGTERM in received:
            os.kill(os.getpid(), signal.SIGTERM)
