"""Who waits for a reply, and for how long."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import UnavailableError

# Keys of the WSGI environment: when the request's first byte came, and when all of it was here, by ``time.monotonic``.
BEGAN = "captioner.began"
ARRIVED = "captioner.arrived"


@dataclass(frozen=True)
class Caller:
    """The client of one request.

    Attributes:
        deadline: when its patience ends, in seconds of ``time.monotonic``.
        connection: its socket, where the server tells it.
    """

    deadline: float
    connection: socket.socket | None = None

    @classmethod
    def of(cls, environment: Mapping[str, Any], patience: float) -> Caller:
        """The client behind a WSGI environment, who waits ``patience`` seconds from when its request was here."""
        arrived = environment.get(ARRIVED, time.monotonic())
        connection = environment.get("gunicorn.socket") or environment.get("werkzeug.socket")
        return cls(arrived + patience, connection)

    def left(self) -> float:
        """The seconds until the deadline.

        Raises:
            UnavailableError: there are none left, code ``deadline``.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise UnavailableError("The service is too busy to answer in time; try again later", code="deadline")
        return left

    def check(self) -> None:
        """Let pass if the client still waits.

        Raises:
            UnavailableError: its deadline has passed, code ``deadline``, or it hung up, code ``client_gone``.
        """
        self.left()
        if self._hung_up():
            raise UnavailableError("The client hung up", code="client_gone")

    def _hung_up(self) -> bool:
        if self.connection is None:
            return False
        try:
            poll = select.poll()  # recv alone would wait as long as the socket's timeout says
            poll.register(self.connection, select.POLLIN)
            return bool(poll.poll(0)) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except (OSError, ValueError):  # reset, or closed on our side
            return True
