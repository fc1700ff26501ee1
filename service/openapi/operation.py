"""One method of one path, and what the document says about it."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import groupby
from typing import Any
from urllib.parse import quote

from PIL import Image

from service.openapi.errors import status
from service.openapi.schema import Schema, ref

JSON = "application/json"
FORM = "multipart/form-data"
RAW = "image/*"
WAV = "audio/wav"
HTML = "text/html"
TEXT = "text/plain"
OPENMETRICS = "application/openmetrics-text"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
BINARY = "application/octet-stream"

PHOTO = "$(base64 < photo.jpg | tr -d '\\n')"
RETRIED = (429, 503)


def _tiny_picture() -> str:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((8, 8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


PICTURE = _tiny_picture()


@dataclass(frozen=True)
class Body:
    """One of the forms in which a request's body may come.

    Attributes:
        schema: of the body.
        example: a JSON value, with :data:`PICTURE` where an image stands; None where the body is no JSON.
    """

    schema: Schema
    example: Any = None

    def describe(self) -> dict[str, Any]:
        """The body in OpenAPI's words."""
        return {"schema": self.schema} | ({} if self.example is None else {"example": self.example})


@dataclass(frozen=True)
class Operation:
    """What one method of one path takes and answers.

    Attributes:
        method: in small letters.
        path: with the names of its parts in braces.
        summary: what it does, in a few words.
        replies: by content type, the schema of what comes back when all is well.
        description: what else there is to know.
        parameters: those of the path and the query, in OpenAPI's words.
        bodies: by content type.
        errors: the codes that its own work may answer with.
    """

    method: str
    path: str
    summary: str
    replies: Mapping[str, Schema]
    description: str = ""
    parameters: tuple[dict[str, Any], ...] = ()
    bodies: Mapping[str, Body] = field(default_factory=dict)
    errors: tuple[str, ...] = ()

    def describe(self, group: str, root: str, codes: Collection[str], *, locked: bool) -> dict[str, Any]:
        """The operation in OpenAPI's words.

        Args:
            group: the protocol it belongs to.
            root: where the service is, for the examples: ``http://localhost:8000/``.
            codes: of all errors that it may answer with.
            locked: whether it asks for an API key.
        """
        name = "_".join([self.method, *re.findall(r"\w+", self.path)])
        told: dict[str, Any] = {"operationId": name, "tags": [group], "summary": self.summary}
        if self.description:
            told["description"] = self.description
        if self.parameters:
            told["parameters"] = list(self.parameters)
        if self.bodies:
            content = {name: body.describe() for name, body in self.bodies.items()}
            told["requestBody"] = {"required": True, "content": content}
        told["responses"] = {"200": _reply("All is well.", self.replies), **_failures(codes)}
        told["x-codeSamples"] = [
            {"lang": "Shell", "label": content, "source": self.curl(root, content, locked=locked)}
            for content in self.bodies or ("",)
        ]
        return told

    def curl(self, root: str, content: str, *, locked: bool) -> str:
        """A command for a shell in a folder with a photo.jpg.

        Args:
            root: where the service is, with a slash at the end.
            content: which of the bodies to send; empty where there is none.
            locked: whether it needs an API key, which it takes from the variable KEY.
        """
        path = self.path[1:]
        for parameter in self.parameters:
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", quote(parameter["example"], safe=""))
        key = '-H "Authorization: Bearer $KEY"' if locked else ""
        given, standard_input = self._given(content)
        # A service that captions as well speaks only what comes without a picture.
        sounds = list(self.replies) == [WAV] or (WAV in self.replies and given.startswith("--data "))
        output = "--output speech.wav" if sounds else ""
        return " ".join(filter(None, ("curl", key, given, shlex.quote(root + path), output))) + standard_input

    def _given(self, content: str) -> tuple[str, str]:
        """What curl is to send, and its standard input: a photo in JSON is too long for an argument."""
        if content == FORM:
            return "-F image=@photo.jpg", ""
        if content != JSON:
            return ("--data-binary @photo.jpg" if content else ""), ""
        text = json.dumps(self.bodies[content].example, ensure_ascii=False)
        if PICTURE in text:
            return "--data-binary @-", f" <<END\n{text.replace(PICTURE, PHOTO)}\nEND"
        return f"--data {shlex.quote(text)}", ""


def query(schemas: Mapping[str, Schema]) -> tuple[dict[str, Any], ...]:
    """Parameters of the query, all optional."""
    return tuple(_parameter(name, "query", schema) for name, schema in schemas.items())


def path(name: str, schema: Schema, example: str) -> dict[str, Any]:
    """A part of the path, with one that works."""
    return _parameter(name, "path", schema) | {"required": True, "example": example}


def _parameter(name: str, place: str, schema: Schema) -> dict[str, Any]:
    rules = {word: rule for word, rule in schema.items() if word != "description"}
    return {"name": name, "in": place, "description": schema["description"], "schema": rules}


def _failures(codes: Collection[str]) -> dict[str, Any]:
    """The replies for error codes, by status; each with only the codes that it may have."""
    by_status = groupby(sorted(codes, key=lambda code: (status(code), code)), key=status)
    return {str(number): _failure(number, list(group)) for number, group in by_status}


def _failure(number: int, codes: list[str]) -> dict[str, Any]:
    schema = {"allOf": [ref("Error"), {"properties": {"code": {"enum": codes}}}]}
    reply = _reply(f"{HTTPStatus(number).phrase}: {', '.join(codes)}", {JSON: schema})
    if number in RETRIED:
        reply["headers"]["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    return reply


def _reply(description: str, contents: Mapping[str, Schema]) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
        "content": {name: {"schema": schema} for name, schema in contents.items()},
    }
