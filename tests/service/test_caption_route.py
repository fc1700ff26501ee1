from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from captioner import Captioner

Refused = Callable[[TestResponse, int, str], str]

URL = "/v1/caption"


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def texts(response: TestResponse) -> list[str]:
    assert response.status_code == 200, response.get_data(as_text=True)
    return [result["captions"][0]["text"] for result in response.get_json()["results"]]


@pytest.mark.parametrize(
    "content_type",
    [None, "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json", "text/plain"],
)
def test_raw_bytes_are_an_image_whatever_their_content_type(
    client: FlaskClient, loaded: Captioner, jpeg: bytes, content_type: str | None
) -> None:
    response = client.post(URL, data=jpeg, content_type=content_type)
    expected = {"model": loaded.name, "results": [{"captions": [loaded(jpeg).to_row()]}]}
    assert response.get_json() == expected


def test_multipart_with_several_images_keeps_order_and_reads_options(
    client: FlaskClient, loaded: Captioner, jpeg: bytes, png: bytes
) -> None:
    form = {
        "image": [(io.BytesIO(png), "a.png"), (io.BytesIO(jpeg), "b.jpg")],
        "beam_size": "1",
        "max_length": "4",
    }
    response = client.post(URL, data=form)
    assert texts(response) == [loaded(image, beam_size=1, max_length=4).text for image in (png, jpeg)]


