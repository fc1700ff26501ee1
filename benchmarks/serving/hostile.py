"""What strangers send: broken pictures, bombs, nonsense in every form. Always the same for the same seed."""

from __future__ import annotations

import base64
import functools
import http.client
import io
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from PIL import Image

PATHS = (
    "/v1/caption",
    "/v1/speech",
    "/",
    "/model/predict",
    "/v2/models/words/infer",
    "/api/generate",
    "/api/chat",
    "/v1/chat/completions",
)


@dataclass(frozen=True)
class Hostile:
    """One request: a body to post, or else raw bytes to send as they are.

    Attributes:
        kind: what is wrong with it.
        path, headers, body: to post, if ``raw`` is empty.
        raw: everything, from the request line on.
        slow: send it bit by bit, and stop in the middle.
    """

    kind: str
    path: str = "/v1/caption"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes = b""
    slow: bool = False


def send(host: str, port: int, request: Hostile) -> int | None:
    """The status of the reply; None where the connection was closed without one, or the sender gave up."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        if not request.raw:
            connection.request("POST", request.path, request.body, request.headers)
            response = connection.getresponse()
        else:
            connection.connect()
            connection.sock.sendall(request.raw)
            if request.slow:
                return None
            connection.sock.shutdown(socket.SHUT_WR)  # nothing more will come
            response = http.client.HTTPResponse(connection.sock)
            response.begin()
        response.read()
    except (ConnectionError, http.client.HTTPException):
        return None
    else:
        return response.status
    finally:
        connection.close()


def is_fault(status: int | None) -> bool:
    """Whether the service is to blame, in a way that is not documented.

    501 is speech without a synthesiser; 503 and 504 are too much at once.
    """
    return status is not None and status >= 500 and status not in (501, 503, 504)


def hostile_requests(count: int, seed: int = 0) -> Iterator[Hostile]:
    """So many requests, of all kinds in turn."""
    source = random.Random(seed)
    for number in range(count):
        yield KINDS[number % len(KINDS)](source)


def picture(source: random.Random, kind: str = "") -> bytes:
    """A small good picture."""
    file = io.BytesIO()
    noise = Image.frombytes("RGB", (64, 48), source.randbytes(64 * 48 * 3))
    noise.save(file, kind or source.choice(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"]))
    return file.getvalue()


@functools.cache
def zeros(count: int) -> bytes:
    """So many zeros, compressed."""
    return zlib.compress(bytes(count), 9)


def truncated(source: random.Random) -> Hostile:
    """A picture that ends early."""
    image = picture(source)
    return Hostile("truncated", source.choice(PATHS[:4]), body=image[: source.randrange(1, len(image))])


def damaged(source: random.Random) -> Hostile:
    """A picture with some bytes changed."""
    image = bytearray(picture(source))
    for _ in range(source.randrange(1, 30)):
        image[source.randrange(len(image))] = source.randrange(256)
    return Hostile("damaged", source.choice(PATHS[:4]), body=bytes(image))


def bomb(source: random.Random) -> Hostile:
    """A small file that claims to be, or is, a huge picture."""
    width, height = source.choice([(60_000, 60_000), (1, 2**31 - 1), (2**31 - 1, 1), (7_000, 7_000), (0, 5)])
    rows = zeros(min(width * 3 + 1, 10_000_000))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return Hostile("bomb", source.choice(PATHS[:4]), body=png)


def text_bomb(source: random.Random) -> Hostile:
    """A PNG whose compressed comment is a hundred megabytes long."""
    image = picture(source, "PNG")
    data = b"Comment\0\0" + zeros(100_000_000)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return Hostile("text bomb", body=image[:33] + chunk + image[33:])


def other_file(source: random.Random) -> Hostile:
    """No picture at all."""
    starts = [
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"\x7fELF",
        b"<svg xmlns='a'>",
        b"<!doctype html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ]
    return Hostile("other file", source.choice(PATHS[:4]), body=source.choice(starts) + source.randbytes(2000))


def noise(source: random.Random) -> Hostile:
    """Bytes."""
    return Hostile("noise", source.choice(PATHS), body=source.randbytes(source.randrange(1, 5000)))


def deep(source: random.Random) -> Hostile:
    """JSON that goes down and down."""
    opening, closing = source.choice([(b"[", b"]"), (b'{"a":', b"}")])
    depth = source.choice([40, 900, 100_000])
    body = b'{"image":' + opening * depth + b"1" + closing * source.choice([0, depth]) + b"}"
    return Hostile("deep JSON", source.choice(PATHS), body=body)


def wide(source: random.Random) -> Hostile:
    """JSON of very many very small things."""
    return Hostile("wide JSON", source.choice(PATHS), body=b'{"images":[' + b"[]," * 2_000_000 + b"[]]}")


def wrong_types(source: random.Random) -> Hostile:
    """JSON of the right names and the wrong values."""
    values: list[object] = [
        None,
        True,
        -1,
        10**400,
        1e308,
        "",
        "x" * 5000,
        [],
        [[]],
        {},
        {"url": 1},
        "\ud800",
        "\0",
        "../../etc",
    ]
    names = [
        "image",
        "images",
        "inputs",
        "messages",
        "model",
        "prompt",
        "parameters",
        "options",
        "stream",
        "beam_size",
        "id",
    ]
    names += ["text", "phones", "voice", "rate", "n", "max_tokens", "outputs", "seed", "timeout", "attention", "n_best"]
    fields = {source.choice(names): source.choice(values) for _ in range(source.randrange(1, 6))}
    return Hostile("wrong types", source.choice(PATHS), body=json.dumps(fields).encode())


def wrong_shapes(source: random.Random) -> Hostile:
    """Each protocol's own form with something twisted in it."""
    image = base64.b64encode(picture(source, "JPEG")).decode()
    twisted = source.choice(
        [image[:-5], "data:image/png;base64,", "http://127.0.0.1/", "file:///etc/passwd", image + "!", 5, None]
    )
    bodies: dict[str, object] = {
        "/v1/caption": {"images": [image, twisted], "beam_size": source.choice([0, 10**9, "3", None])},
        "/v1/speech": {"phones": source.choice([[twisted], ["AA"] * 20_000, [], "AA"])},
        "/": {"inputs": twisted, "parameters": source.choice([{"num_beams": 10**9}, [], {"generate_kwargs": 5}, None])},
        "/v2/models/words/infer": {
            "inputs": [
                {
                    "name": "image",
                    "shape": source.choice([[1], [-1], [10**12], "x", []]),
                    "datatype": "BYTES",
                    "data": [twisted],
                }
            ]
        },
        "/api/generate": {
            "model": source.choice(["words", "none", 5]),
            "images": [twisted],
            "stream": source.choice([True, False, 7]),
        },
        "/api/chat": {
            "model": "words",
            "messages": source.choice([[], [{}], [{"role": "user", "images": twisted}], "x"]),
        },
        "/v1/chat/completions": {
            "model": "words",
            "n": source.choice([1, 0, 10**6, "x"]),
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": twisted}}]}],
        },
    }
    path = source.choice(list(bodies))
    return Hostile("wrong shapes", path, body=json.dumps(bodies[path]).encode())


