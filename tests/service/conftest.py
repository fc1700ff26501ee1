"""A service over one tiny model, without a network."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromium import Browser
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from captioner import Captioner
from service.app import create_app
from service.config import ServiceConfig


@pytest.fixture(scope="session")
def loaded(tiny_captioner: Captioner, jpeg: bytes, png: bytes) -> Captioner:
    assert tiny_captioner(jpeg).text != tiny_captioner(png).text, (
        "the tests of order need pictures with captions of their own"
    )
    return tiny_captioner


@pytest.fixture
def app(loaded: Captioner) -> Flask:
    limits = ServiceConfig(max_bytes=100_000, max_pixels=10_000, max_images=4, max_beam_size=6, max_tokens=20)
    return create_app(limits, [loaded])


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    return encode(Image.linear_gradient("L").resize((60, 40)).convert("RGB"), "JPEG")


@pytest.fixture(scope="session")
def png() -> bytes:
    return encode(Image.radial_gradient("L").resize((40, 40)).convert("RGB"), "PNG")


def encode(image: Image.Image, image_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format)
    return file.getvalue()


@pytest.fixture(scope="session")
def refused() -> Callable[[TestResponse, int, str], str]:
    """Check an error reply and return its sentence."""

    def check(response: TestResponse, status: int, code: str) -> str:
        reply = response.get_json()
        assert (response.status_code, reply.get("code")) == (status, code), reply
        assert set(reply) == {"error", "code", "request_id"}
        assert response.headers["X-Request-ID"] == reply["request_id"]
        assert isinstance(reply["error"], str)
        return reply["error"]

    return check


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """The application on a port of its own, for clients that bring their own HTTP."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def browser(chromium: Browser, address: str) -> Iterator[Browser]:
    """A browser for which the application is new; what the test leaves in its console fails it."""
    chromium.command("Emulation.clearDeviceMetricsOverride", {})
    chromium.command("Emulation.setEmulatedMedia", {"features": []})
    chromium.complaints()
    chromium.requests()
    chromium.ask("/url", {"url": address})
    yield chromium
    complaints = chromium.complaints()
    chromium.ask("/url", {"url": "about:blank"})  # a page that waits for its turn would go on asking
    assert complaints == []


@pytest.fixture
def photo_path(jpeg: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg)
    return path
