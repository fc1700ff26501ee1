"""The document as a page for people lays it out."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from service.openapi.errors import MEANINGS, status
from service.openapi.operation import JSON
from service.openapi.schema import Field, Schema, example, fields, kind


class Content(NamedTuple):
    """A body or a reply of one content type.

    Attributes:
        name: the content type.
        description: what it is, where its schema says so.
        fields: of its JSON or form, those that may stand in the query as well left out.
        shares: whether there are such.
        example: a command that sends it, or the JSON of a reply; may be empty.
    """

    name: str
    description: str
    fields: list[Field]
    shares: bool
    example: str


class Section(NamedTuple):
    """One operation.

    Attributes:
        anchor: its place on the page.
        method: in capital letters.
        path: with the names of its parts in braces.
        told: what the document says about it.
        command: one to try it with, where it has no body.
        parameters: as rows.
        bodies: the forms in which its body may come.
        replies: the forms in which its reply may come.
        errors: what may go wrong: status, code and meaning.
    """

    anchor: str
    method: str
    path: str
    told: Mapping[str, Any]
    command: str
    parameters: list[Field]
    bodies: list[Content]
    replies: list[Content]
    errors: list[tuple[int, str, str]]


def read(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the template takes: the ``document``, its ``groups`` with their sections, and all ``errors``."""
    schemas = document["components"]["schemas"]
    sections = [
        _section(method, path, told, schemas)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    ]
    groups = [
        (tag, [section for section in sections if tag["name"] in section.told["tags"]]) for tag in document["tags"]
    ]
    return {"document": document, "groups": groups, "errors": _errors(MEANINGS)}


def _section(method: str, path: str, told: Mapping[str, Any], schemas: Mapping[str, Schema]) -> Section:
    responses = told["responses"]
    parameters = [
        Field(one["name"], kind(one["schema"]), "always" if one.get("required") else "", one["description"])
        for one in told.get("parameters", ())
    ]
    options = {row.name for row in parameters}
    commands = {sample["label"]: sample["source"] for sample in told["x-codeSamples"]}
    bodies = told.get("requestBody", {"content": {}})["content"]
    replies = responses["200"]["content"]
    return Section(
        anchor=told["operationId"],
        method=method.upper(),
        path=path,
        told=told,
        command=commands.get("", ""),
        parameters=parameters,
        bodies=[_content(name, body["schema"], schemas, commands[name], options) for name, body in bodies.items()],
        replies=[
            _content(name, reply["schema"], schemas, _json(reply["schema"], schemas) if name == JSON else "")
            for name, reply in replies.items()
        ],
        errors=_errors(code for reply in responses.values() for code in _codes(reply)),
    )


def _content(
    name: str, schema: Schema, schemas: Mapping[str, Schema], example: str, elsewhere: Collection[str] = ()
) -> Content:
    rows = dict.fromkeys(fields(schema, schemas))  # what several alternatives have is told once
    own = [row for row in rows if row.name not in elsewhere]
    return Content(name, schema.get("description", ""), own, len(own) < len(rows), example)


def _json(schema: Schema, schemas: Mapping[str, Schema]) -> str:
    return json.dumps(example(schema, schemas), indent=2, ensure_ascii=False)


def _codes(reply: Mapping[str, Any]) -> list[str]:
    """The error codes of a reply; none where it is no failure."""
    schema = reply["content"].get(JSON, {}).get("schema", {})
    return schema["allOf"][1]["properties"]["code"]["enum"] if "allOf" in schema else []


def _errors(codes: Iterable[str]) -> list[tuple[int, str, str]]:
    return sorted((status(code), code, MEANINGS[code]) for code in codes)