def test_multipart_is_recognised_without_its_content_type(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    head = b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    response = client.post(URL, data=head + jpeg + b"\r\n--frontier--\r\n", content_type="image/jpeg")
    assert texts(response) == [loaded(jpeg).text]


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,", "DATA:;BASE64,"])
@pytest.mark.parametrize("content_type", ["application/json", None, "application/x-www-form-urlencoded"])
def test_json_takes_base64_and_data_urls(
    client: FlaskClient, loaded: Captioner, jpeg: bytes, prefix: str, content_type: str | None
) -> None:
    body = " \n" + json.dumps({"image": prefix + text(jpeg), "n_best": 2})
    response = client.post(URL, data=body, content_type=content_type)
    rows = [caption.to_row() for caption in loaded.candidates(jpeg, n_best=2)]
    assert response.get_json()["results"] == [{"captions": rows}]


def test_options_come_from_the_query_too(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    query = {"beam_size": 5, "n_best": 4, "max_length": 6, "length_penalty": 0.5, "no_repeat_ngram": 1}
    response = client.post(URL, data=jpeg, query_string={**query, "model": loaded.name})
    expected = [caption.to_row() for caption in loaded.candidates(jpeg, **query)]
    assert len(expected) == 4
    assert response.get_json()["results"][0]["captions"] == expected


@pytest.mark.parametrize("way", ["query", "form", "json"])
def test_captions_are_ranked_by_consensus_where_that_is_asked_for(
    client: FlaskClient, loaded: Captioner, jpeg: bytes, way: str
) -> None:
    options = {"n_best": 6, "rank": "consensus"}
    response = {
        "query": lambda: client.post(URL, data=jpeg, query_string=options),
        "form": lambda: client.post(URL, data={"image": (io.BytesIO(jpeg), "a.jpg"), **options}),
        "json": lambda: client.post(URL, json={"image": text(jpeg), **options}),
    }[way]()
    expected = [caption.to_row() for caption in loaded.candidates(jpeg, **options)]
    by_score = [caption.to_row() for caption in loaded.candidates(jpeg, n_best=6)]
    assert expected != by_score, "another order, else the test shows nothing"
    assert response.get_json()["results"] == [{"captions": expected}]


def test_attention_weights_come_with_the_best_caption(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    attention = client.post(f"{URL}?attention=true", data=jpeg).get_json()["results"][0]["attention"]
    expected = loaded(jpeg).attention
    assert expected.std() > 0.01
    assert (attention["rows"], attention["columns"]) == expected.shape[1:]
    np.testing.assert_allclose(attention["weights"], expected, atol=1e-4)
    assert max(len(repr(weight)) for row in attention["weights"][0] for weight in row) <= len("0.1234")
    assert attention["others"] == []


def test_attention_weights_come_for_every_caption(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    query = {"attention": "true", "n_best": 3}
    attention = client.post(URL, data=jpeg, query_string=query).get_json()["results"][0]["attention"]
    found = [attention["weights"], *attention["others"]]
    for weights, caption in zip(found, loaded.candidates(jpeg, n_best=3), strict=True):
        np.testing.assert_allclose(weights, caption.attention, atol=1e-4)


def test_one_bad_image_never_fails_its_neighbours(
    client: FlaskClient, loaded: Captioner, jpeg: bytes, png: bytes
) -> None:
    response = client.post(URL, json={"images": [text(jpeg), "%%%", text(b"hello"), text(png)]})
    assert response.status_code == 200
    first, bad_text, no_image, last = response.get_json()["results"]
    assert first["captions"][0]["text"] == loaded(jpeg).text
    assert (set(bad_text), bad_text["code"]) == ({"error", "code"}, "bad_base64")
    assert (set(no_image), no_image["code"]) == ({"error", "code"}, "not_an_image")
    assert last["captions"][0]["text"] == loaded(png).text


def test_several_bad_images_are_still_a_reply(client: FlaskClient) -> None:
    response = client.post(URL, json={"images": [text(b"a"), text(b"b")]})
    assert response.status_code == 200
    assert [result["code"] for result in response.get_json()["results"]] == ["not_an_image"] * 2


def test_bytes_that_are_no_image_are_refused(client: FlaskClient, refused: Refused) -> None:
    refused(client.post(URL, data=b"hello"), 415, "not_an_image")
    refused(client.post(URL, json={"images": [text(b"hello")]}), 415, "not_an_image")


def test_a_truncated_image_is_broken(client: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    refused(client.post(URL, data=jpeg[: len(jpeg) // 2]), 422, "image_broken")


def test_an_image_of_too_many_pixels_is_refused(client: FlaskClient, refused: Refused) -> None:
    file = io.BytesIO()
    Image.new("1", (101, 100)).save(file, "PNG")
    refused(client.post(URL, data=file.getvalue()), 413, "image_too_large")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("beam_size", "three"),
        ("beam_size", 0),
        ("beam_size", True),
        ("beam_size", [3]),
        ("beam_size", 2.5),
        ("beam_size", 7),
        ("n_best", 7),
        ("max_length", 21),
        ("max_length", -1),
        ("length_penalty", "nan"),
        ("length_penalty", 10**400),
        ("length_penalty", {}),
        ("no_repeat_ngram", "x"),
        ("rank", "votes"),
        ("rank", ["score", "consensus"]),
        ("method", "magic"),
        ("method", 1),
        ("attention", "perhaps"),
        ("attention", 2),
        ("model", 3),
        ("beam_width", 3),
    ],
)
def test_impossible_options_are_refused_by_name(
    client: FlaskClient, refused: Refused, jpeg: bytes, option: str, value: Any
) -> None:
    message = refused(client.post(URL, json={"image": text(jpeg), option: value}), 400, "bad_option")
    assert option in message


def test_a_bad_option_is_told_before_a_bad_image(client: FlaskClient, refused: Refused) -> None:
    refused(client.post(f"{URL}?beam_size=0", data=b"hello"), 400, "bad_option")


def test_an_unknown_model_is_not_found(client: FlaskClient, refused: Refused, loaded: Captioner, jpeg: bytes) -> None:
    message = refused(client.post(f"{URL}?model=poems", data=jpeg), 404, "model_not_found")
    assert loaded.name in message


def test_a_name_of_any_length_is_told_back_in_short(client: FlaskClient, refused: Refused) -> None:
    assert len(refused(client.post(URL, json={"image": "", "model": "x" * 50_000}), 404, "model_not_found")) < 200


def test_formats_that_are_slow_to_decode_are_not_served(client: FlaskClient, refused: Refused) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "DDS")  # in pure Python, which would stop all others
    assert "JPEG" in refused(client.post("/v1/caption", data=file.getvalue()), 415, "not_an_image")
