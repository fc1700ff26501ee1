"""The Open Inference Protocol by hand; Triton's own client is in test_clients."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from captioner import Captioner, __version__
from service.errors import RequestError
from service.tensors import HEADER, Output, read_images, split

Refused = Callable[[TestResponse, int, str], str]
URL = "/v2/models/tiny/infer"


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def tensor(*images: bytes, **fields: Any) -> dict[str, Any]:
    data = [text(image) for image in images]
    return {"name": "image", "shape": [len(images)], "datatype": "BYTES", "data": data, **fields}


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def post_binary(client: FlaskClient, binary: bytes, header: str | None = None, **fields: Any) -> TestResponse:
    """Post one tensor of binary data; ``fields`` change what the JSON says of it."""
    described = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(binary)}}
    start = json.dumps({"inputs": [{**described, **fields}]}).encode()
    return client.post(URL, data=start + binary, headers={HEADER: str(len(start)) if header is None else header})


def test_several_images_are_several_captions(client: FlaskClient, loaded: Captioner, jpeg: bytes, png: bytes) -> None:
    body = {"id": "a-7", "parameters": {"beam_size": 2}, "inputs": [tensor(jpeg, png)]}
    captions = [loaded(image, beam_size=2) for image in (jpeg, png)]
    assert client.post(URL, json=body).get_json() == {
        "model_name": "tiny",
        "model_version": "1",
        "id": "a-7",
        "outputs": [
            {"name": "caption", "shape": [2], "datatype": "BYTES", "data": [caption.text for caption in captions]},
            {
                "name": "score",
                "shape": [2],
                "datatype": "FP32",
                "data": pytest.approx([caption.score for caption in captions], rel=1e-5),
            },
        ],
    }


def test_options_are_parameters(client: FlaskClient, loaded: Captioner, jpeg: bytes, png: bytes) -> None:
    options = {"beam_size": 6, "length_penalty": 1.5, "rank": "consensus"}
    expected = [loaded(image, **options).text for image in (jpeg, png)]
    by_score = [loaded(image, **options | {"rank": "score"}).text for image in (jpeg, png)]
    assert expected != by_score, "else the test shows nothing"
    reply = client.post(URL, json={"parameters": options, "inputs": [tensor(jpeg, png)]}).get_json()
    assert reply["outputs"][0]["data"] == expected


def test_without_an_id_the_request_has_its_own(client: FlaskClient, jpeg: bytes) -> None:
    reply = client.post(URL, json={"inputs": [tensor(jpeg)]}, headers={"X-Request-ID": "mine"}).get_json()
    assert reply["id"] == "mine"


@pytest.mark.parametrize("path", ["/v2/models/tiny", "/v2/models/tiny/versions/1"])
def test_the_server_and_the_model_describe_themselves(client: FlaskClient, path: str) -> None:
    assert client.get("/v2").get_json() == {
        "name": "captioner",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }
    model = client.get(path).get_json()
    assert (model["name"], model["versions"], model["platform"]) == ("tiny", ["1"], "captioner_safetensors")
    assert [(each["name"], each["datatype"], each["shape"]) for each in model["inputs"] + model["outputs"]] == [
        ("image", "BYTES", [-1]),
        ("caption", "BYTES", [-1]),
        ("score", "FP32", [-1]),
    ]
    assert client.get(f"{path}/ready").get_json() == {"name": "tiny", "ready": True}


def test_the_server_tells_how_it_is(client: FlaskClient) -> None:
    assert client.get("/v2/health/live").get_json() == {"live": True}
    assert client.get("/v2/health/ready").get_json() == {"ready": True}


@pytest.mark.parametrize(("shape", "nested"), [([2], False), ([2, 1], False), ([2, 1], True), ([1, 2, 1], True)])
def test_the_answer_has_the_shape_of_the_question(
    client: FlaskClient, loaded: Captioner, jpeg: bytes, png: bytes, shape: list[int], nested: bool
) -> None:
    data: list[Any] = [text(jpeg), text(png)]
    for size in reversed(shape[1:] if nested else []):
        data = [data[start : start + size] for start in range(0, len(data), size)]
    reply = client.post(URL, json={"inputs": [tensor(shape=shape, data=data)]}).get_json()
    assert [output["shape"] for output in reply["outputs"]] == [shape, shape]
    assert reply["outputs"][0]["data"] == [loaded(jpeg).text, loaded(png).text]


def test_outputs_come_in_binary_where_asked(client: FlaskClient, loaded: Captioner, jpeg: bytes) -> None:
    wanted = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "caption"}]
    reply = client.post(URL, json={"inputs": [tensor(jpeg)], "outputs": wanted})
    assert reply.mimetype == "application/octet-stream"
    head, binary = split(reply.get_data(), reply.headers[HEADER])
    score, caption = head["outputs"]
    assert score == {"name": "score", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}
    assert struct.unpack("<f", binary) == pytest.approx([loaded(jpeg).score], rel=1e-5)
    assert caption["data"] == [loaded(jpeg).text]
    everything = client.post(URL, json={"inputs": [tensor(jpeg)], "parameters": {"binary_data_output": True}})
    head, binary = split(everything.get_data(), everything.headers[HEADER])
    assert binary.startswith(packed(loaded(jpeg).text.encode()))
    assert all("data" not in output for output in head["outputs"])


def test_images_come_in_binary(client: FlaskClient, loaded: Captioner, jpeg: bytes, png: bytes) -> None:
    reply = post_binary(client, packed(jpeg, png), shape=[2]).get_json()
    assert reply["outputs"][0]["data"] == [loaded(jpeg).text, loaded(png).text]


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": None},
        {"inputs": []},
        {"inputs": [3]},
        {"inputs": {"name": "image"}},
        {"inputs": [tensor(b"a"), tensor(b"a")]},
        {"inputs": [tensor(b"a", datatype="FP32")]},
        {"inputs": [tensor(b"a", datatype=["BYTES"])]},
        {"inputs": [tensor(b"a", shape=None)]},
        {"inputs": [tensor(b"a", shape=[])]},
        {"inputs": [tensor(b"a", shape=[2])]},
        {"inputs": [tensor(b"a", shape=[-1, -1])]},
        {"inputs": [tensor(b"a", shape=[True])]},
        {"inputs": [tensor(b"a", shape=["1"])]},
        {"inputs": [tensor(b"a", shape=[1] * 9)]},
        {"inputs": [tensor(b"a", shape=[10**4000] * 8)]},
        {"inputs": [tensor(shape=[0])]},
        {"inputs": [tensor(b"a", data=None)]},
        {"inputs": [tensor(b"a", data="YQ==")]},
        {"inputs": [tensor(b"a", data=[[[["YQ=="]]], 3])]},
        {"inputs": [tensor(b"a", parameters=[1])]},
        {"inputs": [tensor(b"a", parameters={"shared_memory_region": "a"})]},
        {"inputs": [tensor(b"a", parameters={"binary_data_size": 0})]},
        {"outputs": {"name": "caption"}},
        {"outputs": ["caption"]},
        {"outputs": [{"name": "poem"}]},
        {"outputs": [{"name": ["caption"]}]},
        {"outputs": [{"name": "caption", "parameters": 3}]},
        {"outputs": [{"name": "caption", "parameters": {"classification": 3}}]},
        {"id": 7},
        {"id": "\ud800"},
        {"id": "a" * 257},
        {"parameters": [1]},
        {"options": {}},
    ],
)
def test_requests_of_another_shape_are_refused(
    client: FlaskClient, refused: Refused, jpeg: bytes, fields: dict[str, Any]
) -> None:
    body = json.dumps({"inputs": [tensor(jpeg)], **fields})
    refused(client.post(URL, data=body), 400, "bad_request")


@pytest.mark.parametrize(
    "parameters",
    [
        {"model": "tiny"},
        {"n_best": 2},
        {"attention": True},
        {"priority": 1},
        {"beam_size": 7},
        {"binary_data_output": 2},
    ],
)
def test_parameters_without_a_meaning_are_refused(
    client: FlaskClient, refused: Refused, jpeg: bytes, parameters: dict[str, Any]
) -> None:
    reply = client.post(URL, json={"inputs": [tensor(jpeg)], "parameters": parameters})
    assert next(iter(parameters)) in refused(reply, 400, "bad_option")


@pytest.mark.parametrize("header", ["", "-1", "1e3", "99999999", "9" * 5000, "²"])
def test_a_header_that_is_no_length_is_refused(client: FlaskClient, refused: Refused, jpeg: bytes, header: str) -> None:
    assert HEADER in refused(post_binary(client, packed(jpeg), header), 400, "bad_request")


def test_binary_data_that_does_not_add_up_is_refused(client: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    whole = packed(jpeg)
    for binary in (whole[:-1], whole + b"\0", whole + b"\0\0\0", b"\xff\xff\xff\xff", b""):
        refused(post_binary(client, binary), 400, "bad_request")
    for size in (None, -1, 0, len(whole) - 1, len(whole) + 1, 1e99, "7"):
        refused(post_binary(client, whole, parameters={"binary_data_size": size}), 400, "bad_request")
    for data in ({}, {"data": [text(jpeg)]}):
        refused(post_binary(client, whole, parameters={}, **data), 400, "bad_request")
    refused(post_binary(client, whole, data=[text(jpeg)]), 400, "bad_request")
    refused(post_binary(client, whole, header="0"), 400, "empty_body")
    refused(post_binary(client, whole, header="9"), 400, "bad_json")
    many = b"\0" * 80_000 + b"\xff"  # is not read to its end, which is broken
    refused(post_binary(client, many, shape=[20_000]), 413, "too_many_images")


def test_the_first_bad_image_fails_the_request(client: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    def post(*images: bytes) -> TestResponse:
        return client.post(URL, json={"inputs": [tensor(*images)]})

    assert refused(post(jpeg, b"hello", jpeg[:-100]), 415, "not_an_image").startswith("Image 1: ")
    assert refused(post(jpeg[:-100]), 422, "image_broken").startswith("Image 0: ")
    refused(client.post(URL, json={"inputs": [tensor(jpeg, data=["http://a.b/c.jpg"])]}), 400, "url_refused")
    refused(client.post(URL, json={"inputs": [tensor(jpeg, data=[3])]}), 400, "bad_base64")
    refused(post(*[jpeg] * 5), 413, "too_many_images")


def test_unknown_models_and_versions_are_not_found(client: FlaskClient, refused: Refused, jpeg: bytes) -> None:
    for path in ("", "/ready", "/versions/1"):
        refused(client.get(f"/v2/models/poems{path}"), 404, "model_not_found")
    refused(client.post("/v2/models/poems/infer", json={"inputs": [tensor(jpeg)]}), 404, "model_not_found")
    refused(client.get("/v2/models/tiny/versions/2"), 404, "not_found")
    assert client.post("/v2/models/tiny/versions/1/infer", json={"inputs": [tensor(jpeg)]}).status_code == 200
    for body in (b"", b"[]", jpeg):
        assert client.post(URL, data=body).status_code == 400


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=5))
def test_what_is_packed_can_be_read(texts: list[str]) -> None:
    output = Output("caption", "BYTES", (len(texts),), texts, binary=True)
    described = {**output.describe(), "datatype": "BYTES", "shape": [len(texts)]}
    read = read_images([described], output.pack(), most=5)
    assert read.images == tuple(each.encode() for each in texts)
    assert read.shape == (len(texts),)


@given(st.binary(max_size=40), st.integers(1, 4))
def test_binary_data_of_any_kind_is_read_or_refused(binary: bytes, count: int) -> None:
    described = {"shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": len(binary)}}
    try:
        read = read_images([described], binary, most=4)
    except RequestError:
        return
    assert packed(*read.images) == binary  # type: ignore[arg-type]
