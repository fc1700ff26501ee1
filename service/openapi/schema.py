"""JSON Schema in few words, and what can be read off a schema: an example and its fields."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

Schema = dict[str, Any]

PREFIX = "#/components/schemas/"


class Field(NamedTuple):
    """One row of a table of fields.

    Attributes:
        name: with its path: ``results[].captions[].text``.
        kind: its type and range.
        presence: "always", "either" if it is one of several that stand for each other, or "".
        description: what it means.
    """

    name: str
    kind: str
    presence: str
    description: str


def of(kind: str | list[str], description: str = "", **rules: Any) -> Schema:
    """A schema of one JSON type, or of several."""
    return {"type": kind, **_told(description), **rules}


def record(fields: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, description: str = "") -> Schema:
    """An object with these fields and no others: a reply that gains one has to tell so here."""
    schema: Schema = {"type": "object", "properties": {**fields, **(optional or {})}, "additionalProperties": False}
    if fields:
        schema["required"] = list(fields)
    return schema | _told(description)


def listing(items: Schema, description: str = "", **rules: Any) -> Schema:
    """A list of one kind of thing."""
    return {"type": "array", "items": items, **_told(description), **rules}


def _told(description: str) -> Schema:
    return {"description": description} if description else {}


def ref(name: str) -> Schema:
    """A schema among the components."""
    return {"$ref": PREFIX + name}


def resolve(schema: Schema, components: Mapping[str, Schema]) -> Schema:
    """The schema itself, where it may be a reference."""
    return components[schema["$ref"].removeprefix(PREFIX)] if "$ref" in schema else schema


def example(schema: Schema, components: Mapping[str, Schema]) -> Any:
    """A value of ``schema``: its first example where it has one, else one made of those of its parts."""
    schema = resolve(schema, components)
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "oneOf" in schema:
        return example(schema["oneOf"][0], components)
    if schema["type"] == "array":
        return [example(schema["items"], components)]
    if schema["type"] == "object":
        parts: Mapping[str, Schema] = schema.get("properties", {})
        return {name: example(parts[name], components) for name in schema.get("required", parts)}
    raise ValueError(f"an example is missing in {schema}")


def fields(
    schema: Schema, components: Mapping[str, Schema], path: str = "", shared: Collection[str] | None = None
) -> Iterator[Field]:
    """The fields of an object, or of the objects of a list, and those within them.

    Args:
        schema: of what.
        components: what it may refer to.
        path: before the names.
        shared: where it is one of several alternatives, what all of them require.
    """
    schema = resolve(schema, components)
    branches = [resolve(branch, components) for branch in schema.get("oneOf", ())]
    for branch in branches:
        required = (set(other.get("required", ())) for other in branches)
        yield from fields(branch, components, path, set.intersection(*required))
    if "items" in schema:
        yield from fields(schema["items"], components, path + "[]")
    for name, inner in schema.get("properties", {}).items():
        field, where = resolve(inner, components), f"{path}.{name}" if path else name
        always = "always" if shared is None or name in shared else "either"
        presence = always if name in schema.get("required", ()) else ""
        yield Field(where, kind(field), presence, field.get("description", ""))
        yield from fields(field, components, where)


def kind(schema: Schema) -> str:
    """What a value may be: ``whole number, 1 to 20``."""
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(map(json.dumps, schema["enum"]))
    if schema.get("format") == "binary":
        return "file"
    types = schema.get("type", "object")
    names = " or ".join(_NAMES[name] for name in ([types] if isinstance(types, str) else types))
    if "minimum" not in schema:
        return names
    least, most = (f"{schema[end]:,}".removesuffix(".0") if end in schema else "" for end in ("minimum", "maximum"))
    return f"{names}, {least} to {most}" if most else f"{names}, {least} or more"


_NAMES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "object",
    "null": "null",
}
