"""The real server, as a client and an operator meet it."""

from __future__ import annotations

import http.client
import json
import logging
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from live import Live, free_port, live_until, receive, serve

from captioner.checkpoint import CONFIG_NAME
from captioner.errors import OptionError
from service import server
from service.connections import Refusal
from service.server import run
from service.worker import BufferingWorker, _reply


@pytest.fixture(scope="module")
def live(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that nobody stops; its clients have three seconds to send a request."""
    with serve(tmp_path_factory.mktemp("live"), tiny_model_dir, max_bytes=50_000, receive_seconds=3) as server:
        yield server


def test_an_address_that_cannot_be_had_is_told_in_a_sentence(tiny_model_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"port {port} is taken by another program; choose one with --port"):
            run(port=port, models=[str(tiny_model_dir)])
    with pytest.raises(OptionError, match=r"cannot listen on 192\.0\.2\.1 port 8000: "):  # an address of documentation
        run(host="192.0.2.1", models=[str(tiny_model_dir)])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the start logs, of a server that does not start."""
    monkeypatch.setattr(server, "Server", lambda *_: SimpleNamespace(run=lambda: None))
    monkeypatch.setattr(server, "_tune_malloc", lambda: None)
    monkeypatch.setattr(server.logs, "configure", lambda _: None)
    monkeypatch.setattr(server.metrics, "share_between_workers", dict)
    caplog.set_level(logging.INFO, logger="service")
    return caplog


def test_the_start_names_the_models(told: pytest.LogCaptureFixture, tiny_model_dir: Path) -> None:
    run(port=free_port())
    run(port=free_port(), models=[str(tiny_model_dir)])
    assert "Serving with models=words,phones " in told.messages[0]
    assert f"Serving with models={tiny_model_dir} " in told.messages[1]


def test_the_start_names_variables_that_are_misspelt(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONER_MAX_IMAGE", "1")
    monkeypatch.setenv("CAPTIONER_PORT", "tcp://10.0.0.1:80")
    run(port=free_port())
    warnings = [record.getMessage() for record in told.records if record.levelname == "WARNING"]
    assert warnings == ["CAPTIONER_MAX_IMAGE is no setting and changes nothing; is CAPTIONER_MAX_IMAGES meant?"]


def test_it_captions_and_keeps_its_limits(live: Live, jpeg: bytes) -> None:
    assert "Model 'tiny' is ready" in live.log()
    status, reply = live.ask("POST", "/v1/caption", jpeg)
    assert (status, b'"captions"' in reply) == (200, True)
    # Without a Content-Length the body comes in chunks, as many as it takes.
    chunked = (jpeg[start : start + 100] for start in range(0, len(jpeg), 100))
    assert live.ask("POST", "/v1/caption", chunked) == (200, reply)
    for body in (b"x" * 50_001, (b"x" * 1000 for _ in range(51)), (b"x" * 1000 for _ in range(300))):
        status, error = live.ask("POST", "/v1/caption", body)
        assert (status, json.loads(error)["code"]) == (413, "body_too_large")


def test_a_client_that_asks_first_is_told_to_go_on(live: Live, jpeg: bytes) -> None:
    connection = live.begin(f"Content-Length: {len(jpeg)}", "Expect: 100-continue")
    assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(jpeg)
    assert receive(connection)[0] == 200
    too_much = live.begin("Content-Length: 50001", "Expect: 100-continue")
    assert receive(too_much)[0] == 413  # at once, before anything is sent for nothing


def test_connections_are_kept_and_requests_may_come_ahead(live: Live, jpeg: bytes) -> None:
    health = b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n"
    post = f"POST /v1/caption HTTP/1.1\r\nHost: test\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode() + jpeg
    with live.connect(health + post + health) as connection:
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 3 or received.count(b'{"live":true}') < 2:
            data = connection.recv(65536)
            assert data, received
            received += data
        assert received.index(b'"captions"') > received.index(b'{"live":true}')


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000, 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
    ],
)
def test_what_is_no_proper_request_is_told_so(live: Live, request_bytes: bytes, status: int) -> None:
    found, reply = receive(live.connect(request_bytes))
    assert found == status, reply
    assert set(json.loads(reply)) == {"error", "code", "request_id"}


def test_no_proxy_is_believed_that_nobody_named(live: Live) -> None:
    claims = {"X-Forwarded-Proto": "https", "SCRIPT_NAME": "/elsewhere", "X-Forwarded-Ssl": "off"}
    status, reply = live.ask("GET", "/", headers=claims)
    assert (status, b"http://127.0.0.1" in reply) == (200, True), reply


def test_a_body_in_the_smallest_of_chunks_is_read_in_time(tiny_model_dir: Path, tmp_path: Path) -> None:
    with serve(tmp_path, tiny_model_dir, max_bytes=2_000_000) as live, live.begin("Transfer-Encoding: chunked") as sent:
        sent.sendall(b"1\r\nx\r\n" * 500_000 + b"0\r\n\r\n")  # in quadratic time, longer than the client waits
        assert receive(sent)[0] == 415


