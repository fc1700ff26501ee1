"""The segments of a JPEG file that come before the picture's data (ITU-T T.81, annex B)."""

from __future__ import annotations

import re
from typing import NamedTuple

from captioner.errors import ImageError
from captioner.metadata.edits import Slices

APP0, APP1, APP2 = 0xE0, 0xE1, 0xE2
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN = 0xD8, 0xD9, 0xDA
TEMPORARY = 0x01  # for private use in arithmetic coding; it stands alone
NO_SEGMENTS = {0x00, *range(0xD0, 0xD9)}  # restarts and a second start: none of them before the picture's data
LARGEST = 0xFFFF - 2  # bytes in a segment, since its length counts itself
MOST_FILL, MOST_SEGMENTS = 255, 10_000  # far beyond what any program writes
# In a picture's data any byte may follow FF that is no marker: 00, restarts, and FF again, which only fills.
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")


class Segment(NamedTuple):
    """Where a segment stands, from its marker on, and where its content begins."""

    marker: int
    start: int
    content: int
    end: int

    def is_of(self, data: Slices, marker: int, identifier: bytes) -> bool:
        """Whether it belongs to an application, which is told by the marker and how the content begins."""
        beginning = data[self.content : min(self.content + len(identifier), self.end)]
        return self.marker == marker and beginning == identifier


def segments(data: Slices, name: str) -> list[Segment]:
    """All segments up to the start of the first scan, which is the last of them.

    Raises:
        ImageError: the file is no JPEG that ends where it should.
    """
    found: list[Segment] = []
    position = 2
    while not found or found[-1].marker != START_OF_SCAN:
        found.append(_segment(data, position, name))
        position = found[-1].end
        if found[-1].marker == END_OF_IMAGE:
            raise ImageError(f"{name} is a JPEG file without a picture; use another file")
        if len(found) > MOST_SEGMENTS:
            raise ImageError(f"{name} is a JPEG file of more than {MOST_SEGMENTS:,} segments; save it again")
    return found


def check_end(data: bytes, scan: Segment, name: str) -> None:
    """Follow the picture's data to their end.

    Args:
        data: the file.
        scan: the start of the first scan.
        name: of the file.

    Raises:
        ImageError: they do not end.
    """
    position = scan.end
    while found := MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            return
        if marker not in (TEMPORARY, START_OF_IMAGE):
            position += int.from_bytes(data[position : position + 2])
    raise incomplete(name)


def segment(content: bytes) -> bytes:
    """An application segment of the kind that Exif and XMP share."""
    assert len(content) <= LARGEST, "a segment is larger than segments can be"
    return bytes((0xFF, APP1)) + (len(content) + 2).to_bytes(2) + content


def incomplete(name: str) -> ImageError:
    """The error that a file ends too early."""
    return ImageError(f"{name} is incomplete: its JPEG data end too early; copy it again or use another file")


def _segment(data: Slices, start: int, name: str) -> Segment:
    head = data[start : start + MOST_FILL]
    if not head:
        raise incomplete(name)
    fill = len(head) - len(head.lstrip(b"\xff"))  # a marker may have any number of them before it
    if fill == len(head) < MOST_FILL:
        raise incomplete(name)
    if not 0 < fill < MOST_FILL or (marker := head[fill]) in NO_SEGMENTS:
        raise ImageError(f"{name} is damaged: byte {start:,} begins no JPEG segment; save it again or use another file")
    content = start + fill + 1
    if marker in (TEMPORARY, END_OF_IMAGE):
        return Segment(marker, start, content, content)
    length = data[content : content + 2]
    end = content + int.from_bytes(length)
    if len(length) < 2 or end > len(data):
        raise incomplete(name)
    if end < content + 2:
        raise ImageError(f"{name} is damaged: the JPEG segment at byte {start:,} has no length; save it again")
    return Segment(marker, start, content + 2, end)
