from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from captioner import Captioner
from service import logs
from service.app import create_app
from service.config import ServiceConfig
from service.logs import JsonFormatter, TextFormatter

FORGED = 'x\n{"level": "info"}\r\x1b[31m\u2028\x85 \ud800'


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """What the requests of a test left in the log."""
    caplog.set_level(logging.INFO, logger="service")
    monkeypatch.setattr(caplog.handler, "formatter", JsonFormatter())
    return lambda: [json.loads(line) for line in caplog.text.splitlines()]


@pytest.fixture
def configured(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., None]]:
    """Configure logging for one test; the standard error that it writes to is the test's."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", *logs.OURS)}
    handlers = root.handlers[:]
    root.handlers.clear()  # they are pytest's, and would be closed
    try:
        yield lambda **settings: logs.configure(ServiceConfig(**settings))
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def record(message: str, *arguments: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("service.x", logging.WARNING, __file__, 1, message, arguments, more.pop("exc_info", None))
    made.created = 1_700_000_000.0129
    made.__dict__.update(more)
    return made


def failure() -> Any:
    with pytest.raises(ValueError, match="x") as caught:
        raise ValueError(FORGED)
    return caught.type, caught.value, caught.tb


def test_a_line_of_json() -> None:
    line = JsonFormatter().format(record("%d of %s", 2, "three", fields={"status": 200, "code": None}))
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.012Z",
        "level": "warning",
        "logger": "service.x",
        "message": "2 of three",
        "status": 200,
    }


def test_a_line_of_text() -> None:
    line = TextFormatter().format(record("%d of %s", 2, "three", fields={"status": 200, "code": None}))
    assert line == "2023-11-14T22:13:20.012Z WARNING 2 of three status=200"


def test_nothing_in_a_message_starts_a_line_of_its_own() -> None:
    line = JsonFormatter().format(record("%s", FORGED, fields={"client": FORGED}, exc_info=failure()))
    assert line.isascii()
    assert line.isprintable()
    entry = json.loads(line)
    assert entry["message"] == entry["client"] == FORGED
    assert "Traceback" in entry["exception"]
    text = TextFormatter().format(record("%s", FORGED, fields={"client": FORGED}, exc_info=failure()))
    first, *rest = text.splitlines()
    assert first.startswith("2023-11-14T22:13:20.012Z WARNING x\\n{")
    assert "\x1b" not in text
    assert rest[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in rest)


def test_each_request_leaves_a_line(
    client: FlaskClient, jpeg: bytes, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    client.post("/v1/caption?beam_size=2", data=jpeg, headers={"X-Request-ID": "id-1"})
    client.post("/v1/caption", data=b"none", headers={"X-Request-ID": "id-2"})
    fine, wrong = lines()
    assert fine.pop("ms") > 0
    assert fine.pop("time")
    assert fine == {
        "level": "info",
        "logger": "service.observing",
        "message": "request",
        "request_id": "id-1",
        "method": "POST",
        "route": "/v1/caption",
        "status": 200,
        "bytes_in": len(jpeg),
        "client": "127.0.0.1",
    }
    assert (wrong["request_id"], wrong["status"], wrong["code"]) == ("id-2", 415, "not_an_image")


def test_what_a_client_sends_is_not_logged(
    loaded: Captioner, caplog: pytest.LogCaptureFixture, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    key = "first-key-of-all-keys"
    client = create_app(ServiceConfig(api_keys=(key,)), [loaded]).test_client()
    client.post(
        "/v1/speech?secret-query=1", json={"text": "secret text", "voice": "secret"}, headers={"X-API-Key": key}
    )
    client.get("/secret-path", headers={"Authorization": "Bearer " + key, "User-Agent": "secret agent"})
    client.open("/v1/caption", method="SECRET", headers={"X-API-Key": key, "X-Request-ID": "secret\\n"})
    client.get("/v1/models", headers={"X-API-Key": "secret" + key})
    assert len(lines()) == 4
    assert "secret" not in caplog.text.lower()
    assert key not in caplog.text


def test_probes_are_quiet(client: FlaskClient, lines: Callable[[], list[dict[str, Any]]]) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/metrics", "/v2/health/live"):
        client.get(path)
    assert not lines()


def test_a_crash_tells_its_request_and_its_traceback_in_one_line(
    app: Flask, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    @app.get("/crash")
    def crash() -> str:
        return str(1 / 0)

    app.test_client().get("/crash", headers={"X-Request-ID": "id-3"})
    crashed, request = lines()
    assert crashed["level"] == "error"
    assert crashed["request_id"] == request["request_id"] == "id-3"
    assert "ZeroDivisionError" in crashed["exception"]
    assert request["status"] == 500


@pytest.mark.parametrize(
    ("log_format", "terminal", "is_json"),
    [("auto", False, True), ("auto", True, False), ("text", False, False), ("json", True, True)],
)
def test_the_form_fits_who_reads(
    configured: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    log_format: str,
    terminal: bool,
    is_json: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    configured(log_format=log_format)
    logging.getLogger("service.x").info("hello")
    assert capsys.readouterr().err.startswith("{") == is_json


def test_the_level_is_for_what_is_ours(configured: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    configured(log_level="error")
    logging.getLogger("service.x").warning("quiet")
    logging.getLogger("gunicorn.error").warning("quiet")
    assert not capsys.readouterr().err
    configured(log_level="debug")
    logging.getLogger("service.x").debug("loud")
    logging.getLogger("PIL.x").debug("quiet")
    assert "loud" in capsys.readouterr().err


def test_warnings_of_python_are_lines_too(configured: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configured(log_format="json")
        warnings.warn("beware", stacklevel=1)
    assert "beware" in json.loads(capsys.readouterr().err)["message"]
