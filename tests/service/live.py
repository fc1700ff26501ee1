"""The real server in processes of its own, as a client and an operator meet it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START = """
import sys
from service.server import run
run(port=int(sys.argv[1]), workers=int(sys.argv[2]), models=sys.argv[3:])
"""


@dataclass
class Live:
    """A running server.

    Attributes:
        process: the one that watches over the workers.
        port: on 127.0.0.1.
        log_path: what it logs.
    """

    process: subprocess.Popen[bytes]
    port: int
    log_path: Path

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """One request over a connection of its own; a body without a length comes in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            chunked = not isinstance(body, bytes | None)
            connection.request(method, path, body, dict(headers or {}), encode_chunked=chunked)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def caption(self, image: bytes) -> str:
        """The caption of an image."""
        status, reply = self.ask("POST", "/v1/caption", image)
        assert status == 200, reply
        return str(json.loads(reply)["results"][0]["captions"][0]["text"])

    def connect(self, data: bytes = b"") -> socket.socket:
        """A bare connection, over which ``data`` has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(data)
        return connection

    def begin(self, *headers: str, path: str = "/v1/caption") -> socket.socket:
        """Send the head of a POST request."""
        return self.connect("\r\n".join((f"POST {path} HTTP/1.1", "Host: test", *headers, "", "")).encode())

    def workers(self) -> set[int]:
        """The process numbers of the workers."""
        number = self.process.pid
        return set(map(int, Path(f"/proc/{number}/task/{number}/children").read_text(encoding="ascii").split()))

    def memory(self) -> float:
        """What the workers hold in memory, in MiB."""
        pages = (int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) for pid in self.workers())
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def log(self) -> str:
        """All that it logged."""
        return self.log_path.read_text(encoding="utf-8")

    def send_signal(self, number: signal.Signals) -> None:
        """As an operator does."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(timeout=60)


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """The reply that comes over a connection, which is closed then."""
    with connection, http.client.HTTPResponse(connection) as response:
        response.begin()
        return response.status, response.read()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(folder: Path, *models: Path, workers: int = 1, **settings: Any) -> Iterator[Live]:
    """Run a server until the block ends.

    Args:
        folder: for its log.
        models: directories.
        workers: how many.
        settings: fields of the service's configuration.
    """
    own = {"TMPDIR": str(folder)}  # what it leaves behind when it is killed goes with the test's folder
    environment = {**os.environ, **own, **{f"CAPTIONER_{name.upper()}": str(value) for name, value in settings.items()}}
    port, log = free_port(), folder / "log"
    with log.open("wb") as file:
        arguments = [sys.executable, "-c", START, str(port), str(workers), *map(str, models)]
        process = subprocess.Popen(arguments, env=environment, stderr=file, start_new_session=True)
    live = Live(process, port, log)
    try:
        live_until(live, lambda: live.ask("GET", "/health/ready")[0] == 200)
        yield live
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def live_until(live: Live, condition: Callable[[], Any]) -> None:
    """Wait for something that a running server brings about."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert live.process.poll() is None, live.log()
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(live.log())