def test_a_reload_that_comes_before_the_application_is_no_harm() -> None:
    worker = BufferingWorker.__new__(BufferingWorker)
    worker.booted = False
    worker._handle_hup(signal.SIGHUP, None)  # it raised, and gunicorn ends when a worker does not boot


def test_the_servers_own_refusals_have_the_headers_of_all_others() -> None:
    head, body = _reply(Refusal(503, "busy", "Too much"), "7").split(b"\r\n\r\n")
    assert b"\r\nRetry-After: 2" in head
    assert f"\r\nX-Request-ID: {json.loads(body)['request_id']}".encode() in head
    assert b"Retry-After" not in _reply(Refusal(400, "bad_request", "No"), "7")


def test_slow_clients_get_their_time_and_hold_up_nobody(live: Live, jpeg: bytes) -> None:
    silent = [live.connect() for _ in range(100)]
    heads = [live.connect(b"POST / HTTP/1.1\r\nHost: t") for _ in range(100)]
    bodies = [live.begin(f"Content-Length: {len(jpeg)}") for _ in range(100)]
    for connection in bodies:
        connection.sendall(jpeg[:10])
    assert live.caption(jpeg)
    assert [receive(connection)[0] for connection in heads] == [408] * 100
    status, error = receive(bodies[0])
    assert (status, json.loads(error)["code"]) == (408, "request_timeout")
    for connection in silent:
        with connection:
            assert connection.recv(100) == b""  # who has asked nothing gets no answer
    for connection in bodies[1:]:
        connection.close()
    assert live.caption(jpeg)


def test_clients_that_do_not_read_hold_up_nobody(live: Live, jpeg: bytes) -> None:
    clients = []
    for _ in range(200):  # more than there are threads
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", live.port))
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: test\r\n\r\n" * 3)
        clients.append(client)
    assert live.caption(jpeg)
    with clients.pop() as late:  # who reads after all gets everything
        received = 0
        while received < 150_000:  # more than one
            received += len(late.recv(2**16))
    for client in clients:
        client.close()
    assert live.caption(jpeg)


def test_when_all_connections_are_taken_the_slowest_goes(tiny_model_dir: Path, tmp_path: Path, jpeg: bytes) -> None:
    with serve(tmp_path, tiny_model_dir, max_connections=20) as live:
        slow = [live.connect(b"POST / HTTP/1.1\r\n") for _ in range(50)]
        assert live.caption(jpeg)
        gone = [connection for connection in slow[:31] if connection.recv(1, socket.MSG_PEEK) == b""]
        assert len(gone) == 31
        for connection in slow:
            connection.close()


def test_models_are_loaded_anew_without_a_pause(tiny_model_dir: Path, tmp_path: Path, jpeg: bytes) -> None:
    directory = shutil.copytree(tiny_model_dir, tmp_path / "tiny")
    with serve(tmp_path, directory, workers=2) as live:
        live_until(live, lambda: live.log().count("is ready") == 2)
        before, workers = live.caption(jpeg), live.workers()
        config = json.loads((directory / CONFIG_NAME).read_text())
        config["decoding"]["max_length"] = 2
        (directory / CONFIG_NAME).write_text(json.dumps(config))
        live.send_signal(signal.SIGHUP)
        captions = set()
        while live.log().count("is ready") < 4:
            captions.add(live.caption(jpeg))
        assert captions <= {before, " ".join(before.split()[:2]), live.caption(jpeg)}
        assert len(live.caption(jpeg).split()) <= 2 < len(before.split())
        # What cannot be loaded changes nothing.
        (directory / CONFIG_NAME).write_text("{")
        live.send_signal(signal.SIGHUP)
        live_until(live, lambda: live.log().count("could not be loaded") == 2)
        assert len(live.caption(jpeg).split()) <= 2
        assert live.workers() == workers


def is_open(live: Live) -> bool:
    try:
        live.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def test_what_has_begun_is_finished_when_it_is_told_to_stop(tiny_model_dir: Path, tmp_path: Path, jpeg: bytes) -> None:
    with serve(tmp_path, tiny_model_dir, drain_seconds=1) as live:
        idle = http.client.HTTPConnection("127.0.0.1", live.port, timeout=30)
        idle.request("GET", "/health/live")
        assert idle.getresponse().read()
        begun = live.begin(f"Content-Length: {len(jpeg)}", "Expect: 100-continue")
        assert b"100 Continue" in begun.recv(1000)
        live.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        status, error = live.ask("POST", "/v1/caption", jpeg)
        assert (status, json.loads(error)["code"]) == (503, "draining")
        assert live.ask("GET", "/health/ready")[0] == 503
        assert live.ask("GET", "/health/live")[0] == 200
        idle.request("GET", "/v1/models")
        with idle.getresponse() as response:
            assert (response.status, response.getheader("Connection")) == (503, "close")
        live_until(live, lambda: not is_open(live))
        begun.sendall(jpeg)
        status, reply = receive(begun)
        assert (status, b'"captions"' in reply) == (200, True)
        assert live.wait() == 0
