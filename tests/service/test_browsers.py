from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from captioner import Captioner
from service.app import create_app
from service.config import ServiceConfig

FRIEND = "https://friend.example"
STRANGER = "https://stranger.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
CORS = "Access-Control-"


@pytest.fixture
def shared(loaded: Captioner) -> FlaskClient:
    config = ServiceConfig(cors_origins=(FRIEND, "http://localhost:3000"), api_keys=("first-key-of-all-keys",))
    return create_app(config, [loaded]).test_client()


@pytest.mark.parametrize("path", ["/", "/v1/models", "/nothing", "/metrics", "/health/live", "/static/page.css"])
def test_every_reply_has_its_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path, buffered=True).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers.getlist("Content-Security-Policy")[0].startswith("default-src 'none'")
    assert len(headers.getlist("Content-Security-Policy")) == 1


def test_only_pages_may_run_anything(client: FlaskClient) -> None:
    page = client.get("/", headers={"Accept": "text/html"}, buffered=True)
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "script-src" not in client.get("/v1/models").headers["Content-Security-Policy"]


def test_other_origins_are_off_by_default(client: FlaskClient) -> None:
    response = client.get("/v1/models", headers={"Origin": FRIEND})
    assert not [name for name in response.headers if name[0].startswith(CORS)]
    response = client.options("/v1/caption", headers={"Origin": FRIEND, **PREFLIGHT})
    assert not [name for name in response.headers if name[0].startswith(CORS)]


def test_a_page_of_a_listed_origin_may_call(shared: FlaskClient) -> None:
    headers = shared.options("/v1/caption", headers={"Origin": FRIEND, **PREFLIGHT}).headers
    assert headers["Access-Control-Allow-Origin"] == FRIEND
    assert headers["Access-Control-Allow-Methods"] == "GET, POST"
    assert "Authorization" in headers["Access-Control-Allow-Headers"].split(", ")

    response = shared.get("/v1/models", headers={"Origin": FRIEND, "X-API-Key": "first-key-of-all-keys"})
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == FRIEND
    assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"]
    assert "Origin" in response.vary


def test_a_refusal_can_be_read_by_that_page(shared: FlaskClient) -> None:
    response = shared.get("/v1/models", headers={"Origin": FRIEND})
    assert response.status_code == 401
    assert response.headers["Access-Control-Allow-Origin"] == FRIEND


@pytest.mark.parametrize("origin", [STRANGER, FRIEND + ".evil", FRIEND + ":444", "http://friend.example", "null", ""])
def test_a_page_of_another_origin_may_not(shared: FlaskClient, origin: str) -> None:
    for response in (
        shared.options("/v1/caption", headers={"Origin": origin, **PREFLIGHT}),
        shared.get("/", headers={"Origin": origin}),
    ):
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.vary


def test_replies_vary_also_for_those_who_tell_no_origin(shared: FlaskClient) -> None:
    response = shared.get("/", headers={"Accept": "text/html"}, buffered=True)
    assert {"Accept", "Origin"} <= set(response.vary)


def test_all_origins_may_call_where_that_is_wanted_but_never_with_credentials(
    loaded: Captioner, shared: FlaskClient
) -> None:
    public = create_app(ServiceConfig(cors_origins=("*",)), [loaded]).test_client()
    assert public.get("/v1/models", headers={"Origin": STRANGER}).headers["Access-Control-Allow-Origin"] == "*"
    for client in (public, shared):
        for response in (
            client.options("/v1/caption", headers={"Origin": FRIEND, **PREFLIGHT}),
            client.get("/v1/models", headers={"Origin": FRIEND}),
        ):
            assert "Access-Control-Allow-Credentials" not in response.headers


def test_a_question_about_a_path_is_still_answered(shared: FlaskClient, client: FlaskClient) -> None:
    assert "POST" in client.options("/v1/caption").headers["Allow"]
    assert shared.options("/v1/caption").status_code == 401
