"""Doors that let only so many in, and turn the rest away at once instead of letting them wait for nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import UnavailableError


class Gate:
    """Counts what is inside.

    Args:
        most: that may be inside at a time.
        full: the sentence for those who are turned away.
        watch: told the count whenever it changes.
    """

    def __init__(self, most: int, full: str, watch: Callable[[int], None] | None = None) -> None:
        self._most = most
        self._full = full
        self._watch = watch
        self._inside = 0
        self._lock = threading.Lock()

    @contextmanager
    def admit(self, count: int = 1) -> Iterator[None]:
        """Be inside, ``count`` strong.

        Raises:
            UnavailableError: there is no room, code ``busy``.
        """
        self._change(count)
        try:
            yield
        finally:
            self._change(-count)

    def _change(self, count: int) -> None:
        with self._lock:
            if self._inside + count > self._most and count > 0:
                raise UnavailableError(self._full, code="busy")
            self._inside += count
            if self._watch:
                self._watch(self._inside)
