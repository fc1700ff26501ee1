"""The real server, as a client and an operator meet it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from captioner.errors import OptionError
from service.server import run

START = "import sys; from service.server import run; run(port=int(sys.argv[1]), threads=2, models=[sys.argv[2]])"


@pytest.fixture
def server(tiny_model_dir: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "CAPTIONER_MAX_BYTES": "50000"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(port), str(tiny_model_dir)], env=environment, stderr=log
        )
    try:
        wait_until_ready(process, port, tmp_path / "log")
        yield process, port
    finally:
        process.kill()
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if ask(port, "GET", "/health/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def ask(port: int, method: str, path: str, body: bytes | Iterator[bytes] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, encode_chunked=not isinstance(body, bytes | None))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def begin(port: int, *headers: str) -> socket.socket:
    """Send the head of a caption request."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall("\r\n".join(("POST /v1/caption HTTP/1.1", "Host: test", *headers, "", "")).encode())
    return connection


def finish(connection: socket.socket) -> tuple[int, bytes]:
    with connection, http.client.HTTPResponse(connection) as response:
        response.begin()
        return response.status, response.read()


def test_an_address_that_cannot_be_had_is_told_in_a_sentence(tiny_model_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"port {port} is taken by another program; choose one with --port"):
            run(port=port, models=[str(tiny_model_dir)])
    with pytest.raises(OptionError, match=r"cannot listen on 192\.0\.2\.1 port 8000: "):  # an address of documentation
        run(host="192.0.2.1", models=[str(tiny_model_dir)])


def test_it_captions_keeps_its_limits_and_stops_when_told(
    server: tuple[subprocess.Popen[bytes], int], jpeg: bytes, tmp_path: Path
) -> None:
    process, port = server
    assert "Model 'tiny' is ready" in (tmp_path / "log").read_text()
    status, reply = ask(port, "POST", "/v1/caption", jpeg)
    assert status == 200
    assert b'"captions"' in reply

    # Without a Content-Length the body comes in chunks, as many as it takes.
    chunked = (jpeg[start : start + 100] for start in range(0, len(jpeg), 100))
    assert ask(port, "POST", "/v1/caption", chunked) == (200, reply)
    status, error = ask(port, "POST", "/v1/caption", (b"x" * 1000 for _ in range(51)))
    assert (status, b"body_too_large" in error) == (413, True)
    malformed = begin(port, "Transfer-Encoding: chunked")
    malformed.sendall(b"not a size\r\n")
    status, error = finish(malformed)
    assert (status, b"bad_request" in error) == (400, True)

    # A request that has begun is finished, and then there is no more server.
    begun = begin(port, f"Content-Length: {len(jpeg)}", "Expect: 100-continue")
    assert b"100 Continue" in begun.recv(1000)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    begun.sendall(jpeg)
    assert finish(begun) == (200, reply)
    assert process.wait(timeout=30) == 0
    with pytest.raises(ConnectionRefusedError):
        ask(port, "GET", "/health/live")
