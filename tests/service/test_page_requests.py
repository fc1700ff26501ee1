"""What the page sends, and how it bears what comes back: with a key, in a queue, and large pictures."""

from __future__ import annotations

import base64
import io
import threading
from pathlib import Path

import flask
import pytest
from chromium import ENTER, Browser
from flask import Flask, Response, jsonify
from page import CAPTIONED, LISTED, REFUSED, give, record
from PIL import Image

from captioner import Captioner
from service.app import create_app
from service.config import ServiceConfig

LOCKED = "!document.querySelector('#unlock').hidden && document.querySelector('#locked').innerText"
WAITING = "document.querySelector('#message.waiting').innerText.includes('again by itself')"
KEY = "a-key-of-this-service"


@pytest.fixture
def app(loaded: Captioner, request: pytest.FixtureRequest) -> Flask:
    """The service, with API keys if a test has such as a parameter."""
    keys = getattr(request, "param", ())
    return create_app(ServiceConfig(max_bytes=100_000, max_pixels=10_000, api_keys=keys), [loaded])


@pytest.fixture
def busy(app: Flask, request: pytest.FixtureRequest) -> threading.Event:
    """A service that refuses captions, with the parameters' status and seconds, until the event is set."""
    status, seconds = request.param
    free = threading.Event()

    @app.before_request
    def refuse() -> Response | None:
        if free.is_set() or flask.request.path != "/v1/caption":
            return None
        response = jsonify(error="Too many are waiting", code="busy")
        response.status_code = status
        response.headers["Retry-After"] = str(seconds)
        return response

    return free


@pytest.mark.parametrize("app", [(KEY,)], indirect=True)
def test_a_key_is_asked_for_and_kept(browser: Browser, loaded: Captioner, jpeg: bytes) -> None:
    assert browser.wait(LOCKED) == "The service asks for an API key."
    assert browser.run("return document.activeElement.id") == "key"
    assert browser.text("label[for=key]") == "API key"

    browser.type("#key", "another" + ENTER)
    browser.wait(f"{LOCKED} === 'The service does not take this key.'")
    give(browser, "drop", [jpeg])
    browser.type("#key", KEY + ENTER)
    browser.wait(CAPTIONED)
    assert browser.text("#caption") == loaded(jpeg).sentence
    assert browser.text("#unlock") == ""
    assert {"401" in complaint for complaint in browser.complaints()} == {True}

    browser.ask("/refresh", {})
    browser.wait(LISTED)
    assert browser.complaints() == []
    browser.run("sessionStorage.clear()")


@pytest.mark.parametrize("app", [(KEY,)], indirect=True)
def test_a_key_can_be_pasted(browser: Browser) -> None:
    browser.wait(LOCKED)
    paste = "new ClipboardEvent('paste', {clipboardData: new DataTransfer(), bubbles: true})"
    browser.run(f"document.querySelector('#key').dispatchEvent({paste})")
    assert browser.text("#message") == ""
    browser.complaints()


@pytest.mark.parametrize("busy", [(429, 0), (503, 1)], indirect=True)
def test_it_waits_its_turn(busy: threading.Event, browser: Browser, loaded: Captioner, photo_path: Path) -> None:
    browser.type("#choose", str(photo_path))
    browser.wait(WAITING)
    assert browser.text("#message").startswith("Too many are waiting. ")
    busy.set()
    browser.wait(CAPTIONED)
    assert browser.text("#caption") == loaded(photo_path).sentence
    assert browser.text("#message") == ""
    browser.complaints()


@pytest.mark.parametrize("busy", [(429, 30)], indirect=True)
def test_another_picture_does_not_wait_for_the_one_before(
    busy: threading.Event, browser: Browser, loaded: Captioner, jpeg: bytes, png: bytes
) -> None:
    give(browser, "drop", [jpeg])
    browser.wait(WAITING)
    busy.set()
    give(browser, "drop", [png])
    browser.wait(CAPTIONED)
    assert browser.text("#caption") == loaded(png).sentence
    browser.complaints()


@pytest.mark.parametrize("busy", [(429, 3600)], indirect=True)
def test_a_wait_that_is_too_long_is_told_instead(busy: threading.Event, browser: Browser, photo_path: Path) -> None:
    browser.type("#choose", str(photo_path))
    assert browser.wait(REFUSED) == "Too many are waiting"
    browser.complaints()


def sent(browser: Browser) -> bytes:
    """The body of the latest request."""
    script = """
        const bytes = new Uint8Array(await new Response(window.sent).arrayBuffer());
        return btoa(String.fromCharCode(...bytes));
    """
    return base64.b64decode(browser.run(f"return (async () => {{{script}}})()"))


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def give_and_wait(browser: Browser, image: bytes) -> bytes:
    browser.wait(LISTED)
    record(browser)
    give(browser, "drop", [image])
    browser.wait(CAPTIONED)
    return sent(browser)


def test_a_large_picture_is_sent_small_and_upright(browser: Browser) -> None:
    image = Image.new("RGB", (300, 200), "red")
    image.paste("blue", (0, 0, 300, 100))  # as stored the upper half; the right one when the camera's turn is undone
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    with Image.open(io.BytesIO(give_and_wait(browser, encode(image, "JPEG", exif=exif)))) as arrived:
        assert (arrived.format, 0x0112 in arrived.getexif()) == ("JPEG", False)
        width, height = arrived.size
        assert width * height <= 10_000 < (width + 2) * (height + 2)
        assert width / height == pytest.approx(2 / 3, abs=0.02)
        left, right = (arrived.getpixel((x, height // 2)) for x in (width // 5, width * 4 // 5))
        assert isinstance(left, tuple)
        assert isinstance(right, tuple)
        assert left[0] > 200 > right[0]
        assert right[2] > 200 > left[2]


def test_what_is_transparent_is_sent_white(browser: Browser) -> None:
    with Image.open(io.BytesIO(give_and_wait(browser, encode(Image.new("RGBA", (200, 100)), "PNG")))) as arrived:
        assert arrived.getpixel((5, 5)) == (255, 255, 255)


def test_others_are_sent_as_they_are(browser: Browser, jpeg: bytes) -> None:
    assert give_and_wait(browser, jpeg) == jpeg
    unknown = encode(Image.new("RGB", (20, 20)), "TIFF")  # to Chromium
    assert give_and_wait(browser, unknown) == unknown


def test_a_large_file_that_cannot_be_shrunk_is_not_sent(browser: Browser) -> None:
    browser.wait(LISTED)
    give(browser, "drop", [bytes(100_001)])
    assert "larger than the service takes" in browser.wait(REFUSED)


def test_nothing_is_asked_of_anybody_else(browser: Browser, address: str, photo_path: Path) -> None:
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    browser.point("#caption [data-index='1']")
    browser.click("#play")
    browser.wait("document.querySelector('#note').innerText === ''")
    requests = browser.requests()
    assert f"{address}/v1/speech" in requests
    assert [url for url in requests if not url.startswith((f"{address}/", f"blob:{address}/"))] == []
