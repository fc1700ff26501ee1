"""Alt text in WebP files (WebP container specification; RFC 9649).

XMP is a chunk of the extended format, whose first chunk says what else there is. A file of the simple format, which is
nothing but a picture, becomes one of the extended format; the chunks that hold pictures stay as they are in both.
"""

from __future__ import annotations

from typing import NamedTuple

from captioner.errors import ImageError
from captioner.metadata.edits import Edit, Slices, apply, shifted
from captioner.metadata.xmp import ALT_TEXT, Packet, first_text, too_large, updated

RIFF, WEBP = b"RIFF", b"WEBP"
HEAD = 12  # bytes of the file's header
XMP, EXIF, EXTENDED, LOSSY, LOSSLESS, FRAME = b"XMP ", b"EXIF", b"VP8X", b"VP8 ", b"VP8L", b"ANMF"
# Flags of the extended format. A file of the simple one has neither a colour profile nor an animation.
HAS_ALPHA, HAS_EXIF, HAS_XMP = 0x10, 0x08, 0x04
EXTENDED_SIZE = 10  # bytes
LARGEST = (1 << 32) - 10  # bytes behind the first eight


class Chunk(NamedTuple):
    """Where a chunk stands: its content from ``content`` to ``stop``, then perhaps a byte for an even length."""

    kind: bytes
    start: int
    content: int
    stop: int
    end: int


class Layout(NamedTuple):
    """What matters of a file: its first and its last chunk, those with XMP, and whether there is Exif."""

    first: Chunk
    last: Chunk
    packets: list[Chunk]
    has_exif: bool


def is_webp(head: bytes) -> bool:
    """Whether a file begins like this."""
    return head[:4] == RIFF and head[8:12] == WEBP


def read(data: Slices, name: str) -> str | None:
    """The alt text of a file; arguments and errors as for :func:`captioner.metadata.jpeg.read`."""
    packets = [data[chunk.content : chunk.stop] for chunk in _layout(data, name).packets]
    return first_text([Packet(packet, name) for packet in packets], ALT_TEXT)


def embed(data: bytes, text: str, name: str, *, keep_description: bool) -> bytes:
    """The file with an alt text; arguments and errors as for :func:`captioner.metadata.jpeg.embed`."""
    layout = _layout(data, name)
    places, last = layout.packets, layout.last
    old = [data[chunk.content : chunk.stop] for chunk in places]
    new = updated(old, text, name, keep_description=keep_description)
    if new == old:
        return data
    edits = [_extended(data, layout, name)]
    edits += [Edit(at.start, at.end, _chunk(XMP, packet)) for at, packet in zip(places, new, strict=False)]
    if not places:
        missing = b"\0" * (last.stop % 2 and last.end == last.stop)  # some programs leave the very last byte away
        edits.append(Edit(last.end, last.end, missing + _chunk(XMP, new[0])))
    size = shifted(last.end, edits) - 8
    if size > LARGEST:
        raise too_large(name, "a WebP file can be")
    return apply(data, [Edit(4, 8, size.to_bytes(4, "little")), *edits])


def _layout(data: Slices, name: str) -> Layout:
    stop = 8 + int.from_bytes(data[4:8], "little")
    if stop > len(data):
        raise _incomplete(name)
    first = last = None
    packets = []
    has_picture = has_exif = False
    while last is None or last.end < stop:
        last = _chunk_at(data, HEAD if last is None else last.end, stop, name)
        first = first or last
        has_picture |= last.kind in (LOSSY, LOSSLESS, FRAME)
        has_exif |= last.kind == EXIF
        if last.kind == XMP:
            packets.append(last)
    if not has_picture or first is None:
        raise ImageError(f"{name} is a WebP file without a picture; use another file")
    return Layout(first, last, packets, has_exif)


def _chunk_at(data: Slices, start: int, stop: int, name: str) -> Chunk:
    content = start + 8
    head = data[start:content]
    size = int.from_bytes(head[4:], "little")
    if content + size > stop:
        raise _incomplete(name)
    return Chunk(head[:4], start, content, content + size, min(content + size + size % 2, stop))


def _extended(data: bytes, layout: Layout, name: str) -> Edit:
    """Say at the beginning that there is XMP."""
    first = layout.first
    content = data[first.content : min(first.content + EXTENDED_SIZE, first.stop)]
    if first.kind == EXTENDED and len(content) == EXTENDED_SIZE:
        return Edit(first.content, first.content + 1, bytes((content[0] | HAS_XMP,)))
    flags = HAS_XMP | HAS_EXIF * layout.has_exif
    if first.kind == LOSSY and content[3:6] == b"\x9d\x01\x2a" and len(content) == 10:  # RFC 6386, 9.1
        width, height = (int.from_bytes(content[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    elif first.kind == LOSSLESS and content[:1] == b"\x2f" and len(content) >= 5:  # RFC 9649, 3.4
        bits = int.from_bytes(content[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags |= HAS_ALPHA * (bits >> 28 & 1)
    else:
        width = height = 0
    if not (width and height):
        raise ImageError(f"{name} is damaged: its WebP data do not begin with a picture's size; use another file")
    sizes = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    return Edit(HEAD, HEAD, _chunk(EXTENDED, bytes((flags, 0, 0, 0)) + sizes))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


def _incomplete(name: str) -> ImageError:
    return ImageError(f"{name} is incomplete: its WebP data end too early; copy it again or use another file")
