"""A gunicorn worker that no slow client can hold up.

Gunicorn's own threaded worker reads requests in its threads, without a limit of time: as many slow clients as there are
threads stop it. Here a thread is taken only for a request that is whole; :mod:`service.connections` gathers it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from types import FrameType
from typing import Any

from gunicorn.http import get_parser
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, NoMoreData, ParseException
from gunicorn.http.wsgi import create
from gunicorn.workers.base import Worker

from service.caller import ARRIVED, BEGAN
from service.config import ServiceConfig
from service.connections import Connection, ConnectionLoop, Refusal
from service.errors import RETRY_AFTER_SECONDS

PIECE = 8192  # bytes of a request that the parser is given at a time: for each chunk it copies what it has been given
TICK = 0.5  # seconds between two looks at the clock
LOADING_SECONDS = 5  # that a worker which ends waits for models on their way
SPARE_FILES = 256  # besides connections


class BufferingWorker(Worker):  # type: ignore[misc]
    """Gathers requests in one loop, answers them in threads.

    Of gunicorn's settings it heeds ``threads`` and ``graceful_timeout``; limits of bytes and time, and how many
    connections there may be, are those of the service.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._settings: ServiceConfig = self.app.config
        self._closing_at = float("inf")

    def init_signals(self) -> None:
        """Take SIGHUP too: load the models anew."""
        super().init_signals()
        signal.signal(signal.SIGHUP, self._handle_hup)
        signal.siginterrupt(signal.SIGHUP, False)

    def handle_exit(self, _signal: int, _frame: FrameType | None) -> None:
        """SIGTERM: finish what has begun, refuse what begins, and soon stop listening."""
        if not self.booted:
            self.alive = False
        elif not self._draining:
            self._lifecycle.drain()
            self._closing_at = time.monotonic() + self._settings.drain_seconds

    def _handle_hup(self, _signal: int, _frame: FrameType | None) -> None:
        if self.booted:  # before, there is no application yet, and it will load the models as they are then
            self._lifecycle.load()

    @property
    def _draining(self) -> bool:
        return self._closing_at < float("inf")

    @property
    def _lifecycle(self) -> Any:
        return self.wsgi.extensions["captioner"]

    def run(self) -> None:
        """Serve until told to stop, and then until what is in hand is done.

        The first worker takes connections at once and says that it is starting. One that comes later would only take
        requests away from those that can answer them, so it waits until it can, too.
        """
        _allow_files(self._settings.max_connections + SPARE_FILES)
        pool = ThreadPoolExecutor(self.cfg.threads, thread_name_prefix="request")

        def answer(connection: Connection, data: bytes) -> Future[bool]:
            return pool.submit(self._answer, connection, data)

        loop = ConnectionLoop(
            answer,
            self._refuse,
            (self.PIPE[0], self.PIPE[1]),
            max_body=self._settings.max_bytes,
            max_connections=self._settings.max_connections,
            seconds=self._settings.receive_seconds,
            fewest=self.app.census.fewest,
        )
        while self.alive and self.ppid == os.getppid():
            self.notify()
            if not loop.listening and not self._draining and (self.age == 1 or self._lifecycle.settled):
                loop.listen(self.sockets)
                self.log.info("Worker %s takes connections", os.getpid())
            if loop.listening:
                self.app.census.tell(self.age, len(loop))
            loop.turn(TICK)
            overdue = time.monotonic() - self._closing_at
            if overdue > 0:
                if loop.listening:
                    loop.stop_listening()
                    self.app.census.forget(self.age)
                self.alive = bool(loop) and overdue < self.cfg.graceful_timeout
        pool.shutdown(wait=False, cancel_futures=True)
        self._lifecycle.wait_for_loading(LOADING_SECONDS)

    def _refuse(self, connection: Connection, refusal: Refusal) -> bytes:
        self._lifecycle.count_refusal(refusal.code)
        request_id = os.urandom(16).hex()
        told = (connection.host, refusal.status, request_id, refusal.sentence)
        self.log.info("Refused a request of %s with %s, request %s: %s", *told)
        return _reply(refusal, request_id)

    def _answer(self, connection: Connection, data: bytes) -> bool:
        """Run the application and send its reply; returns whether the connection can be used again."""
        outbox = connection.outbox
        try:
            try:
                pieces = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
                message = next(get_parser(self.cfg, pieces, connection.client))
            except (ParseException, NoMoreData) as error:
                status = {LimitRequestLine: 414, LimitRequestHeaders: 431}.get(type(error), 400)
                sentence = f"This is no HTTP request as it should be: {error}"
                outbox.sendall(self._refuse(connection, Refusal(status, "bad_request", sentence)))
                return False
            response, environment = create(message, outbox, connection.client, connection.server, self.cfg)
            environment["gunicorn.socket"] = connection.sock
            environment["wsgi.multithread"] = True
            environment[BEGAN], environment[ARRIVED] = connection.began, connection.arrived
            if self._draining:
                response.force_close()
            parts = self.wsgi(environment, response.start_response)
            try:
                for part in parts:
                    response.write(part)
                response.close()
            finally:
                if hasattr(parts, "close"):
                    parts.close()
            return not response.should_close()
        except OSError as error:
            self.log.debug("A client was gone before its reply: %s", error)
        except Exception:
            self.log.exception("A reply broke off")
        return False


def _reply(refusal: Refusal, request_id: str) -> bytes:
    """A reply in the service's shape, for what never reaches the application."""
    fields = {"error": refusal.sentence, "code": refusal.code, "request_id": request_id}
    body = json.dumps(fields, ensure_ascii=False).encode()
    retry = f"Retry-After: {RETRY_AFTER_SECONDS}\r\n" if refusal.code == "busy" else ""
    head = (
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nX-Content-Type-Options: nosniff\r\nX-Request-ID: {request_id}\r\n"
        f"{retry}Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _allow_files(number: int) -> None:
    """Raise this process's limit of open files, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
