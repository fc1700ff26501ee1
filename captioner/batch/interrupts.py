"""Ctrl-C and SIGTERM: the first asks to stop when what is in hand is done, the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

STOPPED = 130  # what a shell says of a command that Ctrl-C has ended
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Nothing that is waited for will be needed."""


class Interrupts:
    """Listens to both signals as long as its context lasts, where signals can be listened to: in the main thread.

    Attributes:
        stopping: whether one has come.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within this context a signal raises :class:`Stopped`, so that nothing is waited for any longer."""
        self._waiting = True  # before looking: a signal that comes in between is not to be missed
        try:
            if self.stopping:
                raise Stopped
            yield
        finally:
            self._waiting = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopping:
            os._exit(STOPPED)  # whatever is being done: the record stands that, as it stands a kill
        self.stopping = True
        with contextlib.suppress(OSError, RuntimeError):  # a closed terminal; printing was what it interrupted
            line = "\n" if sys.stderr.isatty() else ""  # where the terminal may show ^C, or how far a run is
            print(f"{line}captioner: stopping; once more to stop at once", file=sys.stderr, flush=True)
        if self._waiting:
            raise Stopped
