"""Alt text in PNG files.

XMP is an iTXt chunk (PNG specification, third edition, 11.3.3.4) with a keyword of its own, not compressed, at the
beginning of the file, and its packet is marked as read-only because of the checksum (XMP specification part 3, 1.1.5).
One that is there stays at its place, and all other chunks and what follows the last one stay as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from captioner.errors import ImageError
from captioner.metadata.edits import Edit, Slices, apply
from captioner.metadata.xmp import ALT_TEXT, MAX_PACKET, Packet, first_text, too_large, updated

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = b"XML:com.adobe.xmp\0"
NOT_COMPRESSED, COMPRESSED = b"\0", b"\1"
AROUND = 12  # bytes of a chunk around its content: length, kind and checksum
LARGEST = (1 << 31) - 1  # bytes in a chunk


class Chunk(NamedTuple):
    """Where a chunk stands, from its length to its checksum."""

    kind: bytes
    start: int
    end: int


def read(data: Slices, name: str) -> str | None:
    """The alt text of a file; arguments and errors as for :func:`captioner.metadata.jpeg.read`."""
    packets = [_packet(data, chunk, name) for chunk in _chunks(data, name) if _is_xmp(data, chunk)]
    return first_text([Packet(packet, name) for packet in packets], ALT_TEXT)


def embed(data: bytes, text: str, name: str, *, keep_description: bool) -> bytes:
    """The file with an alt text; arguments and errors as for :func:`captioner.metadata.jpeg.embed`."""
    header = next(iter(_chunks(data, name)))
    places = [chunk for chunk in _chunks(data, name) if _is_xmp(data, chunk)]
    old = [_packet(data, chunk, name) for chunk in places]
    new = updated(old, text, name, keep_description=keep_description, end="r")
    if new == old:
        return data
    places = places or [Chunk(b"iTXt", header.end, header.end)]
    return apply(data, [Edit(at.start, at.end, _chunk(packet)) for at, packet in zip(places, new, strict=True)])


def _chunks(data: Slices, name: str) -> Iterator[Chunk]:
    """All chunks of a file, which is known to be whole when there are no more."""
    position, kind, has_picture = len(SIGNATURE), b"", False
    while kind != b"IEND":
        head = data[position : position + 8]
        is_first, kind, length = not kind, head[4:], int.from_bytes(head[:4])
        if len(head) == 8 and (not kind.isalpha() or length > LARGEST or (is_first and kind != b"IHDR")):
            raise ImageError(
                f"{name} is damaged: byte {position:,} begins no PNG chunk; save it again or use another file"
            )
        end = position + AROUND + length
        if len(head) < 8 or end > len(data):
            raise ImageError(f"{name} is incomplete: its PNG data end too early; copy it again or use another file")
        has_picture |= kind == b"IDAT"
        yield Chunk(kind, position, end)
        position = end
    if not has_picture:
        raise ImageError(f"{name} is a PNG file without a picture; use another file")


def _is_xmp(data: Slices, chunk: Chunk) -> bool:
    start = chunk.start + 8
    return chunk.kind == b"iTXt" and data[start : min(start + len(KEYWORD), chunk.end - 4)] == KEYWORD


def _packet(data: Slices, chunk: Chunk, name: str) -> bytes:
    """The packet in a chunk, whether or not it is compressed."""
    content = data[chunk.start + 8 : chunk.end - 4]
    if zlib.crc32(chunk.kind + content).to_bytes(4) != data[chunk.end - 4 : chunk.end]:
        raise _broken(name, "their checksum is wrong")
    flags, content = content[len(KEYWORD) : len(KEYWORD) + 2], content[len(KEYWORD) + 2 :]
    _, language, rest = content.partition(b"\0")
    _, keyword, text = rest.partition(b"\0")
    if not language or not keyword or flags[:1] not in (NOT_COMPRESSED, COMPRESSED):
        raise _broken(name, "they end too early")
    if flags[:1] == NOT_COMPRESSED:
        return text
    inflating = zlib.decompressobj()
    try:
        packet = inflating.decompress(text, MAX_PACKET)
    except zlib.error as error:
        raise _broken(name, "their compressed data are damaged") from error
    if inflating.unconsumed_tail:
        raise too_large(name, f"{MAX_PACKET:,} bytes")
    if not inflating.eof:
        raise _broken(name, "they end too early")
    return packet


def _chunk(packet: bytes) -> bytes:
    content = b"iTXt" + KEYWORD + NOT_COMPRESSED + b"\0" + b"\0\0" + packet
    return (len(content) - 4).to_bytes(4) + content + zlib.crc32(content).to_bytes(4)


def _broken(name: str, reason: str) -> ImageError:
    return ImageError(
        f"the XMP metadata of {name} cannot be read: {reason}; remove them with a metadata editor",
        code="metadata_broken",
    )
