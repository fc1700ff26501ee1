"""``GET /docs``: the description as a page, without a script, and its commands as a shell runs them."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from chromium import ENTER, TAB, Browser
from flask import Flask
from flask.testing import FlaskClient

from captioner import Captioner
from service.app import create_app
from service.config import ServiceConfig

KEY = "sesame-open-yourself"


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    return client.get("/openapi.json").get_json()


def read(client: FlaskClient, base_url: str | None = None) -> str:
    response = client.get("/docs", base_url=base_url)
    assert (response.status_code, response.mimetype) == (200, "text/html")
    return response.get_data(as_text=True)


def commands(document: dict[str, Any]) -> list[str]:
    return [
        sample["source"]
        for methods in document["paths"].values()
        for told in methods.values()
        for sample in told["x-codeSamples"]
    ]


def test_all_of_the_description_is_on_the_page(client: FlaskClient, document: dict[str, Any]) -> None:
    page = html.unescape(read(client))
    for tag in document["tags"]:
        assert f">{tag['name']}</h2>" in page
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            assert f'<h3 id="{told["operationId"]}"><b>{method.upper()}</b> <code>{path}</code></h3>' in page
            names = [*told.get("requestBody", {"content": {}})["content"], *told["responses"]["200"]["content"]]
            for text in (told["summary"], *names, *(one["name"] for one in told.get("parameters", ()))):
                assert text in page
    for command in commands(document):
        assert f'<pre class="command"><code>{command}</code></pre>' in page
    for code in document["components"]["schemas"]["Code"]["oneOf"]:
        assert code["const"] in page
        assert code["description"] in page


def test_the_fields_of_objects_in_lists_have_their_path(client: FlaskClient) -> None:
    page = read(client)
    for name in ("results[].captions[].text", "results[].attention.rows", "results[].code", "inputs[].shape"):
        assert f"<dt><code>{name}</code>" in page


def test_alternatives_are_not_called_required(client: FlaskClient) -> None:
    page = read(client)
    for name, presence in {
        "image": "text, either",
        "images": "list, either",
        "phones": "list, either",
        "results[].captions": "list, either",
        "results[].error": "text, either",
        "results[].captions[].text": "text, always",
        "inputs": "list, required",
    }.items():
        assert f"<dt><code>{name}</code> <span>{presence}</span></dt>" in page


def test_limits_are_told_in_words(loaded: Captioner) -> None:
    page = read(create_app(ServiceConfig(max_beam_size=7), [loaded]).test_client())
    assert "<code>beam_size</code> <span>whole number, 1 to 7</span>" in page


def test_the_commands_have_the_address_that_was_asked(client: FlaskClient) -> None:
    assert "@photo.jpg https://captions.example/v1/caption<" in read(client, "https://captions.example/")


def test_an_address_is_no_markup_and_no_command(client: FlaskClient) -> None:
    page = html.unescape(read(client, "http://a$(date)'<b>/"))
    assert "<b>/v1" not in read(client, "http://a$(date)'<b>/")
    assert "@photo.jpg http://a$(date)" not in page


def test_the_page_needs_nothing_but_its_style(client: FlaskClient) -> None:
    response = client.get("/docs")
    assert response.headers["Content-Security-Policy"] == (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    page = response.get_data(as_text=True)
    assert "<script" not in page
    for target in re.findall(r'(?:src|href)="([^#].*?)"', page):
        assert client.get(f"/{target.removeprefix('./')}", buffered=True).status_code == 200


def test_links_within_the_page_lead_somewhere(client: FlaskClient) -> None:
    page = read(client)
    targets = re.findall(r' id="(.+?)"', page)
    assert len(targets) == len(set(targets))
    assert set(re.findall(r'href="#(.+?)"', page)) <= set(targets)


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
class TestTheCommands:
    @pytest.fixture(params=[(), (KEY,)], ids=["open", "with a key"])
    def app(self, request: pytest.FixtureRequest, loaded: Captioner) -> Flask:
        return create_app(ServiceConfig(api_keys=request.param), [loaded])

    def test_they_work_as_they_stand(self, app: Flask, address: str, photo_path: Path) -> None:
        (photo_path.parent / ".curlrc").write_text("fail\nsilent\nshow-error\n")
        environment = {**os.environ, "KEY": KEY, "CURL_HOME": str(photo_path.parent)}
        for command in commands(app.test_client().get("/openapi.json", base_url=address).get_json()):
            done = subprocess.run(
                ["sh", "-c", command], cwd=photo_path.parent, env=environment, capture_output=True, check=False
            )
            assert done.returncode == 0, (command, done.stderr)
            assert done.stdout or command.endswith("--output speech.wav")
            if not done.stdout:
                assert (photo_path.parent / "speech.wav").read_bytes().startswith(b"RIFF")


@pytest.mark.parametrize("width", [320, 1200])
def test_it_fits(browser: Browser, address: str, width: int) -> None:
    screen = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.command("Emulation.setDeviceMetricsOverride", screen)
    browser.ask("/url", {"url": f"{address}/docs"})
    browser.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert browser.run("return document.documentElement.scrollWidth") <= width


def test_the_keyboard_goes_past_the_list(browser: Browser, address: str) -> None:
    browser.ask("/url", {"url": f"{address}/docs"})
    browser.wait("performance.getEntriesByType('paint').length")  # before that, keys are dropped
    browser.press(TAB)
    assert browser.run("return document.activeElement.className") == "skip"
    assert browser.run("return document.activeElement.getBoundingClientRect().top") >= 0
    browser.press(ENTER)
    assert browser.run("return document.activeElement.id") == "content"
    browser.press(TAB)
    assert browser.run("return document.activeElement.localName") == "summary"
    browser.press(ENTER)
    assert browser.run("return document.activeElement.parentElement.open")
