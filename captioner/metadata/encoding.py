"""The encodings of an XMP packet (XMP specification part 1, 7.1): UTF-8, UTF-16 and UTF-32, with or without a mark."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from captioner.metadata.rdf import NotXMPError

# The longer marks first: that of UTF-16 is the beginning of that of UTF-32.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# How the first character of a document looks, which is "<" (XML 1.0, appendix F).
FIRST = (
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)


class Encoded(NamedTuple):
    """A packet as UTF-8, and what it takes to bring it back to the bytes it was.

    Some programs end it with null characters, which XML does not know: they are kept apart, in ``nulls``.
    """

    utf8: bytes
    mark: bytes
    encoding: str
    nulls: str

    def back(self, utf8: bytes) -> bytes:
        """Other text in the same encoding."""
        return self.mark + (utf8.decode() + self.nulls).encode(self.encoding)


def decode(packet: bytes) -> Encoded:
    """Tell the encoding of a packet.

    Raises:
        NotXMPError: the bytes are not in the encoding that they begin with.
    """
    mark, encoding = next((pair for pair in MARKS if packet.startswith(pair[0])), (b"", ""))
    if not mark:
        encoding = next((encoding for first, encoding in FIRST if packet.startswith(first)), "utf-8")
    try:
        text = packet[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise NotXMPError(f"it is no {encoding.upper()} from byte {error.start + len(mark)} on") from error
    content = text.rstrip("\0")
    return Encoded(content.encode(), mark, encoding, text[len(content) :])
