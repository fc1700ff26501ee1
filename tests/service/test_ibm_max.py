"""``POST /model/predict`` and ``GET /model/metadata``, as IBM's MAX Image Caption Generator has them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from captioner import Captioner
from service.app import create_app
from service.config import ServiceConfig

Refused = Callable[[TestResponse, int, str], str]
URL = "/model/predict"


def test_three_captions_come_with_their_probabilities(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    reply = client.post(URL, data={"image": (io.BytesIO(jpeg), "a.jpg")}).get_json()
    expected = loaded.candidates(jpeg, n_best=3)
    assert reply == {
        "status": "ok",
        "predictions": [
            {
                "index": str(index),
                "caption": caption.text,
                "probability": pytest.approx(math.exp(caption.log_probability), rel=1e-4),
            }
            for index, caption in enumerate(expected)
        ],
    }
    assert len(expected) == 3
    assert reply["predictions"][0]["caption"] == loaded(jpeg).text


def test_options_and_other_bodies_serve_as_well(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    reply = client.post(f"{URL}?max_length=2&n_best=1", data=jpeg).get_json()
    assert [each["caption"] for each in reply["predictions"]] == [loaded(jpeg, max_length=2).text]


def test_a_narrow_limit_leaves_fewer(loaded: Captioner, jpeg: bytes) -> None:
    narrow = create_app(ServiceConfig(max_beam_size=2), [loaded]).test_client()
    assert len(narrow.post(URL, data=jpeg).get_json()["predictions"]) == 2


def test_the_model_is_described(client: FlaskClient, loaded: Captioner) -> None:
    reply = client.get("/model/metadata").get_json()
    assert list(reply) == ["id", "name", "description", "type", "license", "source"]
    assert (reply["id"], reply["description"]) == (loaded.name, loaded.info.description)
    assert reply["source"].endswith("/v1/models")


def test_bad_input_is_refused(client: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    refused(client.post(URL), 400, "empty_body")
    refused(client.post(URL, data={"file": (io.BytesIO(jpeg), "a.jpg")}), 400, "bad_request")
    refused(client.post(URL, data={"image": (io.BytesIO(b"hello"), "a.jpg")}), 415, "not_an_image")
    refused(client.post(URL, data={"image": (io.BytesIO(jpeg[:-100]), "a.jpg")}), 422, "image_broken")
    refused(client.post(URL, data={"image": [(io.BytesIO(jpeg), "a.jpg")] * 2}), 413, "too_many_images")
    assert "/v1/caption" in refused(client.post(f"{URL}?attention=true", data=jpeg), 400, "bad_option")
