"""A server of two workers, as those meet it who watch over it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KEY = "first-key-of-all-keys"


class Server:
    """``captioner serve`` with the tiny model, its log and its folder for temporary files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        command = [
            sys.executable,
            "-m",
            "captioner.cli",
            "serve",
            "--port",
            str(self.port),
            "--workers",
            "2",
            *arguments,
        ]
        environment = {**os.environ, "CAPTIONER_API_KEYS": KEY, "CAPTIONER_DRAIN_SECONDS": "0", "TMPDIR": str(folder)}
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)

    def ask(self, path: str) -> tuple[int, str]:
        """GET over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers={"X-API-Key": KEY, "Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def workers(self) -> list[int]:
        """Process ids, in the order of their start."""
        told = (re.search(r"Booting worker with pid: (\d+)", line["message"]) for line in self.log())
        return [int(found[1]) for found in told if found]

    def count(self, name: str) -> float:
        """A figure as one of the workers tells it."""
        (value,) = re.findall(rf"^{re.escape(name)} (.+)$", self.ask("/metrics")[1], flags=re.MULTILINE)
        return float(value)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path, tiny_model_dir: Path) -> Iterator[Server]:
    started = Server(tmp_path, "--model", str(tiny_model_dir), "--requests-per-minute", "1000")
    try:
        wait_until(lambda: sum(line["message"] == "Model 'tiny' is ready" for line in started.log()) == 2)
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def test_two_workers_count_and_log_as_one(server: Server) -> None:
    counted = 'captioner_requests_total{method="GET",route="/v1/models",status="200"}'
    first, second = server.workers()
    for asleep, requests in ((first, 2), (second, 3)):  # so that each of them has something to tell
        os.kill(asleep, signal.SIGSTOP)
        assert {server.ask("/v1/models")[0] for _ in range(requests)} == {200}
        os.kill(asleep, signal.SIGCONT)
    for asleep in (first, second):
        os.kill(asleep, signal.SIGSTOP)
        assert server.count(counted) == 5
        assert server.count("captioner_queue_images") == 0
        os.kill(asleep, signal.SIGCONT)

    # What a worker had counted outlives it; what it had waiting does not.
    (folder,) = server.folder.glob("captioner-metrics-*")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not list(folder.glob(f"gauge_*_{first}.db")))
    assert server.count(counted) == 5

    server.process.terminate()
    assert server.process.wait(timeout=30) == 0
    assert not folder.exists()
    lines = server.log()
    assert {line["logger"] for line in lines} >= {"gunicorn.error", "service.server", "service.models"}
    assert sum(line["message"] == "request" and line["route"] == "/v1/models" for line in lines) == 5
    (settings,) = (line["message"] for line in lines if line["message"].startswith("Serving with"))
    assert "api_keys=1" in settings
    assert KEY not in (server.folder / "log").read_text()
