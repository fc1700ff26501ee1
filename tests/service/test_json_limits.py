from __future__ import annotations

import json

import pytest

from service.errors import RequestError
from service.inputs import MAX_JSON_DEPTH, MAX_JSON_MARKS, parse_json


def nested(depth: int) -> bytes:
    """An object with lists in it."""
    return b'{"a": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_nesting_has_a_limit() -> None:
    assert parse_json(nested(MAX_JSON_DEPTH))
    for depth in (MAX_JSON_DEPTH + 1, 10_000):
        with pytest.raises(RequestError, match="nested too deeply; at most 32 levels") as caught:
            parse_json(nested(depth))
        assert caught.value.code == "bad_json"


def test_objects_count_as_levels_and_texts_do_not() -> None:
    deep: object = "[" * 100
    for _ in range(MAX_JSON_DEPTH):
        deep = {"a": deep}
    assert parse_json(json.dumps(deep).encode()) == deep
    with pytest.raises(RequestError, match="nested too deeply"):
        parse_json(json.dumps({"a": deep}).encode())


@pytest.mark.parametrize("element", [b"[]", b"{}", b"1", b'"a"', b'{"a":1}'])
def test_a_body_of_many_small_elements_is_refused_before_it_is_parsed(
    element: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"images": [' + b",".join([element] * MAX_JSON_MARKS) + b"]}"
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("was parsed"))
    with pytest.raises(RequestError, match="too many elements") as caught:
        parse_json(body)
    assert caught.value.code == "bad_json"


def test_the_longest_list_of_phones_and_the_longest_text_pass() -> None:
    phones = {"phones": ["AH0", "|"] * 100_000, "stream": True}
    assert parse_json(json.dumps(phones).encode()) == phones
    text = {"text": "a, b: " * 40_000}
    assert parse_json(json.dumps(text).encode()) == text
