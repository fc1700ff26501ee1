from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.errors import RequestError
from service.inputs import image_bytes

URL = "/v1/caption"
Refused = Callable[[TestResponse, int, str], str]


def test_an_empty_body_is_refused(client: FlaskClient, refused: Refused) -> None:
    refused(client.post(URL), 400, "empty_body")
    refused(client.post(URL, data=b"", content_type="application/json"), 400, "empty_body")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"image": "abc"',
        b'{"image": "abc"} and more',
        b'{"image": NaN}',
        b'{"image": "\xff"}',
        b'{"image": ' + b"[" * 50_000,
        b'{"image": ' + b"9" * 10_000 + b"}",
    ],
)
def test_malformed_json_is_refused(client: FlaskClient, refused: Refused, body: bytes) -> None:
    refused(client.post(URL, data=body), 400, "bad_json")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"image": "YQ==", "images": ["YQ=="]},
        {"images": "YQ=="},
        {"images": []},
        {"images": {"a": "YQ=="}},
    ],
)
def test_json_of_another_shape_is_refused(client: FlaskClient, refused: Refused, fields: dict[str, object]) -> None:
    assert "image" in refused(client.post(URL, json=fields), 400, "bad_request")


@pytest.mark.parametrize("image", [None, 5, ["YQ=="], {"a": "YQ=="}])
def test_an_image_that_is_no_text_is_refused(client: FlaskClient, refused: Refused, image: object) -> None:
    assert "base64" in refused(client.post(URL, json={"image": image}), 400, "bad_base64")
    results = client.post(URL, json={"images": [image, "YQ=="]}).get_json()["results"]
    assert [result["code"] for result in results] == ["bad_base64", "not_an_image"]


def test_json_may_begin_with_a_byte_order_mark(client: FlaskClient, jpeg: bytes) -> None:
    body = json.dumps({"image": base64.b64encode(jpeg).decode()}).encode("utf-8-sig")
    assert client.post(URL, data=body).status_code == 200


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ("?", "bad_base64"),
        ("YQ", "bad_base64"),
        ("é", "bad_base64"),
        ("data:image/png,abc", "bad_base64"),
        ("data:YQ==", "bad_base64"),
        ("https://example.org/photo.jpg", "url_refused"),
    ],
)
def test_text_that_is_no_image_is_refused(client: FlaskClient, refused: Refused, image: str, code: str) -> None:
    refused(client.post(URL, json={"image": image}), 400, code)


def test_base64_may_be_broken_into_lines() -> None:
    assert image_bytes("aGVs\r\nbG8=\n") == b"hello"
    with pytest.raises(RequestError):
        image_bytes("aGVs-bG8")


def test_a_form_needs_a_file_named_image(client: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    message = refused(client.post(URL, data={"photo": (io.BytesIO(jpeg), "a.jpg")}), 400, "bad_request")
    assert "-F image=@photo.jpg" in message


def test_an_image_in_a_text_field_is_told_to_come_as_a_file(client: FlaskClient, refused: Refused) -> None:
    refused(client.post(URL, data={"image": "a" * 70_000}, content_type="multipart/form-data"), 413, "body_too_large")


@pytest.mark.parametrize(
    "body",
    [
        b"--",
        b"--frontier",
        b"--frontier\r\n",
        b"--" + b"x" * 1000,
        b"--\xff\r\n",
        b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc',
    ],
)
def test_a_broken_form_is_refused(client: FlaskClient, refused: Refused, body: bytes) -> None:
    refused(client.post(URL, data=body), 400, "bad_multipart")


def test_too_many_images_are_refused(client: FlaskClient, refused: Refused) -> None:
    refused(client.post(URL, json={"images": ["YQ=="] * 5}), 413, "too_many_images")
    form = {"image": [(io.BytesIO(b"a"), "a.jpg") for _ in range(5)]}
    refused(client.post(URL, data=form), 413, "too_many_images")


@pytest.mark.parametrize("length_known", [True, False])
def test_the_byte_limit_holds_with_and_without_a_length(
    client: FlaskClient, refused: Refused, length_known: bool
) -> None:
    def post(size: int) -> TestResponse:
        if length_known:
            return client.post(URL, data=b"x" * size)
        body = io.BytesIO(b"x" * size)
        return client.post(URL, input_stream=body, environ_overrides={"wsgi.input_terminated": True})

    refused(post(100_000), 415, "not_an_image")
    assert "100,000 bytes" in refused(post(100_001), 413, "body_too_large")
