"""From a request's bytes to the images and fields in it, whatever its Content-Type says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn

from flask import Request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from service.config import ServiceConfig
from service.errors import RequestError

# What Pillow decodes in C. QOI, DDS, BLP, plain PPM and others it decodes in Python, where four uploads of 16 MiB would
# stop everybody for a minute; and icons before anyone can look at their size. MPO is read as the JPEG it starts with.
SERVED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")

CHUNK = 64 * 1024
MAX_BOUNDARY = 70  # RFC 2046, section 5.1.1
MAX_FIELD_BYTES = 64 * 1024  # of all texts of a form together
MAX_HEAD_BYTES = 512 * 1024  # of all its parts together: werkzeug reads their lines in Python
MAX_JSON_MARKS = 500_000  # brackets, commas and colons; a text of 200,000 phones to speak needs as many commas
MAX_JSON_DEPTH = 32
BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")  # ends the head of a part
MAX_PARTS = 1000  # far above any sensible request: what is counted exactly are images


@dataclass(frozen=True)
class Upload:
    """What a body holds.

    Attributes:
        images: each as it was sent: bytes, or what stands for base64 text in the JSON, for :func:`image_bytes`
            to decode in its turn, so that one bad image never fails its neighbours.
        fields: everything else in a JSON object or a form.
    """

    images: tuple[object, ...]
    fields: Mapping[str, object]


def read_upload(request: Request, config: ServiceConfig, *, instead: Sequence[str] = ()) -> Upload:
    """Read a body: a JSON object, a multipart form, or else the bytes of one image.

    The kinds are told apart by their first bytes: ``curl --data-binary`` calls a photo a form,
    and several clients send no Content-Type at all.

    Args:
        request: whose body to read.
        config: the limits.
        instead: fields that a JSON object may have in place of images.

    Raises:
        RequestError: the body is empty, malformed or over a limit.
    """
    body = read_body(request, config.max_bytes)
    if not body:
        raise RequestError(
            "The body is empty; send an image, for example with --data-binary @photo.jpg", code="empty_body"
        )
    start = body[:CHUNK].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"{"):
        upload = _from_json(body, instead)
    elif start.startswith(b"--"):
        upload = _from_multipart(body.lstrip())
    else:
        upload = Upload((body,), {})
    limit_images(len(upload.images), config)
    return upload


def limit_images(count: int, config: ServiceConfig) -> None:
    """Refuse more images than one request may hold.

    Raises:
        RequestError: ``count`` is over the limit.
    """
    if count > config.max_images:
        raise RequestError(
            f"{count} images are too many for one request; send at most {config.max_images}", code="too_many_images"
        )


def read_json(request: Request, config: ServiceConfig) -> dict[str, Any]:
    """Read a body that can only be a JSON object, whatever its Content-Type says.

    Raises:
        RequestError: the body is empty, no JSON object or over a limit.
    """
    return parse_json(read_body(request, config.max_bytes))


def parse_json(body: bytes) -> dict[str, Any]:
    """The fields of a JSON object.

    Raises:
        RequestError: it is none.
    """
    if not body:
        raise RequestError("The body is empty; send a JSON object", code="empty_body")
    # A list of a few bytes takes many times that in memory. Those within texts count too: no text has so many.
    if sum(map(body.count, (b"[", b"{", b",", b":"))) > MAX_JSON_MARKS:
        raise RequestError("The JSON has too many elements; send fewer", code="bad_json")
    too_deep = RequestError(f"The JSON is nested too deeply; at most {MAX_JSON_DEPTH} levels are read", code="bad_json")
    try:
        fields = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise too_deep from error
    except ValueError as error:
        raise RequestError(f"The body is not valid JSON: {error}", code="bad_json") from error
    if not isinstance(fields, dict):
        raise RequestError("The body must be a JSON object: {...}", code="bad_json")
    if _depth(fields) > MAX_JSON_DEPTH:
        raise too_deep
    return fields


def _depth(value: object) -> int:
    """How many lists and objects are within each other; no recursion, which has a limit of its own."""
    depth, level = 0, [value]
    while level := [node for node in level if isinstance(node, list | dict)]:
        depth += 1
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
    return depth


def read_body(request: Request, limit: int) -> bytes:
    """Read at most ``limit`` bytes, with or without a Content-Length.

    Raises:
        RequestError: the body is longer, or the connection broke off within it.
    """
    too_large = RequestError(f"The body is larger than {limit:,} bytes, the most accepted here", code="body_too_large")
    if (request.content_length or 0) > limit:
        raise too_large
    body = bytearray()
    try:
        # The raw stream: request.data and request.form would parse what only claims to be a form.
        while chunk := request.stream.read(CHUNK):
            body += chunk
            if len(body) > limit:
                raise too_large
    except (OSError, ParseException) as error:
        raise RequestError("The body broke off before its end; send it again") from error
    return bytes(body)


def image_bytes(image: object) -> bytes:
    """The bytes of an image sent as such, as base64 or as a ``data:`` URL.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str):
        raise RequestError("The image must be base64 text", code="bad_base64")
    scheme = image[:8].lower()
    if scheme.startswith(("http:", "https:")):
        raise RequestError("URLs are not fetched; send the image itself as base64", code="url_refused")
    if scheme.startswith("data:"):
        header, _, image = image.partition(",")
        if not header.lower().endswith(";base64"):
            raise RequestError("A data: URL must look like data:image/jpeg;base64,...", code="bad_base64")
    try:
        return base64.b64decode("".join(image.split()), validate=True)
    except ValueError as error:
        raise RequestError("The image is not valid base64", code="bad_base64") from error