def form(source: random.Random) -> Hostile:
    """Forms that are broken, or have far too many parts."""
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    bodies = [
        part + picture(source)[:50],
        (part + b"x\r\n") * source.choice([40, 3000]) + b"--b--\r\n",
        b"--" + b"b" * 200 + b"\r\n",
        b'--b\r\nContent-Disposition: form-data; name="beam_size"\r\n\r\n' + b"9" * 100_000 + b"\r\n--b--\r\n",
        b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\n--b--\r\n",
    ]
    headers = source.choice(
        [{}, {"Content-Type": "multipart/form-data; boundary=b"}, {"Content-Type": "multipart/form-data"}]
    )
    return Hostile("form", source.choice(PATHS), headers, source.choice(bodies))


def options(source: random.Random) -> Hostile:
    """Queries that ask for too much, or for nothing that there is."""
    queries = [
        "beam_size=99999",
        "n_best=-1",
        "max_length=1e9",
        "model=../../etc/passwd",
        "model=%00",
        "seed=" + "9" * 3000,
    ]
    queries += [
        "length_penalty=nan",
        "method=exec",
        "attention=maybe",
        "%ff=%fe",
        "beam_size=5&beam_size=6",
        "temperature=inf",
    ]
    return Hostile("options", f"/v1/caption?{source.choice(queries)}", body=picture(source))


def headers(source: random.Random) -> Hostile:
    """Heads that are far too long, or not of this world."""
    long = source.randrange(1, 60) * 1000
    raws = [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * long + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (long // 10) + b"\r\n",
        b"GET /" + b"a" * long + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFF\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /static/..%2f..%2fapp.py HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Request-ID: a\x00b\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + source.randbytes(160),
        source.randbytes(500) + b"\r\n\r\n",
    ]
    return Hostile("headers", raw=source.choice(raws))


def slow(source: random.Random) -> Hostile:
    """A request that never comes to its end."""
    whole = b"POST /v1/caption HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + bytes(4999)
    return Hostile("slow", raw=whole[: source.choice([1, 20, 58, 70, 3000])], slow=True)


def unknown(source: random.Random) -> Hostile:
    """Somewhere that is not."""
    paths = [
        "/admin",
        "/v1/caption/",
        "/v1/",
        "/v2/models/none/infer",
        "/%00",
        "/static/",
        "/docs/x",
        "/model/predict/1",
    ]
    return Hostile("unknown path", source.choice(paths), body=picture(source))


KINDS: tuple[Callable[[random.Random], Hostile], ...] = (
    truncated,
    damaged,
    bomb,
    other_file,
    noise,
    deep,
    wrong_types,
    wrong_shapes,
    form,
    options,
    headers,
    slow,
    unknown,
    wide,
    truncated,
    damaged,
    wrong_types,
    wrong_shapes,
    text_bomb,
    headers,
)
