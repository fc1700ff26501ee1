"""The part of a JPEG file's XMP that has no room in one segment (XMP specification part 3, 1.1.3.1, ExtendedXMP).

It is a second packet, cut into segments, each of which carries the packet's MD5 digest, its length, and where it
belongs. The first packet names the digest. So whatever changes the second packet must change the first one too.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from captioner.errors import ImageError
from captioner.metadata.alternatives import Property
from captioner.metadata.edits import Edit, Slices
from captioner.metadata.segments import APP1, Segment, segment
from captioner.metadata.xmp import EXTENSION, Packet, first_text

IDENTIFIER = b"http://ns.adobe.com/xmp/extension/\0"
HEAD = struct.Struct(">32sII")  # digest, length of all, offset of this
DIGEST = 32  # hexadecimal digits
PART = 65_400  # bytes of the packet in one segment


@dataclass(frozen=True)
class Extension:
    """A second packet and the segments that it has been found in."""

    packet: Packet
    digest: bytes
    places: Sequence[Segment]

    def with_texts(self, texts: Mapping[Property, str]) -> tuple[list[Edit], bytes]:
        """The edits that change texts where it has them, and its digest after that."""
        new = self.packet.with_texts(texts, add=False)
        if new == self.packet.raw:
            return [], self.digest
        digest = hashlib.md5(new, usedforsecurity=False).hexdigest().upper().encode()
        parts = [
            segment(IDENTIFIER + HEAD.pack(digest, len(new), start) + new[start : start + PART])
            for start in range(0, len(new), PART)
        ]
        first, *others = self.places
        return [Edit(first.start, first.end, b"".join(parts)), *(Edit(at.start, at.end, b"") for at in others)], digest


def find(data: Slices, segments: Sequence[Segment], packets: Sequence[Packet], name: str) -> Extension | None:
    """Put together the second packet that the first ones name; None where it is missing, incomplete or no XMP.

    In all those cases readers do without it, and it can stay as it is.
    """
    digest = (first_text(packets, EXTENSION) or "").encode()
    found: list[tuple[int, bytes]] = []  # offset, bytes
    places: list[Segment] = []
    lengths: set[int] = set()
    for at in segments:
        if at.is_of(data, APP1, IDENTIFIER):
            content = data[at.content + len(IDENTIFIER) : at.end]
            if len(content) >= HEAD.size and content[: len(digest)] == digest and len(digest) == DIGEST:
                _, length, offset = HEAD.unpack_from(content)
                found.append((offset, content[HEAD.size :]))
                places.append(at)
                lengths.add(length)
    found.sort()
    whole = b"".join(part for _, part in found)
    ends = accumulate(len(part) for _, part in found)
    if lengths != {len(whole)} or any(start != end for (start, _), end in zip(found, (0, *ends), strict=False)):
        return None
    try:
        return Extension(Packet(whole, name), digest, places)
    except ImageError:
        return None
