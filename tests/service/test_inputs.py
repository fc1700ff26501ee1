from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable

import pytest
from flask import Request
from flask.testing import FlaskClient
from PIL import Image
from urllib3 import encode_multipart_formdata
from werkzeug.test import EnvironBuilder, TestResponse

from captioner.errors import ImageError
from captioner.images import open_image
from service.config import ServiceConfig
from service.errors import RequestError
from service.inputs import MAX_FIELD_BYTES, MAX_HEAD_BYTES, SERVED_FORMATS, Upload, image_bytes, read_upload

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


def read_form(*images: bytes, **texts: str) -> Upload:
    body, _ = encode_multipart_formdata([*texts.items(), *(("image", ("photo.jpg", image)) for image in images)])
    return read(body)


def read(body: bytes) -> Upload:
    return read_upload(EnvironBuilder(method="POST", data=body).get_request(Request), ServiceConfig())


@pytest.mark.parametrize("size", [60_000, 65_535, 65_536, 131_072, 140_000, 300_000, 890_000, 3_000_000])
def test_files_of_any_size_and_bytes_come_through_a_form(size: int) -> None:
    for seed in range(5):
        image = random.Random(seed).randbytes(size - seed)
        upload = read_form(image, model="words", n_best="2")
        assert upload.images == (image,)
        assert upload.fields == {"model": "words", "n_best": "2"}


@pytest.mark.parametrize("filler", [b"\r", b"\n", b"\r\n", b"\r\n-", b"\r\n--"])
def test_files_of_line_ends_come_through_a_form(filler: bytes) -> None:
    image = filler * 200_000
    assert read_form(image).images == (image,)


def test_many_files_come_through_one_form() -> None:
    images = [random.Random(seed).randbytes(14_000) for seed in range(33)]
    assert read_form(*images[:32]).images == tuple(images[:32])
    with pytest.raises(RequestError) as caught:
        read_form(*images)
    assert caught.value.code == "too_many_images"


def test_the_texts_of_a_form_have_one_limit_together() -> None:
    image, half = random.Random(0).randbytes(500_000), "a" * (MAX_FIELD_BYTES // 2)
    assert read_form(image, one=half, other=half).images == (image,)
    for texts in ({"one": half, "other": half + "a"}, {"one": "ä" * (len(half) + 1)}, {"one": "a" * 3_000_000}):
        with pytest.raises(RequestError, match="too long a text") as caught:
            read_form(image, **texts)
        assert caught.value.code == "body_too_large"


@pytest.mark.parametrize("line", [b"X: y\r\n", b" y\r\n", b"X" * 1000])
def test_the_heads_of_a_form_have_one_limit_together(line: bytes) -> None:
    start = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
    for heads in (1, 10):
        part = start + line * (MAX_HEAD_BYTES // len(line) // heads + 1) + b"\r\n\r\nabc\r\n"
        with pytest.raises(RequestError, match="or head") as caught:
            read(part * heads + b"--b--\r\n")
        assert caught.value.code == "body_too_large"


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_only_heads_count_as_such(end: bytes) -> None:
    image = b"x" * (2 * MAX_HEAD_BYTES)
    lines = [b"--b", b'Content-Disposition: form-data; name="image"; filename="a"', b"", image, b"--b--", b""]
    assert read(end.join(lines)).images == (image,)


@pytest.mark.parametrize("format_", SERVED_FORMATS)
def test_the_formats_that_are_served_are_those_of_pillow(format_: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, format_)
    assert open_image(file, formats=SERVED_FORMATS).size == (32, 32)
    with pytest.raises(ImageError, match=f"use one of .*{format_}"):
        open_image(b"P3 1 1 255 0 0 0", formats=SERVED_FORMATS)


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
