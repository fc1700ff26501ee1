from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

Refused = Callable[[TestResponse, int, str], str]


def test_unknown_paths_and_methods_answer_in_json(client: FlaskClient, refused: Refused) -> None:
    assert "/v1/poem" in refused(client.get("/v1/poem"), 404, "not_found")
    response = client.get("/v1/caption")
    assert refused(response, 405, "method_not_allowed") == "/v1/caption does not take GET; use POST."
    assert set(response.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize("given", ["abc-123", "01J:x_y.z"])
def test_a_sane_request_id_is_kept(client: FlaskClient, given: str) -> None:
    assert client.get("/health/live", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "two words", "<script>", "x" * 129, "é"])
def test_another_request_id_is_replaced(client: FlaskClient, given: str) -> None:
    made = client.get("/health/live", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert made != given
    assert len(made) == 32


def test_a_crash_is_one_plain_sentence_and_a_log_entry(
    app: Flask, refused: Refused, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/crash")
    def crash() -> str:
        return str(1 / 0)

    with caplog.at_level(logging.ERROR):
        message = refused(app.test_client().get("/crash", headers={"X-Request-ID": "id-1"}), 500, "internal_error")
    assert "division" not in message
    assert "id-1" in caplog.text
    assert "ZeroDivisionError" in caplog.text
