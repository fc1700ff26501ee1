"""All connections of a worker in one loop: who is slow costs a few bytes, and never a thread.

A request is gathered here until it is whole, and only then given to a thread, which answers it.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.incoming import Incoming
from service.outbox import SEND_SECONDS, Outbox

log = logging.getLogger(__name__)

AT_ONCE = 256 * 1024  # bytes read from a connection in one go
KEEP_SECONDS = 5  # for another request on a connection
LAST_SECONDS = 1  # for a request on a connection that is there when the door is closed
LINGER_SECONDS = 2  # until a connection is closed whose client does not close it
CHANCES, CHANCE_SECONDS = 20, 0.001  # for other workers to take a connection
BODIES = 16  # so many of the largest bodies fit into one worker's memory, at least
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection:
    """A client's connection.

    Attributes:
        sock, client, server: the socket, the client's address and our own.
        incoming: the request that is coming in.
        began: when its first byte came, by ``time.monotonic``; 0 before.
        arrived: when all of it was here, likewise.
        until: when our patience with it ends, likewise; infinity while a request is in hand.
        outbox: the reply on its way to the client.
        size: bytes that its request holds in memory.
    """

    def __init__(self, sock: socket.socket, client: Any, server: Any, incoming: Incoming) -> None:
        self.sock, self.client, self.server, self.incoming = sock, client, server, incoming
        self.began = self.arrived = 0.0
        self.until = float("inf")
        self.outbox = Outbox(sock)
        self.size = 0

    @property
    def host(self) -> str:
        """The client's address."""
        return str(self.client[0]) if isinstance(self.client, tuple) and self.client else str(self.client)


@dataclass(frozen=True)
class Refusal:
    """Why a request is not even read.

    Attributes:
        status: of HTTP.
        code, sentence: as in every error of the service.
    """

    status: int
    code: str
    sentence: str


