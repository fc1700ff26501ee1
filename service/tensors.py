"""Tensors of the Open Inference Protocol: images in, captions and scores out.

A tensor stands in the JSON or, by the extension for binary data, behind it: the header of :data:`HEADER` then tells how
many bytes are JSON. An element of datatype BYTES is base64 text in JSON; in binary it is the bytes themselves, after
their length as four bytes, the lowest first.
"""

from __future__ import annotations

import itertools
import math
import re
import reprlib
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captioner.config import is_whole
from service.errors import RequestError
from service.inputs import parse_json
from service.options import read_flag

HEADER = "Inference-Header-Content-Length"
MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class Images:
    """The input of a request.

    Attributes:
        images: one or more, as :class:`service.inputs.Upload` holds them.
        shape: of the tensor; its product is how many there are.
    """

    images: tuple[object, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """A tensor to send.

    Attributes:
        name: what it is.
        datatype: BYTES for texts, FP32 for numbers.
        shape: its dimensions.
        data: its elements, row by row.
        binary: whether it goes behind the JSON.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any]
    binary: bool

    def pack(self) -> bytes:
        """The elements in binary; nothing if they stand in the JSON."""
        if not self.binary:
            return b""
        if self.datatype == "FP32":
            return struct.pack(f"<{len(self.data)}f", *self.data)
        texts = [text.encode() for text in self.data]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)

    def describe(self) -> dict[str, Any]:
        """What the JSON says of it."""
        described = {"name": self.name, "shape": self.shape, "datatype": self.datatype}
        if self.binary:
            return {**described, "parameters": {"binary_data_size": len(self.pack())}}
        return {**described, "data": self.data}


def split(body: bytes, header: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON object of a body, and the binary data behind it.

    Args:
        body: all of it.
        header: the value of :data:`HEADER`; None if there is none, and all is JSON.

    Raises:
        RequestError: the header is no length within the body, or what it covers is no JSON object.
    """
    if header is None:
        return parse_json(body), b""
    if not re.fullmatch("[0-9]{1,12}", header) or int(header) > len(body):
        raise RequestError(
            f"{HEADER} must be the length of the JSON at the start of the body, at most {len(body)}, not "
            f"{reprlib.repr(header)}"
        )
    return parse_json(body[: int(header)]), body[int(header) :]


def read_images(inputs: object, binary: bytes, most: int) -> Images:
    """The images in the only input tensor of a request.

    Args:
        inputs: what the request says of it.
        binary: what stands behind the JSON.
        most: images that may come.

    Raises:
        RequestError: there is not one tensor of BYTES, or its shape, size and data disagree.
    """
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError('"inputs" must be a list of one tensor: {"name": "image", "shape", "datatype", "data"}')
    (tensor,) = inputs
    if tensor.get("datatype") != "BYTES":
        raise RequestError('The datatype must be "BYTES": an element is the file of an image, in JSON as base64')
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or not all(is_whole(size) and size > 0 for size in shape)
        or not shape
    ):
        raise RequestError(f'"shape" must be a list of 1 to {MAX_DIMENSIONS} sizes, such as [1] for one image')
    images = _elements(tensor, shape, binary, most)
    if len(images) > most:
        raise RequestError(f"More than {most} images are too many for one request", code="too_many_images")
    if len(images) != math.prod(shape):
        raise RequestError(f"The shape {reprlib.repr(shape)} is not that of {len(images)} elements")
    return Images(tuple(images), tuple(shape))


def _elements(tensor: Mapping[str, Any], shape: list[int], binary: bytes, most: int) -> list[Any]:
    parameters = tensor.get("parameters") or {}
    if not isinstance(parameters, dict) or set(parameters) - {"binary_data_size"}:
        raise RequestError('The "parameters" of an input may hold "binary_data_size" and nothing else')
    if not parameters:
        if binary:
            raise RequestError(f"{len(binary)} bytes after the JSON belong to no tensor; give its binary_data_size")
        return _flat(tensor.get("data"), len(shape))
    if "data" in tensor or parameters["binary_data_size"] != len(binary):
        raise RequestError(
            f"The tensor must have no data in the JSON and a binary_data_size of {len(binary)}, the bytes after it"
        )
    return list(itertools.islice(_unpack(binary), most + 1))  # one too many is enough to refuse them


def _flat(data: object, dimensions: int) -> list[Any]:
    """The elements of one list, or of nested ones, which the protocol allows as well."""
    if not isinstance(data, list):
        raise RequestError('The tensor needs "data": ["<base64>", ...]')
    for _ in range(dimensions - 1):
        if not all(isinstance(row, list) for row in data):
            break
        data = list(itertools.chain.from_iterable(data))
    return data


def _unpack(binary: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(binary):
        end = start + 4 + int.from_bytes(binary[start : start + 4], "little")
        if end > len(binary):
            raise RequestError("The binary data ends within an element: each is its length in four bytes, then itself")
        yield binary[start + 4 : end]
        start = end


def read_outputs(outputs: object, names: Collection[str], binary: bool) -> dict[str, bool]:
    """Which outputs are wanted, and whether in binary.

    Args:
        outputs: what the request says; None for all there are.
        names: of those that there are.
        binary: whether those come in binary of which the request does not say.

    Raises:
        RequestError: it asks for something else.
    """
    if outputs is None:
        return dict.fromkeys(names, binary)
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise RequestError('"outputs" must be a list of {"name": ...}')
    wanted: dict[str, bool] = {}
    for output in outputs:
        name, parameters = output.get("name"), output.get("parameters") or {}
        if name not in tuple(names):
            raise RequestError(f"There is no output {reprlib.repr(name)}; there is {', '.join(names)}")
        if not isinstance(parameters, dict) or set(parameters) - {"binary_data"}:
            raise RequestError('The "parameters" of an output may hold "binary_data" and nothing else')
        wanted[name] = read_flag("binary_data", parameters.get("binary_data", binary))
    return wanted
