"""The index of a JPEG file of several pictures, kept right when the first of them grows.

Phones store the second exposure, the depth or the gain map of a photo as further JPEG pictures behind the first, and
an index of them in a segment of the first (CIPA DC-007 Multi-Picture Format). The index counts from itself (5.2.3.3.3
Individual Image Data Offset), so a segment put in before it moves both alike; one that grows after it does not.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from captioner.metadata.edits import Edit, shifted

IDENTIFIER = b"MPF\0"
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
ENTRIES = 0xB002  # the tag of the entries
UNDEFINED = 7  # its type: bytes
ENTRY_SIZE = 16


def moved(data: bytes, start: int, end: int, edits: Sequence[Edit]) -> list[Edit]:
    """The edits of an index that other edits of its file make necessary.

    What cannot be understood is left as it is: nobody else understands it either.

    Args:
        data: the file.
        start: where the segment's content begins, after its identifier: there its offsets count from.
        end: where the segment ends.
        edits: all others, none of them in this segment and all in the first picture.
    """
    found = []
    header = shifted(start, edits)
    for place, order in _entries(data, start, end):
        size, offset = struct.unpack(f"{order}II", data[place : place + 8])
        is_first = offset == 0  # that of the picture which holds the index
        new = (shifted(size, edits), 0) if is_first else (size, shifted(start + offset, edits) - header)
        if new != (size, offset) and max(new) < 1 << 32 and min(new) >= 0:
            found.append(Edit(place, place + 8, struct.pack(f"{order}II", *new)))
    return found


def _entries(data: bytes, start: int, end: int) -> list[tuple[int, str]]:
    """Where each picture's size and offset stand, and the order of their bytes."""
    content = data[start:end]
    order = BYTE_ORDERS.get(content[:4])
    if order is None:
        return []
    try:
        (directory,) = struct.unpack_from(f"{order}I", content, 4)
        (fields,) = struct.unpack_from(f"{order}H", content, directory)
        for field in range(fields):
            tag, kind, size, place = struct.unpack_from(f"{order}HHII", content, directory + 2 + 12 * field)
            if tag == ENTRIES and kind == UNDEFINED and place + size <= len(content):
                return [(start + place + at + 4, order) for at in range(0, size - ENTRY_SIZE + 1, ENTRY_SIZE)]
    except struct.error:  # it ends before it should
        pass
    return []
