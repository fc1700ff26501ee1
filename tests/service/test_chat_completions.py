"""``POST /v1/chat/completions`` and the models' list, by hand; the client itself is in test_clients."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from captioner import Captioner

Refused = Callable[[TestResponse, int, str], str]
URL = "/v1/chat/completions"


def picture(image: bytes) -> dict[str, Any]:
    url = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def test_the_reply_is_a_completion(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    reply = client.post(URL, json={"model": loaded.name, "messages": [user(picture(jpeg))]}).get_json()
    tokens = len(loaded(jpeg).tokens)
    assert reply.pop("id").startswith("chatcmpl-")
    assert reply.pop("created") > 1_700_000_000
    assert reply == {
        "object": "chat.completion",
        "model": loaded.name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": loaded(jpeg).sentence, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens},
    }


def test_a_stream_is_events_until_it_is_done(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    reply = client.post(URL, json={"messages": [user(picture(jpeg))], "stream": True, "n": 2})
    assert reply.mimetype == "text/event-stream"
    *events, last, nothing = reply.get_data(as_text=True).split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    said = {chunk["choices"][0]["index"]: chunk["choices"][0]["delta"] for chunk in chunks[::2]}
    assert [said[index]["content"] for index in (0, 1)] == [
        caption.sentence for caption in loaded.candidates(jpeg, n_best=2)
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"] * 2
    assert not any("usage" in chunk for chunk in chunks)


def test_the_last_picture_of_the_user_counts(client: FlaskClient, loaded: Captioner, jpeg: bytes, png: bytes) -> None:
    messages = [
        user(picture(png)),
        {"role": "assistant", "content": "A dog."},
        user({"type": "text", "text": "And this?"}, picture(jpeg)),
        {"role": "assistant", "content": ""},
    ]
    (choice,) = client.post(URL, json={"messages": messages}).get_json()["choices"]
    assert choice["message"]["content"] == loaded(jpeg).sentence


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_most_tokens_cut_but_never_lengthen(client: FlaskClient, loaded: Captioner, jpeg: bytes, name: str) -> None:
    for most, expected, reason in ((2, loaded(jpeg, max_length=2), "length"), (4096, loaded(jpeg), "stop")):
        reply = client.post(URL, json={"messages": [user(picture(jpeg))], name: most}).get_json()
        (choice,) = reply["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (expected.sentence, reason)


def test_what_steers_large_models_changes_nothing(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    steering = {"temperature": 1.9, "top_p": 0.1, "seed": 3, "stop": ["a"], "presence_penalty": 2, "user": "me"}
    empty = {"tools": [], "logprobs": False, "n": None, "response_format": {"type": "text"}}
    body = {"messages": [user(picture(jpeg))], **steering, **empty}
    (choice,) = client.post(URL, json=body).get_json()["choices"]
    assert choice["message"]["content"] == loaded(jpeg).sentence


def test_models_are_listed_for_openai_and_for_everybody(client: FlaskClient, loaded: Captioner) -> None:
    reply = client.get("/v1/models").get_json()
    assert reply["object"] == "list"
    assert reply["data"] == [{"id": loaded.name, "object": "model", "created": 0, "owned_by": "captioner"}]
    assert [model["name"] for model in reply["models"]] == [loaded.name]


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"model": ["tiny"]}, "bad_request", "model"),
        ({"messages": None}, "bad_request", "messages"),
        ({"messages": {}}, "bad_request", "messages"),
        ({"messages": []}, "bad_request", "messages"),
        ({"messages": [3]}, "bad_request", "messages"),
        ({"messages": [{"role": "assistant", "content": "A dog."}]}, "bad_request", "messages"),
        ({"messages": [{"role": "user"}]}, "bad_request", "image"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, "bad_request", "image"),
        ({"messages": [user({"type": "text", "text": "Hello"}, 3)]}, "bad_request", "image"),  # type: ignore[arg-type]
        ({"messages": [user({"type": "image_url"})]}, "bad_base64", "base64"),
        ({"messages": [user({"type": "image_url", "image_url": {"url": 3}})]}, "bad_base64", "base64"),
        ({"messages": [user({"type": "image_url", "image_url": "data:image/png;base64,?"})]}, "bad_base64", "base64"),
        ({"messages": [user({"type": "image_url", "image_url": {"url": "https://a.b/c.jpg"}})]}, "url_refused", "URL"),
        ({"n": 0}, "bad_option", "n_best"),
        ({"n": 7}, "bad_option", "n_best"),
        ({"n": "many"}, "bad_option", "n_best"),
        ({"max_tokens": 0}, "bad_option", "max_length"),
        ({"max_tokens": "5"}, "bad_option", "whole number"),
        ({"max_tokens": 1e999}, "bad_option", "whole number"),
        ({"max_completion_tokens": True}, "bad_option", "whole number"),
        ({"stream": "perhaps"}, "bad_option", "stream"),
        ({"stream_options": 1}, "bad_request", "stream_options"),
        ({"stream_options": {"include_usage": 2}}, "bad_option", "include_usage"),
        ({"response_format": {"type": "json_object"}}, "bad_option", "response_format"),
        ({"tools": [{"type": "function"}]}, "bad_option", "tools"),
        ({"logprobs": True}, "bad_option", "logprobs"),
        ({"\ud800": 1}, "bad_option", "ud800"),
    ],
)
def test_bad_input_is_refused(
    client: FlaskClient, refused: Refused, jpeg: bytes, fields: dict[str, Any], code: str, named: str
) -> None:
    body = json.dumps({"messages": [user(picture(jpeg))], **fields}).replace("Infinity", "1e999")
    assert named in refused(client.post(URL, data=body), 400, code)


def test_other_failures_have_their_status(client: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    def post(*parts: dict[str, Any], **fields: Any) -> TestResponse:
        return client.post(URL, json={"messages": [user(*parts)], **fields})

    refused(post(picture(jpeg), model="poems"), 404, "model_not_found")
    refused(post(picture(jpeg), picture(jpeg)), 413, "too_many_images")
    refused(post(picture(b"hello")), 415, "not_an_image")
    refused(post(picture(jpeg[:-100])), 422, "image_broken")
    refused(client.post(URL), 400, "empty_body")
    for body in (b"[]", b"3", b"{", jpeg):
        refused(client.post(URL, data=body), 400, "bad_json")


def test_the_generated_libraries_get_the_error_they_read(client: FlaskClient) -> None:
    reply = client.post(URL, json={"messages": []}, headers={"X-Stainless-Lang": "python"}).get_json()
    assert reply["error"]["message"].startswith('"messages" must be')
    assert (reply["error"]["type"], reply["error"]["code"]) == ("invalid_request_error", "bad_request")
    elsewhere = client.get("/nowhere", headers={"X-Stainless-Lang": "js"}).get_json()
    assert elsewhere["error"]["message"].startswith("There is nothing at /nowhere")
