"""A reply on its way out: what its client does not take yet waits here instead of in a thread."""

from __future__ import annotations

import select
import socket
import time

MAX_UNSENT = 256 * 1024  # bytes
SEND_SECONDS = 20  # for a client to take enough of more than that


class Outbox:
    """What writes a reply takes it for a socket.

    It sends at once what the client takes, and keeps the rest for whoever calls :meth:`flush`. Only who writes more
    than ``MAX_UNSENT`` bytes ahead of the client has to wait for it.

    Args:
        sock: does not block.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unsent = bytearray()

    def __len__(self) -> int:
        """The number of bytes that wait."""
        return len(self._unsent)

    def sendall(self, data: bytes) -> None:
        """Send, or keep to be sent.

        Raises:
            OSError: the client has gone, or takes too long.
        """
        self._unsent += data
        self.flush()
        until = time.monotonic() + SEND_SECONDS
        while len(self._unsent) > MAX_UNSENT:
            self._wait(until - time.monotonic())
            self.flush()

    def send(self, data: bytes) -> int:
        """The same, as sockets call it when they may take less."""
        self.sendall(data)
        return len(data)

    def flush(self) -> None:
        """Send as much as the client takes now.

        Raises:
            OSError: the client has gone.
        """
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            pass

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        if seconds <= 0 or not poll.poll(seconds * 1000):
            raise TimeoutError("the client takes too long to read its reply")