class ConnectionLoop:
    """Holds connections, gathers their requests, and waits for what becomes of them.

    Args:
        answer: hands a whole request to a thread; the future tells whether the connection can be used again.
        refuse: the bytes of a reply to a request that is not read.
        wake: both ends of a pipe that ends :meth:`turn` when something is written into it.
        max_body: bytes of the largest body.
        max_connections: when there are more, the one that has been idle longest is closed.
        seconds: for a request to come; a third of them for its head.
        fewest: how many connections the worker has that has fewest.
    """

    def __init__(
        self,
        answer: Callable[[Connection, bytes], Future[bool]],
        refuse: Callable[[Connection, Refusal], bytes],
        wake: tuple[int, int],
        *,
        max_body: int,
        max_connections: int,
        seconds: float,
        fewest: Callable[[], int],
    ) -> None:
        self._answer, self._refusal = answer, refuse
        self._max_body, self._max_connections, self._seconds = max_body, max_connections, seconds
        self._fewest, self._left_to_others = fewest, 0
        self._listeners: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._held = 0  # bytes of requests
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_end, self._write_end = wake
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_end, selectors.EVENT_READ, self._wake)

    @property
    def listening(self) -> bool:
        """Whether it takes connections."""
        return bool(self._listeners)

    def __len__(self) -> int:
        """The number of connections."""
        return len(self._connections)

    def listen(self, listeners: Iterable[socket.socket]) -> None:
        """Take connections from now on."""
        for listener in listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, partial(self._consider, listener))
            self._listeners.append(listener)

    def stop_listening(self) -> None:
        """Close the door behind all who have knocked; who has not asked anything yet may still do so, but soon."""
        for listener in self._listeners:
            self._selector.unregister(listener)
            while self._accept(listener):
                pass
            listener.close()
        self._listeners.clear()
        for connection in self._connections:
            if not connection.began and not connection.outbox:
                connection.until = min(connection.until, time.monotonic() + LAST_SECONDS)

    def turn(self, seconds: float) -> None:
        """Do what there is to do, or wait so long for something to do."""
        for key, _ in self._selector.select(seconds):
            try:
                key.data()
            except Exception:  # of one connection; the others go on
                log.exception("A connection failed")
        now = time.monotonic()
        for connection in [each for each in self._connections if each.until < now]:
            if connection.began:
                late = Refusal(408, "request_timeout", "The request took too long to come; send it again")
                self._refuse(connection, late)
            else:
                self._close(connection)

    def _wake(self) -> None:
        os.read(self._wake_end, 4096)
        while not self._done.empty():
            self._done.get()()

    def _consider(self, listener: socket.socket) -> None:
        """Take a connection, or leave it to a worker that has fewer: for a moment, in case that one is stuck."""
        if self._left_to_others < CHANCES and len(self._connections) > self._fewest():
            self._left_to_others += 1
            time.sleep(CHANCE_SECONDS)
        else:
            self._left_to_others = 0
            self._accept(listener)

    def _accept(self, listener: socket.socket) -> bool:
        """Take one connection, if there is one."""
        try:
            sock, client = listener.accept()
        except OSError as error:  # often another worker was faster, or the client has gone already
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room()
            return False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self._connections) >= self._max_connections:
            self._make_room()
        connection = Connection(sock, client, listener.getsockname(), Incoming(self._max_body))
        self._connections.add(connection)
        self._await(connection, self._seconds / 3)
        self._read(connection)
        return True

    def _make_room(self) -> None:
        """Close the connection whose time is over first: the slowest, or the longest idle."""
        waiting = [each for each in self._connections if each.until < float("inf")]
        if waiting:
            self._close(min(waiting, key=lambda each: each.until))

    def _await(self, connection: Connection, seconds: float) -> None:
        connection.until = time.monotonic() + seconds
        self._selector.register(connection.sock, selectors.EVENT_READ, partial(self._read, connection))

    def _read(self, connection: Connection) -> None:
        data = self._receive(connection)
        if data:
            self._take(connection, data)
        elif data is not None:
            self._close(connection)

    def _receive(self, connection: Connection) -> bytes | None:
        """What has come; nothing if the client has gone, None if nothing has come yet."""
        if connection not in self._connections:  # closed since its event was found
            return None
        try:
            return connection.sock.recv(AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def _take(self, connection: Connection, data: bytes) -> None:
        incoming, now = connection.incoming, time.monotonic()
        had_head = incoming.has_head
        if not connection.began:
            connection.began, connection.until = now, now + self._seconds / 3
        incoming.feed(data)
        connection.size += len(data)
        self._held += len(data)
        if incoming.too_large == "head":
            self._refuse(connection, Refusal(431, "head_too_large", "The head of the request is too large"))
        elif incoming.too_large:
            sentence = f"The body is larger than {self._max_body:,} bytes, the most accepted here"
            self._refuse(connection, Refusal(413, "body_too_large", sentence))
        elif incoming.whole:
            self._hand_on(connection)
        elif self._held > BODIES * self._max_body:
            self._refuse(connection, Refusal(503, "busy", "The service is receiving too much at once; try again later"))
        elif incoming.has_head and not had_head:
            connection.until = connection.began + self._seconds
            if incoming.expects:
                connection.outbox.sendall(CONTINUE)

    def _hand_on(self, connection: Connection) -> None:
        self._selector.unregister(connection.sock)
        connection.until, connection.arrived = float("inf"), time.monotonic()
        data, rest = connection.incoming.take()
        self._answer(connection, data).add_done_callback(
            lambda answered: self._later(partial(self._answered, connection, rest, answered))
        )

    def _later(self, callback: Callable[[], None]) -> None:
        """Let the loop do it, whichever thread says so."""
        self._done.put(callback)
        with suppress(BlockingIOError):  # full: the loop will wake up anyway
            os.write(self._write_end, b".")

    def _answered(self, connection: Connection, rest: bytes, answered: Future[bool]) -> None:
        """Send what is left of the reply."""
        self._release(connection)
        connection.began = 0.0
        keep = not answered.cancelled() and answered.result()
        if connection.outbox:
            connection.until = time.monotonic() + SEND_SECONDS
            sent = partial(self._flush, connection, rest, keep)
            self._selector.register(connection.sock, selectors.EVENT_WRITE, sent)
        else:
            self._go_on(connection, rest, keep)

    def _flush(self, connection: Connection, rest: bytes, keep: bool) -> None:
        if connection not in self._connections:
            return
        try:
            connection.outbox.flush()
        except OSError:
            self._close(connection)
            return
        if not connection.outbox:
            self._selector.unregister(connection.sock)
            self._go_on(connection, rest, keep)

    def _go_on(self, connection: Connection, rest: bytes, keep: bool) -> None:
        """Wait for another request, or part."""
        if not keep:
            self._linger(connection)
            return
        connection.incoming = Incoming(self._max_body)
        self._await(connection, KEEP_SECONDS)
        if rest:
            self._take(connection, rest)

    def _refuse(self, connection: Connection, refusal: Refusal) -> None:
        self._selector.unregister(connection.sock)
        with suppress(OSError):  # its client has gone
            connection.outbox.sendall(self._refusal(connection, refusal))
        self._release(connection)
        self._linger(connection)

    def _linger(self, connection: Connection) -> None:
        """Close our half; the rest when the client has read the reply, which bytes unread here would destroy."""
        connection.began = 0.0
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._connections.discard(connection)
            connection.sock.close()
            return
        connection.until = time.monotonic() + LINGER_SECONDS
        self._selector.register(connection.sock, selectors.EVENT_READ, partial(self._drain, connection))

    def _drain(self, connection: Connection) -> None:
        if self._receive(connection) == b"":
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._selector.unregister(connection.sock)
        self._connections.discard(connection)
        self._release(connection)
        connection.sock.close()

    def _release(self, connection: Connection) -> None:
        self._held -= connection.size
        connection.size = 0
