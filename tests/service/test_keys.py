from __future__ import annotations

import hmac
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from captioner import Captioner
from service.app import create_app
from service.config import ServiceConfig

Refused = Callable[[TestResponse, int, str], str]
KEYS = ("first-key-of-all-keys", "second-key-of-all-keys", "name=third-key/of+all.keys==")


@pytest.fixture
def locked(loaded: Captioner) -> FlaskClient:
    return create_app(ServiceConfig(api_keys=KEYS), [loaded]).test_client()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "Authorization: bearer {}", "X-API-Key: {}"])
def test_each_key_opens(locked: FlaskClient, jpeg: bytes, header: str, key: str) -> None:
    headers = dict([header.format(key).split(": ", 1)])
    assert locked.post("/v1/caption", data=jpeg, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer first-key-of-all-key"},
        {"Authorization": "Bearer first-key-of-all-keys2"},
        {"Authorization": "first-key-of-all-keys"},
        {"Authorization": "Token first-key-of-all-keys"},
        {"Authorization": "Basic Zmlyc3Qta2V5LW9mLWFsbC1rZXlzOg=="},
        {"X-API-Key": ""},
        {"X-API-Key": "First-key-of-all-keys"},
        {"X-API-Key": "first-key-of-all-keys,second-key-of-all-keys"},
        {"X-API-Key": "schlüssel-mit-umlaut"},
        {"X-API-Key": "\xff\x00"},
    ],
)
def test_anything_else_is_refused(locked: FlaskClient, refused: Refused, jpeg: bytes, headers: dict[str, str]) -> None:
    response = locked.post("/v1/caption", data=jpeg, headers=headers)
    assert "Authorization: Bearer" in refused(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="captioner"'


def test_a_key_in_either_header_is_enough(locked: FlaskClient) -> None:
    headers = {"Authorization": "Bearer of-something-else", "X-API-Key": KEYS[1]}
    assert locked.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/static/page.js", "/docs", "/openapi.json", "/health", "/health/live", "/health/ready", "/v2/health/live"],
)
def test_what_comes_before_a_key_is_open(locked: FlaskClient, path: str) -> None:
    assert locked.get(path, buffered=True).status_code == 200
    assert locked.head(path, buffered=True).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/info", "/v1/models", "/nothing", "/v2", "/api/tags", "/static/"])
def test_all_else_is_closed(locked: FlaskClient, refused: Refused, path: str) -> None:
    refused(locked.get(path), 401, "unauthorized")


def test_a_caption_at_the_front_door_needs_a_key(locked: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    refused(locked.post("/", data=jpeg), 401, "unauthorized")


def test_without_keys_all_is_open(client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 200


def test_every_key_is_compared_in_constant_time(locked: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def watch(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return compare(given, known)

    monkeypatch.setattr(hmac, "compare_digest", watch)
    assert locked.get("/v1/models", headers={"X-API-Key": KEYS[0]}).status_code == 200
    assert len(compared) == len(KEYS)
    assert {len(digest) for pair in compared for digest in pair} == {32}
