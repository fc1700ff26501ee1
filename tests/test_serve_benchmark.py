"""What measures the server counts every request, once and for what it was."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from serving import load, servers


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int, bytes], int]], str]]:
    """Serve on a port of its own what a function of the request's number and body decides: a status, 0 to hang up."""
    running: list[ThreadingHTTPServer] = []

    def start(decide: Callable[[int, bytes], int]) -> str:
        count, lock = iter(range(10**9)), threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    status = decide(next(count), body)
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_percentiles_are_those_of_the_definition() -> None:
    measured = load.Load(1, 1.0, latencies=[float(number) for number in range(100, 0, -1)])
    assert [measured.percentile(percent) for percent in (0, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert load.Load(1, 1.0, latencies=[3.0]).percentile(50) == 3
    assert math.isnan(load.Load(1, 1.0).percentile(50))


def test_each_request_is_counted_for_what_it_was(serve: Callable[..., str]) -> None:
    answers = [200, 200, 200, 429, 503, 0]
    seen: list[tuple[int, bytes]] = []

    def decide(number: int, body: bytes) -> int:
        status = answers[number % len(answers)]
        seen.append((status, body))
        return status

    url = serve(decide)
    measured = asyncio.run(load.put_load(url, [b"one", b"two", b"three"], clients=2, seconds=0.4))
    sent = [status for status, _ in seen]
    assert len(sent) >= len(answers)
    assert measured.statuses == {status: sent.count(status) for status in set(sent) - {0}}
    assert measured.errors == {"ServerDisconnectedError": sent.count(0)}
    assert len(measured.latencies) == sent.count(200)
    assert measured.refused == sent.count(429)
    assert measured.failures == {"503": sent.count(503), "ServerDisconnectedError": sent.count(0)}
    assert 0 < measured.finished <= sent.count(200)
    assert measured.rate == measured.finished / 0.4
    assert {body for _, body in seen} == {b"one", b"two", b"three"}
    assert all(latency > 0 for latency in measured.latencies)


def test_the_warm_up_does_not_count(serve: Callable[..., str]) -> None:
    seen: list[int] = []

    def decide(number: int, _body: bytes) -> int:
        seen.append(number)
        return 200

    measured = asyncio.run(load.put_load(serve(decide), [b"x"], clients=1, seconds=0.1, warm_up=0.2))
    assert 0 < len(measured.latencies) < len(seen)


def test_an_answer_that_came_too_late_counts_but_not_for_the_rate(serve: Callable[..., str]) -> None:
    def decide(_number: int, _body: bytes) -> int:
        time.sleep(0.6)
        return 200

    measured = asyncio.run(load.put_load(serve(decide), [b"x"], clients=1, seconds=0.2))
    assert (len(measured.latencies), measured.finished, measured.rate) == (1, 0, 0)


def test_a_request_that_outlasts_the_warm_up_counts(serve: Callable[..., str]) -> None:
    def decide(_number: int, _body: bytes) -> int:
        time.sleep(0.5)
        return 200

    # It begins in the warm-up; none begins later.
    measured = asyncio.run(load.put_load(serve(decide), [b"x"], clients=1, seconds=0.1, warm_up=0.2))
    assert len(measured.latencies) == 1


def test_a_server_is_started_weighed_and_ended_with_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "server.py"
    script.write_text(
        "import http.server, subprocess, sys\n"
        "children = [subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']) for _ in range(4)]\n"
        "open('children', 'w').write(' '.join(str(child.pid) for child in children))\n"
        "http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')\n"
    )
    (tmp_path / "ready").touch()
    monkeypatch.chdir(tmp_path)
    server = servers.Server("a server", (sys.executable, str(script), "{port}"))
    with servers.running(server) as (pid, url):
        assert url.endswith("/caption")
        children = [int(child) for child in (tmp_path / "children").read_text().split()]
        if (weight := servers.memory(pid)) is not None:
            assert weight["rss"] > sum(servers.memory(child)["rss"] for child in children) > 1
            assert 0 < weight["pss"] <= weight["rss"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    # Nobody may be left to collect the children: what has ended holds no memory, whatever else is left of it.
    deadline = time.monotonic() + 30
    while any((servers.memory(child) or {"rss": 0})["rss"] for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_that_ends_says_why() -> None:
    server = servers.Server("a server", (sys.executable, "-c", "raise SystemExit('no such thing')", "{port}"))
    with pytest.raises(SystemExit, match="a server did not start:\nno such thing"), servers.running(server):
        pass
