"""``GET /`` and the files of the page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

import service

STATIC = Path(service.__file__).parent / "static"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize("accept", [BROWSER, "text/html"])
def test_a_browser_gets_the_page(client: FlaskClient, accept: str) -> None:
    response = client.get("/", headers={"Accept": accept}, buffered=True)
    assert response.mimetype == "text/html"
    assert response.get_data() == (STATIC / "page.html").read_bytes()
    assert response.vary.as_set() == {"accept"}


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/plain", "application/json, text/html;q=0.5"])
def test_a_program_is_told_how_to_begin(client: FlaskClient, accept: str | None) -> None:
    response = client.get("/", base_url="http://captions.example/", headers={"Accept": accept} if accept else {})
    assert response.get_json()["example"] == "curl --data-binary @photo.jpg http://captions.example/v1/caption"
    assert response.vary.as_set() == {"accept"}


def test_every_route_that_is_named_exists(client: FlaskClient, app: Flask) -> None:
    def pattern(rule: str) -> str:
        return re.sub(r"[<{].*?[>}]", "*", rule)

    rules = {f"{method} {rule.rule}" for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    assert set(map(pattern, client.get("/").get_json()["routes"])) <= set(map(pattern, rules))


def test_the_page_may_load_nothing_from_elsewhere(client: FlaskClient) -> None:
    for path in ("/", *(f"/static/{file.name}" for file in STATIC.iterdir())):
        response = client.get(path, headers={"Accept": BROWSER}, buffered=True)
        assert response.status_code == 200
        policy = dict(rule.split(" ", 1) for rule in response.headers["Content-Security-Policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self' blob:",
            "media-src": "blob:",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_names_files_that_are_there() -> None:
    named = set(re.findall(r'(?:src|href)="static/(.+?)"', (STATIC / "page.html").read_text()))
    assert named <= {file.name for file in STATIC.iterdir()}


def test_every_module_is_fetched_at_once_and_from_here() -> None:
    named = set(re.findall(r'(?:src|href)="static/(.+?\.js)"', (STATIC / "page.html").read_text()))
    imported = {name for module in named for name in re.findall(r'from "(.+?)"', (STATIC / module).read_text())}
    assert imported == {f"./{name}" for name in named - {"page.js"}}


def test_the_package_carries_the_page() -> None:
    project = tomllib.loads((STATIC.parent.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["service"]
    carried = {file for pattern in patterns for file in STATIC.parent.glob(pattern)}
    assert carried >= set(STATIC.iterdir())


def test_nothing_else_is_given_away(client: FlaskClient) -> None:
    for path in ("/static/", "/static/../app.py", "/static/%2e%2e/app.py", "/static/none.js"):
        assert client.get(path).status_code == 404
