"""``GET /openapi.json``: all of the service is in it, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient

from captioner import Captioner, __version__
from captioner.decoding import DecodingOptions
from captioner.decoding.options import listed
from captioner.speech import Voice
from service.app import create_app
from service.config import ServiceConfig
from service.errors import STATUS
from service.openapi.errors import MEANINGS, status
from service.openapi.schema import example, of
from service.options import parse_options

LIMITS = ServiceConfig(max_images=3, max_beam_size=5, max_tokens=11)
KEY = "sesame-open-yourself"


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    return client.get("/openapi.json").get_json()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{method.upper()} {path}": told for path, row in document["paths"].items() for method, told in row.items()}


def described(loaded: Captioner, config: ServiceConfig) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {KEY}"}
    return create_app(config, [loaded]).test_client().get("/openapi.json", headers=headers).get_json()


def test_every_route_is_described_and_every_description_has_a_route(app: Flask, document: dict[str, Any]) -> None:
    braces = str.maketrans("<>", "{}")
    routes = {
        f"{method} {rule.rule.translate(braces)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith("/static/")
    }
    assert set(operations(document)) == routes


def test_every_error_code_is_described(document: dict[str, Any]) -> None:
    told = {code["const"] for code in document["components"]["schemas"]["Code"]["oneOf"]}
    assert set(STATUS) <= told == set(MEANINGS)
    for operation in operations(document).values():
        for number, reply in operation["responses"].items():
            codes = reply["content"].get("application/json", {}).get("schema", {}).get("allOf", [{}, {}])[1]
            for code in codes.get("properties", {"code": {"enum": []}})["code"]["enum"]:
                assert code in MEANINGS
                assert int(number) == status(code) == STATUS.get(code, 500)


@pytest.mark.parametrize(
    "refusal", ["408 request_timeout", "413 body_too_large", "431 bad_request", "431 head_too_large"]
)
def test_what_the_server_refuses_itself_is_told_once(document: dict[str, Any], refusal: str) -> None:
    assert refusal in document["info"]["description"]
    assert refusal.split()[1] in MEANINGS


def test_each_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document).values()]
    assert len(names) == len(set(names))


def test_a_text_without_an_example_is_noticed() -> None:
    with pytest.raises(ValueError, match="example"):
        example(of("string"), {})


def test_the_version_and_the_address_are_those_of_the_service(client: FlaskClient) -> None:
    document = client.get("/openapi.json", base_url="https://captions.example/").get_json()
    assert document["info"]["version"] == __version__
    assert document["servers"] == [{"url": "https://captions.example"}]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/model/metadata"])
@pytest.mark.parametrize("host", ["xn--a", "a b", ""])
def test_a_host_that_means_nothing_does_no_harm(address: str, path: str, host: str) -> None:
    assert requests.get(f"{address}{path}", headers={"Host": host}, timeout=60).status_code == 200


def test_limits_are_those_of_the_service(loaded: Captioner) -> None:
    document = described(loaded, LIMITS)
    caption = operations(document)["POST /v1/caption"]
    bounds = {one["name"]: one["schema"].get("maximum") for one in caption["parameters"]}
    assert (bounds["beam_size"], bounds["n_best"], bounds["max_length"]) == (5, 5, 11)
    form = caption["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["image"]["maxItems"] == 3


def test_the_ranges_are_those_that_are_enforced(loaded: Captioner, document: dict[str, Any]) -> None:
    parameters = operations(document)["POST /v1/speech"]["parameters"]
    ranges = {
        one["name"]: (one["schema"]["minimum"], one["schema"].get("maximum"))
        for one in parameters
        if "minimum" in one["schema"]
    }
    assert {"beam_size", "top_p", "seed", "rate", "pitch"} <= set(ranges)
    for name, (least, most) in ranges.items():
        for value in filter(lambda value: value is not None, (least, most)):
            beyond = value + (1 if value == most else -1)
            if name in ("rate", "pitch"):
                Voice(**{name: value})
                with pytest.raises(ValueError, match=name):
                    Voice(**{name: beyond})
                continue
            method = "beam" if name == "beam_size" else "sample"
            limits = ServiceConfig(max_beam_size=6, max_tokens=20)
            loaded.options(**parse_options({"method": method, name: value}, limits).decoding)
            with pytest.raises(ValueError, match=name):
                loaded.options(**parse_options({"method": method, name: beyond}, limits).decoding)


def test_the_choices_are_those_that_are_enforced(loaded: Captioner, document: dict[str, Any]) -> None:
    parameters = operations(document)["POST /v1/caption"]["parameters"]
    choices = {one["name"]: one["schema"]["enum"] for one in parameters if "enum" in one["schema"]}
    assert choices.pop("model") == [loaded.name]
    assert choices == {"method": ["beam", "sample"], "rank": ["score", "cider", "consensus"]}
    for name, values in choices.items():
        for value in values:  # of any model: this one has not learnt to rank by cider
            DecodingOptions(**parse_options({name: value}, LIMITS).decoding)
        for wrong in ("magic", 1):
            with pytest.raises(ValueError, match=f"{name} must be {listed(values)}"):
                loaded.options(**parse_options({name: wrong}, LIMITS).decoding)


def test_keys_and_counted_requests_are_told_where_there_are_any(loaded: Captioner, document: dict[str, Any]) -> None:
    assert "securitySchemes" not in document["components"]
    guarded = described(loaded, ServiceConfig(api_keys=(KEY,), requests_per_minute=60))
    assert set(guarded["components"]["securitySchemes"]) == {"bearer", "key"}
    assert operations(guarded)["POST /"]["security"] == [{"bearer": []}, {"key": []}]
    assert not {"401", "429"} & set(operations(document)["GET /v1/models"]["responses"])
    assert {"401", "429"} <= set(operations(guarded)["GET /v1/models"]["responses"])
    assert "security" not in operations(guarded)["GET /"]
    for free in ("GET /", "GET /docs", "GET /openapi.json", "GET /health/live"):
        assert not {"401", "429"} & set(operations(guarded)[free]["responses"])