def _from_json(body: bytes, instead: Sequence[str]) -> Upload:
    fields = parse_json(body)
    if sum(name in fields for name in ("image", "images", *instead)) != 1:
        others = "".join(f' or "{name}"' for name in instead)
        raise RequestError(f'The JSON needs either "image": "<base64>" or "images": ["<base64>", ...]{others}')
    if "image" not in fields and "images" not in fields:
        return Upload((), fields)
    images = fields.pop("images") if "images" in fields else [fields.pop("image")]
    if not isinstance(images, list) or not images:
        raise RequestError('"images" must be a list of one or more base64 texts')
    return Upload(tuple(images), fields)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _from_multipart(body: bytes) -> Upload:
    # The first line is the boundary: more reliable than the header, which a client may leave out.
    boundary = body[: MAX_BOUNDARY + 4].split(b"\n", 1)[0].rstrip()[2:]
    parser = FormDataParser(
        stream_factory=lambda *_, **__: BytesIO(),  # the whole body is in memory already
        max_form_memory_size=None,  # bounds werkzeug's buffer too, which a file fills as its bytes happen to fall
        max_form_parts=MAX_PARTS,
        silent=False,
    )
    too_large = RequestError(
        "The form has too many parts, or too long a text or head; send images as files: curl -F image=@photo.jpg",
        code="body_too_large",
    )
    heads = (BLANK_LINE.split(part, 1)[0] for part in body.split(b"--" + boundary, MAX_PARTS + 1))
    if sum(map(len, heads)) > MAX_HEAD_BYTES:
        raise too_large
    try:
        _, form, files = parser.parse(
            BytesIO(body), "multipart/form-data", len(body), {"boundary": boundary.decode("ascii")}
        )
    except RequestEntityTooLarge as error:
        raise too_large from error
    except ValueError as error:
        raise RequestError(
            "The body starts like a multipart form but is not a complete one", code="bad_multipart"
        ) from error
    if sum(len(text.encode()) for _, text in form.items(multi=True)) > MAX_FIELD_BYTES:
        raise too_large
    images = tuple(part.read() for part in files.getlist("image"))
    if not images:
        raise RequestError("The form has no file named image; send one with curl -F image=@photo.jpg")
    return Upload(images, form.to_dict())
