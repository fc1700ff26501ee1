"""What stands under ``/api``, by hand; Ollama's own client and PhotoPrism's request are in test_clients."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from captioner import Captioner, __version__

Refused = Callable[[TestResponse, int, str], str]


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def lines(response: TestResponse) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.get_data()
    return [json.loads(line) for line in response.get_data(as_text=True).splitlines()]


def test_generation_streams_unless_told_otherwise(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    caption = loaded(jpeg)
    reply = client.post("/api/generate", json={"model": loaded.name, "images": [text(jpeg)]})
    assert reply.mimetype == "application/x-ndjson"
    first, last = lines(reply)
    assert first.pop("created_at") == last.pop("created_at")
    assert first == {"model": loaded.name, "response": caption.sentence, "done": False}
    assert last.pop("total_duration") > 0
    assert last == {
        "model": loaded.name,
        "response": "",
        "done": True,
        "done_reason": "stop",
        "eval_count": len(caption.tokens),
    }
    reply = client.post("/api/generate", json={"images": [text(jpeg)], "stream": False})
    assert reply.mimetype == "application/json"
    (only,) = lines(reply)
    assert (only["model"], only["response"], only["done"]) == (f"{loaded.name}:latest", caption.sentence, True)


def test_chat_describes_the_last_picture(client: FlaskClient, loaded: Captioner, jpeg: bytes, png: bytes) -> None:
    messages = [
        {"role": "user", "content": "This?", "images": [text(png)]},
        {"role": "assistant", "content": "A dog."},
        {"role": "user", "content": "And this?", "images": [text(jpeg)]},
    ]
    first, last = lines(client.post("/api/chat", json={"messages": messages}))
    assert first["message"] == {"role": "assistant", "content": loaded(jpeg).sentence}
    assert last["message"] == {"role": "assistant", "content": ""}
    assert "response" not in first


@pytest.mark.parametrize(
    ("options", "cut"),
    [
        ({"num_predict": 2}, True),
        ({"num_predict": 512}, False),
        ({"num_predict": -1}, False),
        ({"num_predict": 0}, False),
    ],
)
def test_num_predict_cuts_but_never_lengthens(
    client: FlaskClient, loaded: Captioner, jpeg: bytes, options: dict[str, Any], cut: bool
) -> None:
    body = {"images": [text(jpeg)], "options": options, "stream": False}
    (reply,) = lines(client.post("/api/generate", json=body))
    expected = loaded(jpeg, max_length=2) if cut else loaded(jpeg)
    assert (reply["response"], reply["done_reason"]) == (expected.sentence, "length" if cut else "stop")


def test_what_steers_large_models_changes_nothing(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    options = {"temperature": 0.8, "top_k": 1, "top_p": 0.5, "seed": 4, "num_ctx": 4096, "stop": ["\n\n"], "new": [{}]}
    others = {"prompt": "Write a poem.", "system": "Be rude.", "suffix": "", "think": True, "keep_alive": "5m"}
    empty = {"format": "", "tools": [], "model": None, "context": None}
    body = {"images": [text(jpeg)], "stream": False, "options": options, **others, **empty}
    (reply,) = lines(client.post("/api/generate", json=body))
    assert reply["response"] == loaded(jpeg).sentence


def test_models_are_listed_and_shown(client: FlaskClient, loaded: Captioner) -> None:
    (model,) = client.get("/api/tags").get_json()["models"]
    assert model["name"] == model["model"] == f"{loaded.name}:latest"
    assert len(model["digest"]) == 64
    for asked in ({"model": loaded.name}, {"name": model["name"], "verbose": True}):
        shown = client.post("/api/show", json=asked).get_json()
        assert shown["details"] == model["details"]
        assert shown["model_info"]["general.description"] == loaded.info.description
        assert shown["capabilities"] == ["completion", "vision"]
    assert client.get("/api/version").get_json() == {"version": __version__}


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"model": 3}, "bad_request", "model"),
        ({"images": []}, "bad_request", "image"),
        ({"images": None}, "bad_request", "image"),
        ({"images": "YQ=="}, "bad_request", "images"),
        ({"images": {"a": 1}}, "bad_request", "images"),
        ({"images": [3]}, "bad_base64", "base64"),
        ({"images": ["?"]}, "bad_base64", "base64"),
        ({"images": ["http://127.0.0.1/a.jpg"]}, "url_refused", "URL"),
        ({"stream": 3}, "bad_option", "stream"),
        ({"options": 3}, "bad_request", "options"),
        ({"options": {"num_predict": "many"}}, "bad_option", "whole number"),
        ({"options": {"num_predict": 1.5}}, "bad_option", "whole number"),
        ({"format": "json"}, "bad_option", "format"),
        ({"format": {"type": "object"}}, "bad_option", "format"),
        ({"logprobs": True}, "bad_option", "logprobs"),
        ({"tools": [{"type": "function"}]}, "bad_option", "tools"),
        ({"optoins": {"num_predict": 3}}, "bad_option", "optoins"),
    ],
)
def test_bad_input_is_refused(
    client: FlaskClient, refused: Refused, jpeg: bytes, fields: dict[str, Any], code: str, named: str
) -> None:
    reply = client.post("/api/generate", json={"images": [text(jpeg)], **fields})
    assert named in refused(reply, 400, code)


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (None, "bad_request"),
        ("Hello", "bad_request"),
        ([], "bad_request"),
        ([{"role": "user", "content": "Hello"}], "bad_request"),
        ([{"role": "user", "images": "YQ=="}], "bad_request"),
        ([{"role": "user", "images": [None]}], "bad_base64"),
    ],
)
def test_bad_conversations_are_refused(client: FlaskClient, refused: Refused, messages: Any, code: str) -> None:
    refused(client.post("/api/chat", json={"messages": messages}), 400, code)


def test_other_failures_have_their_status(client: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    def post(*images: bytes, **fields: Any) -> TestResponse:
        return client.post("/api/generate", json={"images": [text(image) for image in images], **fields})

    refused(post(jpeg, model="llava:latest"), 404, "model_not_found")
    refused(post(jpeg, jpeg), 413, "too_many_images")
    refused(post(b"hello"), 415, "not_an_image")
    refused(post(jpeg[:-100]), 422, "image_broken")
    refused(client.post("/api/show", json={"model": "llava"}), 404, "model_not_found")
    refused(client.post("/api/show", json={"name": ["llava"]}), 400, "bad_request")
    for path in ("generate", "chat", "show"):
        refused(client.post(f"/api/{path}"), 400, "empty_body")
        refused(client.post(f"/api/{path}", data=jpeg), 400, "bad_json")
